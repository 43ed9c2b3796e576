"""The rules of a fair trial as the judge applies them: power, items, several comparisons."""

import math

import numpy as np
import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.runs.run import Run
from gpt2lab.runs.run_record import record
from gpt2lab.runs.store import Store
from gpt2lab.runs.verdicts import Status
from gpt2lab.studies.claim import Above, AtLeast, AtMost, Between, Claim
from gpt2lab.studies.evidence import RecordedItems, detectable, level_of, seen_seeds
from gpt2lab.studies.judge import judge, planned_power


def gain(**fields):
    return Claim("Tide gains", **{"measure": "gain", "holds_if": Above(0.0)} | fields)


def ruled(claim, values):
    return judge(claim, {seed: {"gain": value} for seed, value in enumerate(values)}, "laptop")


# Power.


def test_a_pilot_that_cannot_find_the_papers_effect_makes_the_claim_not_tested():
    claim = gain(paper_effect=0.1, pilot_sd=0.05)
    found = detectable(0.05, 3)
    assert found > 0.1, "three seeds find 3.26 standard deviations"
    verdict = ruled(claim, [0.2, 0.21, 0.22])
    assert verdict.status is Status.NOT_TESTED
    assert verdict.reason == (
        "With the pilot's spread (s.d. 0.05) 3 seeds find a distance of 0.16 from the threshold with 80 % power, and the "
        "paper's is 0.1: too weak a trial."
    )
    assert verdict.values == ((0, 0.2), (1, 0.21), (2, 0.22)), "what was measured is shown all the same"
    assert ruled(claim, [0.2, 0.21, 0.22] * 3).status is Status.HOLDS, "nine seeds find it"


def test_the_power_is_known_before_the_run_and_at_each_scale_for_itself():
    claim = gain(paper_effect=0.3, pilot_sd={"laptop": 0.05, "gpu": 0.5})
    assert planned_power(claim, "smoke", 3) is None
    assert not planned_power(claim, "laptop", 3).is_too_weak
    assert planned_power(claim, "gpu", 3).is_too_weak
    assert planned_power(gain(pilot_sd=5.0), "gpu", 3).is_too_weak is False, "no effect is stated"
    assert "find a distance of" in ruled(claim, [0.2, 0.2, 0.3]).power


def test_a_claim_that_does_not_hold_needs_the_power_for_the_papers_effect():
    values = [-0.3, -0.4, -0.5]  # s.d. 0.1: three seeds find 0.33
    assert ruled(gain(), values).status is Status.DOES_NOT_HOLD
    assert ruled(gain(paper_effect=0.5), values).status is Status.DOES_NOT_HOLD
    weak = ruled(gain(paper_effect=0.2), values)
    assert weak.status is Status.INCONCLUSIVE
    assert weak.reason == (
        "The 95 % interval from -0.648 to -0.152 has no value above 0. But a distance of 0.33 is the smallest that so few "
        "find with 80 % power, and the paper's is 0.2. The paper's own value, 0.2, lies outside it."
    )
    assert ruled(gain(paper_effect=0.2, pilot_sd=0.01), values).status is Status.DOES_NOT_HOLD, (
        "the pilot says so"
    )


@pytest.mark.parametrize(
    ("threshold", "value", "effect"),
    [
        (Above(0.0), 0.5, 0.5),
        (AtMost(2.0), 1.5, 0.5),
        (Between(0.0, 1.0), 0.75, 0.25),
    ],
)
def test_the_effect_is_the_distance_of_the_papers_value_from_the_threshold(threshold, value, effect):
    assert gain(holds_if=threshold, paper_effect=value, no_effect=99.0).effect == effect


def test_where_the_papers_value_is_the_threshold_the_effect_is_the_distance_of_no_effect():
    claim = gain(holds_if=AtMost(0.0), paper_effect=0.0, no_effect=0.5)
    assert claim.effect == claim.recorded().effect == 0.5
    assert gain(holds_if=AtLeast(2.0), paper_effect=2.0, no_effect=1.0).effect == 1.0
    weak = ruled(claim, [0.3, 0.6, 0.9])
    assert weak.status is Status.INCONCLUSIVE, "three seeds of this spread find no distance of 0.5"
    refuted = ruled(claim, [0.5, 0.6, 0.7])
    assert refuted.status is Status.DOES_NOT_HOLD
    planned = planned_power(
        gain(holds_if=AtMost(0.0), paper_effect=0.0, no_effect=0.5, pilot_sd=0.5), "laptop", 3
    )
    assert planned.is_too_weak
    assert planned.words.endswith("and that of no effect is 0.5")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"paper_effect": -0.1}, "the paper's own value, -0.1, does not meet above 0"),
        ({"holds_if": AtLeast(2.0), "paper_effect": 2.0, "no_effect": 3.0}, "which must not meet it"),
        ({"best_of": 0}, "best_of counts comparisons"),
        ({"fixed": "30 November"}, "fixed is a day such as 2026-11-30"),
        ({"over": "items", "measure": lambda results: 0.0}, "over items the measure is an expression"),
        ({"over": "items", "kind": "implementation"}, "over items the interval decides"),
    ],
)
def test_a_claim_that_cannot_be_meant_so_is_refused(fields, words):
    with pytest.raises(LabError, match=words):
        gain(**fields)


