"""A number line with an axis: the values of the seeds, their interval, the threshold, no effect and the paper's value."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

from gpt2lab.base.interval import Interval
from gpt2lab.base.wording import number, printable
from gpt2lab.plots.figures import INK, MUTED, PALETTE, PAPER

WIDTH = 520.0  # narrow: its writing is still read on a telephone
_LEFT, _RIGHT = 14.0, WIDTH - 14.0
_LANE, _ROW, _BAR = 16.0, 9.0, 30.0  # heights: of a lane of labels, a row of dots, the row of the interval
_MOST_ROWS = 6
_LETTER = 6.4  # width of a letter of 12 pixels, rather too much than too little
_BLUE, _ORANGE, _GREEN = PALETTE[0], PALETTE[1], PALETTE[2]
_NEAR = 0.6  # a mark further outside than this share of the line does not stretch it


class Shade(NamedTuple):
    """A range of numbers that is shaded, with its words at its ends."""

    low: float
    """Lower end; -inf if there is none."""
    high: float
    """Upper end; inf if there is none."""
    words: str
    """What stands at its end: `holds if above 0`."""


@dataclass(frozen=True)
class _Mark:
    """A vertical line at a number, with words above it."""

    value: float
    words: str
    colour: str
    dash: str = ""
    bare: bool = False
    """Whether the words do not say the number, which is added where the mark lies beyond the line."""


def interval_strip(
    values: Sequence[float],
    *,
    interval: Interval | None = None,
    wanted: Shade | None = None,
    weaker: Shade | None = None,
    paper: float | None = None,
    no_effect: float | None = None,
    label: str = "",
    title: str = "",
) -> str:
    """Return an SVG element: an axis with numbers, a dot for each value, a bar for the interval with its mean.

    wanted, weaker: ranges, shaded, the weaker one paler, with a line and words at their ends. paper, no_effect: lines with
    their names; without `no_effect`, zero has a line. What lies far beyond the numbers is an arrow at the edge. label: what
    the axis measures, with its unit. title: for screen readers. "" if there is no finite number to show, or a lone one with
    nothing to compare it with.
    """
    values = sorted(value for value in values if math.isfinite(value))
    shown = interval if interval is not None and _has_ends(interval) else None
    spans = [shown.low, shown.high] if shown is not None else []
    ends = [] if wanted is None else [end for end in (wanted.low, wanted.high) if math.isfinite(end)]
    if not values and not spans:
        return ""
    if len({*values, *spans, *ends}) == 1 and len(values) == 1:
        return ""
    marks = _marks(wanted, weaker, paper, no_effect)
    axis = Axis([*values, *spans, *ends], [mark.value for mark in marks])
    lanes = _lanes(axis, marks)
    rows = _rows(axis, values)
    top = _LANE * (1 + max((lane for _, _, lane in lanes), default=-1)) + 4
    dots = top + (_BAR if shown is not None else 6.0)
    line = dots + _ROW * max(rows, default=-1) + (_ROW if rows else 0) + 7
    below = textwrap.wrap(label, 76, max_lines=2, placeholder=" …")
    height = line + 24 + 15 * len(below) + 4
    pieces = [f'<rect width="{WIDTH:.0f}" height="{height:.0f}" fill="{PAPER}"/>']
    pieces += [_shade(axis, one, depth, top, line) for one, depth in ((weaker, 0.10), (wanted, 0.18)) if one]
    pieces += _axis(axis, line)
    pieces += [
        _line(axis, mark, top - 3 - _LANE * lane, line) for mark, _, lane in lanes if axis.shows(mark.value)
    ]
    pieces += [
        text(x, top - 7 - _LANE * lane, _words(axis, mark), INK if mark.colour == _GREEN else mark.colour)
        for mark, x, lane in lanes
        if mark.words
    ]
    pieces += [
        f'<circle cx="{axis.x(value)}" cy="{dots + _ROW * row:.1f}" r="3.6" fill="{_BLUE}"/>'
        for value, row in zip(values, rows, strict=True)
    ]
    if shown is not None:
        pieces += _bar(axis, shown, top + 20)
    pieces += [text(WIDTH / 2, line + 38 + 15 * at, words, INK) for at, words in enumerate(below)]
    return drawing(height, title, pieces)


def drawing(height: float, title: str, pieces: Sequence[str], width: float = WIDTH) -> str:
    """Return an `<svg>` element of these pieces, `title` for screen readers."""
    return printable(  # a name of somebody else's claim may hold what a drawing cannot
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" font-family="system-ui, sans-serif" font-size="12">'
        f"<title>{escape(title)}</title>{''.join(pieces)}</svg>"
    )


def stroke(x1: float, x2: float, y1: float, y2: float, colour: str, width: float, more: str = "") -> str:
    """Return a straight line."""
    return (
        f'<line x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-width="{width}"{more}/>'
    )


def text(x: float, y: float, words: str, colour: str, anchor: str = "middle", more: str = "") -> str:
    """Return words with a rim in the colour of the page, so that a line behind them does not cross them."""
    rim = f' stroke="{PAPER}" stroke-width="3" paint-order="stroke"'
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{rim}{more}>{escape(words)}</text>'


class Axis:
    """Places on the line for all of `numbers`, and for those of `others` that lie near them."""

    def __init__(self, numbers: Sequence[float], others: Sequence[float] = ()) -> None:
        low, high = min(numbers), max(numbers)
        size = (high - low) or abs(high) * 0.2 or 1.0
        near = [one for one in others if low - _NEAR * size <= one <= high + _NEAR * size]
        low, high = min(low, *near, high), max(high, *near, low)
        margin = (high - low) * 0.07 or size / 2
        self.low, self.high = low - margin, high + margin

    def x(self, value: float) -> float:
        """Return the place of a number, at an end of the line if it lies beyond."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(_LEFT + share * (_RIGHT - _LEFT), 1)

    def shows(self, value: float) -> bool:
        """Tell whether a number lies on the line."""
        return self.low <= value <= self.high

    def words(self, value: float, step: float) -> str:
        """Write a number so that a difference of `step` shows, with at least three digits."""
        largest = max(abs(self.low), abs(self.high), step)
        return number(
            value, max(3, 2 + math.floor(math.log10(largest)) - math.floor(math.log10(step) + 1e-9))
        )

    def ticks(self) -> dict[float, str]:
        """Return round numbers on the line with their texts: multiples of 1, 2 or 5 times a power of ten, with room."""
        size = self.high - self.low
        power = 10.0 ** math.floor(math.log10(size))
        for step in (one * power for one in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)):
            first, last = math.ceil(self.low / step), math.floor(self.high / step)
            if last - first > 8:
                continue
            found = [float(f"{at * step:.12g}") for at in range(first, last + 1)]
            texts = [self.words(tick, step) for tick in found]
            apart = (_RIGHT - _LEFT) * step / size
            if max(map(len, texts), default=0) * _LETTER + 10 <= apart:
                return dict(zip(found, texts, strict=True))
        return {}


