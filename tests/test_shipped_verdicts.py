"""The verdicts that the package comes with are those of docs/results."""

import dataclasses
import importlib.util
from pathlib import Path

import pytest

from gpt2lab.base.registry import Paper, papers
from gpt2lab.base.shipped import shipped_verdicts
from gpt2lab.cli import main
from gpt2lab.runs.store import Row, Store
from gpt2lab.studies import study

ROOT = Path(__file__).parents[1]
PUBLISHED = [paper for paper in papers() if (ROOT / "docs" / "results" / f"{paper.slug}.md").is_file()]


@pytest.mark.parametrize("paper", PUBLISHED, ids=lambda paper: paper.slug)
def test_the_package_has_the_verdicts_of_the_published_page(paper: Paper) -> None:
    spec = importlib.util.spec_from_file_location("publish", ROOT / "scripts" / "publish_results.py")
    assert spec is not None and spec.loader is not None
    publish = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(publish)
    page = (ROOT / "docs" / "results" / f"{paper.slug}.md").read_text(encoding="utf-8")
    shipped = shipped_verdicts(paper)
    assert shipped is not None
    assert (paper.folder / "verdicts.toml").read_text(encoding="utf-8") == publish.verdicts(
        page, shipped.found
    )
    assert (
        len(shipped.verdicts) == page.partition("## Verdicts")[2].partition("\n## ")[0].count("**") // 2 > 0
    )


@pytest.mark.parametrize("paper", PUBLISHED, ids=lambda paper: paper.slug)
def test_readme_says_in_one_line_what_was_found(paper: Paper) -> None:
    shipped = shipped_verdicts(paper)
    assert shipped is not None and shipped.found and "\n" not in shipped.found
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"| {shipped.found} ([report](docs/results/{paper.slug}.md)) |" in readme


def test_papers_shows_the_published_verdicts_before_a_study_was_run_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GPT2LAB_HOME", str(tmp_path / "runs"))
    assert len(PUBLISHED) >= 7
    assert main(["papers"]) == 0
    told = capsys.readouterr().out
    slugs = {paper.slug for paper in PUBLISHED}
    assert told.count("built, not run yet") == sum(p.built and p.slug not in slugs for p in papers())
    assert main(["papers", "conda"]) == 0
    told = capsys.readouterr().out
    shipped = next(shipped_verdicts(paper) for paper in PUBLISHED if paper.slug == "conda")
    assert shipped is not None and f"what was found\n  {shipped.found[:60]}" in told
    cost = f"{shipped.seeds} seeds, which took {shipped.took} on two cores that other work shared"
    assert f"published verdicts, {shipped.scale} scale, {cost}\n  A" in told
    assert "docs/papers/conda.md, docs/results/conda.md" in told


@pytest.mark.parametrize("paper", PUBLISHED, ids=lambda paper: paper.slug)
def test_the_guide_gives_the_time_that_the_published_page_gives(paper: Paper) -> None:
    shipped = shipped_verdicts(paper)
    assert shipped is not None
    guide = (ROOT / "docs" / "guide" / "command-line.md").read_text(encoding="utf-8")
    assert f"| [{paper.slug}](../results/{paper.slug}.md) | {shipped.took} |" in guide


def test_reproduce_says_at_its_beginning_how_long_the_published_study_took(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GPT2LAB_QUIET", raising=False)
    monkeypatch.setattr(study, "reproduce", _stopped)
    said = []
    for scale in ("laptop", "smoke"):
        assert main(["reproduce", "conda", "--scale", scale]) == 130
        said.append(capsys.readouterr().err)
    assert "the published study: laptop scale, 6 seeds, which took 1h18m on two cores" in said[0]
    assert "the published study" not in said[1]


def _stopped(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_smoke_study_does_not_hide_the_published_verdicts_and_a_longer_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GPT2LAB_HOME", str(tmp_path / "runs"))
    store = Store()

    def finished(scale: str) -> None:
        name = f"conda-{scale}"
        row = Row(id="", name=name, kind="study", paper="conda", scale=scale, status="finished")
        store.add(dataclasses.replace(row, message=f"A of {scale}"))

    def said() -> str:
        assert main(["papers", "conda"]) == 0
        return next(line for line in capsys.readouterr().out.splitlines() if "  state " in line)

    finished("smoke")
    assert "(published, laptop scale)" in said()
    finished("laptop")
    finished("smoke")
    assert said().endswith("built, A of laptop (conda-laptop-1)")