# Items.

RIGHT = Claim("It answers", measure="right", holds_if=Above(0.5), over="items")
BETTER = Claim("It answers better", measure="score.a - score.b", holds_if=Above(0.0), over="items")


def over(claim, **arrays):
    return judge(claim, {0: {}}, "laptop", {0: arrays})


def test_shares_over_items_get_the_exact_binomial_interval_of_one_seed():
    verdict = over(RIGHT, right=[1] * 80 + [0] * 20)
    assert verdict.status is Status.HOLDS
    assert (verdict.method, verdict.interval.n) == ("exact binomial over 100 items", 100)
    assert verdict.interval.low == pytest.approx(0.7081573, abs=1e-6)  # Clopper and Pearson, from scipy
    assert verdict.reason == "The 95 % interval from 0.708 to 0.873 is wholly above 0.5."
    assert over(RIGHT, right=[1] * 20 + [0] * 80).status is Status.DOES_NOT_HOLD
    assert over(RIGHT, right=[1] * 52 + [0] * 48).status is Status.INCONCLUSIVE
    assert over(RIGHT, right=[1] * 100).status is Status.HOLDS


def test_differences_over_items_are_paired_and_bootstrapped():
    noise = np.random.default_rng(0).normal(0, 10, 200)
    ours = np.random.default_rng(1).normal(0.5, 0.1, 200)
    verdict = over(BETTER, **{"score.a": noise + ours, "score.b": noise})
    assert verdict.status is Status.HOLDS, "unpaired, the noise would hide it"
    assert verdict.method == "bootstrap over 200 items"
    assert verdict.values == ((0, pytest.approx(0.5, abs=0.05)),)


def test_an_item_seen_by_several_seeds_counts_once():
    items = {seed: {"right": [1] * 80 + [0] * 20} for seed in range(3)}
    verdict = judge(RIGHT, {0: {}, 1: {}, 2: {}}, "laptop", items)
    assert (verdict.interval.n, verdict.method) == (100, "exact binomial over 100 items")
    items[1] = {"right": [1] * 30}
    verdict = judge(RIGHT, {0: {}, 1: {}, 2: {}}, "laptop", items)
    assert verdict.status is Status.INCONCLUSIVE
    assert "the seeds have 30 and 100 items; they must be the same ones" in verdict.reason
    items[1] = {"right": [1] * 79 + [0] * 21}
    verdict = judge(RIGHT, {0: {}, 1: {}, 2: {}}, "laptop", items)
    assert verdict.status is Status.INCONCLUSIVE
    assert "its items have other values in another seed, so no fixed model was measured" in verdict.reason


def test_a_fixed_models_items_are_no_new_evidence_under_another_seed():
    same, other = {"right": [1] * 80 + [0] * 20}, {"right": [1] * 20 + [0] * 80}
    assert seen_seeds(RIGHT, (), {0: same, 1: same}) == ()
    assert seen_seeds(RIGHT, (0,), {0: same, 1: same, 2: other}) == (0, 1)
    assert seen_seeds(RIGHT, (0,), {0: same, 1: {}}) == (0,), "the judge says what is missing"
    assert seen_seeds(gain(), (0,), {0: same, 1: same}) == (0,)
    verdict = judge(RIGHT, {}, "laptop", {}, seen=(0, 1))
    assert verdict.reason == (
        "Its items had been seen when the rule was changed (seeds 0 and 1); a verdict takes others."
    )


def test_few_items_and_missing_arrays_are_inconclusive():
    assert "at least 20" in over(RIGHT, right=[1] * 19).reason
    verdict = over(RIGHT, write=[1] * 50)
    assert verdict.status is Status.INCONCLUSIVE
    assert "right: the run reported no such result" in verdict.reason
    assert "not a number" in over(BETTER, **{"score.a": [math.nan] * 30, "score.b": [0.0] * 30}).reason
    lengths = over(BETTER, **{"score.a": [0.0] * 30, "score.b": [0.0] * 29})
    assert "must be arrays of one length" in lengths.reason


def test_the_items_of_a_run_are_its_arrays_and_the_columns_of_its_tables(tmp_path):
    with Run.start("train", "one", home=tmp_path, settings={}) as run:
        run.array("score", [1.0, 2.0])
        run.table("answers", [{"right": 1, "rank": 3}, {"right": 0, "rank": 1}])
    items = RecordedItems(record(Store(tmp_path).get(run.id), tmp_path))
    assert list(items) == ["score", "answers.right", "answers.rank"]
    assert (list(items["score"]), list(items["answers.rank"])) == ([1.0, 2.0], [3.0, 1.0])
    with pytest.raises(KeyError):
        items["answers"]


# Several comparisons.


def test_the_best_of_several_is_judged_by_a_wider_interval_that_says_so():
    values = [0.1, 0.2, 0.3]
    one, ten = ruled(gain(), values), ruled(gain(best_of=10), values)
    assert level_of(gain(best_of=10)) == pytest.approx(0.995)
    assert ten.interval.low < one.interval.low < ten.interval.mean == one.interval.mean
    assert "The 99.5 % interval" in ten.reason
    assert ten.detectable > one.detectable