def _has_ends(interval: Interval) -> bool:
    return all(map(math.isfinite, (interval.low, interval.mean, interval.high)))


def _marks(
    wanted: Shade | None, weaker: Shade | None, paper: float | None, no_effect: float | None
) -> list[_Mark]:
    """Return the lines to draw; those at one number are one line with the words of all."""
    marks = [
        *_borders(weaker, _GREEN, "4 3"),
        *_borders(wanted, _GREEN, ""),
        *([_Mark(paper, f"the paper: {number(paper, 3)}", _ORANGE, "2 3")] if paper is not None else []),
    ]
    neutral = 0.0 if no_effect is None else no_effect
    if no_effect is not None or all(mark.value != 0 for mark in marks):
        words = "zero" if no_effect is None else "no effect"
        marks.append(_Mark(neutral, words, MUTED, "6 4", bare=no_effect is not None))
    together: dict[float, _Mark] = {}
    for mark in marks:
        first = together.get(mark.value)
        if first is not None:
            mark = _Mark(mark.value, f"{first.words} · {mark.words}", first.colour, first.dash)
        together[mark.value] = mark
    return list(together.values())


def _borders(shade: Shade | None, colour: str, dash: str) -> list[_Mark]:
    """Return a line at each finite end of a range, the words at the first."""
    if shade is None:
        return []
    ends = [end for end in (shade.low, shade.high) if math.isfinite(end)]
    return [_Mark(end, shade.words if at == 0 else "", colour, dash) for at, end in enumerate(ends)]


