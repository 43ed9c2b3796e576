"""All claims of a study in one figure: a row each, every interval against its own threshold."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from gpt2lab.base.interval import Interval
from gpt2lab.plots.figures import INK, MUTED, PALETTE, PAPER
from gpt2lab.plots.interval_strip import WIDTH, Shade, drawing, stroke, text

_BLUE, _ORANGE, _GREEN = PALETTE[0], PALETTE[1], PALETTE[2]
_LEFT, _RIGHT = 14.0, 346.0  # of the line; the answer stands beside it
_MIDDLE, _REACH = (_LEFT + _RIGHT) / 2, (_RIGHT - _LEFT) / 2 - 8
_TOP, _ROW = 32.0, 52.0
_FAR = 2.5  # a paper's value further out than this many times the rest is an arrow


@dataclass(frozen=True)
class Row:
    """A claim as the figure shows it."""

    name: str
    """Its letter."""
    words: str
    """Its sentence, of which the beginning is shown."""
    answer: str
    """The verdict with its mark: `✓ holds`."""
    wanted: Shade | None
    """Where the quantity lies if the claim is true; without it there is no line."""
    weaker: Shade | None = None
    """Where it lies if the claim is true in part."""
    values: Sequence[float] = ()
    """The quantity of every seed, drawn where there is no interval."""
    interval: Interval | None = None
    """Its interval."""
    paper: float | None = None
    """The paper's own value."""
    tested: bool = True
    """Whether the numbers say something of the claim; else they are grey."""


def claims_overview(rows: Sequence[Row], title: str) -> str:
    """Return an SVG element with a row for each claim: its sentence, its interval and the paper's value, the verdict.

    Every row has a scale of its own. Its middle is the threshold; to the right lie the numbers for which the claim is true,
    as far from the middle as they lie inside `wanted`, measured from its nearer end. title: for screen readers.
    """
    height = _TOP + _ROW * len(rows) + 4
    pieces = [
        f'<rect width="{WIDTH:.0f}" height="{height:.0f}" fill="{PAPER}"/>',
        text(_MIDDLE - 10, 14, "← claim untrue", MUTED, "end"),
        text(_MIDDLE + 10, 14, "claim true →", MUTED, "start"),
        text(_RIGHT + 14, 14, "verdict", MUTED, "start"),
    ]
    for at, row in enumerate(rows):
        pieces += _drawn(row, _TOP + _ROW * at)
    return drawing(height, title, pieces)


def _drawn(row: Row, top: float) -> list[str]:
    """Return a row: the sentence above, the line and the answer below it."""
    y = top + 26
    words = textwrap.shorten(row.words, 78, placeholder=" …")
    pieces = [
        text(_LEFT, top + 8, row.name, INK, "start", ' font-weight="700"'),
        text(_LEFT + 8 + 9 * len(row.name), top + 8, words, INK, "start"),
        text(_RIGHT + 14, y + 4, row.answer, INK, "start", ' font-weight="600"'),
    ]
    numbers = [] if row.wanted is None else _numbers(row)
    if row.wanted is None or not numbers:
        return [*pieces, text(_MIDDLE, y + 4, "no threshold" if row.wanted is None else "no number", MUTED)]
    paper = None if row.paper is None else _inside(row.wanted, row.paper)
    reach = max(map(abs, numbers))
    if paper is not None and abs(paper) <= _FAR * reach:
        reach = max(reach, abs(paper))
    scale = _REACH / (reach or 1.0)
    pieces.append(_shade(_MIDDLE, _RIGHT, y, 0.18))
    if row.weaker is not None:
        pieces.append(
            _shade(max(_LEFT, _MIDDLE + scale * _weaker_edge(row.wanted, row.weaker)), _MIDDLE, y, 0.08)
        )
    pieces.append(stroke(_LEFT, _RIGHT, y, y, MUTED, 0.8))
    pieces.append(stroke(_MIDDLE, _MIDDLE, y - 12, y + 12, _GREEN, 1.6))
    if paper is not None:
        pieces += _paper(_MIDDLE + scale * paper, y)
    return pieces + _found(row, [_MIDDLE + scale * one for one in numbers], y)


def _shade(left: float, right: float, y: float, strength: float) -> str:
    size = f'x="{left:.1f}" y="{y - 10:.1f}" width="{right - left:.1f}" height="20"'
    return f'<rect {size} fill="{_GREEN}" fill-opacity="{strength}"/>'


def _weaker_edge(wanted: Shade, weaker: Shade) -> float:
    """Return how far outside the wanted range the weaker one ends, at the nearer of its ends; 0 or less."""
    outside = [_inside(wanted, end) for end in (weaker.low, weaker.high) if math.isfinite(end)]
    return max((one for one in outside if one < 0), default=0.0)


def _numbers(row: Row) -> list[float]:
    """Return how far inside the wanted range the interval lies, as low, mean, high; else each seed."""
    assert row.wanted is not None
    interval = row.interval
    if interval is None or not all(map(math.isfinite, (interval.low, interval.mean, interval.high))):
        return [_inside(row.wanted, value) for value in row.values if math.isfinite(value)]
    ends = [_inside(row.wanted, end) for end in (interval.low, interval.high)]
    # Of a range with two ends the best of the interval may lie between its own ends.
    middle = (row.wanted.low + row.wanted.high) / 2
    best = min(max(middle, interval.low), interval.high) if math.isfinite(middle) else interval.mean
    return [min(ends), _inside(row.wanted, interval.mean), max(*ends, _inside(row.wanted, best))]


def _inside(wanted: Shade, value: float) -> float:
    """Return how far inside a range a number lies, from its nearer end; below 0 outside."""
    return min(value - wanted.low, wanted.high - value)


def _found(row: Row, places: Sequence[float], y: float) -> list[str]:
    """Return the interval as a bar with its mean, or a dot for each seed."""
    colour = _BLUE if row.tested else MUTED
    if row.interval is None or len(places) != 3 or not math.isfinite(row.interval.low):
        return [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6" fill="{colour}"/>' for x in places]
    low, mean, high = places
    return [
        stroke(low, high, y, y, colour, 6, ' stroke-opacity="0.55"'),
        *(stroke(end, end, y - 5, y + 5, colour, 1.5) for end in (low, high)),
        f'<circle cx="{mean:.1f}" cy="{y:.1f}" r="4.2" fill="{colour}"/>',
    ]


def _paper(x: float, y: float) -> list[str]:
    """Return the paper's value as a diamond, beyond the line as an arrow at its end."""
    if x < _LEFT or x > _RIGHT:
        at, turn = (_LEFT, 7.0) if x < _LEFT else (_RIGHT, -7.0)
        return [f'<path d="M{at} {y} l{turn} -6 v12 z" fill="{_ORANGE}"/>']
    return [
        f'<path d="M{x:.1f} {y - 7:.1f} l6 7 l-6 7 l-6 -7 z" fill="{PAPER}" stroke="{_ORANGE}" stroke-width="2"/>'
    ]
