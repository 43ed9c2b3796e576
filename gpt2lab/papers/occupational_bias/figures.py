"""The figures of the study; each function returns one that is drawn when asked for."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt2lab.papers.occupational_bias.analysis import ALPHA, Analysis
from gpt2lab.papers.occupational_bias.concentration import lorenz, shares
from gpt2lab.papers.occupational_bias.frequency import Counts
from gpt2lab.papers.occupational_bias.labour import Comparison
from gpt2lab.papers.occupational_bias.prompts import BASE, GENDERS
from gpt2lab.papers.occupational_bias.regression import JobRegression
from gpt2lab.papers.occupational_bias.skew import by_spread, over_representation, parity, proportions
from gpt2lab.plots.figures import GRID, INK, MUTED, PALETTE, new_figure, style
from gpt2lab.plots.heatmaps import heatmap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Draw = Callable[[], "Figure"]

MEN, WOMEN = PALETTE[:2]
COEFFICIENT_REACH = 10.0
R2_REACH = 12.0
_LINES = {BASE: "-"}
_DASHES = ("--", ":", "-.", (0, (5, 1)), (0, (1, 2)), (0, (3, 1, 1, 1)))


def figures(analysis: Analysis) -> dict[str, Draw]:
    """Return every figure that the counts allow, by name."""
    counts = analysis.counts
    found: dict[str, Draw] = {
        "rank and share": lambda: rank_share(counts),
        "lorenz": lambda: lorenz_curves(counts),
        "missing titles": lambda: missing_titles(counts),
    }
    if counts.rows(BASE) and counts.frequent(BASE):
        found["parity"] = lambda: parity_bars(counts, BASE)
    for name in counts.intersections:
        if counts.frequent(name):
            found[f"shares, {name}"] = _bind(stacked_bars, counts, name)
            if len(counts.categories(name)) > 1:
                found[f"over-representation, {name}"] = _bind(over_representation_scatter, counts, name)
    for name, fits in analysis.regressions.items():
        if fits:
            found[f"coefficients, {name}"] = coefficient_map(fits)
            found[f"significance, {name}"] = significance_map(fits)
            found[f"pseudo-R2, {name}"] = gain_map(fits)
    comparison = analysis.comparison
    if comparison is not None:
        found["dumbbell"] = lambda: dumbbell(comparison)
        found["labour scatter"] = lambda: labour_scatter(comparison)
        found["labour differences"] = difference_map(comparison)
    return found


def _bind(draw: Callable[[Counts, str], "Figure"], counts: Counts, name: str) -> Draw:
    return lambda: draw(counts, name)


def _groups(counts: Counts) -> list[str]:
    return ([BASE] if counts.rows(BASE) else []) + counts.intersections


def _plain_axes(axes: Any, x_label: str, y_label: str, grid: str = "y") -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(visible=False)
    axes.grid(visible=True, axis=grid)


def _curves(counts: Counts, axes: Any, curve: Callable[[np.ndarray[Any, Any]], tuple[Any, Any]]) -> None:
    """Draw a curve for each group and gender: colour is gender, dash is group."""
    for at, name in enumerate(_groups(counts)):
        dash = _LINES.get(name, _DASHES[at % len(_DASHES)])
        for gender, colour in zip(GENDERS, (WOMEN, MEN), strict=True):
            if not counts.rows(name, gender):
                continue
            x, y = curve(counts.of(name, gender))
            axes.plot(x, y, color=colour, linestyle=dash, linewidth=1.5, label=f"{name}, {gender}")
    axes.legend(fontsize=7, frameon=False)


@style()
def rank_share(counts: Counts) -> "Figure":
    """Draw the cumulative share of mentions against the rank of the job, ranks on a logarithmic axis."""
    figure = new_figure(5.6, 3.8)
    axes = figure.subplots()

    def curve(own: Any) -> tuple[Any, Any]:
        ordered = np.sort(shares(own))[::-1].cumsum()
        ordered = ordered[: int((own > 0).sum())]
        return np.arange(1, len(ordered) + 1), ordered

    _curves(counts, axes, curve)
    for share in (0.5, 0.9):
        axes.axhline(share, color=MUTED, linewidth=0.8)
        axes.annotate(f"{share:.0%}", (1, share), (2, 2), textcoords="offset points", fontsize=7, color=MUTED)
    axes.set_xscale("log")
    ticks = [t for t in (1, 2, 5, 10, 20, 50, 100, 200, 500) if t <= len(counts.jobs)]
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
    axes.set_ylim(0, 1.02)
    _plain_axes(axes, "rank of the job within the group", "cumulative share of mentions")
    return figure


@style()
def lorenz_curves(counts: Counts) -> "Figure":
    """Draw the share of jobs against the cumulative share of workers, jobs in descending order; the diagonal is equal."""
    figure = new_figure(4.8, 4.2)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8)
    _curves(counts, axes, lorenz)
    _plain_axes(axes, "cumulative share of workers", "cumulative share of jobs", grid="both")
    return figure


@style()
def parity_bars(counts: Counts, intersection: str, most: int = 60) -> "Figure":
    """Draw p[women] - p[men] of every frequent job; of more than `most` those furthest from 0."""
    jobs = counts.frequent(intersection)
    values = parity(counts, intersection, jobs)
    picked = np.argsort(-np.abs(values), kind="stable")[:most]
    order = picked[np.argsort(values[picked], kind="stable")]
    figure = new_figure(5.2, max(2.0, 0.9 + 0.16 * len(order)))
    axes = figure.subplots()
    colours = [WOMEN if values[at] > 0 else MEN for at in order]
    axes.barh([counts.jobs[jobs[at]] for at in order], values[order], color=colours, height=0.7)
    axes.axvline(0, color=MUTED, linewidth=0.8)
    axes.set_xlim(-1.05, 1.05)
    axes.margins(y=0.01)
    axes.tick_params(axis="y", labelsize=7)
    _plain_axes(axes, "only men   ←   share of women - share of men   →   only women", "", grid="x")
    return figure


@style()
def stacked_bars(counts: Counts, intersection: str, most: int = 40) -> "Figure":
    """Draw how each frequent job is divided over the cells, most uneven on top; men are hatched."""
    jobs = counts.frequent(intersection)
    rows = [*counts.rows(intersection, "woman"), *counts.rows(intersection, "man")]
    divided = proportions(counts.mentions[rows][:, jobs])
    order = by_spread(divided)[:most][::-1]
    figure = new_figure(6.6, max(2.4, 1.3 + 0.18 * len(order)))
    axes = figure.subplots()
    names = [counts.jobs[jobs[at]] for at in order]
    left = np.zeros(len(order))
    categories = counts.categories(intersection)
    for at, row in enumerate(rows):
        cell = counts.cells[row]
        colour = PALETTE[categories.index(cell.category) % len(PALETTE)]
        man = cell.gender == "man"
        axes.barh(
            names, divided[at, order], left=left, color=colour, alpha=0.45 if man else 0.95, height=0.8,
            hatch="////" if man else None, edgecolor="white", linewidth=0.3, label=str(cell),
        )  # fmt: skip
        left += divided[at, order]
    women = len(counts.rows(intersection, "woman")) / len(rows)
    axes.axvline(women, color=INK, linewidth=1.0, linestyle="--")
    axes.set_xlim(0, 1)
    axes.margins(y=0.01)
    axes.tick_params(axis="y", labelsize=7)
    figure.legend(
        *axes.get_legend_handles_labels(), fontsize=7, frameon=False, ncols=4, loc="outside lower center"
    )
    _plain_axes(axes, "share of the job's mentions (dashed: parity of genders)", "", grid="x")
    axes.grid(visible=False)
    return figure


@style()
def over_representation_scatter(counts: Counts, intersection: str, most: int = 25) -> "Figure":
    """Draw over-representation of each category among women against that among men, in multiples of fair."""
    jobs = counts.frequent(intersection)
    over = over_representation(counts, intersection, jobs)
    categories = counts.categories(intersection)
    columns = min(3, len(categories))
    lines = -(-len(categories) // columns)
    figure = new_figure(2.9 * columns, 2.8 * lines)
    panels = np.array(figure.subplots(lines, columns, squeeze=False)).ravel()
    for panel in panels[len(categories) :]:
        panel.set_visible(False)
    reach = min(len(categories), np.ceil(np.nanmax(over))) * 1.05
    for at, category in enumerate(categories):
        axes = panels[at]
        women, men = over[0, at], over[1, at]
        axes.plot([0, reach], [0, reach], color=MUTED, linewidth=0.6)
        axes.axvline(1, color=MUTED, linewidth=0.6, linestyle=":")
        axes.axhline(1, color=MUTED, linewidth=0.6, linestyle=":")
        axes.plot(men, women, "o", markersize=3, color=PALETTE[at % len(PALETTE)], alpha=0.8)
        distance = np.nan_to_num(np.hypot(women - 1, men - 1), nan=-1.0)
        for j in np.argsort(-distance)[: min(5, most)]:
            if distance[j] > 0.25:
                axes.annotate(
                    counts.jobs[jobs[j]], (men[j], women[j]), (3, 2), textcoords="offset points", fontsize=6
                )
        ticks = range(int(reach) + 1)
        axes.set_xticks(ticks, [f"{t}x" for t in ticks], fontsize=7)
        axes.set_yticks(ticks, [f"{t}x" for t in ticks], fontsize=7)
        axes.set_xlim(-0.1, reach)
        axes.set_ylim(-0.1, reach)
        axes.set_title(category, fontsize=8)
        _plain_axes(axes, "among men", "among women", grid="both")
    return figure


@style()
def missing_titles(counts: Counts) -> "Figure":
    """Draw the share of completions without and with a title by cell."""
    names = [str(cell) for cell in counts.cells]
    missing = counts.untitled / np.maximum(counts.answers, 1)
    figure = new_figure(5.2, max(1.8, 1.1 + 0.19 * len(names)))
    axes = figure.subplots()
    axes.barh(names[::-1], (1 - missing)[::-1], color=MEN, alpha=0.7, height=0.75, label="title found")
    axes.barh(names[::-1], missing[::-1], left=(1 - missing)[::-1], color=GRID, height=0.75, label="no title")
    axes.set_xlim(0, 1)
    axes.margins(y=0.01)
    axes.tick_params(axis="y", labelsize=7)
    figure.legend(
        *axes.get_legend_handles_labels(), fontsize=7, frameon=False, ncols=2, loc="outside lower center"
    )
    _plain_axes(axes, "share of completions", "", grid="x")
    return figure


# Regressions.


def coefficient_map(fits: Sequence[JobRegression]) -> Draw:
    """Colours of M2's coefficients, those with Wald p ≥ 0.05 as 0, cut at ± 10."""
    terms = fits[0].m2.terms
    values = [
        [
            float(np.clip(fit.m2.coefficients[i], -COEFFICIENT_REACH, COEFFICIENT_REACH))
            if fit.m2.p_values[i] < ALPHA
            else 0.0
            for i in range(len(terms))
        ]
        for fit in fits
    ]
    return partial(
        heatmap, values, rows=[fit.job for fit in fits], columns=list(terms),
        label="log odds (0: not significant)", diverging=True, limits=(-COEFFICIENT_REACH, COEFFICIENT_REACH),
    )  # fmt: skip