def _lanes(axis: Axis, marks: Sequence[_Mark]) -> list[tuple[_Mark, float, int]]:
    """Return the marks with the place of their words, (mark, x, lane): lane 0 is the lowest that has room there."""
    placed: list[tuple[_Mark, float, int]] = []
    taken: list[list[tuple[float, float]]] = []
    for mark in sorted(marks, key=lambda mark: mark.value):
        words = _words(axis, mark)
        half, x = _LETTER * len(words) / 2, _inside(axis.x(mark.value), words)
        lane = next(
            (
                at
                for at, others in enumerate(taken)
                if all(x + half + 8 < left or x - half - 8 > right for left, right in others)
            ),
            len(taken),
        )
        if lane == len(taken):
            taken.append([])
        taken[lane].append((x - half, x + half))
        placed.append((mark, x, lane))
    return placed


def _inside(x: float, words: str) -> float:
    """Return where the middle of words stands, moved as far as it takes to keep them inside the picture."""
    half = _LETTER * len(words) / 2 + 2
    return min(max(x, half), WIDTH - half)


def _words(axis: Axis, mark: _Mark) -> str:
    """Return the words of a mark; beyond the line with an arrow and the number, if it is not said."""
    if axis.shows(mark.value):
        return mark.words
    words = f"{mark.words}: {number(mark.value, 3)}" if mark.bare else mark.words
    return f"← {words}" if mark.value < axis.low else f"{words} →"


def _line(axis: Axis, mark: _Mark, above: float, below: float) -> str:
    """Return a mark's line, up to its words."""
    dash = f' stroke-dasharray="{mark.dash}"' if mark.dash else ""
    return stroke(axis.x(mark.value), axis.x(mark.value), above, below, mark.colour, 1.6, dash)


def _rows(axis: Axis, values: Sequence[float]) -> list[int]:
    """Return the row of each dot of ascending values: those that would hide another go to the next row."""
    last: list[float] = []
    rows = []
    for x in map(axis.x, values):
        row = next((at for at, before in enumerate(last) if x - before >= 8), len(last))
        row = min(row, _MOST_ROWS - 1)
        last[row : row + 1] = [x]
        rows.append(row)
    return rows


def _shade(axis: Axis, shade: Shade, strength: float, top: float, line: float) -> str:
    """Return the shade of a range; an end at infinity is the line's."""
    left, right = axis.x(shade.low), axis.x(shade.high)
    size = f'x="{left}" y="{top:.1f}" width="{right - left:.1f}" height="{line - top:.1f}"'
    return f'<rect {size} fill="{_GREEN}" fill-opacity="{strength}"/>'


def _axis(axis: Axis, line: float) -> list[str]:
    """Return the axis with its ticks and numbers."""
    pieces = [stroke(_LEFT, _RIGHT, line, line, MUTED, 1)]
    for tick, words in axis.ticks().items():
        x = axis.x(tick)
        pieces.append(stroke(x, x, line, line + 5, MUTED, 1))
        if _inside(x, words) == x:
            pieces.append(text(x, line + 19, words, MUTED))
    return pieces


def _bar(axis: Axis, interval: Interval, y: float) -> list[str]:
    """Return the interval as a bar with ends, its mean as a line with its number."""
    low, mean, high = (axis.x(end) for end in (interval.low, interval.mean, interval.high))
    words = axis.words(interval.mean, axis.high - axis.low)
    return [
        stroke(low, high, y, y, _BLUE, 5, ' stroke-opacity="0.5"'),
        *(stroke(end, end, y - 4, y + 4, _BLUE, 1.5) for end in (low, high)),
        stroke(mean, mean, y - 6, y + 6, _BLUE, 2.5),
        text(_inside(mean, words), y - 8, words, INK),
    ]
