"""The study of Sophia: smoke scale end to end, what it asks of a trial, the two-dimensional example."""

from pathlib import Path

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.papers.sophia import toy
from gpt2lab.papers.sophia.study import (
    CLAIMS,
    PRESETS,
    Settings,
    candidate,
)
from gpt2lab.papers.sophia.unbiased import gauss_newton_error, hutchinson_error
from gpt2lab.studies.study import reproduce
from tests.claims import unreported


def test_a_study_runs_at_smoke_scale_and_shows_every_arm_with_its_sweep(tmp_path: Path) -> None:
    study = reproduce("sophia", scale="smoke", seeds=1, home=tmp_path, workers=1)
    assert not study.failures
    assert unreported(study) == {}
    results = study.runs[0].results
    trials = set()
    for arm in PRESETS["smoke"].arms:
        assert 3 < results[f"{arm}.loss.s20"] < 6
        assert 0 <= results[f"{arm}.clip_rate"] <= 1
        trials.add(len(study.runs[0].arms[f"{arm}.sweep"].tables["sweep"]))
    assert len(trials) == 1
    assert results["adamw.half"] == results["adamw.loss.s10"] and "sign.half" not in results
    assert results["cost.share"] > 0
    assert 3 < results["bigram_table"] < 6
    for arm in ("sophia_g", "sophia_h"):
        assert 0 <= results[f"{arm}.win_rate"] <= 1
    assert "sign.win_rate" not in results
    names = {path.stem for path in (study.folder / "figures").iterdir()}
    assert {"training_loss", "loss_by_length", "sweeps", "win_rate", "toy", "toy_paths"} <= names


@pytest.mark.parametrize("scale", PRESETS)
def test_every_arm_chooses_in_as_many_trials(scale: str) -> None:
    settings = PRESETS[scale]
    assert len({candidate(settings, arm).trials for arm in settings.arms}) == 1


def test_arms_and_lengths_that_the_claims_need_are_asked_for() -> None:
    with pytest.raises(LabError, match="updates must be even, because T/2 is run too; got 7"):
        Settings(updates=7)
    with pytest.raises(LabError, match="of which sign is missing"):
        Settings(arms=("adamw", "sophia_g", "sophia_h"))
    with pytest.raises(LabError, match="did you mean lion"):
        Settings(arms=("adamw", "sign", "sophia_g", "sophia_h", "loin"))


def test_nothing_is_judged_where_the_baseline_or_the_positive_control_has_not_learnt() -> None:
    good = {"adamw.full": 3.3, "bigram_table": 3.5, "sign.full": 3.32, "edges": 0.0}
    bad = ({"adamw.full": 3.6}, {"sign.full": 3.34}, {"edges": 1.0})
    for claim in CLAIMS[:3]:
        assert claim.is_testable(good)
        assert not any(claim.is_testable(good | change) for change in bad)


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
