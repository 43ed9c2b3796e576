"""Tables of numbers as coloured cells, in the style of `gpt2lab.plots.figures`."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpt2lab.base.wording import number, printable
from gpt2lab.plots.figures import GRID, INK, INVERSE, PAPER, Span, empty_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LONGEST = 9  # characters of a word in a cell
_LETTER = 0.085  # inches of a character at 10 points, on average


def heatmap(
    values: Sequence[Sequence[float]],
    *,
    rows: Sequence[object],
    columns: Sequence[object],
    x_label: str = "",
    y_label: str = "",
    label: str = "",
    limits: Span | None = None,
    diverging: bool = False,
    numbers: bool | None = None,
    cells: Sequence[Sequence[str]] | None = None,
    upwards: bool = False,
) -> "Figure":
    """Draw values [rows, columns] as coloured cells, with the numbers in them unless there are too many.

    `label` says what the colour means; `limits` fixes its ends; `diverging` centres it on 0; NaN stays grey. `cells` are
    words for the cells, in place of the numbers; upwards: the first row is at the bottom. Blanks and line breaks in names
    and words are made visible, for tokens.
    """
    low, high = _limits(values, limits, diverging=diverging)
    shown = cells is not None or (numbers if numbers is not None else len(rows) * len(columns) <= 120)
    with style():
        cell = 0.62 if shown else min(0.3, 6.0 / max(len(columns), 1))
        figure, axes = empty_figure(*_size(rows, columns, label, cell, shown=shown, words=cells is not None))
        colours = "RdBu" if diverging else "cividis"
        mesh = axes.pcolormesh(list(map(list, values)), vmin=low, vmax=high, cmap=colours)
        mesh.set_rasterized(len(rows) * len(columns) > 1200)  # an attention map would be megabytes of paths
        mesh.set_edgecolor(PAPER)
        mesh.set_linewidth(1.0 if shown else 0.0)
        axes.set_facecolor(GRID)
        axes.grid(visible=False)
        if not upwards:
            axes.invert_yaxis()
        _ticks(axes, rows, columns, width=72 * cell)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if shown:
            words = cells if cells is not None else [[_written(value) for value in row] for row in values]
            _write_cells(axes, values, words, low, high, diverging, size=7 if cells is not None else 9)
        if label:
            figure.colorbar(mesh, ax=axes, label=label, shrink=0.9, pad=0.02).outline.set_visible(False)
    return figure


def _limits(values: Sequence[Sequence[float]], limits: Span | None, *, diverging: bool) -> Span:
    """The ends of the colours, never equal."""
    finite = [value for row in values for value in row if math.isfinite(value)]
    low, high = limits or ((min(finite), max(finite)) if finite else (0.0, 1.0))
    if diverging and limits is None:
        high = max(abs(low), abs(high))
        low = -high
    return low, high if low != high else high + 1.0


def _size(
    rows: Sequence[object], columns: Sequence[object], label: str, cell: float, *, shown: bool, words: bool
) -> tuple[float, float]:
    """Width and height in inches: cells that can be read, and room for the names below and the label beside them."""
    tall = 0.62 * cell if shown else max(cell, min(0.17, 7.0 / max(len(rows), 1)))  # a row holds its name
    widest, tallest = (14.0, 12.0) if words else (9.0, 9.0)
    longest = max((len(str(name)) for name in columns), default=0)
    below = _LETTER * longest if longest * 6.0 > 72 * cell else 0.2  # names that stand upright
    height = 0.8 + below + max(tall * len(rows), _LETTER * len(label) - 0.3)
    return min(widest, max(3.4, 1.8 + cell * len(columns))), min(tallest, max(1.8, height))


def _ticks(axes: "Axes", rows: Sequence[object], columns: Sequence[object], width: float) -> None:
    """Name rows and columns at the middle of the cells, at most forty of each; long names stand upright.

    `width` is that of a cell in points.
    """
    names = [[token_label(name) for name in side] for side in (rows, columns)]
    if max((len(name) for name in names[1]), default=0) * 6.0 > width:
        axes.tick_params(axis="x", labelrotation=90)
    for axis, side in zip((axes.yaxis, axes.xaxis), names, strict=True):
        every = math.ceil(len(side) / 40) or 1
        axis.set_ticks([i + 0.5 for i in range(0, len(side), every)], side[::every])


def token_label(token: object) -> str:
    """Return a token as a label: blanks, line breaks and control characters can be seen."""
    plain = str(token).replace("\n", "↵").replace("\t", "→")
    return printable(plain).strip() or "␣"


def _written(value: float) -> str:
    return number(value, 3) if math.isfinite(value) else "–"


def _write_cells(
    axes: "Axes",
    values: Sequence[Sequence[float]],
    words: Sequence[Sequence[str]],
    low: float,
    high: float,
    diverging: bool,
    size: int,
) -> None:
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            share = (value - low) / (high - low)
            dark = abs(share - 0.5) > 0.32 if diverging else share < 0.55
            axes.text(
                j + 0.5, i + 0.5, token_label(words[i][j][:_LONGEST]), ha="center", va="center",
                color=INVERSE if dark and math.isfinite(value) else INK, fontsize=size,
            )  # fmt: skip
