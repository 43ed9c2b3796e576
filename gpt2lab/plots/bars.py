"""Bars that are stacked of parts, and bars to both sides of zero, in the style of `gpt2lab.plots.figures`."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gpt2lab.base.errors import LabError
from gpt2lab.base.wording import number
from gpt2lab.plots.figures import INK, PALETTE, empty_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def stacked_bars(
    rows: Mapping[str, Mapping[str, float]],
    *,
    label: str,
    reference: Mapping[str, float] | None = None,
    width: float = 6.4,
) -> "Figure":
    """Draw a horizontal bar for each name, stacked of its parts, with their sum behind it; the first row is on top.

    rows: name → part → size. Parts below 0 are stacked to the left of 0; those that are not finite are left out. A part has
    one colour in all rows. reference: name → value of a vertical line. LabError without a row or a part.
    """
    parts = list(dict.fromkeys(part for of in rows.values() for part in of))
    if not parts:
        raise LabError("a chart of stacked bars needs a row with a part")
    with style():
        figure, axes = empty_figure(width, 1.3 + 0.42 * len(rows) + 0.22 * math.ceil(len(parts) / 4))
        for index, part in enumerate(parts):
            sizes = [of.get(part, 0.0) if math.isfinite(of.get(part, 0.0)) else 0.0 for of in rows.values()]
            begins = [_begin(of, parts[:index], size) for of, size in zip(rows.values(), sizes, strict=True)]
            colour = PALETTE[index % len(PALETTE)]
            axes.barh(range(len(rows)), sizes, left=begins, color=colour, height=0.62, label=part)
        for place, of in enumerate(rows.values()):
            finite = [size for size in of.values() if math.isfinite(size)]
            end = sum(size for size in finite if size > 0)
            axes.annotate(
                number(sum(finite), 3), (end, place), (4, 0), textcoords="offset points", va="center"
            )
        for name, value in (reference or {}).items():
            axes.axvline(value, color=INK, linestyle="--", linewidth=1.0)
            axes.annotate(
                name,
                (value, 0.0),
                (3, 3),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                color=INK,
            )
        axes.set_yticks(range(len(rows)), list(rows))
        axes.invert_yaxis()
        axes.margins(x=0.1)
        axes.grid(visible=False)
        axes.grid(visible=True, axis="x")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(label)
        figure.legend(ncols=min(len(parts), 4), loc="outside upper center", fontsize=9)
    return figure


def _begin(of: Mapping[str, float], before: list[str], size: float) -> float:
    """Where a part begins: behind those of its sign."""
    sizes = (of.get(part, 0.0) for part in before)
    return sum(one for one in sizes if math.isfinite(one) and (one < 0) == (size < 0))


def signed_bars(rows: Sequence[tuple[str, float]], *, label: str, width: float = 6.4) -> "Figure":
    """Draw a horizontal bar for each (name, value), the first on top: to the right of 0, or to the left in another colour.

    Names may repeat. Values that are not finite have no bar. LabError without a row.
    """
    if not rows:
        raise LabError("a chart of bars needs a row")
    with style():
        figure, axes = empty_figure(width, 0.9 + 0.24 * len(rows))
        for place, (_, value) in enumerate(rows):
            if math.isfinite(value):
                axes.barh(place, value, color=PALETTE[0 if value >= 0 else 1], height=0.62)
        axes.axvline(0.0, color=INK, linewidth=1.0)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.grid(visible=True, axis="x")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(label)
    return figure
