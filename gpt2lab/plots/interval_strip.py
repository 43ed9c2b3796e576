"""A number line with ranges shaded, an interval and the values behind it."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from gpt2lab.base.interval import Interval
from gpt2lab.base.wording import number
from gpt2lab.plots.figures import GRID, INK, MUTED, PALETTE, PAPER, spread

_WIDTH, _HEIGHT = 480.0, 80.0  # narrow: its writing is still read on a telephone
_LEFT, _RIGHT, _LINE = 16.0, 464.0, 35.0
_BLUE, _GREEN = PALETTE[0], PALETTE[2]

Ends = tuple[float, float]


def interval_strip(
    values: Sequence[float],
    *,
    interval: Interval | None = None,
    inner: Ends | None = None,
    outer: Ends | None = None,
    title: str = "",
) -> str:
    """Return an SVG element: dots for the values, a bar for the interval with its mean, shades for two ranges.

    inner, outer: the ends of the ranges; the outer one is paler. Without a range the line has numbers instead. "" if no
    value is finite, or if there is no range and only one value.
    """
    values = [value for value in values if math.isfinite(value)]
    if not values:
        return ""
    ranges = [(ends, strength) for ends, strength in ((outer, 0.10), (inner, 0.18)) if ends]
    borders = sorted({end for ends, _ in ranges for end in ends if math.isfinite(end)})
    if not ranges and len(values) == 1:
        return ""
    shown = interval if interval is not None and _has_ends(interval) else None
    spans = [shown.low, shown.high] if shown is not None else []
    axis = _Axis([*values, *borders, *spans])
    pieces = [f'<rect width="{_WIDTH:.0f}" height="{_HEIGHT:.0f}" fill="{PAPER}"/>']
    pieces.append(_stroke(_LEFT, _RIGHT, _LINE, _LINE, GRID, 2))
    pieces += [axis.shade(ends, strength) for ends, strength in ranges]
    pieces += [_stroke(axis.x(end), axis.x(end), 14, 54, _GREEN, 1.5) for end in borders]
    ticks = [] if borders else axis.ticks()
    pieces += [_stroke(axis.x(tick), axis.x(tick), 30, 40, GRID, 1.5) for tick in ticks]
    pieces += _labels(
        axis, {end: number(end, 3) for end in borders} | {tick: number(tick, 6) for tick in ticks}
    )
    if shown is not None:
        low, mean, high = (axis.x(end) for end in (shown.low, shown.mean, shown.high))
        pieces.append(
            _stroke(low, high, _LINE, _LINE, _BLUE, 6, ' stroke-opacity="0.45" stroke-linecap="round"')
        )
        pieces += [_stroke(mean, mean, 24, 44, _BLUE, 2.5), _label(mean, 12, number(shown.mean, 3), INK)]
    pieces += [f'<circle cx="{axis.x(value)}" cy="{_LINE}" r="4" fill="{_BLUE}"/>' for value in values]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" width="{_WIDTH:.0f}" '
        f'height="{_HEIGHT:.0f}" role="img" font-family="system-ui, sans-serif" font-size="13">'
        f"<title>{escape(title)}</title>{''.join(pieces)}</svg>"
    )


class _Axis:
    """Places on the line for all of `numbers`, with room on both sides."""

    def __init__(self, numbers: Sequence[float]) -> None:
        low, high = min(numbers), max(numbers)
        margin = (high - low) * 0.12 or abs(high) * 0.1 or 1.0
        self.low, self.high = low - margin, high + margin

    def x(self, value: float) -> float:
        """Return the place of a number, at an end of the line if it lies beyond."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(_LEFT + share * (_RIGHT - _LEFT), 1)

    def ticks(self) -> list[float]:
        """Return two to six round numbers on the line: multiples of 1, 2 or 5 times a power of ten."""
        size = self.high - self.low
        power = 10.0 ** math.floor(math.log10(size))
        step = next(one * power for one in (0.2, 0.5, 1.0, 2.0) if size / (one * power) < 6)
        first = math.ceil(self.low / step)
        return [float(f"{at * step:.9g}") for at in range(first, math.floor(self.high / step) + 1)]

    def shade(self, ends: Ends, strength: float) -> str:
        """Return the shade of a range; an end at infinity is the line's."""
        left, right = self.x(max(ends[0], self.low)), self.x(min(ends[1], self.high))
        size = f'x="{left}" y="16" width="{right - left:.1f}" height="36"'
        return f'<rect {size} fill="{_GREEN}" fill-opacity="{strength}"/>'


def _has_ends(interval: Interval) -> bool:
    return all(map(math.isfinite, (interval.low, interval.mean, interval.high)))


def _stroke(x1: float, x2: float, y1: float, y2: float, colour: str, width: float, more: str = "") -> str:
    return f'<line x1="{x1}" x2="{x2}" y1="{y1}" y2="{y2}" stroke="{colour}" stroke-width="{width}"{more}/>'


def _labels(axis: _Axis, texts: Mapping[float, str]) -> list[str]:
    """Return the numbers under the line, moved as little as it takes to keep them apart."""
    apart = 7.5 * max(map(len, texts.values()), default=0) + 6.0
    places = spread([axis.x(value) for value in texts], apart)
    return [_label(round(x, 1), 72, text, MUTED) for x, text in zip(places, texts.values(), strict=True)]


def _label(x: float, y: float, text: str, colour: str) -> str:
    """Return a text centred at its place, but inside the picture."""
    anchor = "start" if x < 40 else "end" if x > _WIDTH - 40 else "middle"
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