def significance_map(fits: Sequence[JobRegression]) -> Draw:
    """Colours of Wald p < 0.05 by job and term; the last column is the likelihood-ratio test of all interactions."""
    terms = fits[0].m2.terms
    values = [[*(float(p < ALPHA) for p in fit.m2.p_values), float(fit.lr_p < ALPHA)] for fit in fits]
    return partial(
        heatmap, values, rows=[fit.job for fit in fits], columns=[*terms, "interactions (LR)"],
        label="p < 0.05", limits=(0.0, 1.0),
    )  # fmt: skip


def gain_map(fits: Sequence[JobRegression]) -> Draw:
    """Colours of the pseudo-R² gains of gender and of interactions, 0 to 12 points."""
    values = [[fit.gender_gain, fit.interaction_gain] for fit in fits]
    cells = [[f"{value:.2f}" for value in row] for row in values]
    return partial(
        heatmap, values, rows=[fit.job for fit in fits], columns=["woman", "interactions"],
        label="gain in pseudo-R² (points)", cells=cells, limits=(0.0, R2_REACH),
    )  # fmt: skip


# Labour statistics.


@style()
def dumbbell(comparison: Comparison) -> "Figure":
    """Draw women's share of each job in the model and in the statistics, and the difference as bars beside it."""
    model, official = comparison.model[f"{BASE}_F"], comparison.official[f"{BASE}_F"]
    order = np.argsort(official, kind="stable")
    names = [comparison.jobs[at] for at in order]
    figure = new_figure(7.2, max(2.2, 1.2 + 0.19 * len(names)))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[2, 1])
    rows = np.arange(len(names))
    left.hlines(rows, model[order], official[order], color=GRID, linewidth=2)
    left.plot(official[order], rows, "o", color=MEN, markersize=4.5, label="labour statistics")
    left.plot(model[order], rows, "D", color=WOMEN, markersize=4, label="model")
    left.axvline(50, color=MUTED, linewidth=0.8, linestyle=":")
    left.set_yticks(rows, names, fontsize=7)
    left.margins(y=0.02)
    figure.legend(
        *left.get_legend_handles_labels(), fontsize=7, frameon=False, ncols=2, loc="outside lower center"
    )
    _plain_axes(left, "women, % of the job", "", grid="x")
    difference = (model - official)[order]
    right.barh(rows, difference, color=[WOMEN if d > 0 else MEN for d in difference], height=0.65)
    right.axvline(0, color=MUTED, linewidth=0.8)
    right.tick_params(axis="y", length=0)
    _plain_axes(right, "model - statistics (points)", "", grid="x")
    return figure


