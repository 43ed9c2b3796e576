"""The study: claims as rules, and the smoke scale from end to end through the lab."""

import math

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.papers.tinystories import study as experiment
from gpt2lab.papers.tinystories.corpus import write_stories
from gpt2lab.papers.tinystories.study import PRESETS, Settings, arms
from gpt2lab.papers.tinystories.study.claims import CLAIMS
from gpt2lab.studies.claim import Results
from gpt2lab.studies.judge import judge
from gpt2lab.studies.study import reproduce
from gpt2lab.text.generators.stories import documents

GOOD = {
    "grader.void": 0.0,
    "small.grammar_and_stops": 0.99,
    "order.width_of_grammar": 32.0,
    "order.width_of_consistency": 64.0,
    "order.lead_of_consistency": -0.001,
    "order.grammar_first": 1.0,
    "binding.difference": 0.3,
    "binding.grammar": 0.99,
    "binding.consistency": 0.9,
    "memory.excess": 0.01,
}


def verdicts(*changes: dict[str, float]) -> list[str]:
    seeds = {
        seed: Results({name: value * (1 + seed / 10_000) for name, value in (GOOD | change).items()})
        for seed, change in enumerate(changes or ({}, {}, {}))
    }
    return [str(judge(claim, seeds, "laptop").status) for claim in CLAIMS]


def test_all_claims_hold_where_they_should():
    assert verdicts() == ["holds"] * 4
    assert verdicts({}, {}) == ["inconclusive"] * 4


@pytest.mark.parametrize(
    ("claim", "change", "in_all", "in_one"),
    [
        (0, {"small.grammar_and_stops": 0.9}, "does not hold", "inconclusive"),
        (1, {"order.grammar_first": 0.0}, "does not hold", "inconclusive"),
        (1, {"order.lead_of_consistency": 0.02}, "does not hold", "inconclusive"),
        (
            1,
            {"order.width_of_grammar": math.inf, "order.grammar_first": 0.0},
            "not tested at this scale",
            "inconclusive",
        ),
        (2, {"binding.difference": 0.04}, "does not hold", "inconclusive"),
        (2, {"binding.difference": -0.2}, "does not hold", "inconclusive"),
        (2, {"binding.grammar": 0.8}, "not tested at this scale", "not tested at this scale"),
        (2, {"binding.consistency": 0.3}, "not tested at this scale", "not tested at this scale"),
        (3, {"memory.excess": 0.2}, "does not hold", "inconclusive"),
        (3, {"small.grammar_and_stops": 0.1}, "not tested at this scale", "not tested at this scale"),
    ],
)
def test_a_claim_fails_by_its_own_rule(claim, change, in_all, in_one):
    assert verdicts(change, change, change)[claim] == in_all
    assert verdicts({}, change, {})[claim] == in_one


def test_void_grades_and_real_stories_give_no_verdict():
    for change, says in (({"grader.void": 1.0}, "void"), ({"reference.bits_per_byte": 1.0}, "real stories")):
        seeds = {seed: Results(GOOD | change) for seed in range(3)}
        for claim in CLAIMS:
            found = judge(claim, seeds, "laptop")
            assert str(found.status) == "inconclusive" and says in found.reason


def test_the_laptop_grid_is_the_specification_s():
    laptop = PRESETS["laptop"]
    assert laptop.widths == (16, 32, 64, 128) and laptop.depths == (1, 2, 4)
    assert (laptop.batch_size, laptop.train_stories, laptop.samples, laptop.temperature) == (
        16,
        12_000,
        64,
        0.7,
    )
    chosen = experiment.tinyworld_arms(laptop)
    rates = {arm.model: arm.learning_rate for arm in chosen if arm.track == "grid"}
    assert rates["d128_l4"] == 1e-3 and rates["d64_l4"] == 3e-3 and len(rates) == 12
    assert {arm.size.n_layers for arm in chosen if arm.track == "binding"} == {1, 2, 4}


def test_binding_models_of_unequal_size_are_refused_before_any_training():
    with pytest.raises(LabError, match="within 20%"):
        arms(Settings(binding_widths=(32, 32, 32)))
    with pytest.raises(LabError, match="one width for each depth"):
        arms(Settings(binding_widths=(32,)))
    for scale, preset in PRESETS.items():
        assert arms(preset), scale


def test_the_smoke_study_runs_from_end_to_end(tmp_path):
    study = reproduce("tinystories", scale="smoke", seeds=1, home=tmp_path, workers=1)
    assert study.failures == []
    assert len(study.runs[0].arms) == 8
    results = study.runs[0].results
    assert results["grader.void"] == 0 and "d16_l2.grammar" in results and "binding_l2.loss" in results
    report = (study.folder / "report.md").read_text()
    for part in ("Grammar of sampled stories", "binding", "held-out", "neurons", "R²"):
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
