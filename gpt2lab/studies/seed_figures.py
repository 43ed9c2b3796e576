"""Figures and columns of values that the seeds gave, with their 95 % intervals."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gpt2lab.base.interval import Interval
from gpt2lab.measures.statistics import t_interval
from gpt2lab.plots.over_seeds import dots

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def seed_interval(values: Sequence[float]) -> Interval | None:
    """Return the 95 % t interval of one value a seed; None for fewer than two, equal ones, or one that is not finite."""
    spread = len(values) > 1 and all(map(math.isfinite, values)) and min(values) < max(values)
    return t_interval(values) if spread else None


def seed_dots(
    values: Mapping[str, Sequence[float]], *, label: str, reference: Mapping[str, float] | None = None
) -> "Figure":
    """Draw a row for each name: the mean, its 95 % t interval, a ring for each seed; see `plots.over_seeds.dots`.

    values: name → one value a seed. LabError without a row.
    """
    found = {name: seed_interval(of) for name, of in values.items()}
    intervals = {name: (one.low, one.high) for name, one in found.items() if one is not None}
    return dots(values, label=label, intervals=intervals, reference=reference)


def interval_columns(name: str, values: Sequence[float]) -> dict[str, float | None]:
    """Return the ends of the 95 % t interval of one value a seed, each a column of numbers; {} for less than two seeds.

    Both are None where a value is not finite or all are equal.
    """
    if len(values) < 2:
        return {}
    found = seed_interval(values)
    before = f"{name}, " if name else ""
    return {
        f"{before}95 % low": found.low if found is not None else None,
        f"{before}95 % high": found.high if found is not None else None,
    }
