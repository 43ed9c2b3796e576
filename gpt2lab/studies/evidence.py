"""What a claim's quantity is: its values, their interval over seeds or over test items, and what so many would detect."""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt2lab.base.errors import LabError
from gpt2lab.base.interval import Interval
from gpt2lab.base.wording import count, listed
from gpt2lab.measures.statistics import (
    bootstrap,
    exact_binomial_interval,
    minimum_detectable_difference,
    t_interval,
)
from gpt2lab.measures.student import t_quantile
from gpt2lab.runs.run_record import RunRecord
from gpt2lab.studies.claim import Claim
from gpt2lab.studies.expression import evaluate, missing_result, names_in

LEVEL = 0.95
"""Coverage of an interval that stands alone."""
POWER = 0.8
"""Probability with which the smallest detectable effect is found."""
_ROUNDING = 1e-9
"""Values that differ by less of themselves are the same: what is left is rounding, no spread from seed to seed."""
_MOST = 10_000
"""Seeds or items up to which it is worth saying how many would settle a claim."""
FEWEST_SEEDS = 3
FEWEST_ITEMS = 20
"""Fewer test items give no verdict: their bootstrap is too narrow."""

Items = Mapping[str, Sequence[float] | NDArray[Any]]
"""The values of one seed's test items by name, [items] each."""


@dataclass(frozen=True)
class Evidence:
    """The measured quantity of a claim."""

    values: tuple[tuple[int, float], ...] = ()
    """Of every seed, as (seed, value); over items the mean of the seed's."""
    n: int = 0
    """How many seeds or items there are."""
    interval: Interval | None = None
    """None where there are too few values, or one is not finite."""
    method: str = ""
    """How the interval was made, in words."""


class RecordedItems(Mapping[str, NDArray[Any]]):
    """The test items of a run: its arrays by name, and the columns of its tables as `table.column`."""

    def __init__(self, record: RunRecord) -> None:
        self._record = record

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name in self._record.captions("arrays"):
            return self._record.arrays[name]
        table, _, column = name.rpartition(".")
        if table not in self._record.captions("tables"):
            raise KeyError(name)
        return np.array([float(row[column]) for row in self._record.tables[table]])

    def __iter__(self) -> Iterator[str]:
        yield from self._record.captions("arrays")
        for name in self._record.captions("tables"):
            yield from (f"{name}.{column}" for row in self._record.tables[name][:1] for column in row)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def level_of(claim: Claim) -> float:
    """Return the coverage of a claim's interval.

    The best of k comparisons is judged by its p-value times k, Holm's correction of the smallest of k: 1 - 0.05 / k.
    """
    return 1 - (1 - LEVEL) / claim.best_of


def over_seeds(values: Sequence[tuple[int, float]], level: float = LEVEL) -> Evidence:
    """Return the evidence of values that are independent from seed to seed: Student's t interval."""
    numbers = [value for _, value in values]
    if len(numbers) < 2 or not all(map(math.isfinite, numbers)):
        return Evidence(tuple(values), len(values))
    if math.isclose(min(numbers), max(numbers), rel_tol=_ROUNDING):
        interval = Interval(numbers[0], numbers[0], numbers[0], len(numbers), 0.0, level)
    else:
        interval = t_interval(numbers, level)
    return Evidence(tuple(values), len(values), interval, f"t over {count(len(numbers), 'seed')}")


def over_items(claim: Claim, seeds: Mapping[int, Items]) -> Evidence:
    """Return the evidence of a fixed model's test items.

    The claim's expression is evaluated for each item. An item that several seeds have seen counts once. Values that are
    all 0 or 1 get the exact binomial interval, others a bootstrap.
    LabError for an array that is not there, arrays of different lengths, or an item whose value differs from seed to seed:
    then the model is not a fixed one, and its items say nothing of another seed's.
    """
    assert isinstance(claim.measure, str)
    by_seed = {seed: _item_values(claim.measure, items) for seed, items in seeds.items()}
    sizes = {len(values) for values in by_seed.values()}
    if len(sizes) != 1:
        raise LabError(
            f"the seeds have {listed(sorted(sizes), 'and') or 'no'} items; they must be the same ones"
        )
    means = tuple((seed, float(values.mean())) for seed, values in by_seed.items())
    items = next(iter(by_seed.values()))
    if not all(_are_same(items, other) for other in by_seed.values()):
        raise LabError(
            "its items have other values in another seed, so no fixed model was measured; judge over seeds, with the mean "
            "of each seed's items, or measure one model in a unit that all seeds share"
        )
    if len(items) < FEWEST_ITEMS or not np.isfinite(items).all():
        return Evidence(means, len(items))
    return Evidence(means, len(items), *_item_interval(items, level_of(claim)))


