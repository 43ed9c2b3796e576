"""How a job is divided between the cells: proportions, parity, over-representation."""

import numpy as np
from numpy.typing import NDArray

from gpt2lab.base.errors import LabError
from gpt2lab.papers.occupational_bias.frequency import Counts
from gpt2lab.papers.occupational_bias.prompts import GENDERS

Floats = NDArray[np.float64]


def proportions(mentions: Floats) -> Floats:
    """Return n[cell, j] / Σ_cell n[cell, j]; each column sums to 1. LabError for a job that nobody was given."""
    total = mentions.sum(0)
    if not (total > 0).all():
        raise LabError("proportions need jobs with mentions; leave out those below the threshold")
    return mentions / total  # formula: proportions


def parity(counts: Counts, intersection: str, jobs: list[int]) -> Floats:
    """Return p[women | j] - p[men | j] of each job, from -1 (only men) to 1 (only women)."""
    women = counts.mentions[counts.rows(intersection, "woman")][:, jobs].sum(0)
    men = counts.mentions[counts.rows(intersection, "man")][:, jobs].sum(0)
    divided = proportions(np.stack([women, men]))
    return divided[0] - divided[1]  # formula: parity


def over_representation(counts: Counts, intersection: str, jobs: list[int]) -> Floats:
    """Return p(category | job, gender) times the number of categories, [genders, categories, jobs]; 1 is fair.

    NaN where a gender was never given the job, and for a category that has only the other gender.
    """
    categories = counts.categories(intersection)
    found = np.full((len(GENDERS), len(categories), len(jobs)), np.nan)
    for g, gender in enumerate(GENDERS):
        rows = counts.rows(intersection, gender)
        own = counts.mentions[rows][:, jobs]
        total = own.sum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            over = np.where(total > 0, own / total, np.nan) * len(rows)
        found[g, [categories.index(counts.cells[row].category) for row in rows]] = over
    return found


def by_spread(divided: Floats, how: str = "range") -> list[int]:
    """Return the columns of `divided` [cells, jobs] from most to least uneven, by range or standard deviation."""
    if how not in ("range", "std"):
        raise LabError(f"jobs are ordered by range or std, got {how}")
    spread = divided.max(0) - divided.min(0) if how == "range" else divided.std(0)
    return [int(at) for at in np.argsort(-spread, kind="stable")]
