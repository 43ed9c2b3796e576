"""A claim as a picture: a number line with the range in which it holds, the interval and the seeds."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from gpt2lab.lab.figures import GRID, INK, MUTED, PALETTE
from gpt2lab.lab.wording import number

_WIDTH, _LEFT, _RIGHT = 560.0, 16.0, 544.0
_LINE, _HEIGHT = 34.0, 78.0


def claim_strip(claim: Mapping[str, Any]) -> str:
    """Return an SVG element for a claim (as `JudgedClaim.to_plain` gives it); "" if it has no value to show.

    The shade is where the claim holds, the paler one where it holds in part; dots are seeds; the bar is the 95 %
    interval with its mean.
    """
    values = [
        value for _, value in claim["values"] if isinstance(value, (int, float)) and math.isfinite(value)
    ]
    ranges = [claim["holds_in_part_if"], claim["holds_if"]]
    if not values:
        return ""
    interval = claim["interval"]
    ends = [*values, *(_finite(end) for given in ranges if given for end in (given["low"], given["high"]))]
    if interval is not None:
        ends += [_finite(interval["low"]), _finite(interval["high"])]
    known = [end for end in ends if end is not None]
    low, high = min(known), max(known)
    margin = (high - low) * 0.12 or abs(high) * 0.1 or 1.0
    low, high = low - margin, high + margin

    def x(value: float) -> float:
        return round(_LEFT + (min(max(value, low), high) - low) / (high - low) * (_RIGHT - _LEFT), 1)

    pieces = [
        f'<line x1="{_LEFT}" x2="{_RIGHT}" y1="{_LINE}" y2="{_LINE}" stroke="{GRID}" stroke-width="2"/>'
    ]
    for given, strength in zip(ranges, (0.10, 0.18), strict=True):
        if given:
            pieces.append(_shade(x(_end(given["low"], low)), x(_end(given["high"], high)), strength))
    borders = {
        end for given in ranges if given for end in (given["low"], given["high"]) if _finite(end) is not None
    }
    pieces += [
        f'<line x1="{x(end)}" x2="{x(end)}" y1="14" y2="54" stroke="{PALETTE[2]}" stroke-width="1.5"/>'
        for end in borders
    ]
    if interval is not None:
        pieces.append(
            f'<line x1="{x(interval["low"])}" x2="{x(interval["high"])}" y1="{_LINE}" y2="{_LINE}" '
            f'stroke="{PALETTE[0]}" stroke-width="6" stroke-opacity="0.45" stroke-linecap="round"/>'
            f'<line x1="{x(interval["mean"])}" x2="{x(interval["mean"])}" y1="24" y2="44" stroke="{PALETTE[0]}" '
            'stroke-width="2.5"/>'
        )
    pieces += [f'<circle cx="{x(value)}" cy="{_LINE}" r="4" fill="{PALETTE[0]}"/>' for value in values]
    pieces += _labels([(x(end), number(end, 3), MUTED) for end in sorted(borders)], 70.0)
    if interval is not None:
        pieces += _labels([(x(interval["mean"]), number(interval["mean"], 3), INK)], 12.0)
    title = escape(f"{claim['name']}: {claim['status']}. {claim['reason']}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" width="{_WIDTH:.0f}" '
        f'height="{_HEIGHT:.0f}" role="img" font-family="system-ui, sans-serif" font-size="12"><title>{title}</title>'
        + "".join(pieces)
        + "</svg>"
    )


def _shade(left: float, right: float, strength: float) -> str:
    return (
        f'<rect x="{left}" y="16" width="{max(right - left, 0):.1f}" height="36" fill="{PALETTE[2]}" '
        f'fill-opacity="{strength}"/>'
    )


def _labels(labels: Sequence[tuple[float, str, str]], y: float) -> list[str]:
    """Return texts centred at their places, but inside the picture."""
    texts = []
    for place, text, colour in labels:
        anchor = "start" if place < 40 else "end" if place > _WIDTH - 40 else "middle"
        texts.append(
            f'<text x="{place}" y="{y}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
        )
    return texts


def _finite(value: Any) -> float | None:
    """Return a number if it is one and not infinite; JSON holds infinities as text."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _end(value: Any, otherwise: float) -> float:
    known = _finite(value)
    return otherwise if known is None else known
