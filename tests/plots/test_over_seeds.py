"""Dots with intervals, and curves over seeds that not every seed has everywhere."""

import math
import xml.etree.ElementTree as ElementTree

import pytest
from matplotlib.figure import Figure

from gpt2lab.base.errors import LabError
from gpt2lab.plots.figures import to_svg
from gpt2lab.plots.over_seeds import dots, mean_curves


def texts(figure: Figure) -> set[str]:
    found = ElementTree.fromstring(to_svg(figure)).iter()
    return {one.text or "" for one in found if one.tag.endswith("text")}


def drawn(figure: Figure) -> list[tuple[list[float], list[float], bool]]:
    """Return x, y and whether the marks are hollow, of every line of a figure."""
    return [
        (list(line.get_xdata()), list(line.get_ydata()), line.get_markerfacecolor() == "none")
        for line in figure.axes[0].lines
    ]


def test_a_row_has_its_mean_with_its_number_its_interval_and_a_ring_for_each_seed() -> None:
    figure = dots(
        {"conda": [0.7, 0.9], "adamw": [-0.2]},
        label="gain", intervals={"conda": (0.6, 1.0)}, reference={"paper": 1.5},
    )  # fmt: skip
    assert {"conda", "adamw", "gain", "0.8", "-0.2", "paper"} <= texts(figure)
    lines = drawn(figure)
    assert ([0.6, 1.0], [0, 0], False) in lines
    assert ([0.7, 0.9], [0, 0], True) in lines
    assert ([pytest.approx(0.8)], [0], False) in lines
    assert ([-0.2], [1], False) in lines and not any(y == [1] and hollow for _, y, hollow in lines)


def test_an_axis_of_dots_need_not_begin_at_zero() -> None:
    low, high = dots({"a": [3.21, 3.22], "b": [3.25]}, label="loss").axes[0].get_xlim()
    assert 3.2 < low < high < 3.26


def test_a_row_of_which_a_seed_is_not_finite_says_so() -> None:
    figure = dots({"a": [1.0, math.inf, 2.0], "b": [math.nan, math.nan]}, label="loss")
    assert {"a (2 of 3)", "b (none of 2)"} <= texts(figure)
    assert not any(row == [1] for _, row, _ in drawn(figure))
    assert "b (none of 1)" in texts(dots({"b": [math.nan]}, label="loss")), (
        "a study of such values has a figure"
    )
    with pytest.raises(LabError, match="at least one row"):
        dots({}, label="loss")


def test_a_line_goes_through_the_means_of_all_seeds_alone() -> None:
    seeds = [([1, 2, 4], [3.0, 2.0, 9.0]), ([1, 2, 8], [5.0, 2.0, 7.0]), ([1, 2, 4], [4.0, math.inf, 5.0])]
    figure = mean_curves({"adamw": seeds}, x_label="rate", y_label="loss", log_x=True)
    line, *marks = drawn(figure)
    assert line == ([1], [4.0], False)
    assert sorted(marks) == [([2], [2.0], True), ([4], [7.0], True), ([8], [7.0], True)]
    assert {"2 of 3", "1 of 3"} <= texts(figure)


def test_curves_that_all_seeds_have_have_no_hollow_mark() -> None:
    figure = mean_curves({"a": [([1, 2], [3.0, 2.0])] * 2, "b": [([1], [1.0])]}, x_label="x", y_label="y")
    assert not any(hollow for _, _, hollow in drawn(figure))
    assert "of" not in " ".join(texts(figure))


def test_a_curve_without_a_point_of_all_seeds_is_its_marks() -> None:
    figure = mean_curves(
        {"a": [([1], [3.0]), ([2], [2.0])], "b": [([1, 2], [1.0, 1.5])] * 2}, x_label="x", y_label="y"
    )
    assert sum(hollow for _, _, hollow in drawn(figure)) == 2
    assert "b" in texts(figure)
