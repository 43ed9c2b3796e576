"""Verdicts: the rule, its edges, and its error rates on simulated seeds."""

import math

import numpy as np
import pytest

from gpt2lab.runs.verdicts import Status, Verdict
from gpt2lab.studies.claim import Above, AtLeast, Below, Between, Claim
from gpt2lab.studies.judge import in_seeds, judge

FASTER = Claim("Tide is faster", measure="ratio", holds_if=AtLeast(2.0), holds_in_part_if=AtLeast(1.1))


def ruled(values, claim=FASTER, name="ratio", scale="laptop"):
    return judge(claim, {seed: {name: value} for seed, value in enumerate(values)}, scale)


@pytest.mark.parametrize(
    ("values", "status", "words"),
    [
        ([2.2, 2.21, 2.19], Status.HOLDS, "is wholly at least 2"),
        ([1.5, 1.51, 1.49], Status.IN_PART, "has no value at least 2, but every value is at least 1.1"),
        ([1.0, 1.01, 0.99], Status.DOES_NOT_HOLD, "has no value at least 2, nor at least 1.1"),
        ([1.09, 1.1, 1.11], Status.DOES_NOT_HOLD, "has no value at least 2; nor does it settle at least 1.1"),
        ([1.9, 2.0, 2.1], Status.INCONCLUSIVE, "partly not, but every value is at least 1.1"),
        ([0.1, 2.0, 3.9], Status.INCONCLUSIVE, "partly not; nor does it settle at least 1.1"),
    ],
)
def test_the_interval_decides(values, status, words):
    verdict = ruled(values)
    assert verdict.status is status
    assert words in verdict.reason
    assert verdict.values == tuple(enumerate(values))
    assert verdict.interval is not None
    assert verdict.interval.mean == pytest.approx(np.mean(values))


def test_the_statuses_are_spelt_as_the_design_spells_them():
    assert [str(status) for status in Status if status not in (Status.PASSES, Status.FAILS)] == [
        "holds",
        "holds in part",
        "does not hold",
        "inconclusive",
        "not tested at this scale",
    ]


def test_the_interval_is_students_with_the_tabled_quantile():
    interval = ruled([1.0, 2.0, 3.0]).interval
    half = 4.302652729911275 * 1.0 / math.sqrt(3)  # t(0.975; 2) from a table
    assert (interval.low, interval.high) == (pytest.approx(2 - half), pytest.approx(2 + half))


@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_than_three_seeds_are_inconclusive(n):
    verdict = ruled([5.0] * n)
    assert verdict.status is Status.INCONCLUSIVE
    assert "a verdict takes at least 3" in verdict.reason


def test_two_seeds_still_show_their_interval():
    verdict = ruled([5.0, 6.0])
    assert verdict.interval is not None
    assert verdict.interval.mean == 5.5


@pytest.mark.parametrize(("value", "word"), [(math.nan, "not a number"), (math.inf, "infinite")])
def test_a_quantity_that_is_not_finite_is_inconclusive(value, word):
    verdict = ruled([2.2, value, 2.1])
    assert verdict.status is Status.INCONCLUSIVE
    assert verdict.reason == f"The quantity is {word} in seed 1."
    assert verdict.interval is None


def test_a_missing_result_is_inconclusive_and_named():
    verdict = ruled([2.2, 2.1, 2.3], name="ratios")
    assert verdict.status is Status.INCONCLUSIVE
    assert "did you mean ratios?" in verdict.reason


def test_a_slip_in_a_claims_function_is_inconclusive_and_named():
    verdict = ruled(
        [1.0, 1.0, 1.0], Claim("x", measure=lambda results: results["ratio"][0], holds_if=Above(0))
    )
    assert verdict.status is Status.INCONCLUSIVE
    assert "TypeError" in verdict.reason


def test_equal_values_decide_without_rounding():
    claim = Claim("x", measure="ratio", holds_if=AtLeast(0.95))
    verdict = ruled([0.95, 0.95, 0.95], claim)
    assert verdict.status is Status.HOLDS
    assert verdict.reason == "All 3 seeds gave 0.95, which is at least 0.95."
    assert "says nothing of power" in verdict.power
    assert ruled([0.1] * 3, Claim("x", measure="ratio", holds_if=Below(0.1))).status is Status.DOES_NOT_HOLD


