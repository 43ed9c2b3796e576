"""Figures and tables over all seeds."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from gpt2lab.plots import figures
from gpt2lab.plots.figures import Points
from gpt2lab.plots.heatmaps import heatmap
from gpt2lab.studies.seed_figures import seed_dots

if TYPE_CHECKING:
    from gpt2lab.studies.study import Study


def add(study: "Study", ways: Sequence[str]) -> None:
    """Add losses with the events, scales, losses of all ways, heads, and patching to the report."""
    _losses(study, ways)
    _scales(study, ways)
    _results(study, ways)
    for name in ("control", "sequential"):
        _heads(study, name)
        if f"patching_{name}" in study.runs[0].tables:
            _patching(study, name)


def _curves(study: "Study", name: str, way: str) -> Points:
    """Mean over seeds of a number that a way logged."""
    return figures.band_over_seeds([run.arms[way].series(name) for run in study.runs])[0]


def _losses(study: "Study", ways: Sequence[str]) -> None:
    series: dict[str, Points] = {way: _curves(study, "cross_entropy", way) for way in ways}
    if not all(x for x, _ in series.values()):
        return
    figure = figures.line_chart(series, x_label="updates", y_label="training loss (nats per token)")
    axes = figure.axes[0]
    for step in sorted(set(_events(study).values())):
        axes.axvline(step + 1, color="0.8", linewidth=0.6, zorder=0)
    study.figure(
        "losses", figure,
        "Cross entropy in training, mean over seeds; each grey line is an event of the sequential removal",
    )  # fmt: skip


def _events(study: "Study") -> dict[str, float]:
    return {str(row["unit"]): float(row["step"]) for row in study.runs[0].tables["units"]}


def _scales(study: "Study", ways: Sequence[str]) -> None:
    series: dict[str, Points] = {}
    for way in ways:
        for name, words in (("sigma", ""), ("sigma_first", ", position 0")):
            points = _curves(study, name, way)
            if points[0] and way in ("control", "sequential", "no_penalty"):
                series[f"{way}{words}"] = points
    if series:
        study.figure(
            "scales",
            figures.line_chart(series, x_label="updates", y_label="σ before the final norm", log_y=True),
            "Mean standard deviation of the states before the final norm, at position 0 and elsewhere",
        )


def _results(study: "Study", ways: Sequence[str]) -> None:
    names = ["pretrained", *ways, "instant"]
    found = {name: [run.results[f"loss.{name}"] for run in study.runs] for name in names}
    study.figure(
        "validation",
        seed_dots(found, label="validation loss (nats per token)"),
        "Validation loss of every way: mean over seeds with its 95 % interval, a ring a seed",
    )
    base = {name: fmean(found[name]) for name in ("pretrained", "control")}
    study.table(
        "losses",
        [
            {
                "way": name, "loss": fmean(values), "above control": fmean(values) - base["control"],
                "above pre-trained": fmean(values) - base["pretrained"],
                "highest in training": study.mean(f"peak.{name}"),
            }
            for name, values in found.items()
        ],
        "Validation loss in nats per token, mean over seeds, and what it is above either baseline",
    )  # fmt: skip


def _heads(study: "Study", name: str) -> None:
    rows: list[Mapping[str, Any]] = list(study.runs[0].tables[f"heads_{name}"])
    places = [tuple(map(int, str(row["head"])[1:].split("H"))) for row in rows]
    layers, heads = 1 + max(p[0] for p in places), 1 + max(p[1] for p in places)
    values = [[float("nan")] * heads for _ in range(layers)]
    for (layer, head), row in zip(places, rows, strict=True):
        values[layer][head] = float(row["error"])
    study.figure(
        f"heads_{name}",
        heatmap(values, rows=range(layers), columns=range(heads), x_label="head", y_label="layer"),
        f"Error of direct logit attribution by head, % of the direct effect, {name}, first seed",
    )


def _patching(study: "Study", name: str) -> None:
    rows: list[Mapping[str, Any]] = list(study.runs[0].tables[f"patching_{name}"])
    layers, positions = (1 + max(int(row[key]) for row in rows) for key in ("layer", "position"))
    for kind, words in (("patched", "Activation patching"), ("estimated", "Attribution patching")):
        values = [[0.0] * positions for _ in range(layers)]
        for row in rows:
            values[int(row["layer"])][int(row["position"])] = float(row[kind])
        study.figure(
            f"{kind}_{name}",
            heatmap(
                values, rows=range(layers), columns=range(positions), x_label="position", y_label="layer"
            ),
            f"{words} of the residual stream on two prompts, share of what the prompts differ in, {name}, first seed",
        )
