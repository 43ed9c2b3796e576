"""scripts/publish_results.py: what it copies from a run's folder."""

import importlib.util
import json
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, publishing into a folder of the test."""
    spec = importlib.util.spec_from_file_location("publish", ROOT / "scripts" / "publish_results.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "docs" / "results")
    monkeypatch.setattr(sys, "argv", ["publish_results.py", str(tmp_path / "tide-smoke-1")])
    return module


def study(tmp_path: Path, report: str, **figures: str) -> None:
    folder = tmp_path / "tide-smoke-1"
    (folder / "seed0" / "figures").mkdir(parents=True)
    for name, svg in figures.items():
        (folder / "seed0" / "figures" / f"{name}.svg").write_text(svg)
    (folder / "report.md").write_text(report)


def test_figures_are_copied_clean_and_words_that_look_like_one_stay(
    publish: ModuleType, tmp_path: Path
) -> None:
    report = "![a \\[b\\]](seed0/figures/a%2Bb.svg)\n\nsee (seed0/figures/other.svg)\n"
    study(tmp_path, report, **{"a+b": "<svg onload='alert(1)'><script>alert(1)</script><g/></svg>"})
    publish.main()
    results = tmp_path / "docs" / "results"
    assert (results / "tide.md").read_text() == report.replace("(seed0/figures/a%2Bb", "(tide/seed0-a%2Bb")
    assert [path.name for path in (results / "tide").iterdir()] == ["seed0-a+b.svg"]
    assert "alert" not in (results / "tide" / "seed0-a+b.svg").read_text()


def test_a_figure_outside_the_run_is_refused(publish: ModuleType, tmp_path: Path) -> None:
    study(tmp_path, "![a](../elsewhere/figures/a.svg)\n")
    with pytest.raises(
        SystemExit, match=r"shows \.\./elsewhere/figures/a\.svg, which is not in the run's folder"
    ):
        publish.main()


def test_a_name_that_leads_elsewhere_deletes_nothing(
    publish: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study(tmp_path, "")
    folder = (tmp_path / "tide-smoke-1").rename(tmp_path / "copied")
    (folder / "settings.json").write_text(json.dumps({"paper": "../../copied"}))
    monkeypatch.setattr(sys, "argv", ["publish_results.py", str(folder)])
    with pytest.raises(SystemExit, match="no name of a paper"):
        publish.main()
    assert (folder / "report.md").exists()


def test_what_was_found_is_asked_for_once_and_kept(
    publish: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = "| A | It gains | ✓ **holds** | 0.3 | 0.5 |"
    study(
        tmp_path,
        f"laptop scale · 3 of 3 seeds · 58m54s · 1 December 2026\n\n## Verdicts\n\n{row}\n\n## Next\n",
    )
    package = tmp_path / "papers" / "tide"
    package.mkdir(parents=True)
    monkeypatch.setattr(publish, "PAPERS", package.parent)
    with pytest.raises(SystemExit, match="--found: say in one line what was found"):
        publish.main()
    assert not (tmp_path / "docs").exists()
    words = sys.argv
    monkeypatch.setattr(sys, "argv", [*words, "--found", 'It "gains" half'])
    publish.main()
    written = (package / "verdicts.toml").read_text()
    assert tomllib.loads(written) == {
        "found": 'It "gains" half',
        "scale": "laptop",
        "seeds": 3,
        "took": "58m54s",
        "verdicts": {"A": "holds"},
    }
    monkeypatch.setattr(sys, "argv", words)
    publish.main()
    assert (package / "verdicts.toml").read_text() == written