def test_a_range_fails_on_either_side():
    claim = Claim("x", measure="ratio", holds_if=Between(0.8, 1.0))
    assert ruled([0.9, 0.91, 0.89], claim).status is Status.HOLDS
    assert ruled([0.5, 0.51, 0.49], claim).status is Status.DOES_NOT_HOLD
    assert ruled([1.5, 1.51, 1.49], claim).status is Status.DOES_NOT_HOLD
    assert ruled([0.79, 0.8, 0.81], claim).status is Status.INCONCLUSIVE


def test_a_failed_precondition_in_any_seed_means_not_tested_with_the_reason():
    claim = Claim("x", measure="gain", holds_if=Above(0), needs="loss < start - 0.3")
    seeds = {0: {"gain": 1.0, "loss": 2.0, "start": 3.0}, 1: {"gain": 1.1, "loss": 2.9, "start": 3.0}}
    verdict = judge(claim, seeds | {2: seeds[0]}, "laptop")
    assert verdict.status is Status.NOT_TESTED
    assert verdict.reason == "It needs loss < start - 0.3, which fails in seed 1 (loss = 2.9, start = 3)."


def test_a_claim_of_another_scale_is_not_tested_and_says_where_it_can_be():
    claim = Claim("x", measure="ratio", holds_if=Above(0), scales=("gpu", "paper"))
    verdict = ruled([1.0, 1.0, 1.0], claim)
    assert verdict.status is Status.NOT_TESTED
    assert verdict.reason == "It can be tested at gpu or paper scale, not at laptop."


def test_a_claims_own_rule_is_followed_after_three_seeds():
    def rule(seeds):
        worst = min(results["ratio"] for results in seeds)
        return Verdict(Status.HOLDS if worst > 1 else Status.DOES_NOT_HOLD, f"The worst seed gives {worst}.")

    claim = Claim("x", rule=rule, measure="ratio")
    verdict = ruled([1.5, 90.0, 2.0], claim)
    assert (verdict.status, verdict.reason) == (Status.HOLDS, "The worst seed gives 1.5.")
    assert verdict.values[1] == (1, 90.0)
    assert verdict.interval is not None
    assert verdict.power == ""
    assert ruled([1.5, 90.0], claim).status is Status.INCONCLUSIVE


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ([1, 2, 3], Status.HOLDS),
        ([1, 2, -3], Status.INCONCLUSIVE),
        ([-1, -2, -3], Status.DOES_NOT_HOLD),
        ([1, 2, math.nan], Status.INCONCLUSIVE),
        ([-1, -2, math.nan], Status.INCONCLUSIVE),
    ],
)
def test_the_rule_of_all_seeds(values, status):
    assert ruled(values, Claim("x", rule=in_seeds("ratio > 0"))).status is status


def test_the_rule_of_some_seeds_with_its_own_opposite():
    rule = in_seeds("ratio >= 10", at_least=3, against="ratio < 5", against_in=2)
    claim = Claim("x", rule=rule)
    assert ruled([10, 12, 11], claim).status is Status.HOLDS
    assert ruled([10, 1, 2], claim).status is Status.DOES_NOT_HOLD
    verdict = ruled([10, 12, 1], claim)
    assert verdict.status is Status.INCONCLUSIVE
    assert verdict.reason == "ratio >= 10 is true in 2 of 3 seeds, ratio < 5 in 1: the seeds disagree."


CHECK = Claim("Ours equals theirs", measure="ratio", holds_if=Between(0.9, 1.1), kind="implementation")


@pytest.mark.parametrize(
    ("values", "status", "words"),
    [
        ([1.0], Status.PASSES, "It is between 0.9 and 1.1 in seed 0."),
        ([1.0, 1.1, 0.9], Status.PASSES, "in all 3 seeds."),
        ([1.0, 1.2, 1.0], Status.FAILS, "It is 1.2 in seed 1, not between 0.9 and 1.1."),
        ([1.0, math.nan], Status.FAILS, "It is not a number in seed 1"),
        ([], Status.INCONCLUSIVE, "No seed finished."),
    ],
)
def test_a_check_passes_where_every_seed_does(values, status, words):
    verdict = ruled(values, CHECK)
    assert verdict.status is status
    assert words in verdict.reason
    assert (verdict.interval, verdict.power) == (None, "")


