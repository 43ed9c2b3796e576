"""Verdicts: the rule and its edges; test_error_rates.py has how often they are wrong."""

import math
from dataclasses import replace

import numpy as np
import pytest

from gpt2lab.measures.statistics import t_interval
from gpt2lab.runs.verdicts import Status
from gpt2lab.studies.claim import Above, AtLeast, Below, Between, Claim
from gpt2lab.studies.evidence import enough_to_part
from gpt2lab.studies.judge import judge

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


@pytest.mark.parametrize("values", [[0.95] * 3, [0.95, 0.95 + 1e-12, 0.95]])
def test_an_interval_without_width_decides_nothing(values):
    verdict = ruled(values, Claim("x", measure="ratio", holds_if=AtLeast(0.5)))
    assert verdict.status is Status.INCONCLUSIVE
    assert verdict.reason == (
        "Every seed gave the same value, 0.95: without a spread there is no interval to decide; count items, or make it a "
        "check."
    )
    assert (verdict.interval.mean, verdict.power) == (0.95, "")
    assert (
        ruled([0.95, 0.951, 0.95], Claim("x", measure="ratio", holds_if=AtLeast(0.5))).status is Status.HOLDS
    )


def test_a_seed_that_failed_stays_in_the_count():
    seeds = {0: {"ratio": 2.2}, 2: {"ratio": 2.21}, 3: {"ratio": 2.19}}
    assert judge(FASTER, seeds, "laptop").status is Status.HOLDS
    verdict = judge(FASTER, seeds, "laptop", unfinished=(1,))
    assert verdict.status is Status.INCONCLUSIVE
    assert verdict.reason == "1 of 4 seeds failed (seed 1); nothing is decided by the others alone."
    assert verdict.interval is not None and len(verdict.values) == 3, (
        "what was measured is shown all the same"
    )
    assert (
        "3 of 3 seeds failed (seeds 0, 1 and 2)" in judge(FASTER, {}, "laptop", unfinished=(0, 1, 2)).reason
    )
    needs = Claim("x", measure="ratio", holds_if=Above(0), needs="ratio > 2.2")
    assert judge(needs, seeds, "laptop", unfinished=(1,)).status is Status.NOT_TESTED
    assert judge(CHECK, {0: {"ratio": 1.0}}, "laptop", unfinished=(1,)).status is Status.INCONCLUSIVE
    assert judge(CHECK, {0: {"ratio": 2.0}}, "laptop", unfinished=(1,)).status is Status.FAILS


def test_seeds_that_had_run_before_the_rule_was_changed_are_named():
    seen = judge(FASTER, {}, "laptop", seen=(0, 1, 2))
    assert seen.status is Status.INCONCLUSIVE
    assert seen.reason == (
        "After the rule was changed no seed was run (before it: 0, 1 and 2); a verdict takes at least 3."
    )
    assert (
        "only 1 seed finished (before it: 0)"
        in judge(FASTER, {1: {"ratio": 3.0}}, "laptop", seen=(0,)).reason
    )


def test_an_open_claim_says_where_the_papers_own_value_lies():
    def open_claim(values, **fields):
        return ruled(values, Claim("x", measure="ratio", holds_if=AtLeast(1.0), **fields)).reason

    wide = [0.8, 1.0, 1.3]
    assert open_claim(wide).endswith("is partly at least 1, partly not.")
    assert open_claim(wide, paper_effect=3.0).endswith("The paper's own value, 3, lies outside it.")
    assert open_claim(wide, paper_effect=1.5).endswith(
        "The paper's own value, 1.5, lies inside it: by this spread it takes 7 seeds to tell it from the threshold."
    )
    assert open_claim(wide, paper_effect=1.001).endswith(
        "more than 10,000 seeds to tell it from the threshold."
    )
    assert open_claim(wide, paper_effect=1.0, no_effect=0.6).endswith("9 seeds to tell it from no effect.")


def test_so_many_seeds_part_two_values():
    for n in (3, 7, 40):
        width = 2 * t_interval([-1.0, 1.0] * n).high  # of 2 n values
        sd = np.std([-1.0, 1.0] * n, ddof=1)
        assert enough_to_part(sd, width * 1.001) == 2 * n
        assert enough_to_part(sd, width * 0.999) == 2 * n + 1
    assert enough_to_part(1.0, 0.001) is None


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
    assert verdict.precondition == "not met in seed 1 (loss 2 to 2.9, start 3)"
    met = judge(claim, {0: seeds[0], 2: seeds[0]}, "laptop")
    assert met.precondition == "met in all 2 seeds (loss 2, start 3)"
    assert judge(claim, {4: seeds[0]}, "laptop").precondition == "met in seed 4 (loss 2, start 3)"
    assert judge(replace(claim, needs=None), seeds, "laptop").precondition == ""
    by_function = replace(claim, needs=lambda results: results["loss"] < 2.5)
    assert judge(by_function, seeds, "laptop").precondition == "not met in seed 1"


def test_a_claim_of_another_scale_is_not_tested_and_says_where_it_can_be():
    claim = Claim("x", measure="ratio", holds_if=Above(0), scales=("gpu", "paper"))
    verdict = ruled([1.0, 1.0, 1.0], claim)
    assert verdict.status is Status.NOT_TESTED
    assert verdict.reason == "It can be tested at gpu or paper scale, not at laptop."


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
