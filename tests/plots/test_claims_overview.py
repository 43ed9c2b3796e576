"""The figure of all claims: every interval against its own threshold."""

import math
import re

import pytest

from gpt2lab.base.interval import Interval
from gpt2lab.plots.claims_overview import Row, claims_overview
from gpt2lab.plots.figures import MUTED, PALETTE
from gpt2lab.plots.interval_strip import Shade

ABOVE, BELOW = Shade(0.0, math.inf, "above 0"), Shade(-math.inf, 0.0, "below 0")
MIDDLE = 180.0


def interval(low: float, high: float) -> Interval:
    return Interval((low + high) / 2, low, high, 6, 0.1)


def drawn(**row: object) -> str:
    made = {"name": "A", "words": "It is so", "answer": "✓ holds", "wanted": ABOVE, **row}
    return claims_overview([Row(**made)], "A: holds")  # type: ignore[arg-type]  # the fields of the row under test


def bar(svg: str) -> tuple[float, float]:
    """Return the ends of the interval's bar."""
    found = re.search(r'x1="([\d.]+)" x2="([\d.]+)"[^>]*stroke-opacity="0.55"', svg)
    assert found is not None
    return float(found[1]), float(found[2])


def test_a_row_has_its_letter_its_sentence_and_its_verdict() -> None:
    svg = drawn(words="It goes on " * 20)
    assert ">A</text>" in svg and ">✓ holds</text>" in svg and "<title>A: holds</title>" in svg
    assert re.search(r">It goes on [^<]* …</text>", svg)


@pytest.mark.parametrize(
    ("wanted", "low", "high", "side"),
    [
        (ABOVE, 0.1, 0.3, "right"), (ABOVE, -0.3, -0.1, "left"), (ABOVE, -0.1, 0.3, "both"),
        (BELOW, -0.3, -0.1, "right"), (BELOW, 0.1, 0.3, "left"),
        (Shade(0.9, 1.1, ""), 0.95, 1.02, "right"), (Shade(0.9, 1.1, ""), 1.2, 1.3, "left"),
        (Shade(0.9, 1.1, ""), 0.5, 0.8, "left"), (Shade(0.9, 1.1, ""), 0.8, 1.2, "both"),
    ],
)  # fmt: skip
def test_the_bar_lies_on_the_side_of_the_threshold_that_the_verdict_says(
    wanted: Shade, low: float, high: float, side: str
) -> None:
    left, right = bar(drawn(wanted=wanted, interval=interval(low, high)))
    assert left < right
    assert side == ("right" if left > MIDDLE else "left" if right < MIDDLE else "both")
    assert left >= 14 and right <= 346


def test_distances_keep_their_ratio_on_both_sides() -> None:
    left, right = bar(drawn(interval=interval(-0.1, 0.3)))
    assert (right - MIDDLE) / (MIDDLE - left) == pytest.approx(3.0, abs=0.02)


def test_the_papers_value_is_a_diamond_and_an_arrow_where_it_lies_far_out() -> None:
    alone = bar(drawn(interval=interval(0.1, 0.3)))
    near = drawn(interval=interval(0.1, 0.3), paper=0.6)
    assert near.count("<path") == 1
    assert bar(near)[1] == pytest.approx(MIDDLE + (alone[1] - MIDDLE) / 2, abs=0.1)
    far = drawn(interval=interval(0.1, 0.3), paper=60.0)
    assert re.search(r'<path d="M346.0 [^"]*" fill="#d55e00"', far)
    assert bar(far) == alone
    assert re.search(r'<path d="M14.0 ', drawn(interval=interval(0.1, 0.3), paper=-60.0))


@pytest.mark.parametrize(
    ("wanted", "weaker"),
    [
        (Shade(2.0, math.inf, ""), Shade(1.5, math.inf, "")),
        (Shade(-math.inf, -2.0, ""), Shade(-math.inf, -1.5, "")),
        (Shade(2.0, 4.0, ""), Shade(1.5, 4.5, "")),
    ],
)
def test_a_bar_that_holds_in_part_lies_in_the_paler_shade(wanted: Shade, weaker: Shade) -> None:
    sign = -1 if wanted.high == -2.0 else 1
    ends = sorted((sign * 1.6, sign * 1.9))
    svg = drawn(wanted=wanted, weaker=weaker, interval=interval(*ends))
    paler = re.search(r'<rect x="([\d.]+)" [^>]*width="([\d.]+)" height="20"[^>]*fill-opacity="0.08"', svg)
    assert paler is not None
    left, right = bar(svg)
    assert float(paler[1]) < left < right < float(paler[1]) + float(paler[2]) == pytest.approx(MIDDLE)


def test_what_decides_nothing_is_grey() -> None:
    assert f'stroke="{PALETTE[0]}" stroke-width="6"' in drawn(interval=interval(0.1, 0.3))
    assert f'stroke="{MUTED}" stroke-width="6"' in drawn(interval=interval(0.1, 0.3), tested=False)


@pytest.mark.parametrize("paper", [None, 0.0, 1e300])
@pytest.mark.parametrize("values", [[], [math.nan], [0.0], [1.0, 1.0], [-1e9, 1e9]])
def test_it_is_drawn_for_any_values(values: list[float], paper: float | None) -> None:
    svg = drawn(values=values, paper=paper)
    assert svg.count("<circle") == sum(map(math.isfinite, values))
    assert "nan" not in svg and "inf" not in svg
    assert ("no number" in svg) == (not any(map(math.isfinite, values)))
    assert "no threshold" in drawn(values=values, wanted=None)