def seen_seeds(claim: Claim, seen: Sequence[int], seeds: Mapping[int, Items]) -> tuple[int, ...]:
    """Return the seeds that are no new evidence for a rule that was changed when those of `seen` had run.

    Of a claim over items, a seed with the same items is one of them: a fixed model gives them again, whatever the seed.
    """
    if claim.over == "seeds" or not seen:
        return tuple(seen)
    assert isinstance(claim.measure, str)
    try:
        values = {seed: _item_values(claim.measure, items) for seed, items in seeds.items()}
    except LabError:  # the judge says what is missing
        return tuple(seen)
    old = [values[seed] for seed in seen if seed in values]
    again = [seed for seed, own in values.items() if any(_are_same(own, other) for other in old)]
    return tuple(sorted({*seen, *again}))


def _are_same(items: NDArray[np.float64], others: NDArray[np.float64]) -> bool:
    """Tell whether two seeds have the same items, up to rounding on another machine."""
    return items.shape == others.shape and np.allclose(items, others, equal_nan=True)


def detectable(sd: float, n: int, level: float = LEVEL) -> float:
    """Return the smallest distance from the threshold that n values of this spread find with 80 % power."""
    return 0.0 if sd == 0 else _standard_detectable(n, level) * sd


def enough_to_part(sd: float, distance: float, level: float = LEVEL) -> int | None:
    """Return how many values of this spread give an interval narrower than `distance`: it cannot hold both its ends.

    None if more than 10,000 would be needed.
    """

    def width(n: int) -> float:
        return 2 * t_quantile(0.5 + level / 2, n - 1) * sd / math.sqrt(n)

    if not width(_MOST) < distance:
        return None
    low, high = 1, _MOST  # `high` values are enough, `low` are not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if width(middle) < distance else (middle, high)
    return high


@functools.lru_cache(maxsize=256)
def _standard_detectable(n: int, level: float) -> float:
    """Return the detectable difference in standard deviations."""
    return minimum_detectable_difference(1.0, n, POWER, level)


def _item_values(expression: str, items: Items) -> NDArray[np.float64]:
    """Return the value of the expression for each item."""
    names = names_in(expression)
    for name in names:
        if name not in items:
            raise missing_result(name, items)
    columns = {name: np.asarray(items[name], np.float64).ravel() for name in names}
    sizes = {name: len(column) for name, column in columns.items()}
    if not sizes or len(set(sizes.values())) != 1:
        raise LabError(f"{expression}: its items must be arrays of one length, got {sizes}")
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return np.array([float(evaluate(expression, dict(zip(names, row, strict=True)))) for row in rows])


def _item_interval(items: NDArray[np.float64], level: float) -> tuple[Interval, str]:
    n = len(items)
    if np.isin(items, (0.0, 1.0)).all():
        interval = exact_binomial_interval(int(items.sum()), n, level)
        return interval, f"exact binomial over {count(n, 'item')}"
    # The percentiles of a bootstrap are those of a normal distribution with n instead of n - 1: too narrow for few items.
    # They are taken further out by as much as t exceeds that normal (Hesterberg 2015, expanded percentiles).
    z = math.sqrt(n / (n - 1)) * t_quantile(0.5 + level / 2, n - 1)
    interval = bootstrap(items, level=math.erf(z / math.sqrt(2)))
    made = Interval(interval.mean, interval.low, interval.high, n, interval.sd, level)
    return made, f"bootstrap over {count(n, 'item')}"
