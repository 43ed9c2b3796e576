"""The study of Sophia: smoke scale end to end, its rule on made-up results, the two-dimensional example."""

from pathlib import Path

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.papers.sophia import toy
from gpt2lab.papers.sophia.study import CLAIMS, PRESETS, arms, gauss_newton_error, hutchinson_error
from gpt2lab.runs.verdicts import Status
from gpt2lab.studies.claim import Results
from gpt2lab.studies.study import reproduce


def test_a_study_runs_at_smoke_scale_and_shows_every_arm_with_its_sweep(tmp_path: Path) -> None:
    study = reproduce("sophia", scale="smoke", seeds=1, home=tmp_path, workers=1)
    assert not study.failures
    results = study.runs[0].results
    for arm in arms(PRESETS["smoke"]):
        assert 3 < results[f"{arm}.loss.s20"] < 6
        assert 0 <= results[f"{arm}.clip_rate"] <= 1
        assert study.runs[0].arms[arm].tables["sweep"]
    for arm in ("sophia_g", "sophia_g_published", "sophia_h"):
        assert results[f"{arm}.refresh_share"] > 0
        assert 0 <= results[f"{arm}.win_rate"] <= 1
    assert "sign.win_rate" not in results
    names = {path.stem for path in (study.folder / "figures").iterdir()}
    assert {"training_loss", "loss_by_length", "sweeps", "win_rate", "toy", "toy_paths"} <= names


@pytest.mark.parametrize(
    ("half", "gain", "edge", "status"),
    [
        ((-0.01, 0.0, 0.005), (0.1, 0.1, 0.1), 0, Status.HOLDS),
        ((0.1, 0.12, 0.11), (0.05, 0.06, 0.05), 0, Status.IN_PART),
        ((0.1, 0.12, 0.11), (0.05, -0.06, 0.05), 0, Status.DOES_NOT_HOLD),
        ((0.3, 0.3, 0.3), (-0.2, -0.2, -0.2), 0, Status.DOES_NOT_HOLD),
        ((-0.01, 0.0, 0.005), (0.1, 0.1, 0.1), 1, Status.INCONCLUSIVE),
    ],
)
def test_the_rule_of_the_specification(
    half: tuple[float, ...], gain: tuple[float, ...], edge: int, status: Status
) -> None:
    seeds = [
        Results(
            {
                "adamw.full": 3.0,
                "sophia.half": 3.0 + h,
                "sophia.gain": g,
                "sophia.step_ratio": 1.0,
                "adamw.at_edge": float(edge),
                "sophia.at_edge": 0.0,
            }
        )
        for h, g in zip(half, gain, strict=True)
    ]
    rule = CLAIMS[0].rule
    assert rule is not None
    assert rule(seeds).status is status


def test_the_estimators_checks_are_within_what_the_claims_ask() -> None:
    assert gauss_newton_error(0) < 1e-5
    assert 0.5 < hutchinson_error(0) < 1.5


def test_the_example_is_the_papers_function_and_its_methods_end_where_they_must() -> None:
    assert float(toy.loss(torch.tensor([1.0, 4.0]))) == 0.0
    assert float(toy.loss(torch.tensor([0.0, 0.0]))) == pytest.approx(8 + 8)
    ends = {name: toy.trajectory(name, steps=100)[-1] for name in toy.METHODS}
    target = torch.tensor([1.0, 4.0], dtype=torch.float64)
    assert torch.allclose(ends["Sophia"], target, atol=1e-2)
    assert abs(float(ends["gradient descent"][1]) - 4) > 0.3  # slow where it is flat
    assert abs(float(ends["sign descent"][0]) - 1) > 0.01  # never settles where it is steep
    path = toy.trajectory("Sophia", steps=3)
    assert path.shape == (4, 2)
    assert torch.allclose(
        path[1] - path[0], torch.tensor([-0.2, 0.2]).double().abs() * (path[1] - path[0]).sign()
    )
    with pytest.raises(LabError, match="Newton"):
        toy.trajectory("Newtn")
