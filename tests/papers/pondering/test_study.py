"""The study of pondering: smoke scale end to end, equal conditions, equal compute, and its claims."""

from dataclasses import replace
from pathlib import Path
from typing import Any

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
    Trial,
    flops_of,
    model_of,
    options,
    tokens_saved,
    trials,
    units,
    updates,
)
from gpt2lab.papers.pondering.study.material import material
from gpt2lab.runs.trial import TUNING_SEED
from gpt2lab.runs.verdicts import Status
from gpt2lab.studies.judge import judge
from gpt2lab.studies.study import Study, reproduce
from gpt2lab.text.books import chapters
from tests.claims import unreported


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    home = tmp_path_factory.mktemp("pondering")
    return reproduce("pondering", scale="smoke", seeds=1, home=home, workers=1)


def test_a_study_runs_at_smoke_scale_with_every_arm(study: Study) -> None:
    assert not study.failures
    assert unreported(study) == {}
    run = study.runs[0]
    assert set(PRESETS["smoke"].arms) == set(ARMS)
    for arm in ARMS:
        assert 3 < run.results[f"{arm}.loss"] < 7
        assert run.results[f"{arm}.updates"] >= PRESETS["smoke"].steps
    assert run.results["vanilla_long.flops"] == pytest.approx(run.results["ponder.flops"], rel=0.1)
    assert run.results["gain"] == run.results["vanilla.loss"] - run.results["ponder.loss"]
    assert run.results["control"] == run.results["vanilla.loss"] - run.results["vanilla_deep.loss"]
    curves = [run.arms[arm].tables["curve"] for arm in ("ponder", "vanilla")]
    assert run.results["tokens_saved"] == tokens_saved(*curves)
    sweep = {steps: run.results[f"ponder.sweep.s{steps}"] for steps in range(4)}
    assert sweep[2] == pytest.approx(run.results["ponder.loss"], abs=1e-5)
    others = min(loss for steps, loss in sweep.items() if steps != 2)
    assert run.results["ponder.sweep.trained_minus_others"] == sweep[2] - others
    names = {path.stem for path in (study.folder / "figures").iterdir()}
    assert {"losses", "compute", "curves", "steps", "passes_kl", "passes_cosine", "passes_gradient"} <= names
    kept = load_model(run.arms["ponder"].folder / "model")
    assert isinstance(kept.architectures[0], Pondering) and kept.architectures[0].steps == 2


def test_every_arm_is_tuned_once_with_equally_many_trials_and_trains_with_the_best(study: Study) -> None:
    run = study.runs[0]
    counts = set[int]()
    for arm in ARMS:
        tuning = run.arms[f"tuning_{arm}"]
        assert tuning.seed == TUNING_SEED
        tried = tuning.tables["sweep"]
        counts.add(len(tried))
        best = min(tried, key=lambda row: float(row["loss"]))
        rates = [float(row["learning_rate"]) for row in tried]
        assert run.results[f"{arm}.learning_rate"] == float(best["learning_rate"])
        assert run.results[f"{arm}.at_edge"] == (float(best["learning_rate"]) in (min(rates), max(rates)))
        chosen = Trial(run.results[f"{arm}.learning_rate"], bool(run.results[f"{arm}.multiply_by_steps"]))
        assert chosen in trials(PRESETS["smoke"], arm)
        assert tuning.splits.chosen.keys() == {"tuning windows"}
        assert run.arms[arm].splits.judged.keys() == {"validation windows"}
    assert counts == {2}


def test_arms_with_passes_also_choose_the_scale_of_the_first_input() -> None:
    settings = PRESETS["laptop"]
    for arm in ("ponder", "hidden", "loop"):
        tried = trials(settings, arm)
        assert {trial.multiply for trial in tried} == {False, True}
        assert {trial.rate for trial in tried if trial.multiply} == set(settings.rates)
    assert not any(trial.multiply for arm in ("vanilla", "pause") for trial in trials(settings, arm))
    assert sorted(trial.rate for trial in trials(settings, "vanilla"))[::2] == list(settings.rates)
    assert options(settings, "ponder", multiply=True).multiply_by_steps
    assert not options(settings, "ponder").multiply_by_steps


def test_every_arm_needs_the_text_and_its_own_tuning() -> None:
    specs = {spec.name: spec for spec in units(PRESETS["laptop"])}
    assert specs["text"].shared
    for arm in PRESETS["laptop"].arms:
        assert specs[arm].needs == ("text", f"tuning_{arm}") and not specs[arm].once
        assert specs[f"tuning_{arm}"].tuning
    assert len(specs) == 1 + 2 * len(PRESETS["laptop"].arms)


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


def test_equal_compute_is_more_updates_or_more_blocks() -> None:
    settings = Settings()
    assert 5 < flops_of(settings, "ponder") / flops_of(settings, "vanilla") < 5.5
    assert flops_of(settings, "vanilla_deep") == pytest.approx(flops_of(settings, "hidden"), rel=0.01)
    assert updates(settings, "ponder") == settings.steps
    assert updates(settings, "vanilla_long") * flops_of(settings, "vanilla") == pytest.approx(
        settings.steps * flops_of(settings, "ponder"), rel=0.01
    )


