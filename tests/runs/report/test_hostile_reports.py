"""Reports of folders that somebody hostile has written: nothing runs, nothing is read or written elsewhere."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.plots.figures import line_chart
from gpt2lab.runs.home import is_name
from gpt2lab.runs.report.document import Document, Picture, Prose
from gpt2lab.runs.report.html import to_html
from gpt2lab.runs.report.write import write_report
from gpt2lab.runs.run import Run
from gpt2lab.runs.run_record import RunRecord

CLAIM: dict[str, Any] = {
    "name": "A", "sentence": "It is so", "status": "holds", "reason": "It is.", "power": "", "detectable": None,
    "values": [[0, 1.0], [1, 2.0]], "interval": {"low": 0.5, "mean": 1.5, "high": 2.5}, "measure": "a - b",
    "unit": "", "needs": "", "expressions": ["measure"], "holds_if": {"words": "above 0", "low": 0, "high": "inf"},
    "holds_in_part_if": None, "paper": "",
}  # fmt: skip
CONTROLS = "\x00\x1b[31m\x9b\x08\ud800\ufffe"


def study_with(home: Path, **fields: Any) -> Path:
    """Return the report of a study whose verdicts.json holds one claim with these fields."""
    with Run.start("study", "tide-smoke", home=home, paper="tide", scale="smoke", settings={}) as run:
        run.result("x", 1.0)
    (run.folder / "verdicts.json").write_text(json.dumps([CLAIM | fields]))
    return write_report(run.id, home=home)


@pytest.mark.parametrize("name", ["../../../elsewhere", "a/b", "..", "x" * 300, "é", "a\0b", "", "a b"])
def test_a_claim_of_any_name_has_its_picture_in_the_figures_of_its_run(name: str, tmp_path: Path) -> None:
    report = study_with(tmp_path / "runs", name=name)
    drawn = sorted(report.parent.rglob("*.svg"))
    assert [path.name for path in drawn] == ["claim-at-1.svg", "claims-overview.svg"]
    assert not any("\0" in path.read_text() for path in drawn)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert "(figures/claim-at-1.svg)" in report.with_suffix(".md").read_text()


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "proved"}, {"status": ["holds"]}, {"reason": None}, {"values": [[0, "x"]]}, {"values": {"a": 1}},
        {"interval": {"low": 1}}, {"interval": {"low": [], "mean": 1, "high": 1}}, {"holds_if": "above 0"},
        {"detectable": {}}, {"sentence": 3},
    ],
)  # fmt: skip
def test_a_claim_of_another_form_is_one_sentence(fields: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"verdicts\.json: not written by this version"):
        study_with(tmp_path, **fields)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_numbers_that_are_not_finite_are_shown(value: str, tmp_path: Path) -> None:
    interval = {"low": value, "mean": value, "high": value}
    report = study_with(tmp_path, values=[[0, value], [1, 1.0]], interval=interval, detectable=value)
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", report.read_text(), flags=re.DOTALL)
    assert "NaN" not in report.read_text()


@pytest.mark.filterwarnings("ignore:Glyph")
def test_control_characters_and_halves_of_characters_reach_no_page_and_no_figure(home: Path) -> None:
    with Run.start("train", "odd", home=home, settings={"data": CONTROLS}) as run:
        names = {"\x00\x1b[31m": ([1.0], [2.0]), "$^$": ([1.0], [3.0])}
        run.figure("labels", line_chart(names, x_label="x", y_label="y"))
        run.figure("own", "<svg><text>\x1b[31m</text></svg>", "named \x1b")
        run.text("texts", "one\x1b[31m two", "caption \x00")
    report = write_report(run.id, home=home)
    for path in (report, report.with_suffix(".md"), *sorted((run.folder / "figures").iterdir())):
        text = path.read_text(encoding="utf-8")
        assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", text), path
    assert r"\x1b[31m two" in report.read_text()
    assert "cannot be shown" not in report.read_text()


def test_marks_that_overlap_leave_a_page_well_formed() -> None:
    page = to_html(Document("x", [], [Prose("`a **b` c**d `e** f` and **g** `h`")]))
    assert "<p><code>a **b</code> c**d <code>e** f</code> and <strong>g</strong> <code>h</code></p>" in page


@pytest.mark.parametrize("name", ["..", "a\0b", "x" * 300, "a/b", "", "-x", ".x", "a\nb"])
def test_names_that_are_no_files_are_refused_where_captions_are_read(name: str, tmp_path: Path) -> None:
    assert not is_name(name)
    (tmp_path / "captions.json").write_text(json.dumps({"figures": {name: "words"}}))
    with pytest.raises(LabError, match=r"captions\.json: figures must be a caption for each name"):
        RunRecord(id="r", folder=tmp_path, results={}).figures  # read when asked for


def test_a_figure_that_is_gone_is_named(home: Path) -> None:
    with Run.start("train", "odd", home=home, settings={}) as run:
        run.figure("own", "<svg><text>a</text></svg>")
    (run.folder / "figures" / "own.svg").unlink()
    with pytest.raises(LabError, match=r"own\.svg: cannot be read"):
        write_report(run.id, home=home)


def test_a_figure_paints_only_on_its_own_place() -> None:
    moved = '<svg transform="translate(0 -500)"><text>✓ holds</text></svg>'
    page = to_html(Document("x", [], [Picture("a", "", moved)]))
    assert '<figure><div class="drawing" tabindex="0"><svg' in page
    assert re.search(r"\.drawing \{[^}]*overflow: auto", page)
