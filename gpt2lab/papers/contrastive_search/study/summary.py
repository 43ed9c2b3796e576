"""Figures and tables of the study's report, over its seeds."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from gpt2lab.papers.contrastive_search.study.settings import Settings
from gpt2lab.papers.contrastive_search.study.writing import PEOPLE
from gpt2lab.plots import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gpt2lab.runs.run_record import RunRecord
    from gpt2lab.studies.study import Study

Place = tuple[float, float, str]
"""Diversity, coherence, and what stands beside the point."""

_SHOWN = ("diversity", "rep_2", "rep_3", "rep_4", "mauve", "coherence", "words", "ms_per_token", "mebibytes")
_SPEED = (
    "seconds",
    "published_seconds",
    "ratio",
    "identical",
    "identical_in_float64",
    "bytes",
    "published_bytes",
)


def add(settings: Settings, study: "Study") -> None:
    """Add the tuned lines of decoders, the decoders' table, the pretrained model's, and the two loops'."""
    if not study.runs:
        return
    first = study.runs[0]
    if settings.trained:
        study.figure(
            "coherence_and_diversity", lines(tried(first.arms["tuning"])), _caption("trained models")
        )
        _decoders(settings, study)
    if first.results["real.at_hand"]:
        study.figure("pretrained", lines(tried(first.arms["real_tuning"])), _caption(settings.real))
        study.table(
            "pretrained",
            [
                {"decoder": row["decoder"], **{key: row[key] for key in _SHOWN if key in row}}
                for row in first.arms["real"].tables["decoders"]
            ],
            f"{settings.real} on the judged passages: diversity and rep in %, coherence in nats a token",
        )
    study.table(
        "loops",
        [{"seed": run.seed, **{name: run.results[f"speed.{name}"] for name in _SPEED}} for run in study.runs],
        "Our loop of contrastive search beside the published one, which copies the cache k times: same model, same prompts",
    )


def _caption(whose: str) -> str:
    return (
        f"Every setting on the tuning texts, {whose}: coherence under the scorer against diversity. Up is more coherent. "
        "The dashed line is people's diversity, at which the best line of either kind is judged"
    )


def _decoders(settings: Settings, study: "Study") -> None:
    names = [str(row["decoder"]) for row in study.runs[0].tables["decoders"]]
    rows = [{"decoder": name, **{key: _mean(study, f"{name}.{key}") for key in _SHOWN}} for name in names]
    study.table(
        "decoders",
        rows,
        "Means over seeds: diversity, rep and MAUVE in %, coherence in nats a token, length in words; milliseconds a token "
        f"in batches of {settings.decoding.batch}; peak memory beside the weights, 8 prefixes, 16 tokens",
    )


def tried(tuning: "RunRecord") -> dict[str, list[Place]]:
    """Return the points of a tuning unit by family, people's first."""
    found: dict[str, list[Place]] = {}
    for row in tuning.tables["tried"]:
        place = float(str(row["diversity"])), float(str(row["coherence"])), str(row["setting"])
        found.setdefault(str(row["family"]), []).append(place)
    return found


def lines(families: Mapping[str, Sequence[Place]]) -> "Figure":
    """Draw families of settings as lines of (diversity in %, coherence), each point with its setting."""
    with figures.style():
        figure, axes = figures.empty_figure(7.4, 5.0)
        others = [name for name in families if name != PEOPLE]
        for name, places in families.items():
            known = [place for place in places if all(math.isfinite(value) for value in place[:2])]
            x, y = [place[0] for place in known], [place[1] for place in known]
            if name == PEOPLE:
                axes.plot(x, y, "*", color=figures.INK, label=name, markersize=11)
                continue
            colour = figures.PALETTE[others.index(name) % len(figures.PALETTE)]
            style = "o-" if name.startswith("contrastive") else "s--"
            axes.plot(x, y, style, color=colour, label=name.replace("_", " "), markersize=5, linewidth=1.0)
            for a, b, label in known:
                axes.annotate(label, (a, b), (5, 3), textcoords="offset points", fontsize=7, color=colour)
        if families.get(PEOPLE):
            axes.axvline(families[PEOPLE][0][0], color=figures.MUTED, linestyle="--", linewidth=0.9)
        axes.set_xlabel("diversity (%)")
        axes.set_ylabel("coherence (nats a token under the scorer)")
        axes.legend(fontsize=8)
    return figure


def _mean(study: "Study", name: str) -> float:
    known = [value for value in study.values(name) if math.isfinite(value)]
    return fmean(known) if known else math.nan
