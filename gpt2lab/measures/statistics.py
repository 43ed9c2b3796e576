"""How sure a number is: intervals over seeds, bootstraps over texts, proportions, power, many tests at once.

Only numpy is imported. Intervals are two-sided; `level` is their coverage.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpt2lab.base.errors import LabError
from gpt2lab.base.interval import Interval
from gpt2lab.measures.student import t_power, t_quantile

Statistic = Callable[[NDArray[np.float64]], float]

_NORMAL = NormalDist()


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Return the mean of `values` [n] with Student's t interval, mean ± t(n - 1) · sd / √n.

    One value gives an infinite interval. LabError if there is none, or one is not a number.
    """
    sample = _sample(values, "t interval")
    _check_level(level)
    n, mean = len(sample), float(sample.mean())
    if n == 1:
        return Interval(mean, -math.inf, math.inf, 1, math.nan, level)
    sd = float(sample.std(ddof=1))
    half = t_quantile(0.5 + level / 2, n - 1) * sd / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n, sd, level)


def paired_t_interval(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> Interval:
    """Return the mean of first - second with its t interval; both [n], paired by position."""
    return t_interval(_differences(first, second), level)


def welch_interval(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> Interval:
    """Return mean(first) - mean(second) for unpaired samples of unequal variance (Welch 1947).

    `n` is the smaller sample and `sd` the standard error times √n. LabError unless each has two values.
    """
    a, b = _sample(first, "Welch interval"), _sample(second, "Welch interval")
    _check_level(level)
    if min(len(a), len(b)) < 2:
        raise LabError(f"a Welch interval needs two values in each sample, got {len(a)} and {len(b)}")
    n, mean = min(len(a), len(b)), float(a.mean() - b.mean())
    parts = float(a.var(ddof=1)) / len(a), float(b.var(ddof=1)) / len(b)
    error = math.sqrt(sum(parts))
    if error == 0.0:
        return Interval(mean, mean, mean, n, 0.0, level)
    df = sum(parts) ** 2 / (parts[0] ** 2 / (len(a) - 1) + parts[1] ** 2 / (len(b) - 1))
    half = t_quantile(0.5 + level / 2, df) * error
    return Interval(mean, mean - half, mean + half, n, error * math.sqrt(n), level)


def minimum_detectable_difference(sd: float, n: int, power: float = 0.8, level: float = 0.95) -> float:
    """Return the true mean that `n` values show to be other than 0 with probability `power`.

    Shown means: their t interval lies wholly on the mean's side of 0. `sd` is the standard deviation of one
    value (of one paired difference), and the result has its unit.
    inf if n < 2. The noncentral t is solved exactly; the usual normal formula gives half of it at n = 3.
    """
    _check_level(level)
    if not 0 < power < 1:
        raise LabError(f"power must lie between 0 and 1, got {power}")
    if not sd >= 0:
        raise LabError(f"a standard deviation must be at least 0, got {sd}")
    if n < 2:
        return math.inf
    critical = t_quantile(0.5 + level / 2, n - 1)
    low, high = 0.0, critical + 1.0
    while t_power(high, n - 1, critical) < power:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if t_power(middle, n - 1, critical) < power else (low, middle)
    return high * sd / math.sqrt(n)


def bootstrap(
    values: ArrayLike,
    statistic: Statistic | None = None,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    method: Literal["bca", "percentile"] = "bca",
    generator: np.random.Generator | int = 0,
) -> Interval:
    """Return `statistic` (default: the mean) of `values` with a bootstrap interval.

    values [n] or [n, columns]: rows are drawn with replacement; `statistic` maps such an array to a number.
    "bca" corrects bias and skew (Efron 1987); it falls back to "percentile" where the statistic never varies.
    LabError if there are fewer than two rows or a value is not a number.
    """
    rows = _sample(values, "bootstrap", dimensions=(1, 2))
    _check_level(level)
    if len(rows) < 2:
        raise LabError("a bootstrap needs at least two values, got 1")
    if resamples < 100:
        raise LabError(f"a bootstrap needs at least 100 resamples, got {resamples}")
    if statistic is None and rows.ndim == 2:
        raise LabError("a bootstrap of rows with several columns needs a statistic")
    estimate = float(rows.mean() if statistic is None else statistic(rows))
    draws = _resample(rows, statistic, resamples, np.random.default_rng(generator))
    tails = np.array([0.5 - level / 2, 0.5 + level / 2])
    if method == "bca":
        tails = _bca_tails(rows, statistic, estimate, draws, tails)
    low, high = np.quantile(draws, tails)
    sd = float(rows.std(ddof=1)) if rows.ndim == 1 else float(draws.std(ddof=1)) * math.sqrt(len(rows))
    return Interval(estimate, float(low), float(high), len(rows), sd, level)


def paired_bootstrap(
    first: ArrayLike,
    second: ArrayLike,
    statistic: Statistic | None = None,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    method: Literal["bca", "percentile"] = "bca",
    generator: np.random.Generator | int = 0,
) -> Interval:
    """Return statistic(first) - statistic(second) (default: means) when the same items are drawn for both.

    first, second [n], paired by position. See `bootstrap` for the rest.
    """
    differences = _differences(first, second)
    if statistic is None:
        return bootstrap(differences, level=level, resamples=resamples, method=method, generator=generator)
    both = np.stack([np.asarray(first, np.float64), np.asarray(second, np.float64)], axis=1)  # [n, 2]

    def difference(rows: NDArray[np.float64]) -> float:
        return statistic(rows[:, 0]) - statistic(rows[:, 1])

    return bootstrap(both, difference, level=level, resamples=resamples, method=method, generator=generator)


def jackknife(n: int, statistic: Callable[[NDArray[np.intp]], float]) -> NDArray[np.float64]:
    """Return the n pseudo-values of a statistic of n items: n · θ - (n - 1) · θ without item i (Tukey 1958).

    `statistic` maps the indices of the items that are there to a number. The pseudo-values are to a statistic such as a
    rank correlation what the items are to a mean: their mean is the estimate without its bias of order 1 / n, and their
    spread is the statistic's. LabError for fewer than two items.
    """
    if n < 2:
        raise LabError(f"a jackknife needs at least two items, got {n}")
    everything = np.arange(n)
    whole = statistic(everything)
    return np.array([n * whole - (n - 1) * statistic(np.delete(everything, at)) for at in range(n)])


def wilson_interval(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Return successes / trials with its score interval (Wilson 1927). LabError unless 0 ≤ successes ≤ trials."""
    _check_level(level)
    if trials < 1 or not 0 <= successes <= trials:
        raise LabError(f"a proportion needs 0 ≤ successes ≤ trials and a trial, got {successes} of {trials}")
    share, z = successes / trials, _NORMAL.inv_cdf(0.5 + level / 2)
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2) / (1 + z * z / trials)
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    sd = math.sqrt(share * (1 - share) * trials / (trials - 1)) if trials > 1 else math.nan
    return Interval(share, low, high, trials, sd, level)


def exact_binomial_interval(successes: int, trials: int, level: float = 0.95) -> Interval:
    """Return successes / trials with the exact interval (Clopper and Pearson 1934).

    Each end is off in at most (1 - level) / 2 of all samples, however few the trials.
    LabError unless 0 ≤ successes ≤ trials and there is a trial.
    """
    _check_level(level)
    if trials < 1 or not 0 <= successes <= trials:
        raise LabError(f"a proportion needs 0 ≤ successes ≤ trials and a trial, got {successes} of {trials}")
    k = np.arange(trials + 1)
    log_choose = math.lgamma(trials + 1) - np.array(
        [math.lgamma(i + 1) + math.lgamma(trials - i + 1) for i in k]
    )

    def at_least(least: int, chance: float) -> float:
        """Return P(X ≥ least)."""
        terms = log_choose[least:] + k[least:] * math.log(chance) + (trials - k[least:]) * math.log1p(-chance)
        return float(np.exp(terms).sum())

    tail, share = (1 - level) / 2, successes / trials
    low = 0.0 if successes == 0 else _crossing(lambda chance: at_least(successes, chance) - tail)
    high = (
        1.0 if successes == trials else _crossing(lambda chance: at_least(successes + 1, chance) - (1 - tail))
    )
    sd = math.sqrt(share * (1 - share) * trials / (trials - 1)) if trials > 1 else math.nan
    return Interval(share, low, high, trials, sd, level)


def _crossing(rising: Callable[[float], float]) -> float:
    """Return where in (0, 1) a rising function is 0, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2


def binomial_test(successes: int, trials: int, chance: float = 0.5) -> float:
    """Return the exact two-sided p-value: the probability of all outcomes no likelier than this one.

    LabError unless 0 ≤ successes ≤ trials and 0 < chance < 1.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise LabError(
            f"a binomial test needs 0 ≤ successes ≤ trials and a trial, got {successes} of {trials}"
        )
    if not 0 < chance < 1:
        raise LabError(f"a binomial test needs a chance between 0 and 1, got {chance}")
    log_choose = [
        math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1) for k in range(trials + 1)
    ]
    k = np.arange(trials + 1)
    log_p = np.array(log_choose) + k * math.log(chance) + (trials - k) * math.log1p(-chance)
    # 1e-7: outcomes equally likely in exact arithmetic differ in the last digits here
    return min(1.0, float(np.exp(log_p[log_p <= log_p[successes] + 1e-7]).sum()))


def mcnemar_test(only_first: int, only_second: int) -> float:
    """Return McNemar's exact two-sided p-value from the items that one of two systems alone got right."""
    if only_first + only_second == 0:
        return 1.0
    return binomial_test(only_first, only_first + only_second)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values adjusted for having looked at all of them (Holm 1979), in the given order.

    LabError if one is not in [0, 1].
    """
    for name, p in p_values.items():
        if not 0.0 <= p <= 1.0:
            raise LabError(f"{name}: a p-value must lie in [0, 1], got {p}")
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def _sample(values: ArrayLike, what: str, dimensions: Sequence[int] = (1,)) -> NDArray[np.float64]:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim not in dimensions:
        raise LabError(f"a {what} needs a list of numbers, got an array of shape {list(sample.shape)}")
    if sample.size == 0:
        raise LabError(f"a {what} needs at least one value, got none")
    if not np.isfinite(sample).all():
        bad = int((~np.isfinite(sample)).sum())
        raise LabError(f"a {what} needs finite numbers; {bad} of {sample.size} values are NaN or infinite")
    return sample


def _differences(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    a, b = _sample(first, "paired comparison"), _sample(second, "paired comparison")
    if len(a) != len(b):
        raise LabError(f"a paired comparison needs as many values on both sides, got {len(a)} and {len(b)}")
    return a - b


def _check_level(level: float) -> None:
    if not 0.0 < level < 1.0:
        raise LabError(f"the level of an interval must lie between 0 and 1, got {level}; 0.95 is usual")


def _resample(
    rows: NDArray[np.float64], statistic: Statistic | None, resamples: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    n = len(rows)
    chunk = max(1, (1 << 21) // n)  # 16 MiB of indices at a time
    draws: list[NDArray[np.float64]] = []
    for start in range(0, resamples, chunk):
        picks = generator.integers(0, n, size=(min(chunk, resamples - start), n))  # [resamples, n]
        if statistic is None:
            draws.append(rows[picks].mean(axis=1))
        else:
            draws.append(np.array([statistic(rows[pick]) for pick in picks], dtype=np.float64))
    return np.concatenate(draws)


def _bca_tails(
    rows: NDArray[np.float64],
    statistic: Statistic | None,
    estimate: float,
    draws: NDArray[np.float64],
    tails: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Move the two tail probabilities for bias and skew (Efron 1987, eq. 6.8)."""
    n = len(rows)
    below = float((draws < estimate).mean() + (draws <= estimate).mean()) / 2
    if statistic is None:
        jackknife = (rows.sum() - rows) / (n - 1)
    else:
        jackknife = np.array([statistic(np.delete(rows, i, axis=0)) for i in range(n)], dtype=np.float64)
    deviations = jackknife.mean() - jackknife
    squares = float((deviations**2).sum())
    if not 0.0 < below < 1.0 or squares == 0.0:
        return tails
    acceleration = float((deviations**3).sum()) / (6 * squares**1.5)
    bias = _NORMAL.inv_cdf(below)
    moved = []
    for tail in tails:
        z = bias + _NORMAL.inv_cdf(float(tail))
        moved.append(_NORMAL.cdf(bias + z / (1 - acceleration * z)))
    return np.array(moved)
