"""Claims: thresholds, and the small language of their expressions."""

import math

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.studies.claim import Above, AtLeast, AtMost, Below, Between, Claim, Results
from gpt2lab.studies.expression import evaluate, names_in

RESULTS = {"loss.adamw": 3.2, "loss.unigram": 4.0, "steps.tide": 60.0, "steps.adamw": 100.0, "n": 2.0}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("log(steps.tide / steps.adamw)", math.log(0.6)),
        ("loss.unigram - loss.adamw", 0.8),
        ("-n ** 2", -4.0),
        ("2 ** -n", 0.25),
        ("min(loss.adamw, loss.unigram, 9)", 3.2),
        ("max(1, n)", 2.0),
        ("abs(loss.adamw - loss.unigram) * 10", 8.0),
        ("sqrt(4 * n + 1)", 3.0),
        ("exp(0)", 1.0),
        ("loss.adamw < loss.unigram - 0.3", True),
        ("1 < n < 2", False),
        ("not n == 2 or n != 3 and n >= 2", True),
        ("+n", 2.0),
    ],
)
def test_an_expression_is_arithmetic_over_dotted_names(expression, value):
    assert evaluate(expression, RESULTS) == pytest.approx(value)


@pytest.mark.parametrize("expression", ["1 / (n - 2)", "log(0)", "sqrt(-1)", "(-8) ** 0.5", "exp(10000)"])
def test_what_arithmetic_does_not_define_is_not_a_number(expression):
    assert math.isnan(evaluate(expression, RESULTS))


def test_min_and_max_pass_on_a_missing_number_wherever_it_stands():
    for expression in ("min(n, x)", "min(x, n)", "max(n, x)", "max(x, n)"):
        assert math.isnan(evaluate(expression, {"n": 1.0, "x": math.nan}))


def test_a_tower_of_powers_ends_at_once():
    assert math.isnan(evaluate("9 ** 9 ** 9 ** 9", {}))


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(
        LabError, match=r"loss.adam: the run reported no such result; did you mean loss.adamw\?"
    ):
        evaluate("loss.adam - 1", RESULTS)
    with pytest.raises(LabError, match=r"reported: loss\.adamw, loss\.unigram"):
        evaluate("zzz", RESULTS)


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os')",
        "loss.adamw.__class__()",
        "[1, 2]",
        "'text'",
        "lambda: 1",
        "a if b else c",
        "f(1)",
        "log()",
        "log(x=1)",
        "a[0]",
        "a @ b",
        "a // b",
        "1 +",
        "",
        "(x := 1)",
        "1j",
        "x is y",
    ],
)
def test_anything_but_arithmetic_is_refused(expression):
    with pytest.raises(LabError, match="it may use numbers, dotted names"):
        names_in(expression)


def test_a_function_of_one_argument_refuses_two():
    with pytest.raises(LabError, match="log takes one argument, got 2"):
        evaluate("log(1, 2)", {})


def test_the_names_of_an_expression_come_once_each_in_order():
    assert names_in("log(b.c / a) + b.c * max(d, 1)") == ["b.c", "a", "d"]


@pytest.mark.parametrize(
    ("threshold", "inside", "outside", "across"),
    [
        (Below(0.0), (-2, -0.1), (0.0, 1.0), (-1, 0.0)),
        (AtMost(0.0), (-2, 0.0), (0.1, 1.0), (-1, 0.1)),
        (Above(0.0), (0.1, 2), (-1.0, 0.0), (0.0, 1)),
        (AtLeast(0.0), (0.0, 2), (-1.0, -0.1), (-0.1, 1)),
        (Between(0.0, 1.0), (0.0, 1.0), (1.1, 2.0), (0.5, 1.1)),
        (Between(0.0, 1.0), (0.2, 0.3), (-2.0, -0.1), (-1, 2)),
    ],
)
def test_a_threshold_tells_inside_outside_and_across(threshold, inside, outside, across):
    assert (threshold.holds(*inside), threshold.fails(*inside)) == (True, False)
    assert (threshold.holds(*outside), threshold.fails(*outside)) == (False, True)
    assert (threshold.holds(*across), threshold.fails(*across)) == (False, False)


def test_between_refuses_its_ends_in_the_wrong_order():
    with pytest.raises(LabError, match="between 2 and 1: the lower end must be smaller"):
        Between(2, 1)


def test_a_malformed_claim_is_refused_when_it_is_made():
    with pytest.raises(LabError, match="is not allowed here"):
        Claim("Tide is faster", measure="open('x')", holds_if=Below(0))
    with pytest.raises(LabError, match="is not allowed here"):
        Claim("Tide is faster", measure="x", needs="f(x)", holds_if=Below(0))
    with pytest.raises(LabError, match="scales must be among smoke, laptop, gpu and paper, got desk"):
        Claim("Tide is faster", measure="a", holds_if=Below(0), scales=("desk",))


def test_a_check_is_judged_by_its_range_alone():
    with pytest.raises(LabError, match="a check passes or fails by holds_if alone"):
        Claim("x", measure="a", holds_if=Above(1), holds_in_part_if=Above(0), kind="implementation")


def test_a_function_may_measure_and_a_result_it_misses_is_named():
    def gap(results):
        """Loss of the unigram model less AdamW's."""
        return results["loss.unigram"] - results["loss.adamw"]

    claim = Claim("AdamW learns", measure=gap, holds_if=Above(0), needs=lambda results: results["n"] > 1)
    assert claim.value(RESULTS) == pytest.approx(0.8)
    assert claim.is_testable(RESULTS)
    assert claim.recorded().measure == "Loss of the unigram model less AdamW's"
    with pytest.raises(LabError, match=r"loss.unigram: .*did you mean loss.unigrams\?"):
        claim.value({"loss.unigrams": 1.0})
    with pytest.raises(LabError):
        Results()["x"]


def test_a_precondition_over_a_result_that_is_not_a_number_is_not_met():
    claim = Claim("x", measure="a", holds_if=Above(0), needs="a < 2")
    assert not claim.is_testable({"a": math.nan})