def test_of_books_one_is_judged_another_tuned_on_and_neither_is_trained_on() -> None:
    settings = replace(
        PRESETS["smoke"], data="books:1030000", validation_book="Emma", tuning_book="Moby Dick", vocab_size=300,
        context=96, windows=40,
    )  # fmt: skip
    text = material(settings)
    assert text.validation.shape == (40, 97) and 0 < len(text.tuning) <= 40
    assert 3 < text.unigram_loss < 6
    own: dict[str, set[str]] = {}
    for row in chapters(1_030_000):
        own.setdefault(row["book"], set()).add(row["text"])
    for windows, title in ((text.validation, "Emma"), (text.tuning, "Moby Dick")):
        first = text.tokenizer.decode(windows[0].tolist())
        assert any(first in chapter for chapter in own[title])
    trained = text.tokenizer.decode(text.training.read(0, len(text.training)).tolist())
    for title, texts in own.items():
        assert {chapter in trained for chapter in texts} == {title.startswith("Alice")}, title
    for wrong, words in (
        ({"validation_book": "Emmas"}, "no such book of books:1030000; did you mean Emma"),
        (
            {"data": "books:900000", "tuning_book": "Alice's Adventures in Wonderland"},
            "no book is left for training",
        ),
    ):
        changed: Any = wrong
        with pytest.raises(LabError, match=words):
            material(replace(settings, **changed))


def test_of_other_text_no_window_is_trained_on_nor_both_judged_and_tuned_on(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text(" ".join(f"{number * 7919 % 100_003:05d}" for number in range(8000)))
    settings = replace(PRESETS["smoke"], data=str(words))
    text = material(settings)
    assert text.validation.shape == (16, 25)
    training = ",".join(map(str, text.training.read(0, len(text.training)).tolist()))
    held_out = [*text.validation.tolist(), *text.tuning.tolist()]
    assert not any(",".join(map(str, row)) in training for row in held_out)
    assert len(set(map(tuple, held_out))) == len(held_out) > 16
    with pytest.raises(LabError, match="validation windows"):
        material(replace(settings, windows=4000))


def _curve(*losses: float) -> list[dict[str, float]]:
    return [{"update": 10.0 * number, "loss": loss} for number, loss in enumerate(losses, start=1)]


def test_the_tokens_saved_are_bounded_and_none_is_cut_off() -> None:
    plain = _curve(4.0, 3.0, 2.0, 1.0)
    assert tokens_saved(plain, plain) == 0
    assert tokens_saved(_curve(3.0, 1.0, 0.5, 0.4), plain) == pytest.approx(0.5)
    assert tokens_saved(_curve(3.0, 2.0, 0.0, 0.0), plain) == pytest.approx(1 - 25 / 40)  # between two points
    assert tokens_saved(_curve(0.9, 0.8, 0.7, 0.6), plain) == pytest.approx(0.75)
    # never reached: what the plain model saves
    assert tokens_saved(_curve(4.0, 3.5, 3.2, 3.0), plain) == pytest.approx(-0.5)
    assert tokens_saved(_curve(9.0, 9.0, 9.0, 9.0), plain) == pytest.approx(-0.75)
    assert tokens_saved(_curve(3.0, 0.5, 2.0, 1.0), plain) == pytest.approx(1 - (10 + 10 * 2 / 2.5) / 40)


RESULTS = {
    "vanilla.loss": 3.5, "unigram_loss": 6.0, "control": 0.2, "ponder.at_edge": 0, "vanilla.at_edge": 0,
    "hidden.at_edge": 0, "vanilla_deep.at_edge": 0,
}  # fmt: skip


def _judged(letter: str, name: str, values: tuple[float, ...], **changed: float) -> Status:
    claim = next(claim for claim in CLAIMS if claim.name == letter)
    seeds = {seed: RESULTS | changed | {name: value} for seed, value in enumerate(values)}
    return judge(claim, seeds, "laptop").status


@pytest.mark.parametrize(
    ("gains", "status"),
    [
        ((0.10, 0.12, 0.11, 0.10), Status.HOLDS),
        ((0.010, 0.011, 0.012, 0.010), Status.IN_PART),
        ((-0.1, 0.3, 0.02, 0.1), Status.INCONCLUSIVE),
        ((-0.03, -0.02, -0.025, -0.021), Status.DOES_NOT_HOLD),
    ],
)
def test_the_interval_decides_whether_pondering_gains(gains: tuple[float, ...], status: Status) -> None:
    assert _judged("A", "gain", gains) is status


@pytest.mark.parametrize("changed", [{"control": 0.05}, {"vanilla.loss": 5.5}, {"ponder.at_edge": 1}])
def test_where_more_compute_does_not_pay_or_rates_are_at_the_edge_nothing_is_tested(
    changed: dict[str, float],
) -> None:
    for letter, name in (("A", "gain"), ("B", "over.hidden"), ("F", "tokens_saved")):
        assert _judged(letter, name, (0.4, 0.41, 0.42), **changed) is Status.NOT_TESTED, letter


def test_a_loss_that_is_never_reached_speaks_against_the_saving() -> None:
    assert _judged("F", "tokens_saved", (0.55, 0.6, 0.57)) is Status.HOLDS
    assert _judged("F", "tokens_saved", (-0.10, -0.15, -0.12)) is Status.DOES_NOT_HOLD


def test_every_preset_can_be_built_and_settings_that_make_no_sense_are_refused() -> None:
    for settings in PRESETS.values():
        for arm in settings.arms:
            assert flops_of(settings, arm) > 0
    for wrong in (
        {"arms": ("ponder", "vanilla")},
        {"arms": ("ponder", "vanilla", "vanilla_deep", "mystery")},
        {"swept": 2},
        {"family": "bert"},
        {"rates": ()},
        {"rates": (2e-3, 1e-3)},
        {"trial": 0.0},
        {"warmup": 1.0},
    ):
        with pytest.raises(LabError):
            Settings(**wrong)  # type: ignore[arg-type]  # wrong on purpose
