"""The study: its claims, what it chooses with the tuning seed, and the smoke scale from end to end."""

import math

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.papers.tinystories import study as experiment
from gpt2lab.papers.tinystories.corpus import write_stories
from gpt2lab.papers.tinystories.study import PRESETS, Settings, first_passing, units, width_reaching
from gpt2lab.papers.tinystories.study.claims import CLAIMS
from gpt2lab.runs.trial import TUNING_SEED
from gpt2lab.studies.claim import Results
from gpt2lab.studies.judge import judge
from gpt2lab.studies.study import reproduce
from gpt2lab.text.generators.stories import documents
from tests.claims import unreported

GOOD = {
    "grader.void": 0.0,
    "grader.void_nested": 0.0,
    "bound.lowest": 0.98,
    "order.octaves": 1.5,
    "order.best_grammar": 1.0,
    "binding.difference": 0.3,
    "binding.grammar": 0.99,
    "binding.deep_consistency": 0.9,
    "memory.excess": 0.01,
    "memory.control.excess": 0.3,
}
MEASURED = ("bound.lowest", "order.octaves", "binding.difference", "memory.excess")


def verdicts(change: dict[str, float] | None = None, *, spread: float = 0.001) -> list[str]:
    """Judge four seeds whose measured values lie a little apart."""
    values = GOOD | (change or {})
    seeds = {
        seed: Results(values | {name: values[name] + spread * (seed - 1.5) for name in MEASURED})
        for seed in range(4)
    }
    return [str(judge(claim, seeds, "laptop").status) for claim in CLAIMS]


def test_all_claims_hold_where_they_should():
    assert verdicts() == ["holds"] * 4
    assert verdicts(spread=1.0) == ["inconclusive"] * 4


@pytest.mark.parametrize(
    ("claim", "change", "status"),
    [
        (0, {"bound.lowest": 0.9}, "does not hold"),
        (0, {"bound.lowest": 0.95}, "inconclusive"),
        (1, {"order.octaves": -0.5}, "does not hold"),
        (1, {"order.best_grammar": 0.8}, "not tested at this scale"),
        (2, {"binding.difference": 0.03}, "holds in part"),
        (2, {"binding.difference": -0.2}, "does not hold"),
        (2, {"binding.grammar": 0.8}, "not tested at this scale"),
        (2, {"binding.deep_consistency": 0.3}, "not tested at this scale"),
        (3, {"memory.excess": 0.2}, "does not hold"),
        (3, {"memory.control.excess": 0.05}, "not tested at this scale"),
    ],
)
def test_the_interval_decides_where_the_precondition_is_met(claim, change, status):
    assert verdicts(change)[claim] == status


def test_void_grades_and_real_stories_give_no_verdict():
    for change, says in (({"grader.void": 1.0}, "void"), ({"reference.bits_per_byte": 1.0}, "real stories")):
        seeds = {seed: Results(GOOD | change) for seed in range(3)}
        for claim in CLAIMS:
            found = judge(claim, seeds, "laptop")
            assert str(found.status) == "inconclusive" and says in found.reason


def test_the_laptop_grid_is_the_specification_s():
    laptop = PRESETS["laptop"]
    assert (laptop.batch_size, laptop.train_stories, laptop.samples, laptop.temperature) == (
        16,
        12_000,
        64,
        0.7,
    )
    chosen = experiment.tinyworld_models(laptop)
    rates = {model.shape: model.learning_rate for model in chosen if model.track == "grid"}
    assert rates == {"d16_l2": 3e-3, "d32_l2": 3e-3, "d64_l2": 3e-3, "d128_l2": 1e-3}
    assert [model.shape for model in chosen if model.track == "repeated"] == ["d128_l2"]
    assert sorted(model.size.n_layers for model in chosen if model.track == "binding") == [1, 2]


def test_sizes_and_rates_are_chosen_with_the_tuning_seed():
    specs = {spec.name: spec for spec in units(PRESETS["laptop"])}
    for name, spec in specs.items():
        assert spec.tuning == name.startswith("tuning_")
        chosen = name.startswith(("nested", "binding"))
        assert spec.needs == ((f"tuning_{name}",) if chosen else ()), name


