"""The example that puts five papers on one model, and the report that shows the chain."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from gpt2lab.base.errors import LabError

SCRIPT = Path(__file__).parents[1] / "examples" / "composition.py"
SMALL = [
    *("--data", "tinyworld:150", "--steps", "8", "--removal-steps", "60", "--d-model", "16", "--n-layers", "1"),
    *("--context", "32", "--vocab-size", "400", "--limit", "400", "--new-tokens", "6", "--intersections", "ethnicity"),
]  # fmt: skip


@pytest.fixture(scope="module")
def composition() -> ModuleType:
    spec = importlib.util.spec_from_file_location("composition", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_report_shows_the_chain_of_models_with_its_numbers(
    composition: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GPT2LAB_HOME", str(tmp_path))
    html = composition.main(SMALL)
    said = capsys.readouterr().out
    report = html.with_suffix(".md").read_text(encoding="utf-8")
    steps = next(line for line in report.splitlines() if "that led here" in line)
    assert steps.index("composition-1") < steps.index("remove-layernorm-1")
    assert "optimizer conda" in report
    numbers = next(line for line in report.splitlines() if line.startswith("| perplexity |"))
    before, after, change = (float(cell) for cell in numbers.split("|")[2:5])
    assert before > 1 and after > 1 and change == pytest.approx(after - before, abs=0.2)
    assert report.count("by contrastive-search") == 2
    assert "skipped" not in said
    assert report.index("perplexity on the way") < report.index("occupational-bias on the way")
    assert "| gini.women |" in report
    folder = tmp_path / "remove-layernorm-1" / "model" / "config.json"
    assert '"norm": "none"' in folder.read_text(encoding="utf-8")


def test_only_what_is_announced_and_not_built_is_left_out(
    composition: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    import gpt2lab
    from gpt2lab.base.registry import parts

    planned = next(part for part in parts("measure") if not part.built)
    assert composition._built("measure", planned.name) is None
    assert "not built yet" in capsys.readouterr().out
    assert composition._built("measure", "perplexity") == "perplexity"
    assert composition._built("measure", "perplexiti") == "perplexiti"
    with pytest.raises(LabError, match="perplexity"):
        gpt2lab.measure("perplexiti", "no model")
