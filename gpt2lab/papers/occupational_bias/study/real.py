"""A pretrained model, where it is at hand, measured with the paper's prompts.

Its weights are fixed, so the claims are judged over jobs: every array that a claim reads has one value a job. The exact mode
has no noise of drawing; what an interval over jobs says is how far the finding depends on which jobs there are.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gpt2lab.actions.models import is_at_hand, load
from gpt2lab.measures.measurement import Measurement
from gpt2lab.measures.statistics import jackknife
from gpt2lab.papers.occupational_bias.analysis import ALPHA
from gpt2lab.papers.occupational_bias.concentration import gini, shares
from gpt2lab.papers.occupational_bias.labour import kendall_tau
from gpt2lab.papers.occupational_bias.measure import OccupationalBias
from gpt2lab.papers.occupational_bias.prompts import BASE
from gpt2lab.papers.occupational_bias.study.settings import Settings

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run

Floats = NDArray[np.float64]
Rows = Sequence[Mapping[str, object]]

MENS, WOMENS = 25.0, 75.0
"""Women's percentage below which a job is a men's job, and above which it is a women's job."""


def measure(settings: Settings, run: "Run") -> None:
    """Measure the pretrained model; report its numbers, tables and figures, and by job what claims G to K read."""
    there = is_at_hand(settings.real)
    run.result("at_hand", there)
    if not there:
        return
    run.judges("jobs of the pretrained model", on="the paper's prompts")
    lm = load(settings.real, device=run.device)
    options = OccupationalBias(
        templates=("identity", "names") if settings.names else ("identity",),
        mode=settings.mode,
        intersections=settings.intersections,
        n=settings.n,
        names_n=settings.names_n,
        top_k=settings.top_k,
        seed=run.seed,
        batch_size=settings.sample_batch,
        out=str(run.folder / "bias"),
    )
    measured = options(lm)
    for name, value in measured.numbers.items():
        run.result(name.replace("-", "_"), value)
    for name, rows in measured.tables.items():
        run.table(file_name(name), rows, name)
    for file in sorted((run.folder / "bias" / "figures").glob("*.svg")):
        if not file.stem.startswith("exact"):
            run.figure(file_name(file.stem), file.read_text(encoding="utf-8"), file.stem.replace("_", " "))
    for name, (values, caption) in by_job(measured).items():
        run.array(name, values, caption)


def hand_over(run: "Run") -> None:
    """Give a seed's end what the pretrained model has reported: the same in every seed, since its weights are."""
    real = run.arms["real"]
    for name, value in real.results.items():
        run.result(f"real.{name}", value)
    for name, values in real.arrays.items():
        run.array(name, values, real.captions("arrays")[name])


def file_name(name: str) -> str:
    """Return the name of a table or figure as a file's."""
    return "_".join(name.replace(",", " ").replace(":", " ").split()).replace("-", "_")


def by_job(measured: Measurement) -> dict[str, tuple[Floats, str]]:
    """Return the arrays that the claims read, each with its caption: one value a job, whose mean is the quantity.

    What is no mean over jobs (a Gini coefficient, a rank correlation, a difference of two groups' means) is in
    pseudo-values of the jackknife.
    """
    found: dict[str, tuple[Floats, str]] = {}
    titles = [str(row["group"]) for row in measured.tables["titles"]]
    women, men = (measured.arrays["mentions"][titles.index(noun)] for noun in ("woman", "man"))
    gap = jackknife(len(women), lambda kept: gini(shares(women[kept])) - gini(shares(men[kept])))
    found["real_gini_gap"] = gap, "Gini of women minus men, base prompts: pseudo-values by job"
    found |= _regressions(measured)
    if "labour statistics" in measured.tables:
        found |= _labour(measured.tables["labour statistics"])
    return found


def _regressions(measured: Measurement) -> dict[str, tuple[Floats, str]]:
    """Return the gains of gender and of interactions, and the share of significant interaction terms, by job.

    A job has a regression in every intersection in which it is frequent; its value is the mean over them, since they share
    the completions of base and are no items of their own.
    """
    gains: dict[str, list[float]] = {}
    interactions: dict[str, list[float]] = {}
    terms: dict[str, list[float]] = {}
    for name, rows in measured.tables.items():
        kind, _, intersection = name.partition(", ")
        if kind == "regressions":
            for row in rows:
                gains.setdefault(str(row["job"]), []).append(_number(row["gender gain"]))
                interactions.setdefault(str(row["job"]), []).append(_number(row["interaction gain"]))
        if kind == "terms" and intersection:
            for row in rows:
                if str(row["term"]).startswith("woman:"):
                    terms.setdefault(str(row["job"]), []).append(float(_number(row["p"]) < ALPHA))
    if not gains:
        return {}
    jobs = sorted(gains)
    return {
        "real_gender_gain": (
            np.array([fmean(gains[job]) for job in jobs]),
            "Points of pseudo-R² that gender adds, by job",
        ),
        "real_interaction_gain": (
            np.array([fmean(interactions[job]) for job in jobs]),
            "Points of pseudo-R² that interactions add, by job",
        ),
        "real_interactions": (
            np.array([fmean(terms[job]) for job in jobs]),
            "Share of interaction terms with Wald p < 0.05, by job",
        ),
    }


def _labour(rows: Rows) -> dict[str, tuple[Floats, str]]:
    known = [row for row in rows if np.isfinite(_number(row[f"model {BASE}_F"]))]
    model = np.array([_number(row[f"model {BASE}_F"]) for row in known])
    official = np.array([_number(row[f"us {BASE}_F"]) for row in known])
    shift = model - official
    mens, womens = official < MENS, official > WOMENS
    found: dict[str, tuple[Floats, str]] = {}
    if len(known) > 2 and np.ptp(model) > 0 and np.ptp(official) > 0:
        tau = jackknife(len(known), lambda kept: kendall_tau(model[kept], official[kept]))
        found["real_kendall"] = (
            tau,
            "Kendall's tau of women's shares with the statistics: pseudo-values by job",
        )
    if min(mens.sum(), womens.sum()) > 1:
        parity = jackknife(
            len(known),
            lambda kept: float(shift[kept][mens[kept]].mean() - shift[kept][womens[kept]].mean()),
        )
        found["real_parity"] = parity, "Shift of men's jobs minus that of women's: pseudo-values by job"
    return found


def _number(value: object) -> float:
    return float("nan") if value is None else float(str(value))
