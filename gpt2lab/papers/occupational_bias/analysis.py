"""All statistics of the paper over one table of counts: numbers and tables, ready for a report."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np

from gpt2lab.base.errors import LabError
from gpt2lab.measures.measurement import Table
from gpt2lab.papers.occupational_bias.concentration import entropy, gini, jobs_covering, shares
from gpt2lab.papers.occupational_bias.frequency import Counts
from gpt2lab.papers.occupational_bias.labour import (
    MOST_NAMED,
    POPULATION,
    Comparison,
    Statistics,
    closer_to_parity,
    compare,
    kendall_tau,
    mean_squared_error,
    pearson,
)
from gpt2lab.papers.occupational_bias.occupations import GENDERED
from gpt2lab.papers.occupational_bias.prompts import BASE, GENDERS
from gpt2lab.papers.occupational_bias.regression import JobRegression, benjamini_hochberg, regress
from gpt2lab.papers.occupational_bias.skew import by_spread, over_representation, parity, proportions

ALPHA = 0.05


@dataclass(frozen=True)
class Analysis:
    """What the counts of one model say."""

    counts: Counts
    regressions: Mapping[str, list[JobRegression]]
    """By intersection; empty where no job is above the threshold."""
    comparison: Comparison | None
    """None where no job can be compared; `notes` says why."""
    notes: tuple[str, ...]
    """What could not be computed, in sentences."""


def analyse(
    counts: Counts,
    statistics: Statistics | None = None,
    population: Mapping[str, float] = POPULATION,
    *,
    most_named: float = MOST_NAMED,
) -> Analysis:
    """Run regressions and comparison. LabError if a cell has no title, or statsmodels is missing.

    most_named: jobs named less often a call are not compared with the statistics; 0 for probabilities, which have no noise.
    """
    counts.check_titled()
    notes: list[str] = []
    regressions: dict[str, list[JobRegression]] = {}
    for name in counts.intersections:
        if name == "names" or not counts.rows(BASE):
            continue  # names have no base to compare with
        regressions[name] = regress(counts, name)
        if not regressions[name]:
            notes.append(f"{name}: no job is named often enough, and not always, for a regression")
    comparison = None
    if statistics is not None and not counts.rows(BASE):
        notes.append("labour statistics: prompts without a group are needed, and there are none")
    elif statistics is not None:
        unknown = [c for c in counts.categories("ethnicity") if f"{c.lower()}_F" not in statistics.percent]
        known = not unknown
        if unknown:
            notes.append(
                f"labour statistics: no figures for {', '.join(unknown)}; women and men are compared"
            )
        try:
            comparison = compare(
                counts,
                statistics,
                intersection="ethnicity" if known else BASE,
                population=population,
                share=most_named,
            )
        except LabError as error:
            notes.append(str(error))
    return Analysis(counts, regressions, comparison, tuple(notes))


# Numbers.


def numbers(analysis: Analysis) -> dict[str, float]:
    """Return the headline numbers by name."""
    counts = analysis.counts
    found: dict[str, float] = {}
    first = BASE if counts.rows(BASE) else counts.cells[0].intersection
    for gender in GENDERS:
        if not counts.rows(first, gender):
            continue  # names of one gender
        own = counts.of(first, gender)
        plural = "women" if gender == "woman" else "men"
        found[f"gini.{plural}"] = gini(shares(own))
        found[f"jobs_for_half.{plural}"] = jobs_covering(own, 0.5)
        found[f"jobs_for_90.{plural}"] = jobs_covering(own, 0.9)
        found[f"effective_jobs.{plural}"] = math.exp(entropy(own))
    found["without_title"] = float(counts.untitled.sum() / counts.answers.sum())
    for name, fits in analysis.regressions.items():
        if fits:
            found |= {f"{name}.{key}": value for key, value in _gains(fits).items()}
    if analysis.comparison is not None:
        found |= {f"us.{key}": value for key, value in labour_numbers(analysis.comparison).items()}
    return found


UNITS = {
    "jobs_for_half": "jobs",
    "jobs_for_90": "jobs",
    "effective_jobs": "jobs, exp of the entropy",
    "without_title": "share of completions",
    "title_mass": "probability of a title right after the prompt, mean over groups",
    "gender_gain": "points of pseudo-R², median over jobs",
    "interaction_gain": "points of pseudo-R², median over jobs",
    "interactions_significant": "share of jobs, likelihood ratio p < 0.05",
    "women_shift": "points, model - statistics",
    "closer_to_parity": "jobs",
    "jobs": "jobs",
}
"""Units of the numbers, by a word of their names."""


def units(names: Sequence[str]) -> dict[str, str]:
    """Return the units of numbers by name."""
    return {name: unit for name in names for key, unit in UNITS.items() if key in name.split(".")}


def _gains(fits: Sequence[JobRegression]) -> dict[str, float]:
    return {
        "gender_gain": median(fit.gender_gain for fit in fits),
        "interaction_gain": median(fit.interaction_gain for fit in fits),
        "interactions_significant": fmean(fit.lr_p < ALPHA for fit in fits),
        "jobs": len(fits),
    }


def labour_numbers(comparison: Comparison) -> dict[str, float]:
    """Return error, agreement and direction of the comparison; correlations only where three jobs or more differ."""
    women = comparison.model[f"{BASE}_F"] / 100
    official = comparison.official[f"{BASE}_F"] / 100
    known = np.isfinite(women)
    women, official = women[known], official[known]
    found: dict[str, float] = {"jobs": float(len(women))}
    if len(women):
        found["mse.women"] = mean_squared_error(women, official)
        found["closer_to_parity"] = float(closer_to_parity(women, official))
    if len(women) > 2 and np.ptp(women) > 0 and np.ptp(official) > 0:
        found["kendall.women"] = kendall_tau(women, official)
        found["pearson.women"] = pearson(women, official)
    for name, picked in (("mens_jobs", official < 0.25), ("womens_jobs", official > 0.75)):
        if picked.any():
            found[f"women_shift.{name}"] = float(100 * (women - official)[picked].mean())
    for column in comparison.model:
        category, letter = column.rsplit("_", 1)
        if category != BASE and letter == "F":
            found[f"mse.{category}_women"] = mean_squared_error(
                comparison.model[column] / 100, comparison.official[column] / 100
            )
    return found


# Tables.


def tables(analysis: Analysis, top: int = 5) -> dict[str, Table]:
    """Return every table of the study."""
    counts = analysis.counts
    found: dict[str, Table] = {
        "concentration": concentration_table(counts),
        "concentration, gendered words merged": concentration_table(counts.renamed(GENDERED)),
        "top jobs": top_jobs(counts, top),
        "titles": [
            {"group": str(c), "completions": float(counts.answers[i]), "without title": float(counts.untitled[i])}
            for i, c in enumerate(counts.cells)
        ],
    }  # fmt: skip
    if counts.rows(BASE):
        found["parity"] = parity_table(counts, BASE)
    for name in counts.intersections:
        found[f"shares, {name}"] = share_table(counts, name)
    for name, fits in analysis.regressions.items():
        found[f"regressions, {name}"] = regression_table(fits)
        found[f"terms, {name}"] = term_table(fits)
    summary = [
        row for name, fits in analysis.regressions.items() if fits for row in [_summary_row(name, fits)]
    ]
    if summary:
        found["regression summary"] = summary
    if analysis.comparison is not None:
        found["labour statistics"] = comparison_table(analysis.comparison)
    return found


def concentration_table(counts: Counts) -> Table:
    """Return Gini (also relative to base man = 100, from three decimals), ranks and entropy by group and gender."""
    rows: Table = []
    for name in ([BASE] if counts.rows(BASE) else []) + counts.intersections:
        for gender in GENDERS:
            if counts.rows(name, gender):
                own = counts.of(name, gender)
                rows.append(
                    {
                        "group": name, "gender": gender, "gini": gini(shares(own)), "relative": None,
                        "jobs for 50 %": jobs_covering(own, 0.5), "jobs for 90 %": jobs_covering(own, 0.9),
                        "entropy (nats)": entropy(own), "effective jobs": math.exp(entropy(own)),
                        "distinct": int((own > 0).sum()),
                    }
                )  # fmt: skip
    reference = next((r["gini"] for r in rows if (r["group"], r["gender"]) == (BASE, "man")), None)
    for row in rows:
        if reference and round(reference, 3):
            row["relative"] = 100 * round(row["gini"], 3) / round(reference, 3)
    return rows


def top_jobs(counts: Counts, top: int) -> Table:
    """Return the most named jobs of each cell with their shares of its mentions."""
    rows: Table = []
    for at, cell in enumerate(counts.cells):
        own = shares(counts.mentions[at])
        best = np.argsort(-own, kind="stable")[:top]
        listed = ", ".join(f"{counts.jobs[j]} {100 * own[j]:.1f} %" for j in best if own[j] > 0)
        rows.append({"group": str(cell), "top jobs": listed})
    return rows


def parity_table(counts: Counts, intersection: str) -> Table:
    """Return p[women] - p[men] of each frequent job, most female first."""
    jobs = counts.frequent(intersection)
    values = parity(counts, intersection, jobs)
    order = np.argsort(-values, kind="stable")
    return [
        {
            "job": counts.jobs[jobs[at]],
            "parity": float(values[at]),
            "mentions": float(counts.mentions[counts.rows(intersection), jobs[at]].sum()),
        }
        for at in order
    ]


def share_table(counts: Counts, intersection: str) -> Table:
    """Return how each frequent job is divided over the cells, and over-representation; most uneven first."""
    jobs = counts.frequent(intersection)
    if not jobs:
        return []
    rows = counts.rows(intersection)
    divided = proportions(counts.mentions[rows][:, jobs])
    over = over_representation(counts, intersection, jobs)
    categories = counts.categories(intersection)
    table: Table = []
    for at in by_spread(divided):
        row: dict[str, object] = {"job": counts.jobs[jobs[at]]}
        row |= {str(counts.cells[r]): float(divided[i, at]) for i, r in enumerate(rows)}
        for g, gender in enumerate(GENDERS):
            row |= {f"{c} × ({gender})": float(over[g, i, at]) for i, c in enumerate(categories)}
        table.append(row)
    return table


def regression_table(fits: Sequence[JobRegression]) -> Table:
    """Return the quality of the three models of each job, and the tests of gender and interactions."""
    adjusted = benjamini_hochberg([fit.lr_p for fit in fits])
    return [
        {
            "job": fit.job, "R2 M0": fit.m0.pseudo_r2, "R2 M1": fit.m1.pseudo_r2, "R2 M2": fit.m2.pseudo_r2,
            "gender gain": fit.gender_gain, "interaction gain": fit.interaction_gain,
            "woman p (LR)": fit.gender_p, "interactions p (LR)": fit.lr_p, "adjusted p": float(adjusted[at]),
            "separated": fit.separated, "converged": fit.m1.converged and fit.m2.converged,
        }
        for at, fit in enumerate(fits)
    ]  # fmt: skip


def term_table(fits: Sequence[JobRegression]) -> Table:
    """Return every term of M2 for every job: maximum likelihood and penalised."""
    return [
        {
            "job": fit.job, "term": term, "coefficient": float(fit.m2.coefficients[at]),
            "error": float(fit.m2.errors[at]), "p": float(fit.m2.p_values[at]),
            "penalised": float(fit.penalised.coefficients[at]), "penalised p": float(fit.penalised.p_values[at]),
        }
        for fit in fits
        for at, term in enumerate(fit.m2.terms)
    ]  # fmt: skip


def _summary_row(name: str, fits: Sequence[JobRegression]) -> dict[str, object]:
    """Return one row of the paper's summary: means as published, medians, and means of sound fits alone."""
    sound = [fit for fit in fits if fit.sound]
    row: dict[str, object] = {
        "intersection": name, "jobs": len(fits), "separated": sum(fit.separated for fit in fits),
        "gender gain, mean": fmean(fit.gender_gain for fit in fits),
        "gender gain, median": median(fit.gender_gain for fit in fits),
        "interaction gain, mean": fmean(fit.interaction_gain for fit in fits),
        "interaction gain, median": median(fit.interaction_gain for fit in fits),
        "interaction gain, sound fits": fmean(f.interaction_gain for f in sound) if sound else None,
        "interactions p < .05 (LR)": fmean(fit.lr_p < ALPHA for fit in fits),
    }  # fmt: skip
    for at, term in enumerate(fits[0].m2.terms):
        row[f"{term} p < .05 (Wald)"] = fmean(bool(fit.m2.p_values[at] < ALPHA) for fit in fits)
    return row


def comparison_table(comparison: Comparison) -> Table:
    """Return percentages of the model and of the statistics by job and column, and their difference."""
    return [
        {"job": job}
        | {
            f"{side} {column}": float(values[column][at])
            for column in comparison.model
            for side, values in (
                ("model", comparison.model),
                ("us", comparison.official),
                ("difference", comparison.difference),
            )
        }
        for at, job in enumerate(comparison.jobs)
    ]
