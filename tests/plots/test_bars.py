import math

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.plots.bars import stacked_bars
from gpt2lab.plots.figures import to_svg


def test_parts_are_stacked_by_sign_with_one_colour_each_and_their_sum_behind() -> None:
    rows = {"learned": {"names": 0.5, "values": 1.0, "strings": -0.25}, "all": {"values": 2.0, "names": 1.0}}
    figure = stacked_bars(rows, label="bits", reference={"2": 2.0})
    bars = {
        (group.get_label(), place): (bar.get_x(), bar.get_width())
        for group in figure.axes[0].containers
        for place, bar in enumerate(group)
    }
    assert bars["names", 0] == (0.0, 0.5) and bars["values", 0] == (0.5, 1.0)
    assert bars["strings", 0] == (0.0, -0.25) and bars["values", 1] == (1.0, 2.0)
    assert len({group[0].get_facecolor() for group in figure.axes[0].containers}) == 3
    svg = to_svg(figure)
    assert all(f">{word}<" in svg for word in ("1.25", "3", "learned", "bits"))


def test_what_is_not_finite_is_left_out_and_nothing_is_refused() -> None:
    figure = stacked_bars({"a": {"x": math.nan, "y": 1.0}}, label="")
    assert [bar.get_width() for group in figure.axes[0].containers for bar in group] == [0.0, 1.0]
    for nothing in ({}, {"a": {}}):
        with pytest.raises(LabError, match="a row with a part"):
            stacked_bars(nothing, label="")