@style()
def labour_scatter(comparison: Comparison) -> "Figure":
    """Draw model against statistics with y = x: base women, and women's share within each ethnicity."""
    panels = list(dict.fromkeys([BASE, *(column.rsplit("_", 1)[0] for column in comparison.model)]))
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = new_figure(2.8 * columns, 2.8 * lines)
    places = np.array(figure.subplots(lines, columns, squeeze=False)).ravel()
    for place in places[len(panels) :]:
        place.set_visible(False)
    for at, name in enumerate(panels):
        axes = places[at]
        x, y = _women_within(comparison.official, name), _women_within(comparison.model, name)
        axes.plot([0, 100], [0, 100], color=MUTED, linewidth=0.8)
        axes.plot(x, y, "o", markersize=3.5, color=PALETTE[at % len(PALETTE)], alpha=0.85)
        for j in np.argsort(-np.nan_to_num(np.abs(y - x), nan=-1.0))[:3]:
            if np.isfinite(y[j]):
                axes.annotate(
                    comparison.jobs[j], (x[j], y[j]), (0, 4), textcoords="offset points", fontsize=6,
                    ha="right" if x[j] > 60 else "left",
                )  # fmt: skip
        axes.set_xlim(-4, 104)
        axes.set_ylim(-4, 108)
        axes.set_title("base" if name == BASE else f"within {name}", fontsize=8)
        _plain_axes(axes, "women, % in the statistics", "women, % in the model", grid="both")
    return figure


def _women_within(values: Mapping[str, Any], name: str) -> Any:
    """Return women's percentage of base as it stands; of a category, their part of its two cells."""
    if name == BASE:
        return values[f"{BASE}_F"]
    both = values[f"{name}_F"] + values[f"{name}_M"]
    return np.where(both > 0, 100 * values[f"{name}_F"] / np.where(both > 0, both, 1.0), np.nan)


def difference_map(comparison: Comparison) -> Draw:
    """Colours of model minus statistics in points, by job and column."""
    difference = comparison.difference
    order = np.argsort(-comparison.official[f"{BASE}_F"], kind="stable")
    columns = sorted(difference, key=lambda column: (column.startswith(BASE), column))
    return partial(
        heatmap,
        [[float(difference[column][at]) for column in columns] for at in order],
        rows=[comparison.jobs[at] for at in order], columns=[c.replace("_", " ") for c in columns],
        label="model - statistics (points)", diverging=True,
        cells=[[f"{difference[column][at]:.0f}" for column in columns] for at in order],
    )  # fmt: skip
