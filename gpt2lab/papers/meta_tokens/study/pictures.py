"""The figures of the study."""

from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from gpt2lab.papers.meta_tokens.study.settings import GRID_ARMS, Settings
from gpt2lab.plots import figures
from gpt2lab.plots.heatmaps import heatmap
from gpt2lab.studies.seed_figures import seed_dots

if TYPE_CHECKING:
    from gpt2lab.studies.study import Study

_LINEAR = 20.0
"""Nats of rate up to which the axis is linear."""


def add(settings: Settings, study: "Study") -> None:
    """Add answers by arm and length, zeroing, sharpness, what metas hold, and rate against distortion."""
    runs = study.runs
    arms = [arm for arm in settings.arms if all(arm in run.arms for run in runs)]
    exact = {arm: [run.results[f"{arm}.recall.x1"] for run in runs] for arm in arms}
    order = sorted(arms, key=lambda arm: -fmean(exact[arm]))
    study.figure(
        "recall",
        seed_dots({arm: exact[arm] for arm in order}, label="list recall, share answered exactly"),
        "List recall at trained lengths: mean over seeds with its 95 % interval, a ring a seed",
    )
    lengths = list(settings.tests)
    study.figure(
        "lengths",
        heatmap(
            [[fmean(run.results[f"{arm}.recall.{name}"] for run in runs) for name in lengths] for arm in order],
            rows=order,
            columns=[f"{low} to {high}" for low, high in settings.tests.values()],
            x_label="words of a test prompt", label="share answered exactly", limits=(0.0, 1.0),
        ),
        f"List recall by arm and length, mean over seeds; trained on prompts of at most {settings.longest} words",
    )  # fmt: skip
    _grid(settings, study)
    study.figure(
        "zeroing",
        seed_dots(
            {
                f"{what}, {settings.tests[name][1]} words": [
                    run.results[f"meta.{key}.{name}"] for run in runs
                ]
                for name in lengths
                for what, key in (
                    ("whole", "recall"),
                    ("no position", "no_pos"),
                    ("no embedding", "no_embed"),
                )
            },
            label="list recall, share answered exactly",
        ),
        "The model with meta-tokens: whole, without the position of metas, without their embedding, by the longest prompt",
    )
    _rate_distortion(study)
    _sharpness(study)
    for kind, words in (("embeddings", "input embeddings"), ("states", "states of the same block")):
        found = np.mean([run.arms["meta"].arrays[f"caching_{kind}"] for run in runs], axis=0)
        study.figure(
            f"caching_{kind}",
            heatmap(
                found.tolist(),
                rows=[f"after block {index}" for index in range(len(found))],
                columns=range(1, found.shape[1] + 1),
                x_label="places before the meta-token",
                label="cosine", numbers=False,
            ),
            f"Likeness of a meta-token to the {words} of the tokens before it, mean over seeds",
        )  # fmt: skip


def _grid(settings: Settings, study: "Study") -> None:
    """Draw trained against tested length for each arm of the grid, if there is one."""
    ranges = settings.grid_ranges
    for arm in GRID_ARMS if ranges else ():
        study.figure(
            f"grid_{arm}",
            heatmap(
                [
                    [fmean(run.results[f"{arm}.grid.{trained}.{tested}"] for run in study.runs) for tested in ranges]
                    for trained in ranges
                ],
                rows=[f"at most {high}" for _, high in ranges.values()],
                columns=[f"{low} to {high}" for low, high in ranges.values()],
                y_label="words of a trained prompt", x_label="words of a test prompt",
                label="share answered exactly", limits=(0.0, 1.0),
            ),
            f"List recall of {arm} by trained and tested length, mean over seeds",
        )  # fmt: skip


def _rate_distortion(study: "Study") -> None:
    """Draw rate against distortion; rates beyond 20 nats go on a logarithmic part of the axis, as in the paper."""
    series = {}
    for state, name in (("meta", "meta-token"), ("token", "ordinary token before it")):
        tables = [
            [r for r in run.arms["meta"].tables["rate_distortion"] if r["state"] == state]
            for run in study.runs
        ]
        points = sorted(
            (fmean(float(row["rate"]) for row in rows), fmean(float(row["distortion"]) for row in rows))
            for rows in zip(*tables, strict=True)
        )
        series[name] = ([x for x, _ in points], [y for _, y in points])
    study.figure(
        "rate_distortion",
        figures.line_chart(
            series,
            x_label="rate (nats)",
            y_label="distortion (nats)",
            markers=True,
            linear_below=_LINEAR
            if max(rate for rates, _ in series.values() for rate in rates) > _LINEAR
            else None,
        ),
        "Rate and distortion of bottlenecks on two states, mean over seeds by price of a nat of rate; lower is better",
    )


def _sharpness(study: "Study") -> None:
    series = {}
    for name, key in (("drop in entropy", "entropy_drops"), ("rise of the largest score", "score_boosts")):
        values = sorted(float(x) for run in study.runs for x in run.arms["meta"].arrays[key])
        step = max(1, len(values) // 200)
        shown = values[::step]
        series[name] = (shown, [(place + 0.5) / len(shown) for place in range(len(shown))])
    study.figure(
        "sharpness",
        figures.line_chart(
            series,
            x_label="nats, with the meta's embedding against without it",
            y_label="share of rows below",
        ),
        "Rows of attention behind a meta-token, all layers, heads and seeds: how much sharper they are with its embedding",
    )
