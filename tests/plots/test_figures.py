"""Figures: text as text, the same bytes again, labels that keep apart."""

import itertools
import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.plots.figures import (
    band_over_seeds,
    column_chart,
    line_chart,
    scatter,
    spread,
    tidy_svg,
    to_svg,
)
from gpt2lab.plots.heatmaps import heatmap, token_label

pytest.importorskip("matplotlib")
CURVES = {"adamw": ([1, 2, 3], [3.0, 2.5, 2.2]), "conda": ([1, 2, 3], [3.0, 2.4, 2.19])}


def lines():
    return line_chart(
        CURVES, x_label="updates", y_label="loss", bands={"conda": ([2.9, 2.3, 2.1], [3.1, 2.5, 2.3])}
    )


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]


def test_a_figure_is_one_svg_element_with_its_title_and_its_text_as_text():
    svg = to_svg(lines(), "Loss <by> optimizer")
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg")
    assert "<title>Loss &lt;by&gt; optimizer</title>" in svg
    assert {"adamw", "conda", "updates", "loss"} <= set(texts(svg))
    assert "<style" not in svg
    assert "metadata" not in svg
    assert "DejaVu" not in svg


def test_the_same_figure_gives_the_same_bytes():
    assert to_svg(lines()) == to_svg(lines())


def test_a_heatmap_writes_its_numbers():
    figure = heatmap([[0.25, 1.0], [0.5, float("nan")]], rows=[16, 32], columns=[1, 2], label="grammar")
    assert {"0.25", "1", "0.5", "–", "16", "32", "grammar"} <= set(texts(to_svg(figure)))


def test_a_large_heatmap_is_small():
    big = heatmap([[float(i * j) for i in range(64)] for j in range(64)], rows=range(64), columns=range(64))
    assert len(to_svg(big)) < 100_000


def test_a_heatmap_of_equal_values_is_drawn():
    to_svg(heatmap([[1.0, 1.0]], rows=["a"], columns=["b", "c"], diverging=True))


def test_nothing_to_draw_is_said():
    with pytest.raises(LabError, match="at least one series"):
        line_chart({}, x_label="", y_label="")


@pytest.mark.parametrize("places", [[1, 2, 3], [0, 0, 0, 0], [0, 30, 31, 90, 91, 92], [5.0]])
def test_labels_are_moved_apart_and_stay_in_order_around_their_places(places):
    moved = spread(places, 10.0)
    assert all(b - a >= 10.0 - 1e-9 for a, b in itertools.pairwise(moved))
    assert sum(moved) == pytest.approx(sum(places))


def test_labels_that_are_apart_stay():
    assert spread([0.0, 20.0, 40.0], 10.0) == [0.0, 20.0, 40.0]


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([1.0, 2.0, 3.0], [0.0, 10.0, 20.0]),  # at the bottom: not below it
        ([97.0, 98.0, 99.0], [80.0, 90.0, 100.0]),
        ([0.0, 1.0, 14.0], [0.0, 10.0, 20.0]),  # what is moved up takes the next one with it
        ([86.0, 99.0, 100.0], [80.0, 90.0, 100.0]),
        ([-5.0, 50.0], [0.0, 50.0]),
        ([1.0] * 12, [10.0 * i for i in range(12)]),  # more than there is room for
    ],
)
def test_names_of_lines_stay_beside_the_axes(places: list[float], expected: list[float]) -> None:
    assert spread(places, 10.0, low=0.0, high=100.0) == pytest.approx(expected)


def test_the_band_over_seeds_is_mean_and_range_where_all_seeds_have_a_value():
    mean, band = band_over_seeds([([1, 2, 3], [1.0, 2.0, 9.0]), ([1, 2], [3.0, 2.0])])
    assert mean == ([1, 2], [2.0, 2.0])
    assert band == ([1.0, 2.0], [3.0, 2.0])


def test_no_two_figures_of_the_lab_name_a_font_that_a_machine_may_lack():
    assert not re.search("Bitstream|Lucida|Verdana", to_svg(lines()))


def test_a_figure_made_elsewhere_is_tidied_and_what_is_none_is_refused():
    drawn = '<?xml version="1.0"?><!DOCTYPE svg><svg width="9"><defs><style>*{x: y}</style></defs><g/></svg>'
    tidy = tidy_svg(drawn, "A & B")
    head = '<svg xmlns="http://www.w3.org/2000/svg" width="9" role="img" stroke-linejoin="round">'
    assert tidy == f"{head}<title>A &amp; B</title>\n<g/></svg>"
    assert tidy_svg(tidy, "A & B") == tidy
    with pytest.raises(LabError, match="must be SVG text"):
        tidy_svg("a picture")


def test_a_scatter_plot_names_every_mean_in_its_colour_and_leaves_out_what_is_no_number() -> None:
    points = {
        "beam": ([2.0, 4.0], [0.5, 0.7]), "greedy": ([3.0], [math.nan]), "none": ([1.0], [0.9]),
        "some": ([1.0, math.inf], [0.9, 0.8]),
    }  # fmt: skip
    svg = to_svg(scatter(points, x_label="perplexity", y_label="diversity", log_x=True))
    assert {"beam", "none", "some (1 of 2)"} <= set(texts(svg)) and "greedy" not in svg
    with pytest.raises(LabError, match="at least one point"):
        scatter({"greedy": ([3.0], [math.nan])}, x_label="x", y_label="y")


def test_an_axis_is_linear_up_to_a_bound_and_logarithmic_beyond_it() -> None:
    points = {"a": ([0.0, 5.0, 20.0, 900.0], [4.0, 3.0, 2.0, 1.0])}
    figure = line_chart(points, x_label="rate", y_label="distortion", linear_below=20.0)
    axes = figure.axes[0]
    places = {x: axes.transData.transform((x, 1.0))[0] for x in (0.0, 10.0, 20.0, 40.0, 80.0)}
    assert places[10.0] - places[0.0] == pytest.approx(places[20.0] - places[10.0], rel=1e-6)
    assert places[80.0] - places[40.0] == pytest.approx(
        places[40.0] - places[20.0], rel=0.35
    )  # a doubling each
    assert places[40.0] - places[20.0] < places[20.0] - places[0.0]
    ticks = [float(tick) for tick in axes.get_xticks()]
    assert {0.0, 10.0, 20.0, 50.0, 100.0, 500.0} <= set(ticks)
    assert {"0", "10", "100", "500"} <= set(texts(to_svg(figure)))


def test_cells_hold_words_and_tokens_can_be_seen() -> None:
    figure = heatmap(
        [[0.1, math.nan], [0.9, 0.5]],
        rows=["after\n", "x"],
        columns=[" ", "$a$"],
        cells=[[" the", "\t"], ["incomprehensible", "\x1b"]],
        limits=(0.0, 1.0),
        upwards=True,
    )
    found = texts(to_svg(figure))
    assert {"after↵", "x", "␣", "$a$", "the", "→", "incompreh", "\\x1b"} <= set(found)
    first, second = (float(place) for place in figure.axes[0].get_ylim())
    assert first < second
    assert token_label("\n") == "↵"


def test_a_column_of_a_table_is_drawn_over_another() -> None:
    rows = [{"context": 1, "loss": 3.0}, {"context": 1024, "loss": 2.0}]
    figure = column_chart(rows, "context", "loss", x_label="tokens", y_label="nats", log_x=True)
    line = figure.axes[0].lines[0]
    assert list(line.get_xdata()) == [1, 1024] and list(line.get_ydata()) == [3.0, 2.0]
    assert figure.axes[0].get_xscale() == "log"
