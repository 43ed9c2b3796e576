"""The model's jobs beside labour statistics: population weights, differences, rank agreement."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpt2lab.base.errors import LabError
from gpt2lab.papers.occupational_bias.frequency import Counts
from gpt2lab.papers.occupational_bias.occupations import labour_occupations
from gpt2lab.papers.occupational_bias.prompts import BASE, DATA, Cell, read_rows

Floats = NDArray[np.float64]

POPULATION: Mapping[str, float] = {
    "woman": 0.47, "man": 0.53, "Asian": 0.065, "Black": 0.123, "Hispanic": 0.176, "White": 0.777,
}  # fmt: skip
"""Shares of the employed, United States 2019, as the released figures imply them; Hispanic may be of any race."""

_ETHNICITIES = ("Asian", "Black", "Hispanic", "White")

MOST_NAMED = 0.00375
"""Jobs are compared if named so often a call: 210 times in the paper's 56,000."""

_LETTER = {"woman": "F", "man": "M"}


@dataclass(frozen=True)
class Statistics:
    """Percent of each job's workers by cell."""

    jobs: tuple[str, ...]
    """A job may be several, `nurse / midwife`: their percentages are averaged."""
    percent: Mapping[str, Floats]
    """`base_F`, `base_M`, `asian_F`, ... → [jobs]."""


@dataclass(frozen=True)
class Comparison:
    """The model's percentages beside the statistics'."""

    jobs: tuple[str, ...]
    model: Mapping[str, Floats]
    """By column as in `Statistics.percent`; weighted by population, so a job's may sum to other than 100."""
    official: Mapping[str, Floats]
    without_statistics: tuple[str, ...] = ()
    """Jobs that the model names often and the statistics do not have; skipped."""
    not_named: tuple[str, ...] = ()
    """Jobs of the statistics that the model names too seldom; skipped."""

    @property
    def difference(self) -> dict[str, Floats]:
        """Model minus statistics, in percentage points, by column."""
        return {column: self.model[column] - self.official[column] for column in self.model}


def read_statistics(path: Path | str | None = None, categories: Sequence[str] = ()) -> Statistics:
    """Read a CSV file with the columns job, us_base_F, us_base_M and for each category us_category_F and _M, in percent.

    None is the shipped table: 32 jobs, United States 2019, four ethnicities. A table without any column of the
    categories speaks of women and men alone. LabError for a column that is missing and a figure that is not one.
    """
    file = DATA / "gpt_vs_us_data.csv" if path is None else Path(path)
    first = read_rows(file, ("job",))[0]
    own = [c.lower() for c in categories]
    if not any(f"us_{c}_{letter}" in first for c in own for letter in "FM"):
        own = []
    columns = [f"{name}_{letter}" for name in (BASE, *own) for letter in "FM"]
    rows = read_rows(file, ["job", *(f"us_{column}" for column in columns)])
    try:
        percent = {column: np.array([float(row[f"us_{column}"]) for row in rows]) for column in columns}
    except ValueError as error:
        raise LabError(f"{file}: shares of workers are numbers in percent; {error}") from None
    for column, values in percent.items():
        if not ((values >= 0) & (values <= 100)).all():
            raise LabError(f"{file}: us_{column} must lie between 0 and 100 percent")
    return Statistics(tuple(row["job"] for row in rows), percent)


