"""A claim as a picture: a number line with the range in which it holds, the interval and the seeds."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from gpt2lab.base.wording import number
from gpt2lab.plots.figures import GRID, INK, MUTED, PALETTE, PAPER, spread

_WIDTH, _HEIGHT = 480.0, 80.0  # narrow: its writing is still read on a telephone
_LEFT, _RIGHT, _LINE = 16.0, 464.0, 35.0
_BLUE, _GREEN = PALETTE[0], PALETTE[2]


def claim_strip(claim: Mapping[str, Any]) -> str:
    """Return an SVG element for a claim (as `judged_claims` reads it); "" without a value, or for one without a range.

    The shade is where the claim holds, the paler one where it holds in part, with their ends; a claim with a rule of its
    own has the numbers of the line instead. Dots are seeds; the bar is the 95 % interval with its mean.
    """
    values = [value for _, value in claim["values"] if math.isfinite(value)]
    if not values:
        return ""
    ranges = [(given, strength) for given, strength in _ranges(claim) if given]
    borders = sorted({end for given, _ in ranges for end in map(_finite, _ends(given)) if end is not None})
    if not ranges and len(values) == 1:
        return ""
    interval = claim["interval"] if _has_ends(claim["interval"]) else None
    spans = [interval["low"], interval["high"]] if interval is not None else []
    axis = _Axis([*values, *borders, *spans])
    pieces = [f'<rect width="{_WIDTH:.0f}" height="{_HEIGHT:.0f}" fill="{PAPER}"/>']
    pieces.append(_stroke(_LEFT, _RIGHT, _LINE, _LINE, GRID, 2))
    pieces += [axis.shade(given, strength) for given, strength in ranges]
    pieces += [_stroke(axis.x(end), axis.x(end), 14, 54, _GREEN, 1.5) for end in borders]
    ticks = [] if borders else axis.ticks()
    pieces += [_stroke(axis.x(tick), axis.x(tick), 30, 40, GRID, 1.5) for tick in ticks]
    pieces += _labels(
        axis, {end: number(end, 3) for end in borders} | {tick: number(tick, 6) for tick in ticks}
    )
    if interval is not None:
        low, mean, high = (axis.x(interval[name]) for name in ("low", "mean", "high"))
        pieces.append(
            _stroke(low, high, _LINE, _LINE, _BLUE, 6, ' stroke-opacity="0.45" stroke-linecap="round"')
        )
        pieces += [
            _stroke(mean, mean, 24, 44, _BLUE, 2.5),
            _label(mean, 12, number(interval["mean"], 3), INK),
        ]
    pieces += [f'<circle cx="{axis.x(value)}" cy="{_LINE}" r="4" fill="{_BLUE}"/>' for value in values]
    title = escape(f"{claim['name']}: {claim['status']}. {claim['reason']}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" width="{_WIDTH:.0f}" '
        f'height="{_HEIGHT:.0f}" role="img" font-family="system-ui, sans-serif" font-size="13">'
        f"<title>{title}</title>{''.join(pieces)}</svg>"
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

    def shade(self, given: Mapping[str, Any], strength: float) -> str:
        """Return the shade of a range; an end at infinity is the line's."""
        low, high = map(_finite, _ends(given))
        left, right = self.x(self.low if low is None else low), self.x(self.high if high is None else high)
        size = f'x="{left}" y="16" width="{right - left:.1f}" height="36"'
        return f'<rect {size} fill="{_GREEN}" fill-opacity="{strength}"/>'


def _ranges(claim: Mapping[str, Any]) -> list[tuple[Any, float]]:
    return [(claim["holds_in_part_if"], 0.10), (claim["holds_if"], 0.18)]


def _ends(given: Mapping[str, Any]) -> tuple[Any, Any]:
    return given["low"], given["high"]


def _has_ends(interval: Mapping[str, Any] | None) -> bool:
    return interval is not None and all(math.isfinite(interval[name]) for name in ("low", "mean", "high"))


def _finite(value: Any) -> float | None:
    """Return a number unless it is infinite, which JSON holds as text."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


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
