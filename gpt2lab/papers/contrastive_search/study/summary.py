"""Figures and tables of the study's report, over its seeds."""

import math
from statistics import fmean
from typing import TYPE_CHECKING

from gpt2lab.papers.contrastive_search.study.decoding import trials_of
from gpt2lab.papers.contrastive_search.study.settings import Settings
from gpt2lab.plots import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gpt2lab.studies.study import Study

_SHOWN = ("diversity", "rep_2", "rep_3", "rep_4", "mauve", "coherence", "words", "ms_per_token", "mebibytes")


def add(settings: Settings, study: "Study") -> None:
    """Add the scatter of coherence against diversity, and the table of all decoders."""
    every = trials_of(settings)
    points = {"people": [(_mean(study, "people.diversity"), _mean(study, "people.coherence"), "people")]}
    for trial in every:
        place = _mean(study, f"{trial.name}.diversity"), _mean(study, f"{trial.name}.coherence")
        label = ", ".join(f"{value:g}" for value in trial.options.values())
        points.setdefault(trial.family, []).append((*place, label))
    study.figure(
        "coherence_and_diversity",
        scatter(points),
        "Every decoder and setting: coherence under the scorer against diversity, means over seeds; to the right and up is "
        "better, and people's diversity is the dashed line",
    )
    names = ["people", *(trial.name for trial in every)]
    rows = [{"decoder": name, **{key: _mean(study, f"{name}.{key}") for key in _SHOWN}} for name in names]
    study.table(
        "decoders",
        rows,
        "Means over seeds: diversity, rep and MAUVE in %, coherence in nats a token, length in words; milliseconds a token "
        f"in batches of {settings.decode_batch}; peak memory beside the weights, 8 prefixes, 16 tokens",
    )
    speed = ("seconds", "published_seconds", "ratio", "identical", "bytes", "published_bytes")
    study.table(
        "loops",
        [{"seed": run.seed, **{name: run.results[f"speed.{name}"] for name in speed}} for run in study.runs],
        "Our loop of contrastive search beside the published one, which copies the cache k times: same model, same prompts",
    )


def scatter(points: dict[str, list[tuple[float, float, str]]]) -> "Figure":
    """Draw points (diversity in %, coherence) by family, each with its setting beside it."""
    with figures.style():
        figure, axes = figures.empty_figure(7.4, 5.0)
        for index, (family, places) in enumerate(points.items()):
            colour = (
                figures.INK if family == "people" else figures.PALETTE[(index - 1) % len(figures.PALETTE)]
            )
            known = [place for place in places if all(math.isfinite(value) for value in place[:2])]
            axes.plot(
                [x for x, _, _ in known],
                [y for _, y, _ in known],
                "*" if family == "people" else "o",
                color=colour,
                label=family,
                markersize=11 if family == "people" else 6,
            )
            for x, y, label in known:
                if family != "people" and label:
                    axes.annotate(label, (x, y), (5, 3), textcoords="offset points", fontsize=7, color=colour)
        if points.get("people"):
            axes.axvline(points["people"][0][0], color=figures.MUTED, linestyle="--", linewidth=0.9)
        axes.set_xlabel("diversity (%)")
        axes.set_ylabel("coherence (nats a token under the scorer)")
        axes.legend(fontsize=8)
    return figure


def _mean(study: "Study", name: str) -> float:
    known = [value for value in study.values(name) if math.isfinite(value)]
    return fmean(known) if known else math.nan
