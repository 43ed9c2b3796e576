"""The number line of a claim: axis, threshold, no effect, the paper's value, dots that can be counted."""

import itertools
import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from gpt2lab.base.interval import Interval
from gpt2lab.plots.interval_strip import WIDTH, Shade, interval_strip

ABOVE = Shade(0.0, math.inf, "holds if above 0")


def words(svg: str) -> dict[str, float]:
    """Return the texts of a drawing with the places of their middles."""
    found = [one for one in ElementTree.fromstring(svg).iter() if one.tag.endswith("text")]
    return {one.text or "": float(one.get("x", "nan")) for one in found}


def dots(svg: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', svg)]


def lines_at(svg: str, x: float) -> list[str]:
    """Return the elements of the vertical lines at a place."""
    return [one for one in re.findall("<line[^>]*>", svg) if f'x1="{x}" x2="{x}"' in one]


@pytest.mark.parametrize("values", [[], [math.nan], [0.0, 1.0], [1.0, 1.0], [-1e9, 1e9], [1e-12, 3e-12]])
def test_it_is_drawn_for_any_values(values: list[float]) -> None:
    svg = interval_strip(values, wanted=ABOVE)
    assert len(dots(svg)) == sum(map(math.isfinite, values))
    assert "nan" not in svg and "inf" not in svg


@pytest.mark.parametrize("value", [0.0, 1.0, -0.3, 1e-12, 3e9, 1234.5678])
@pytest.mark.parametrize("spread", [1e-5, 0.3])
def test_the_axis_has_different_numbers_with_room_between_them(value: float, spread: float) -> None:
    svg = interval_strip([value, value * (1 + spread) + spread * 1e-13])
    ticks = sorted((x, text) for text, x in words(svg).items() if "zero" not in text)
    assert len(ticks) >= 2
    gaps = [
        right[0] - left[0] - 3 * (len(left[1]) + len(right[1])) for left, right in itertools.pairwise(ticks)
    ]
    assert min(gaps) > 0


def test_a_number_of_the_axis_stands_where_it_is() -> None:
    svg = interval_strip([0.13, 0.32, 0.56], wanted=ABOVE)
    found = {float(text): x for text, x in words(svg).items() if re.fullmatch(r"-?[\d.]+", text)}
    assert {0.0, 0.2, 0.4} <= set(found)
    assert dots(svg)[1][0] == pytest.approx(found[0.2] + 0.6 * (found[0.4] - found[0.2]), abs=0.2)


def test_a_lone_number_without_anything_beside_it_is_not_drawn() -> None:
    assert interval_strip([0.5]) == ""
    assert interval_strip([0.0], wanted=ABOVE) == ""
    assert len(dots(interval_strip([0.5], wanted=ABOVE))) == 1


def test_threshold_no_effect_and_the_papers_value_are_marked_and_named() -> None:
    svg = interval_strip(
        [1.2, 1.3, 1.4],
        wanted=Shade(2.0, math.inf, "holds if at least 2"),
        weaker=Shade(1.1, math.inf, "in part if at least 1.1"),
        paper=2.2,
        no_effect=1.0,
    )
    found = words(svg)
    assert {"holds if at least 2", "in part if at least 1.1", "the paper: 2.2", "no effect"} <= set(found)
    assert "zero" not in "".join(found)
    assert found["no effect"] < found["in part if at least 1.1"] < found["holds if at least 2"]
    dashes = re.findall(r'stroke-dasharray="([\d ]+)"', svg)
    assert sorted(dashes) == ["2 3", "4 3", "6 4"], "each is told from the others without its colour"


def test_what_lies_far_out_is_an_arrow_with_its_number_and_stretches_nothing() -> None:
    near = interval_strip([0.01, 0.02], wanted=ABOVE)
    far = interval_strip([0.01, 0.02], wanted=ABOVE, paper=0.4, no_effect=-5.0)
    assert [x for x, _ in dots(far)] == [x for x, _ in dots(near)]
    found = words(far)
    assert {"the paper: 0.4 →", "← no effect: -5"} <= set(found)
    assert found["the paper: 0.4 →"] > WIDTH / 2 > found["← no effect: -5"]


def test_zero_is_marked_where_no_value_of_no_effect_is_stated() -> None:
    assert "zero" in words(interval_strip([0.01, 0.2], wanted=Shade(0.1, math.inf, "holds if above 0.1")))
    assert "← zero" in words(interval_strip([10.0, 11.0], wanted=Shade(9.5, math.inf, "holds if above 9.5")))
    assert not [text for text in words(interval_strip([1.0, 2.0], wanted=ABOVE)) if "zero" in text]


def test_marks_at_one_number_are_one_line_with_all_their_names() -> None:
    svg = interval_strip([0.1, 0.2], wanted=ABOVE, no_effect=0.0, paper=0.0)
    assert "holds if above 0 · the paper: 0 · no effect" in words(svg)


def test_names_of_marks_that_lie_close_do_not_overlap() -> None:
    svg = interval_strip(
        [0.0, 1.0],
        wanted=Shade(0.501, math.inf, "holds if above 0.501"),
        weaker=Shade(0.5, math.inf, "in part if above 0.5"),
        paper=0.502,
        no_effect=0.499,
    )
    heights = re.findall(r'y="([\d.]+)"[^>]*>(?:holds|in part|the paper|no effect)', svg)
    assert len(set(heights)) == 4


def test_seeds_with_equal_values_can_be_counted() -> None:
    svg = interval_strip([0.5] * 6, interval=Interval(0.5, 0.5, 0.5, 6, 0.0), wanted=ABOVE)
    found = dots(svg)
    assert len({x for x, _ in found}) == 1
    assert len({y for _, y in found}) == 6
    top = float(re.findall(r'height="([\d.]+)"', svg)[0])
    assert all(0 < y < top for _, y in found)


def test_the_interval_has_its_ends_and_the_number_of_its_mean() -> None:
    svg = interval_strip(
        [0.1, 0.3], interval=Interval(0.2, -0.1, 0.5, 2, 0.1), wanted=ABOVE, label="gain (nats)"
    )
    found = words(svg)
    assert {"0.2", "gain (nats)"} <= set(found)
    bar = re.findall(r'x1="([\d.]+)" x2="([\d.]+)"[^>]*stroke-opacity="0.5"', svg)
    (left, right), (first, second) = map(float, bar[0]), (x for x, _ in dots(svg))
    assert left < first < second < right
    assert lines_at(svg, left) and lines_at(svg, right)


def test_an_interval_without_ends_is_not_drawn() -> None:
    svg = interval_strip([1.0, 2.0], interval=Interval(math.inf, math.nan, math.inf, 2, math.nan))
    assert dots(svg) and "nan" not in svg


def test_an_interval_over_items_is_drawn_without_dots() -> None:
    svg = interval_strip([], interval=Interval(0.9, 0.8, 0.95, 200, 0.3), wanted=ABOVE)
    assert not dots(svg) and "0.9" in words(svg)


def test_a_long_name_of_the_axis_is_wrapped_and_its_end_left_out() -> None:
    svg = interval_strip([1.0, 2.0], label="a long quantity, " * 20)
    lines = [text for text in words(svg) if "quantity" in text]
    assert len(lines) == 2 and lines[1].endswith("…")
