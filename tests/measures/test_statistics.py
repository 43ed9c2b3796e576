"""Statistics against scipy, against simulation, and against values worked out by hand."""

import math
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gpt2lab.base.errors import LabError
from gpt2lab.measures import statistics as ours
from gpt2lab.measures.student import t_cdf, t_power, t_quantile, t_tail


@pytest.mark.parametrize("df", [0.5, 1, 2, 3, 4.7, 9, 30, 79, 81, 1000, 1e5, 1e7, math.inf])
@pytest.mark.parametrize("p", [1e-12, 1e-4, 0.005, 0.025, 0.05, 0.2, 0.45, 0.4999, 0.5, 0.6, 0.975, 0.9999])
def test_the_t_quantile_equals_scipys(df: float, p: float) -> None:
    expected = stats.norm.ppf(p) if math.isinf(df) else stats.t.ppf(p, df)
    assert t_quantile(p, df) == pytest.approx(expected, rel=1e-10, abs=1e-12)


@given(t=st.floats(-1e4, 1e4), df=st.floats(0.3, 1e6))
@settings(max_examples=300, deadline=None)
def test_the_t_tail_equals_scipys(t: float, df: float) -> None:
    assert t_tail(t, df) == pytest.approx(stats.t.sf(t, df), rel=1e-9, abs=1e-300)
    assert t_cdf(t, df) == pytest.approx(stats.t.cdf(t, df), rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("df", [1, 2, 4, 9, 99])
@pytest.mark.parametrize("shift", [0.0, 0.7, 3.0, 12.0])
def test_the_noncentral_tail_equals_scipys(df: int, shift: float) -> None:
    critical = t_quantile(0.975, df)
    assert t_power(shift, df, critical) == pytest.approx(stats.nct.sf(critical, df, shift), abs=1e-7)


def test_the_t_interval_is_the_textbooks() -> None:
    values = [2.1, 1.9, 2.6, 2.2, 2.0]
    interval = ours.t_interval(values)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-12)
    assert interval.n == 5 and interval.sd == pytest.approx(np.std(values, ddof=1))
    assert interval.contains(2.16) and not interval.contains(3.0)


def test_one_value_says_nothing_of_its_error() -> None:
    interval = ours.t_interval([3.0])
    assert (interval.mean, interval.low, interval.high) == (3.0, -math.inf, math.inf)
    assert math.isnan(interval.sd)


def test_equal_values_give_an_interval_of_no_width() -> None:
    interval = ours.t_interval([2.0, 2.0, 2.0])
    assert interval.low == interval.high == 2.0


def test_a_paired_interval_forgets_what_the_pairs_share() -> None:
    shared = np.array([1.0, 50.0, -30.0, 7.0])
    interval = ours.paired_t_interval(shared + np.array([0.1, 0.2, 0.15, 0.12]), shared)
    assert 0 < interval.low < interval.high < 0.3


def test_welch_equals_scipys() -> None:
    first, second = [5.1, 4.8, 5.6, 5.0], [4.1, 4.4, 3.0]
    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.9)
    interval = ours.welch_interval(first, second, level=0.9)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), rel=1e-10)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 40])
def test_the_detectable_difference_has_the_promised_power(n: int) -> None:
    difference = ours.minimum_detectable_difference(sd=2.0, n=n, power=0.8)
    critical = stats.t.ppf(0.975, n - 1)
    assert stats.nct.sf(critical, n - 1, difference / 2.0 * math.sqrt(n)) == pytest.approx(0.8, abs=1e-6)


def test_the_detectable_difference_is_found_as_often_as_promised_in_simulated_studies() -> None:
    generator = np.random.default_rng(5)
    difference = ours.minimum_detectable_difference(sd=1.0, n=4, power=0.7)
    draws = generator.normal(difference, 1.0, size=(4000, 4))
    found = np.mean([ours.t_interval(row).low > 0 for row in draws])
    assert found == pytest.approx(0.7, abs=0.03)


def test_one_seed_detects_nothing() -> None:
    assert ours.minimum_detectable_difference(1.0, 1) == math.inf


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_the_bootstrap_of_a_mean_equals_scipys_on_the_same_draws(
    method: Literal["bca", "percentile"],
) -> None:
    values = np.random.default_rng(1).exponential(size=40)
    expected = stats.bootstrap(
        (values,),
        np.mean,
        method="BCa" if method == "bca" else method,
        n_resamples=2000,
        rng=np.random.default_rng(7),
    ).confidence_interval
    interval = ours.bootstrap(values, resamples=2000, method=method, generator=np.random.default_rng(7))
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), rel=1e-10)


def test_any_statistic_can_be_bootstrapped() -> None:
    values = np.random.default_rng(2).normal(size=30)
    interval = ours.bootstrap(values, lambda sample: float(np.median(sample)), resamples=500)
    assert interval.low <= interval.mean <= interval.high
    again = ours.bootstrap(values, lambda sample: float(np.mean(sample)), resamples=500)
    assert (again.low, again.high) == pytest.approx(
        (ours.bootstrap(values, resamples=500).low, ours.bootstrap(values, resamples=500).high)
    )


def test_the_bootstrap_interval_covers_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(11)
    covered = [
        ours.bootstrap(generator.normal(size=30), resamples=400, generator=generator).contains(0.0)
        for _ in range(400)
    ]
    assert 0.89 < np.mean(covered) < 0.98


