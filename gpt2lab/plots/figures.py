"""Figures in one style: colour-blind safe, labelled at the line and not in a legend, text kept as text.

Every function returns a `matplotlib.figure.Figure` without pyplot and without global state. matplotlib is an
extra, `[plots]`, imported when a figure is made.
"""

import contextlib
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element

from gpt2lab.base.errors import LabError
from gpt2lab.base.extras import install
from gpt2lab.base.wording import number
from gpt2lab.plots.svg import clean_svg, set_style, style_of, to_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GRID, MUTED, PAPER = "#22272e", "#dfe3e8", "#6b7280", "#ffffff"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#b5528b", "#c08a00", "#4aa3df", "#7d6bd1", "#7f7f7f")
"""Okabe and Ito's colours, the light ones darkened until they read as thin lines on white."""
INVERSE = "#fefefe"  # writing on a dark cell; unlike PAPER it stays light on a dark page

Points = tuple[Sequence[float], Sequence[float]]
Span = tuple[float, float]


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw in the lab's style inside this block; LabError if matplotlib is missing."""
    try:
        from cycler import cycler
        from matplotlib import rc_context
    except ImportError:
        raise LabError(f"figures need matplotlib: {install('plots')}") from None
    options: Any = {
        "font.family": "sans-serif",
        "font.size": 10,
        "text.color": INK,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "axes.prop_cycle": cycler(color=PALETTE),
        "grid.color": GRID,
        "grid.linewidth": 0.7,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "lines.linewidth": 1.8,
        "lines.solid_capstyle": "round",
        "legend.frameon": False,
        "figure.facecolor": PAPER,
        "axes.facecolor": PAPER,
        "figure.constrained_layout.use": True,
        "text.parse_math": False,  # a dollar in a name is no formula
        "svg.fonttype": "none",  # text as text: it can be searched, read aloud and scaled
        "svg.hashsalt": "gpt2lab",  # the same figure gives the same file
    }
    with rc_context(options):
        yield


def new_figure(width: float = 6.4, height: float = 3.6) -> "Figure":
    """Return a figure of this size in inches without axes. What is added to it is drawn inside `style()`."""
    with style():
        from matplotlib.figure import Figure

        return Figure(figsize=(width, height))


def empty_figure(width: float = 6.4, height: float = 3.6) -> tuple["Figure", "Axes"]:
    """Return a figure of this size in inches with one pair of axes, in the lab's style."""
    with style():
        figure = new_figure(width, height)
        return figure, figure.add_subplot()


def line_chart(
    series: Mapping[str, Points],
    *,
    x_label: str,
    y_label: str,
    bands: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    log_x: bool = False,
    log_y: bool = False,
    linear_below: float | None = None,
    markers: bool = False,
    dashed: Sequence[str] = (),
    width: float = 6.4,
    height: float = 3.6,
) -> "Figure":
    """Draw lines, each named at its right end.

    series: name → (x, y). bands: name → (lower y, upper y) at the same x, drawn as a shade (a range over seeds, an
    interval). `dashed` names lines of reference. linear_below: the x axis is linear up to there,
    then logarithmic. Points that are not finite leave gaps.
    """
    if not series:
        raise LabError("a line chart needs at least one series")
    with style():
        figure, axes = empty_figure(width, height)
        for index, (name, (x, y)) in enumerate(series.items()):
            colour = PALETTE[index % len(PALETTE)]
            dash = "--" if name in dashed else "-"
            marker = "o" if markers or len(x) == 1 else ""
            axes.plot(x, y, dash, color=colour, marker=marker, markersize=4, clip_on=not marker)
            if bands and name in bands:
                axes.fill_between(x, *bands[name], color=colour, alpha=0.15, linewidth=0)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if log_x:
            axes.set_xscale("log")
            _plain_numbers(axes.xaxis)
        elif all(float(value).is_integer() for x, _ in series.values() for value in x):
            from matplotlib.ticker import MaxNLocator

            axes.xaxis.set_major_locator(MaxNLocator(integer=True))  # there is no update 2.5
        if linear_below is not None:
            _linear_then_log(axes, linear_below)
        if log_y:
            axes.set_yscale("log")
            _plain_numbers(axes.yaxis)
        axes.margins(x=0.0 if max(len(x) for x, _ in series.values()) > 1 else 0.1)
        if len(series) > 1:
            _label_ends(figure, axes, series)
    return figure


