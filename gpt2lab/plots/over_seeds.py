"""Figures of values that several seeds gave: dots with intervals, and curves that not every seed has everywhere."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gpt2lab.base.errors import LabError
from gpt2lab.base.wording import number
from gpt2lab.plots.figures import INK, PALETTE, Points, Span, empty_figure, line_chart, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def dots(
    values: Mapping[str, Sequence[float]],
    *,
    label: str,
    intervals: Mapping[str, Span] | None = None,
    reference: Mapping[str, float] | None = None,
    width: float = 6.4,
) -> "Figure":
    """Draw a row for each name, the first on top: a dot for the mean with its number, a small ring for each value.

    values: name → one value a seed; where some are not finite the row says how many are. intervals: name → (low, high),
    drawn as a line. reference: name → value of a vertical line (chance, the paper's figure). The axis need not begin at 0: a
    dot, unlike a bar, says nothing by its length. LabError without a row.
    """
    if not values:
        raise LabError("a chart of dots needs at least one row")
    names = []
    with style():
        figure, axes = empty_figure(width, 0.9 + 0.36 * len(values) + (0.3 if reference else 0.0))
        for row, (name, of) in enumerate(values.items()):
            finite = [one for one in of if math.isfinite(one)]
            names.append(name if len(finite) == len(of) else f"{name} ({len(finite) or 'none'} of {len(of)})")
            if finite:
                _dot(axes, row, finite, (intervals or {}).get(name))
        for name, value in (reference or {}).items():
            axes.axvline(value, color=INK, linestyle="--", linewidth=1.0)
            axes.annotate(
                name, (value, 1.0), (0, 3), xycoords=("data", "axes fraction"), textcoords="offset points",
                ha="center", color=INK,
            )  # fmt: skip
        _rows(axes, names, label)
    return figure


def _dot(axes: "Axes", row: int, values: Sequence[float], interval: Span | None) -> None:
    """Draw one row: the interval, the mean with its number, the values."""
    mean = sum(values) / len(values)
    if interval is not None:
        axes.plot(interval, [row, row], color=PALETTE[0], linewidth=2.4, alpha=0.45)
    axes.plot([mean], [row], "o", color=PALETTE[0], markersize=7)
    if len(values) > 1:
        axes.plot(values, [row] * len(values), "o", markersize=4, markerfacecolor="none", color=INK)
    axes.annotate(number(mean, 3), (mean, row), (0, 7), textcoords="offset points", ha="center", fontsize=9)


def _rows(axes: "Axes", names: Sequence[str], label: str) -> None:
    """Name the rows, and leave only the lines that lead the eye to the axis."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.7)
    axes.margins(x=0.08)
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(label)


def mean_curves(
    curves: Mapping[str, Sequence[Points]], *, x_label: str, y_label: str, log_x: bool = False
) -> "Figure":
    """Draw the mean over seeds as a line, through the x at which every seed has a finite value.

    curves: name → (x, y) of each seed. An x that only some seeds have, or at which some are not finite, is a hollow mark
    beside the line with `1 of 3` at it: a mean of other seeds than its neighbours is no point of their line.
    """
    gathered = {name: _gathered(seeds) for name, seeds in curves.items()}
    lines: dict[str, Points] = {}
    for name, at in gathered.items():
        whole = sorted(x for x, ys in at.items() if len(ys) == len(curves[name]))
        lines[name] = (whole, [sum(at[x]) / len(at[x]) for x in whole])
    figure = line_chart(
        {name: line if line[0] else ([math.nan], [math.nan]) for name, line in lines.items()},
        x_label=x_label, y_label=y_label, log_x=log_x, markers=True,
    )  # fmt: skip
    with style():
        figure.axes[0].margins(x=0.05)  # a mark at the end stands clear of the axis
        for index, (name, at) in enumerate(gathered.items()):
            many = len(curves[name])
            for x, ys in at.items():
                if 0 < len(ys) < many:
                    _hollow(figure.axes[0], x, ys, many, PALETTE[index % len(PALETTE)])
    return figure


def _gathered(seeds: Sequence[Points]) -> dict[float, list[float]]:
    """Return x → the finite values of the seeds that have it."""
    found: dict[float, list[float]] = {}
    for xs, ys in seeds:
        for x, y in zip(xs, ys, strict=True):
            if math.isfinite(y):
                found.setdefault(x, []).append(y)
    return found


def _hollow(axes: "Axes", x: float, ys: Sequence[float], many: int, colour: str) -> None:
    """Mark a mean of some seeds only, and say of how many."""
    mean = sum(ys) / len(ys)
    axes.plot([x], [mean], "o", color=colour, markerfacecolor="none", markersize=6, clip_on=False)
    axes.annotate(
        f"{len(ys)} of {many}", (x, mean), (0, 6), textcoords="offset points", ha="center", fontsize=8,
        color=colour, annotation_clip=False,
    )  # fmt: skip