def test_the_paired_bootstrap_draws_the_same_items_for_both() -> None:
    shared = np.random.default_rng(3).normal(scale=100, size=60)
    noise = np.random.default_rng(4).normal(scale=0.1, size=60)
    interval = ours.paired_bootstrap(shared + 0.5 + noise, shared, resamples=1000)
    assert 0.4 < interval.low < interval.high < 0.6
    median = ours.paired_bootstrap(
        shared + 0.5, shared, lambda sample: float(np.median(sample)), resamples=1000, method="percentile"
    )
    assert median.low == pytest.approx(0.5) and median.high == pytest.approx(0.5)


def test_the_same_seed_gives_the_same_interval_and_the_callers_array_stays() -> None:
    values = np.arange(20.0)
    assert ours.bootstrap(values, generator=3) == ours.bootstrap(values, generator=3)
    assert (values == np.arange(20.0)).all()


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (3, 10), (10, 10), (1, 1), (51, 1000)])
def test_wilson_equals_scipys(successes: int, trials: int) -> None:
    expected = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    interval = ours.wilson_interval(successes, trials)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(
    ("successes", "trials", "chance"), [(0, 5, 0.5), (7, 20, 0.5), (3, 50, 0.2), (600, 1000, 0.5)]
)
def test_the_binomial_test_equals_scipys(successes: int, trials: int, chance: float) -> None:
    expected = stats.binomtest(successes, trials, chance).pvalue
    assert ours.binomial_test(successes, trials, chance) == pytest.approx(expected, rel=1e-8)


def test_mcnemar_is_exact() -> None:
    assert ours.mcnemar_test(0, 0) == 1.0
    assert ours.mcnemar_test(1, 6) == pytest.approx(min(1.0, 2 * stats.binom.cdf(1, 7, 0.5)))


def test_holm_by_hand() -> None:
    adjusted = ours.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(adjusted) == ["a", "b", "c", "d"]
    assert ours.holm({}) == {}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ours.t_interval([]), "at least one value"),
        (lambda: ours.t_interval([1.0, math.nan]), "1 of 2 values are NaN"),
        (lambda: ours.t_interval([1.0, 2.0], level=95), "level of an interval"),
        (lambda: ours.t_interval([[1.0], [2.0]]), "shape"),
        (lambda: ours.paired_t_interval([1.0], [1.0, 2.0]), "as many values on both sides"),
        (lambda: ours.welch_interval([1.0], [1.0, 2.0]), "two values in each"),
        (lambda: ours.bootstrap([1.0]), "at least two"),
        (lambda: ours.bootstrap([1.0, 2.0], resamples=3), "at least 100"),
        (lambda: ours.bootstrap([[1.0, 2.0], [1.0, 3.0]]), "needs a statistic"),
        (lambda: ours.wilson_interval(3, 2), "successes"),
        (lambda: ours.binomial_test(1, 2, 1.5), "chance"),
        (lambda: ours.holm({"a": 1.2}), "p-value"),
        (lambda: ours.minimum_detectable_difference(-1.0, 3), "standard deviation"),
        (lambda: ours.minimum_detectable_difference(1.0, 3, power=1.0), "power"),
    ],
)
def test_a_mistake_is_one_sentence(call: object, words: str) -> None:
    with pytest.raises(LabError, match=words) as error:
        call()  # type: ignore[operator]  # a table of calls
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("successes", "trials"), [(0, 5), (5, 5), (1, 5), (3, 20), (150, 200), (999, 1000), (1, 1)]
)
@pytest.mark.parametrize("level", [0.95, 0.995])
def test_the_exact_binomial_interval_is_scipys(successes: int, trials: int, level: float) -> None:
    mine = ours.exact_binomial_interval(successes, trials, level)
    theirs = stats.binomtest(successes, trials).proportion_ci(level, method="exact")
    assert (mine.low, mine.high) == (
        pytest.approx(theirs.low, abs=1e-9),
        pytest.approx(theirs.high, abs=1e-9),
    )
    assert (mine.mean, mine.n, mine.level) == (successes / trials, trials, level)


def test_an_exact_binomial_interval_of_no_trials_is_refused() -> None:
    with pytest.raises(LabError, match="0 ≤ successes ≤ trials and a trial, got 1 of 0"):
        ours.exact_binomial_interval(1, 0)


def test_pseudo_values_of_a_mean_are_the_values_and_those_of_a_correlation_have_its_spread() -> None:
    draw = np.random.default_rng(0)
    values = draw.normal(size=30)
    assert ours.jackknife(30, lambda kept: float(values[kept].mean())) == pytest.approx(values)
    x = draw.normal(size=60)
    y = x + draw.normal(size=60)
    pseudo = ours.jackknife(60, lambda kept: float(stats.kendalltau(x[kept], y[kept]).statistic))
    whole = ours.bootstrap(
        np.stack([x, y], axis=1),
        lambda rows: float(stats.kendalltau(rows[:, 0], rows[:, 1]).statistic),
        resamples=300,
    )
    assert pseudo.mean() == pytest.approx(whole.mean, abs=1e-9)  # a mean over pairs has no bias
    assert pseudo.std(ddof=1) == pytest.approx(whole.sd, rel=0.15)
    with pytest.raises(LabError, match="two items"):
        ours.jackknife(1, len)