def column_chart(
    rows: Sequence[Mapping[str, Any]], x: str, y: str, *, x_label: str, y_label: str, log_x: bool = False
) -> "Figure":
    """Draw column `y` of a table against column `x`, a point for each row."""
    points = ([row[x] for row in rows], [row[y] for row in rows])
    return line_chart({y: points}, x_label=x_label, y_label=y_label, log_x=log_x, markers=True)


def scatter(
    points: Mapping[str, Points],
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    width: float = 6.4,
    height: float = 4.0,
) -> "Figure":
    """Draw a dot for every mean of (x, y), named at the right in its colour, and a smaller one for each value (the seeds).

    points: name → (values of x, values of y). Pairs that are not finite are left out, and the name says how many are left:
    `beam (2 of 3)`. LabError if there is nothing left.
    """
    pairs = {
        name: [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b)]
        for name, (x, y) in points.items()
    }
    pairs = {
        name
        if len(found) == len(points[name][0])
        else f"{name} ({len(found)} of {len(points[name][0])})": found
        for name, found in pairs.items()
        if found
    }
    if not pairs:
        raise LabError("a scatter plot needs at least one point")
    means: dict[str, Span] = {}
    with style():
        figure, axes = empty_figure(width, height)
        for index, (name, found) in enumerate(pairs.items()):
            colour = PALETTE[index % len(PALETTE)]
            x, y = ([pair[i] for pair in found] for i in (0, 1))
            mean = sum(x) / len(x), sum(y) / len(y)
            mark = "osD^"[index // len(PALETTE) % 4]  # a second thing of the same colour has another shape
            axes.plot(x, y, mark, color=colour, markersize=3, alpha=0.5)
            axes.plot(*mean, mark, color=colour, markersize=7)
            means[name] = mean
        if log_x:
            axes.set_xscale("log")
            _plain_numbers(axes.xaxis)
        axes.margins(0.08)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        right = axes.get_xlim()[1]
        axes.set_xlim(right=right)
        _label_ends(figure, axes, {name: ([right], [mean[1]]) for name, mean in means.items()})
    return figure


def band_over_seeds(seeds: Sequence[Points]) -> tuple[Points, tuple[list[float], list[float]]]:
    """Return the mean curve of several seeds and its (lowest, highest) values, at the x that all share."""
    curves = [dict(zip(x, y, strict=True)) for x, y in seeds]
    shared = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    values = [[curve[x] for curve in curves] for x in shared]
    mean = [sum(column) / len(column) for column in values]
    return (shared, mean), ([min(column) for column in values], [max(column) for column in values])


def to_svg(figure: "Figure", title: str = "") -> str:
    """Return a figure as one `<svg>` element, with `title` for screen readers; the same figure, the same text."""
    text = io.StringIO()
    with style():
        figure.savefig(
            text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    return tidy_svg(text.getvalue(), title)


def tidy_svg(svg: str, title: str = "") -> str:
    """Return an SVG file's drawing alone, fit to be part of a page (see `clean_svg`), named `title` if it has no name.

    LabError if there is no SVG element.
    """
    drawing = clean_svg(svg)
    for empty in [one for one in drawing.findall("defs") if not len(one)]:
        drawing.remove(empty)
    for element in drawing.iter():
        # Only the last, generic family of matplotlib's list is on every machine; its sizes were reckoned with DejaVu
        # Sans, which is wider than most, so nothing overlaps.
        styles = style_of(element)
        for name in ("font", "font-family"):
            if name in styles:
                styles[name] = re.sub(r"'DejaVu Sans'.*", "system-ui, sans-serif", styles[name])
        set_style(element, styles)
    if drawing.get("role") is None:
        drawing.set("role", "img")
        drawing.set("stroke-linejoin", "round")
    if title and drawing.find("title") is None:
        named = Element("title")
        named.text, named.tail = title, "\n"
        drawing.insert(0, named)
    return to_text(drawing)


def _label_ends(figure: "Figure", axes: "Axes", series: Mapping[str, Points]) -> None:
    """Name every line at its right end, moved up or down as far as it takes to keep the names apart."""
    ends = []
    for index, (name, (x, y)) in enumerate(series.items()):
        known = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(b)]
        if known:
            ends.append(
                (axes.transData.transform(known[-1])[1], known[-1], name, PALETTE[index % len(PALETTE)])
            )
    ends.sort(key=lambda end: end[0])
    figure.draw_without_rendering()  # the layout moves the axes, and with them the ends
    places = [axes.transData.transform(point)[1] for _, point, _, _ in ends]
    apart = 13.0 * figure.dpi / 72
    box = axes.get_window_extent()
    moved = spread(places, apart, low=box.y0 + apart / 2, high=box.y1)  # the axis has its own words below
    right = max(point[0] for _, point, _, _ in ends) if ends else 0.0
    for place, target, (_, point, name, colour) in zip(places, moved, ends, strict=True):
        shift = (target - place) * 72 / figure.dpi
        axes.annotate(
            name, (right, point[1]), (7, shift), textcoords="offset points", color=colour, va="center",
            annotation_clip=False,
        )  # fmt: skip


def spread(
    places: Sequence[float], apart: float, *, low: float = -math.inf, high: float = math.inf
) -> list[float]:
    """Return sorted places moved as little as it takes to lie `apart` from each other, between `low` and `high`.

    Neighbours that are too near form a block around the mean of where they want to be. More than there is room for go
    beyond `high`.
    """
    blocks: list[tuple[float, int]] = []  # (mean of the places, size)

    def centre(mean: float, size: int) -> float:
        reach = (size - 1) * apart / 2
        return max(min(mean, high - reach), low + reach)

    for place in places:
        mean, size = place, 1
        while blocks and centre(mean, size) - centre(*blocks[-1]) < (size + blocks[-1][1]) * apart / 2:
            before, many = blocks.pop()
            mean = (before * many + mean * size) / (many + size)
            size += many
        blocks.append((mean, size))
    return [centre(mean, size) + (i - (size - 1) / 2) * apart for mean, size in blocks for i in range(size)]


def _linear_then_log(axes: "Axes", bound: float) -> None:
    """Make the x axis linear up to the bound and logarithmic beyond it, with ticks on both sides."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    low, high = axes.dataLim.intervalx
    axes.set_xscale("symlog", linthresh=bound, linscale=2.0)
    linear = [float(tick) for tick in MaxNLocator(4).tick_values(min(low, 0.0), bound) if tick <= bound]
    decades = range(math.floor(math.log10(bound)), math.ceil(math.log10(max(high, bound))) + 1)
    beyond = [m * 10.0**power for power in decades for m in (1, 2, 5) if bound < m * 10.0**power <= high]
    axes.xaxis.set_major_locator(FixedLocator([*linear, *beyond]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, 3)))


def _plain_numbers(axis: Any) -> None:
    """Write 4,000 and not 4 × 10³ on a logarithmic axis, and between the decades only where there are few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    short = high / low < 200
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value, 3)))
    axis.set_tick_params(
        which="minor", pad=5.0
    )  # level with the numbers of the decades, whose ticks are longer
    axis.set_minor_locator(LogLocator(subs=(2.0, 5.0) if short else range(2, 10)))
    axis.set_minor_formatter(FuncFormatter(lambda value, _: number(value, 3)) if short else NullFormatter())
