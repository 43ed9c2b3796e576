"""The study of layernorm-removal: smoke scale end to end, and its rule."""

from pathlib import Path

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.lab.claim import Results
from gpt2lab.lab.study import reproduce
from gpt2lab.lab.verdict import Status
from gpt2lab.papers.layernorm_removal.experiment import CLAIMS, PRESETS, Settings
from gpt2lab.papers.layernorm_removal.schedule import Schedule


def test_a_study_runs_at_smoke_scale_and_shows_every_way(tmp_path: Path) -> None:
    study = reproduce("layernorm-removal", scale="smoke", seeds=1, home=tmp_path, workers=1)
    assert not study.failures
    results = study.runs[0].results
    for way in ("pretrained", "control", "sequential", "no_penalty", "at_once", "instant"):
        assert 3 < results[f"loss.{way}"] < 8
    assert results["attribution_error.sequential"] < 0.1 < results["attribution_error.control"]
    assert results["export.folded.float64"] < 1e-9
    assert results["patching_ratio"] > 0 and results["peak.at_once"] > 3
    assert {row["state"] for row in study.runs[0].tables["units"]} == {"fake"}
    names = {path.stem for path in (study.folder / "figures").iterdir()}
    assert {
        "losses",
        "scales",
        "validation",
        "heads_control",
        "patched_sequential",
        "estimated_control",
    } <= names


@pytest.mark.parametrize(
    ("rise", "instant", "status"),
    [
        (0.01, 1.0, Status.HOLDS),
        (0.01, 0.2, Status.INCONCLUSIVE),
        (0.1, 1.0, Status.INCONCLUSIVE),
        (0.2, 1.0, Status.DOES_NOT_HOLD),
    ],
)
def test_the_rule_of_the_specification(rise: float, instant: float, status: Status) -> None:
    seeds = [Results({"rise": rise, "rise_over_original": rise, "rise_instant": instant})] * 3
    rule = CLAIMS[0].rule
    assert rule is not None and rule(seeds).status is status


def test_the_papers_scale_is_the_papers() -> None:
    paper = PRESETS["paper"]
    assert paper.removal.accumulation * paper.batch_size * paper.context == 524_288
    assert paper.schedule == Schedule(start=20, mlp_gap=2, qk_gap=2, v_gap=3)
    with pytest.raises(LabError, match="together"):
        Settings(model="gpt2")
    with pytest.raises(LabError, match="ends after"):
        Settings(schedule=Schedule(start=200))