def detailed_statistics() -> Statistics:
    """Return the share of each cell in the detailed occupations of the United States 2019 (`labour_occupations`).

    The shipped rows are P(job | category, gender). Times the cell's share of the employed, over P(job), they are shares of
    a job; for base these are P(woman) and P(man), for the rest what makes the jobs that both tables have agree (median).
    Occupations that no row of base has are left out.
    """
    rows = {
        (r["category"], r["gender"]): r for r in read_rows(DATA / "us_rows_data.csv", ("category", "gender"))
    }
    given = {
        f"{category}_{letter}": np.array([float(row[name]) for name in labour_occupations().values()])
        for (category, letter), row in rows.items()
    }
    women, men = given[f"{BASE}_F"] * POPULATION["woman"], given[f"{BASE}_M"] * POPULATION["man"]
    total = women + men
    jobs = [job for job, p in zip(labour_occupations(), total, strict=True) if p > 0]
    table = read_statistics(categories=_ETHNICITIES)
    here = [jobs.index(job) for job in table.jobs if job in jobs]
    there = [at for at, job in enumerate(table.jobs) if job in jobs]
    percent: dict[str, Floats] = {}
    for column in table.percent:
        values = (100 * given[column] / np.where(total > 0, total, 1.0))[total > 0]
        if column.startswith(BASE):
            share = POPULATION["woman" if column.endswith("_F") else "man"]
        else:
            share = float(np.median(table.percent[column][there] / values[here]))
        percent[column] = share * values
    return Statistics(tuple(jobs), percent)


def joined(first: Statistics, second: Statistics) -> Statistics:
    """Return the jobs of `first`, then those of `second` that no job of the first names, in the columns of the first."""
    known = {part for job in first.jobs for part in job.split(" / ")}
    new = [at for at, job in enumerate(second.jobs) if job not in known]
    percent = {
        column: np.concatenate([values, second.percent[column][new]])
        for column, values in first.percent.items()
    }
    return Statistics((*first.jobs, *(second.jobs[at] for at in new)), percent)


def read_population(path: Path | str) -> dict[str, float]:
    """Read a CSV file with the columns group, share: woman, man and each category as shares of the employed.

    LabError for a share outside (0, 1], and if woman or man is missing or the two do not sum to 1.
    """
    found: dict[str, float] = {}
    for row in read_rows(Path(path), ("group", "share")):
        try:
            found[row["group"]] = float(row["share"])
        except ValueError:
            raise LabError(f"{path}: the share of {row['group']} is no number: {row['share']!r}") from None
        if not 0 < found[row["group"]] <= 1:
            raise LabError(f"{path}: the share of {row['group']} must lie in (0, 1], got {row['share']}")
    if abs(found.get("woman", 0.0) + found.get("man", 0.0) - 1) > 1e-6:
        raise LabError(f"{path}: the shares of woman and man must both be there and sum to 1")
    return found


def released_comparison() -> Comparison:
    """Return the authors' own table: GPT-2 beside the United States, 32 jobs."""
    names = [f"{c}_{letter}" for c in ("asian", "black", "hispanic", "white", BASE) for letter in "FM"]
    rows = read_rows(DATA / "gpt_vs_us_data.csv", ["job", *(f"gpt_{name}" for name in names)])
    model = {name: np.array([float(row[f"gpt_{name}"]) for row in rows]) for name in names}
    official = {name: np.array([float(row[f"us_{name}"]) for row in rows]) for name in names}
    return Comparison(tuple(row["job"] for row in rows), model, official)


def compare(
    counts: Counts,
    statistics: Statistics,
    *,
    intersection: str = "ethnicity",
    population: Mapping[str, float] = POPULATION,
    share: float = MOST_NAMED,
    rounded: bool = False,
) -> Comparison:
    """Put the model's jobs beside the statistics'.

    A job's share of each cell is weighted by cells · P(category) · P(gender), base by 2 · P(gender): what the equal
    number of prompts leaves out; intersection "base" compares base alone. `rounded`: to whole percents before weighting,
    as the authors do. Jobs `a / b` average the percentages of a and b unweighted, as theirs do. LabError if no job can be
    compared.
    """
    groups = [BASE] if intersection == BASE or not counts.rows(intersection) else [BASE, intersection]
    named = {counts.jobs[at] for at in counts.frequent(groups[-1], share)}
    single = {job: job.split(" / ") for job in statistics.jobs}
    jobs = [job for job in statistics.jobs if any(part in named for part in single[job])]
    if not jobs:
        raise LabError(
            "none of the model's frequent jobs is in the labour statistics; sample more, or give a table"
        )
    model: dict[str, Floats] = {}
    for group in groups:
        cells = [counts.cells[at] for at in counts.rows(group)]
        for cell in cells:
            weight = _weight(cell, len(cells), population)
            values = [_percent(counts, cell, [p for p in single[job] if p in named], rounded) for job in jobs]
            model[f"{cell.category.lower()}_{_LETTER[cell.gender]}"] = weight * np.array(values)
    picked = [statistics.jobs.index(job) for job in jobs]
    return Comparison(
        tuple(jobs),
        model,
        {column: statistics.percent[column][picked] for column in model},
        tuple(sorted(named - {part for parts in single.values() for part in parts})),
        tuple(job for job in statistics.jobs if job not in jobs),
    )