def test_a_check_of_a_missing_result_or_an_unmet_condition_does_not_fail():
    assert ruled([1.0], CHECK, name="rate").status is Status.INCONCLUSIVE
    unmet = Claim("x", measure="ratio", holds_if=Above(0), needs="ratio > 2", kind="implementation")
    assert ruled([1.0], unmet).status is Status.NOT_TESTED


# Error rates. The studies are simulated; the verdict is the real one.

STUDIES = 8000


def rate(status, claim, centre, n, seed):
    """Return the share of simulated studies of n normal seeds around `centre` that get `status`."""
    values = np.random.default_rng(seed).normal(centre, 1.0, size=(STUDIES, n))
    verdicts = (judge(claim, {i: {"x": v} for i, v in enumerate(row)}, "laptop") for row in values.tolist())
    return sum(verdict.status is status for verdict in verdicts) / STUDIES


def tolerance(share):
    """Return four standard errors of a simulated share."""
    return 4 * math.sqrt(share * (1 - share) / STUDIES)


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("threshold", [Above(0.0), Below(0.0), AtLeast(0.0), Between(0.0, 6.0)])
def test_false_holds_at_the_threshold_are_at_most_one_in_forty(threshold, n):
    claim = Claim("x", measure="x", holds_if=threshold)
    false = rate(Status.HOLDS, claim, 0.0, n, seed=n)
    assert false <= 0.025 + tolerance(0.025)
    if not isinstance(threshold, Between):
        assert false >= 0.025 - tolerance(0.025)  # and the rule gives nothing away


@pytest.mark.parametrize("n", [3, 5, 10])
def test_false_does_not_hold_at_the_threshold_are_at_most_one_in_forty(n):
    claim = Claim("x", measure="x", holds_if=Above(0.0))
    assert rate(Status.DOES_NOT_HOLD, claim, 0.0, n, seed=n) <= 0.025 + tolerance(0.025)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_stated_power_is_the_simulated_one(n):
    claim = Claim("x", measure="x", holds_if=Above(0.0))
    spread_of_one = judge(claim, {i: {"x": v} for i, v in enumerate(unit_spread(n))}, "laptop")
    assert spread_of_one.interval.sd == pytest.approx(1.0)
    detected = rate(Status.HOLDS, claim, spread_of_one.detectable, n, seed=100 + n)
    assert detected == pytest.approx(0.8, abs=tolerance(0.8))


def unit_spread(n):
    """Return n numbers whose sample standard deviation is one."""
    values = np.arange(n, dtype=float)
    return (values / values.std(ddof=1)).tolist()


def test_the_power_is_a_sentence():
    verdict = ruled([2.2, 2.4, 2.6])
    assert verdict.power == (
        "With 3 seeds and this spread (s.d. 0.2) a true distance of 0.65 from the threshold "
        "is detected with 80 % power."
    )


def test_at_a_scale_that_settles_nothing_the_quantity_is_measured_all_the_same() -> None:
    claim = Claim("Loss falls", measure="loss.a - loss.b", holds_if=Below(0.0), scales=("laptop",))
    seeds = {seed: {"loss.a": 2.0, "loss.b": 2.0 + seed} for seed in range(3)}
    verdict = judge(claim, seeds, "smoke")
    assert verdict.status is Status.NOT_TESTED
    assert verdict.values == ((0, 0.0), (1, -1.0), (2, -2.0))
    assert verdict.interval is not None and verdict.interval.mean == -1.0
    missing = judge(claim, {0: {}, 1: {"loss.a": 1.0, "loss.b": 0.5}}, "smoke")
    assert (missing.status, missing.values) == (Status.NOT_TESTED, ((1, 0.5),))
    ruled = Claim("Seeds agree", rule=in_seeds("loss.a > 1"), scales=("laptop",))
    assert judge(ruled, seeds, "smoke").reason.endswith(
        "not at smoke. Here: loss.a > 1 is true in 3 of 3 seeds."
    )
    assert judge(ruled, {0: {}}, "smoke").reason.endswith("not at smoke.")
