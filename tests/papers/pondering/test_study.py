"""The study of pondering: smoke scale end to end, equal conditions, equal compute, and its rule."""

from pathlib import Path

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.model import load_model
from gpt2lab.papers.pondering.architecture import Pondering
from gpt2lab.papers.pondering.study import (
    ARMS,
    CLAIMS,
    PRESETS,
    Settings,
    flops_of,
    material,
    model_of,
    token_share,
    updates,
)
from gpt2lab.runs.verdicts import Status
from gpt2lab.studies.claim import Results
from gpt2lab.studies.judge import judge
from gpt2lab.studies.study import reproduce


def test_a_study_runs_at_smoke_scale_with_every_arm(tmp_path: Path) -> None:
    study = reproduce("pondering", scale="smoke", seeds=1, home=tmp_path, workers=1)
    assert not study.failures
    run = study.runs[0]
    for arm in PRESETS["smoke"].arms:
        assert 3 < run.results[f"{arm}.loss"] < 7
        assert run.arms[arm].tables["sweep"] and run.arms[arm].tables["curve"]
        tried = {float(row["learning_rate"]) for row in run.arms[arm].tables["sweep"]}
        assert {2e-3, 4e-3} < tried <= {1e-3, 2e-3, 4e-3, 8e-3}, (
            "every arm tries both rates and one beyond the better"
        )
        best = min(run.arms[arm].tables["sweep"], key=lambda row: float(row["loss"]))
        assert run.results[f"{arm}.learning_rate"] == float(best["learning_rate"])
        assert run.results[f"{arm}.updates"] >= PRESETS["smoke"].steps
    assert run.results["vanilla_long.flops"] == pytest.approx(run.results["ponder.flops"], rel=0.1)
    assert run.results["gain"] == run.results["vanilla.loss"] - run.results["ponder.loss"]
    assert run.results["ponder.sweep.s2"] == pytest.approx(run.results["ponder.loss"], abs=1e-5)
    names = {path.stem for path in (study.folder / "figures").iterdir()}
    assert {"losses", "compute", "curves", "steps", "passes_kl", "passes_cosine", "passes_gradient"} <= names
    kept = load_model(run.arms["ponder"].folder / "model")
    assert isinstance(kept.architectures[0], Pondering) and kept.architectures[0].steps == 2


def test_arms_of_one_shape_begin_with_the_same_weights() -> None:
    settings = PRESETS["smoke"]
    models = {arm: model_of(settings, arm, 3) for arm in ARMS}
    plain = models["vanilla"].state_dict()
    for arm in ("ponder", "loop", "hidden", "hidden_linear", "pause", "ponder_one", "vanilla_long"):
        state = models[arm].state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in plain.items()), arm
    assert len(models["vanilla_double"].blocks) == 2 * settings.n_layers
    assert len(models["vanilla_deep"].blocks) == (settings.pondering_steps + 1) * settings.n_layers
    assert not torch.equal(plain["head.weight"], model_of(settings, "vanilla", 4).state_dict()["head.weight"])


def test_equal_compute_is_four_times_the_updates_and_the_mixture() -> None:
    settings = Settings()
    assert 4 < flops_of(settings, "ponder") / flops_of(settings, "vanilla") < 5
    assert updates(settings, "ponder") == settings.steps
    assert updates(settings, "vanilla_long") * flops_of(settings, "vanilla") == pytest.approx(
        settings.steps * flops_of(settings, "ponder"), rel=0.01
    )


def test_validation_and_tuning_windows_are_no_training_text_and_no_window_is_both(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text(" ".join(f"{number * 7919 % 100_003:05d}" for number in range(8000)))
    text = material(str(words), 280, 24, 16)
    assert text.validation.shape == (16, 25)
    training = ",".join(map(str, text.training.read(0, len(text.training)).tolist()))
    held_out = [*text.validation.tolist(), *text.tuning.tolist()]
    assert not any(",".join(map(str, row)) in training for row in held_out)
    assert len(set(map(tuple, held_out))) == len(held_out) > 16
    with pytest.raises(LabError, match="validation windows"):
        material(str(words), 280, 24, 4000)


@pytest.mark.parametrize(
    ("gains", "status"),
    [
        ((0.10, 0.12, 0.11), Status.HOLDS),
        ((0.015, 0.016, 0.015), Status.INCONCLUSIVE),  # less than 0.02
        ((-0.1, 0.3, 0.02), Status.INCONCLUSIVE),  # less than two standard errors
        ((-0.1, -0.02, 0.01), Status.DOES_NOT_HOLD),
    ],
)
def test_the_rule_of_the_specification(gains: tuple[float, ...], status: Status) -> None:
    seeds = [Results({"gain": gain, "ponder.flops": 4.0, "vanilla.flops": 1.0}) for gain in gains]
    rule = CLAIMS[0].rule
    assert rule is not None
    verdict = rule(seeds)
    assert verdict.status is status
    assert "4.0 times vanilla's training compute" in verdict.reason


def test_a_loss_that_is_never_reached_counts_as_no_token_saved() -> None:
    curve = [{"update": 10 * number, "loss": 4.0 - number} for number in range(1, 4)]
    assert [token_share(curve, target, 40) for target in (3.0, 2.5, 0.5)] == [0.25, 0.5, 1.0]
    claim = next(claim for claim in CLAIMS if claim.measure == "token_share")
    never = {"token_share": 1.0, "vanilla.loss": 3.5, "vanilla.start": 6.0}
    assert judge(claim, dict.fromkeys(range(3), never), "laptop").status is Status.DOES_NOT_HOLD


def test_every_preset_can_be_built_and_settings_that_make_no_sense_are_refused() -> None:
    for settings in PRESETS.values():
        for arm in settings.arms:
            assert flops_of(settings, arm) > 0
    for wrong in (
        {"arms": ("ponder",)},
        {"arms": ("ponder", "vanilla", "mystery")},
        {"swept": 2},
        {"family": "bert"},
        {"rates": ()},
        {"rates": (2e-3, 1e-3)},
        {"trial": 0.0},
    ):
        with pytest.raises(LabError):
            Settings(**wrong)  # type: ignore[arg-type]  # wrong on purpose
