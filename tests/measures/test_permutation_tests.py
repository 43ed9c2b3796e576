"""Permutation tests against scipy, against all arrangements by hand, and their error rate by simulation."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from gpt2lab.base.errors import LabError
from gpt2lab.measures.permutation_tests import paired_permutation_test, permutation_test

RNG = np.random.default_rng(3)
FIRST, SECOND = RNG.normal(0.8, 1, 7), RNG.normal(0, 2, 7)
ALTERNATIVES = ("two-sided", "greater", "less")


def difference(a: Any, b: Any, axis: int = -1) -> Any:
    return np.mean(a, axis=axis) - np.mean(b, axis=axis)


def medians(a: Any, b: Any, axis: int = -1) -> Any:
    return np.median(a, axis=axis) - np.median(b, axis=axis)


@pytest.mark.parametrize("alternative", ALTERNATIVES)
@pytest.mark.parametrize("statistic", [None, medians])
@pytest.mark.parametrize("other", [SECOND, SECOND[:4]])
def test_few_values_are_divided_in_every_way(alternative: Any, statistic: Any, other: Any) -> None:
    found = permutation_test(FIRST, other, statistic, alternative=alternative)
    known = stats.permutation_test(
        (FIRST, other), statistic or difference, alternative=alternative, n_resamples=10_000
    )
    assert found.exact and found.arrangements == math.comb(7 + len(other), 7)
    assert (found.statistic, found.p_value) == pytest.approx((known.statistic, known.pvalue), rel=1e-12)


@pytest.mark.parametrize("alternative", ALTERNATIVES)
@pytest.mark.parametrize("statistic", [None, medians])
def test_few_pairs_are_swapped_in_every_way(alternative: Any, statistic: Any) -> None:
    found = paired_permutation_test(FIRST, SECOND, statistic, alternative=alternative)
    known = stats.permutation_test(
        (FIRST, SECOND), statistic or difference, alternative=alternative, permutation_type="samples"
    )
    assert found.exact and found.arrangements == 2**7
    assert (found.statistic, found.p_value) == pytest.approx((known.statistic, known.pvalue), rel=1e-12)


def test_by_hand() -> None:
    signs = itertools.product((1, -1), repeat=3)
    at_least = sum(np.dot(sign, (1.0, 2.0, 3.0)) >= 6 for sign in signs)
    found = paired_permutation_test([1, 2, 3], [0, 0, 0], alternative="greater")
    assert found.p_value == at_least / 8 == 0.125


@pytest.mark.parametrize("test", [permutation_test, paired_permutation_test])
def test_drawn_arrangements_come_near_all_of_them_and_never_give_0(test: Any) -> None:
    all_of_them = test(FIRST, SECOND, resamples=9_999)
    drawn = test(FIRST, SECOND, resamples=120 if test is paired_permutation_test else 3_000)
    assert not drawn.exact
    assert drawn.p_value == pytest.approx(all_of_them.p_value, abs=0.15 if drawn.arrangements < 200 else 0.03)
    far = test(np.arange(40) + 100.0, np.arange(40) * 1.0, resamples=199)
    assert (far.p_value, far.arrangements) == (2 / 200, 200)  # (1 + 0) / (1 + 199), twice


def test_the_seed_decides_the_draws() -> None:
    long, other = RNG.normal(size=30), RNG.normal(size=30)
    for test in (permutation_test, paired_permutation_test):
        once = test(long, other, resamples=500, generator=5)
        assert once == test(long, other, resamples=500, generator=np.random.default_rng(5))
        assert once.p_value != test(long, other, resamples=500, generator=6).p_value


def test_no_more_than_one_false_alarm_in_twenty() -> None:
    rng = np.random.default_rng(0)
    for test in (permutation_test, paired_permutation_test):
        alarms = [
            test(rng.exponential(size=12), rng.exponential(size=12), resamples=199, generator=i).p_value
            <= 0.05
            for i in range(400)
        ]
        assert np.mean(alarms) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


def test_what_cannot_be_tested_is_refused() -> None:
    with pytest.raises(LabError, match="as many values on both sides, got 2 and 3"):
        paired_permutation_test([1, 2], [1, 2, 3])
    for bad in ([], [math.nan, 1.0], [[1.0]]):
        with pytest.raises(LabError, match="needs lists of finite numbers"):
            permutation_test(bad, [1.0])
    with pytest.raises(LabError, match="at least 99 resamples"):
        permutation_test([1.0], [2.0], resamples=10)
    with pytest.raises(LabError, match="alternative is two-sided"):
        permutation_test([1.0], [2.0], alternative="both")  # type: ignore[arg-type]  # a mistake on purpose
    with pytest.raises(LabError, match="not finite for some"):
        permutation_test([1.0, 2.0], [2.0], lambda a, b: math.inf)