def test_binding_models_of_unequal_size_are_refused_before_any_training():
    with pytest.raises(LabError, match="within 20%"):
        units(Settings(binding_widths=(32, 32)))
    with pytest.raises(LabError, match="one width for each depth"):
        units(Settings(binding_widths=(32,)))
    for scale, preset in PRESETS.items():
        assert units(preset), scale


def test_the_bound_is_the_size_from_which_on_every_model_passes_with_a_margin():
    assert first_passing([0.5, 0.96, 0.98, 0.99]) == 2
    assert first_passing([0.98, 0.96, 0.98]) == 2  # a smaller one that passes does not count
    assert first_passing([0.98, 0.99]) == 0
    assert first_passing([0.5, 0.96]) == first_passing([0.98, -math.inf]) == 1  # none: the largest is judged


def test_a_width_is_read_between_two_of_the_grid():
    assert width_reaching([(16, 0.95), (32, 1.0)]) == 16
    assert width_reaching([(16, 0.8), (32, 1.0), (64, 1.0)]) == pytest.approx(math.sqrt(16 * 32))
    assert width_reaching([(16, 0.1), (32, 0.8999)]) == 32  # never reached: the largest
    assert width_reaching([(16, 0.1), (64, 0.9)]) == pytest.approx(64)


def test_the_smoke_study_runs_from_end_to_end(tmp_path):
    study = reproduce("tinystories", scale="smoke", seeds=1, home=tmp_path, workers=1)
    assert study.failures == []
    assert unreported(study) == {}
    run = study.runs[0]
    results = run.results
    assert results["grader.void"] == results["grader.void_nested"] == 0
    assert "d16_l1.grammar" in results and "binding_l2.loss" in results
    for name, record in run.arms.items():
        assert record.seed == (TUNING_SEED if name.startswith("tuning_") else 0)
    for shape in ("d20_l1", "d16_l2"):
        tried = run.arms[f"tuning_binding_{shape}"].tables["sweep"]
        best = min(tried, key=lambda row: float(row["loss"]))
        assert run.arms[f"binding_{shape}"].results["learning_rate"] == best["learning_rate"]
    (size,) = run.tables["sizes"]
    assert results["bound.parameters"] == size["parameters"] == run.arms["nested_d8_l1"].results["parameters"]
    nested = run.arms["nested_d8_l1"].results
    assert results["bound.lowest"] == min(nested["grammar"], nested["stops"])
    stories = [row["training stories"] for row in run.tables["originality"]]
    assert stories == [400, 400, 40, 40]
    excess = results["memory.control.samples"] - results["memory.control.held_out"]
    assert results["memory.control.excess"] == excess
    report = (study.folder / "report.md").read_text()
    for part in ("Grammar of sampled nested stories", "binding", "held-out", "neurons", "R²"):
        assert part in report
    assert {claim.claim.name for claim in study.claims} == set("ABCD")


def test_real_stories_run_the_same_study_without_a_verdict(tmp_path):
    write_stories(tmp_path / "stories.txt", documents(0, 120))
    study = reproduce(
        "tinystories", scale="smoke", seeds=1, home=tmp_path / "runs", workers=1,
        settings={"data": str(tmp_path / "stories.txt")},
    )  # fmt: skip
    assert study.failures == []
    assert set(study.runs[0].arms) == {"reference", "real_d8_l1"}
    assert {claim.verdict.status for claim in study.claims} == {"not tested at this scale"}  # smoke
    assert study.runs[0].results["d8_l1.bits_per_byte"] > 0
    assert "bits per byte" in (study.folder / "report.md").read_text()


def test_too_few_real_stories_are_refused(tmp_path):
    write_stories(tmp_path / "few.txt", documents(0, 10))
    with pytest.raises(LabError, match="at least 40"):
        reproduce(
            "tinystories",
            scale="smoke",
            seeds=1,
            home=tmp_path,
            workers=1,
            settings={"data": str(tmp_path / "few.txt")},
        )
