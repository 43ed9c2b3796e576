"""The figures of the study: perplexity while training, surprisal of markers, heat maps of interchange accuracy."""

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from gpt2lab.papers.impossible_languages.languages import language
from gpt2lab.papers.impossible_languages.study.claims import HOPS
from gpt2lab.papers.impossible_languages.study.comparison import last_position
from gpt2lab.papers.impossible_languages.study.settings import Settings
from gpt2lab.plots import figures
from gpt2lab.plots.heatmaps import heatmap
from gpt2lab.studies.seed_figures import interval_columns, seed_dots

if TYPE_CHECKING:
    from gpt2lab.studies.study import Study

_LABELS = {
    "marker": "surprisal of the marker, test 1 (bits)",
    "difference": "surprisal of its absence minus its own, test 2 (bits)",
}


def add(settings: Settings, study: "Study") -> None:
    """Add figures and tables over all seeds."""
    there = [name for name in settings.languages if all(name in run.arms for run in study.runs)]
    for family in ("shuffle", "reverse", "hop"):
        members = [name for name in there if language(name).family == family]
        _curves(study, family, members)
        values = {name: [run.results[f"{name}.perplexity"] for run in study.runs] for name in members}
        study.figure(
            f"perplexity_{family}",
            seed_dots(values, label="geometric-mean perplexity of the test sentences"),
            f"The {family} family at the end: mean over seeds with its 95 % interval, a ring a seed",
        )
    for key, label in _LABELS.items():
        values = {name: [run.results[f"{name}.{key}"] for run in study.runs] for name in HOPS}
        study.figure(
            f"surprisal_{key}", seed_dots(values, label=label), f"At the end, {label}; a ring a seed"
        )
        _lines(study, f"checkpoints_{key}", list(HOPS), key, label)
    for name in HOPS:
        _heat_map(study, settings, name)
    study.table(
        "languages",
        [
            {
                "language": name,
                "perplexity": fmean(seeds := [run.results[f"{name}.perplexity"] for run in study.runs]),
                **interval_columns("", seeds),
            }
            for name in there
        ],
        "Geometric-mean perplexity at the end, mean over seeds; to be compared within a family alone",
    )


def _curves(study: "Study", family: str, members: Sequence[str]) -> None:
    _lines(
        study,
        f"curves_{family}",
        members,
        "log_perplexity",
        "log of the geometric-mean perplexity (nats per token)",
    )


def _lines(study: "Study", figure: str, members: Sequence[str], key: str, label: str) -> None:
    series: dict[str, Any] = {}
    bands: dict[str, Any] = {}
    for name in members:
        tables = [run.arms[name].tables["checkpoints"] for run in study.runs]
        seeds = [([float(r["update"]) for r in rows], [float(r[key]) for r in rows]) for rows in tables]
        series[name], bands[name] = figures.band_over_seeds(seeds)
    study.figure(
        figure,
        figures.line_chart(series, bands=bands, x_label="updates", y_label=label, markers=True),
        f"{label[0].upper()}{label[1:]} at every checkpoint; mean and range over seeds",
    )


def _heat_map(study: "Study", settings: Settings, name: str) -> None:
    rows = [run.arms[name].tables["checkpoints"][-1] for run in study.runs]
    positions = range(last_position(rows[0]) + 1)
    values = [
        [fmean(float(row[f"iia_{layer}_{position}"]) for row in rows) for position in positions]
        for layer in range(settings.n_layers)
    ]
    labels = ["the", "SUBJECT", "VERB", *(f"t{i}" for i in range(1, len(positions) - 2))]
    study.figure(
        f"interchange_{name}",
        heatmap(
            values, rows=range(settings.n_layers), columns=labels, y_label="block", upwards=True,
            label="interchange intervention accuracy (%)", limits=(0.0, 100.0),
        ),
        f"{name} at the end: how often swapping a block's output at a position swaps the number, mean over seeds",
    )  # fmt: skip
