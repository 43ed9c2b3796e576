"""Figures of ladders: a measure of a classifier against the number of labelled texts."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gpt2lab.plots.figures import Points, band_over_seeds, line_chart

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def ladder_figure(curves: Mapping[str, Sequence[Points]], y_label: str) -> "Figure":
    """Draw the mean curve of each strategy over its repeats (or seeds), with their range as a band; labels on a log axis."""
    series, bands = dict[str, Points](), {}
    for name, own in curves.items():
        series[name], bands[name] = band_over_seeds(own)
    return line_chart(
        series, bands=bands, x_label="labelled texts", y_label=y_label, log_x=True, markers=True, height=4.2
    )
