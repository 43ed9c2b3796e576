"""Permutation tests: how often chance alone, which swaps the labels, gives a difference as large as the observed one.

Every p-value is valid: the smallest is 1 over the number of arrangements, never 0 (Phipson & Smyth 2010). Only numpy is
imported.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpt2lab.base.errors import LabError

Floats = NDArray[np.float64]
TwoSamples = Callable[[Floats, Floats], float]
"""A statistic of two samples, such as a difference of medians."""
Alternative = Literal["two-sided", "greater", "less"]

_EQUAL = 1e-12  # of the largest value: arrangements equal in exact arithmetic differ in the last digits


@dataclass(frozen=True)
class PermutationTest:
    """The outcome of a permutation test."""

    statistic: float
    """The observed value."""
    p_value: float
    """Share of arrangements at least as extreme, the observed one included."""
    arrangements: int
    """How many were looked at, the observed one included."""
    exact: bool
    """Whether these are all there are; otherwise they were drawn."""


def paired_permutation_test(
    first: ArrayLike,
    second: ArrayLike,
    statistic: TwoSamples | None = None,
    *,
    alternative: Alternative = "two-sided",
    resamples: int = 9_999,
    generator: np.random.Generator | int = 0,
) -> PermutationTest:
    """Test whether `first` and `second` [n], paired by position, are exchangeable within the pairs.

    statistic: of both samples; by default the mean difference. All 2ⁿ swaps are looked at if they are at most
    `resamples` + 1; otherwise `resamples` are drawn and p = (1 + extreme) / (1 + resamples).
    "two-sided" is twice the smaller of both sides, at most 1. LabError for samples of unequal length, none, or NaN.
    """
    a, b = _sample(first), _sample(second)
    if len(a) != len(b):
        raise LabError(f"a paired test needs as many values on both sides, got {len(a)} and {len(b)}")
    _check(alternative, resamples)
    n = len(a)
    exact = n < 63 and 2**n <= resamples + 1
    draw = np.random.default_rng(generator)

    def swaps() -> Iterator[NDArray[np.bool_]]:
        chunk = max(1, (1 << 20) // n)
        for start in range(0, 2**n if exact else resamples, chunk):
            if exact:
                numbers = np.arange(start, min(start + chunk, 2**n))
                yield (numbers[:, None] >> np.arange(n)) & 1 == 1
            else:
                yield draw.integers(0, 2, (min(chunk, resamples - start), n)) == 1  # [chunk, n]

    if statistic is None:
        difference = a - b
        observed = float(difference.mean())
        drawn = [np.where(swap, -difference, difference).mean(axis=1) for swap in swaps()]
    else:
        observed = float(statistic(a, b))
        drawn = [
            np.array([statistic(np.where(one, b, a), np.where(one, a, b)) for one in swap])
            for swap in swaps()
        ]
    return _outcome(observed, np.concatenate(drawn), alternative, exact=exact)


def permutation_test(
    first: ArrayLike,
    second: ArrayLike,
    statistic: TwoSamples | None = None,
    *,
    alternative: Alternative = "two-sided",
    resamples: int = 9_999,
    generator: np.random.Generator | int = 0,
) -> PermutationTest:
    """Test whether `first` [n] and `second` [m] come from one distribution.

    statistic: of both samples; by default the difference of their means. All (n + m choose n) divisions are looked at if
    they are at most `resamples` + 1; the rest as for `paired_permutation_test`. LabError for no value or NaN.
    """
    a, b = _sample(first), _sample(second)
    _check(alternative, resamples)
    both, n = np.concatenate([a, b]), len(a)
    exact = math.comb(len(both), n) <= resamples + 1
    draw = np.random.default_rng(generator)

    def orders() -> Iterator[NDArray[np.int64]]:
        if exact:
            for chosen in itertools.combinations(range(len(both)), n):
                others = np.setdiff1d(np.arange(len(both)), chosen)
                yield np.concatenate([np.array(chosen, dtype=np.int64), others])[None]
        else:
            chunk = max(1, (1 << 20) // len(both))
            for start in range(0, resamples, chunk):
                rows = np.tile(np.arange(len(both)), (min(chunk, resamples - start), 1))
                yield draw.permuted(rows, axis=1)  # [chunk, n + m]

    if statistic is None:
        observed = float(a.mean() - b.mean())
        drawn = [both[order[:, :n]].mean(axis=1) - both[order[:, n:]].mean(axis=1) for order in orders()]
    else:
        observed = float(statistic(a, b))
        drawn = [np.array([statistic(both[one[:n]], both[one[n:]]) for one in order]) for order in orders()]
    return _outcome(observed, np.concatenate(drawn), alternative, exact=exact)


def _outcome(observed: float, drawn: Floats, alternative: Alternative, *, exact: bool) -> PermutationTest:
    if not math.isfinite(observed) or not np.isfinite(drawn).all():
        raise LabError("the statistic of a permutation test is not finite for some arrangement of the values")
    slack = _EQUAL * max(abs(observed), float(np.abs(drawn).max()))
    extra = 0 if exact else 1  # the observed arrangement is one of those that chance could have given
    total = len(drawn) + extra
    greater = (int((drawn >= observed - slack).sum()) + extra) / total
    less = (int((drawn <= observed + slack).sum()) + extra) / total
    p = {"greater": greater, "less": less, "two-sided": min(1.0, 2 * min(greater, less))}[alternative]
    return PermutationTest(observed, p, total, exact)


def _sample(values: ArrayLike) -> Floats:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0 or not np.isfinite(sample).all():
        raise LabError(
            f"a permutation test needs lists of finite numbers, at least one each, got shape {list(sample.shape)}"
            f"{'' if np.isfinite(sample).all() else ' with NaN or infinite values'}"
        )
    return sample


def _check(alternative: Alternative, resamples: int) -> None:
    if alternative not in ("two-sided", "greater", "less"):
        raise LabError(f"alternative is two-sided, greater or less, got {alternative!r}")
    if resamples < 99:
        raise LabError(
            f"a permutation test needs at least 99 resamples, got {resamples}; p is at least 1 over them"
        )