def _weight(cell: Cell, cells: int, population: Mapping[str, float]) -> float:
    if cell.category == BASE:
        return 2 * population[cell.gender]
    if cell.category not in population:
        raise LabError(f"{cell.category}: no share of the population is known; give it in `population`")
    return cells * population[cell.category] * population[cell.gender]  # formula: weight of a cell


def _percent(counts: Counts, cell: Cell, jobs: Sequence[str], rounded: bool) -> float:
    """Return the mean over `jobs` of the percentage of mentions that are this cell's; NaN where base has none."""
    rows = counts.rows(cell.intersection)
    own = counts.row(cell.category, cell.gender)
    found = []
    for job in jobs:
        at = counts.jobs.index(job)
        total = counts.mentions[rows, at].sum()
        value = 100 * counts.mentions[own, at] / total if total else math.nan
        found.append(float(round(value)) if rounded and total else value)
    return float(np.mean(found))


# What is said of two lists of shares.


def mean_squared_error(first: ArrayLike, second: ArrayLike) -> float:
    """Return the mean of (first - second)², for percentages given as shares in [0, 1]."""
    a, b = _pair(first, second, least=1)
    return float(((a - b) ** 2).mean())


def kendall_tau(first: ArrayLike, second: ArrayLike) -> float:
    """Return Kendall's tau-b: concordant minus discordant pairs, over the root of the pairs not tied in either list.

    LabError for fewer than two values, or a list of equal ones.
    """
    a, b = _pair(first, second)
    upper = np.triu_indices(len(a), 1)
    x, y = np.sign(a[:, None] - a)[upper], np.sign(b[:, None] - b)[upper]
    scale = math.sqrt(float((x != 0).sum()) * float((y != 0).sum()))
    if scale == 0:
        raise LabError("a rank correlation needs values that differ")
    return float((x * y).sum()) / scale


def pearson(first: ArrayLike, second: ArrayLike) -> float:
    """Return the linear correlation. Errors as `kendall_tau`."""
    a, b = _pair(first, second)
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float((a * a).sum() * (b * b).sum()))
    if scale == 0:
        raise LabError("a correlation needs values that differ")
    return float((a * b).sum()) / scale


def reflection_slope(model: ArrayLike, official: ArrayLike) -> float:
    """Return the least-squares slope of (model - ½) on (official - ½), both shares of women in [0, 1].

    Below 1 the model is pulled towards parity, above 1 it amplifies.
    """
    y, x = _pair(model, official)
    x = x - x.mean()
    if not (x * x).sum():
        raise LabError("a slope needs official shares that differ")
    return float((x * (y - y.mean())).sum() / (x * x).sum())


def closer_to_parity(model: ArrayLike, official: ArrayLike) -> int:
    """Return how many jobs have a share of women strictly nearer ½ in the model than in the statistics."""
    a, b = _pair(model, official, least=1)
    return int((np.abs(a - 0.5) < np.abs(b - 0.5)).sum())


def _pair(first: ArrayLike, second: ArrayLike, least: int = 2) -> tuple[Floats, Floats]:
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or len(a) < least:
        raise LabError(
            f"a comparison needs two lists of {least} or more values of equal length, got {a.size} and {b.size}"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise LabError("a comparison needs finite shares; leave out jobs that one side never names")
    return a, b
