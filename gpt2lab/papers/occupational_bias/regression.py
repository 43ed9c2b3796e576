"""Logistic regressions: does a job depend on gender, and on gender and category together.

All variables are classes, so the likelihood of the rows depends on the counts by cell alone: the fits on counts
below have the coefficients, errors and likelihoods of fits on one row a completion, in a thousandth of the time.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from gpt2lab.base.errors import LabError
from gpt2lab.base.extras import install
from gpt2lab.papers.occupational_bias.frequency import Counts
from gpt2lab.papers.occupational_bias.prompts import BASE

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """One logistic model of one job."""

    terms: tuple[str, ...]
    coefficients: Floats
    """[terms], log odds."""
    errors: Floats
    """[terms], Wald standard errors."""
    p_values: Floats
    """[terms], two-sided Wald."""
    log_likelihood: float
    """Of one row a completion, in nats."""
    pseudo_r2: float
    """McFadden's, 100 · (1 - log-likelihood / that of the intercept alone): percentage points, no explained variance."""
    converged: bool


@dataclass(frozen=True)
class JobRegression:
    """The three models of one job in one intersection."""

    job: str
    m0: Fit
    """Categories."""
    m1: Fit
    """Categories and woman."""
    m2: Fit
    """Categories, woman, and woman in each category; it fits every cell."""
    separated: bool
    """A cell has the job never or always: coefficients of M2 run away, and their Wald p is near 1."""
    lr_p: float
    """Likelihood-ratio test of the interactions, M2 against M1, one degree of freedom a category."""
    gender_p: float
    """Likelihood-ratio test of woman, M1 against M0."""
    penalised: Fit
    """M2 with Firth's penalty: finite where cells are empty."""

    @property
    def gender_gain(self) -> float:
        """Pseudo-R² of M1 minus that of M0, in points."""
        return self.m1.pseudo_r2 - self.m0.pseudo_r2

    @property
    def interaction_gain(self) -> float:
        """Pseudo-R² of M2 minus that of M1, in points."""
        return self.m2.pseudo_r2 - self.m1.pseudo_r2

    @property
    def sound(self) -> bool:
        """All fits converged and no cell is empty."""
        return self.m0.converged and self.m1.converged and self.m2.converged and not self.separated


def design(categories: Sequence[str]) -> tuple[tuple[str, ...], Floats]:
    """Return the terms of M2 and its matrix [2 · (1 + categories), terms].

    Rows: base woman, base man, then woman and man of each category. Reference levels are base and man.
    """
    names = [column_name(category) for category in categories]
    terms = ("Intercept", *names, "woman", *(f"woman:{name}" for name in names))
    rows = []
    for level in range(len(names) + 1):
        dummies = [float(level == at + 1) for at in range(len(names))]
        for woman in (1.0, 0.0):
            rows.append([1.0, *dummies, woman, *(woman * dummy for dummy in dummies)])
    return terms, np.array(rows)


def column_name(text: str) -> str:
    """Return a category or job as a variable: blanks and hyphens become underscores, as in the released tables."""
    return text.lower().replace(" ", "_").replace("-", "_")


def fit_logistic(matrix: Floats, successes: Floats, trials: Floats, terms: Sequence[str]) -> Fit:
    """Fit logit P(y) = X b by maximum likelihood (statsmodels, iteratively reweighted least squares).

    matrix [cells, terms], successes and trials [cells]. LabError if statsmodels is missing, or the outcome is always
    the same.
    """
    glm, binomial = _statsmodels()
    total, rows = float(successes.sum()), float(trials.sum())
    if not 0 < total < rows:
        raise LabError(f"a regression needs both outcomes; {total:g} of {rows:g} completions name the job")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # separation is told by the flag
        outcome = np.stack([successes, trials - successes], axis=1)
        # On the deviance (the library's default criterion) it stops one iteration early, and standard errors, which
        # are those of the iteration before, are up to 1.3e-6 off.
        result = glm(outcome, matrix, family=binomial()).fit(maxiter=35, tol=1e-9, tol_criterion="params")
        likelihood = log_likelihood(np.asarray(result.fittedvalues), successes, trials)
        p_values = np.asarray(result.pvalues)
    null = log_likelihood(np.full(len(trials), total / rows), successes, trials)
    return Fit(
        tuple(terms),
        np.asarray(result.params),
        np.asarray(result.bse),
        p_values,
        likelihood,
        100 * (1 - likelihood / null),  # formula: McFadden's pseudo-R²
        bool(result.converged),
    )


def log_likelihood(p: Floats, successes: Floats, trials: Floats) -> float:
    """Return Σ y log p + (n - y) log(1 - p) over the cells, with 0 log 0 = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        hit = np.where(successes > 0, successes * np.log(p), 0.0)
        miss = np.where(trials > successes, (trials - successes) * np.log1p(-p), 0.0)
    return float(hit.sum() + miss.sum())


def fit_penalised(matrix: Floats, successes: Floats, trials: Floats, terms: Sequence[str]) -> Fit:
    """Fit the saturated model with Firth's penalty ½ log |X'WX| (Firth 1993).

    With one coefficient a cell the penalised score of a cell is y - n p + ½ - p, so p = (y + ½) / (n + 1) exactly.
    """
    if matrix.shape[0] != matrix.shape[1]:
        raise LabError("the penalised fit in closed form needs as many terms as cells")
    p = (successes + 0.5) / (trials + 1)
    coefficients = np.asarray(np.linalg.solve(matrix, np.log(p / (1 - p))), dtype=np.float64)
    information = matrix.T @ (matrix * (trials * p * (1 - p))[:, None])
    errors: Floats = np.sqrt(np.linalg.inv(information).diagonal()).astype(np.float64)
    p_values = np.array([math.erfc(abs(z) / math.sqrt(2)) for z in coefficients / errors])
    likelihood = log_likelihood(p, successes, trials)
    null = log_likelihood(np.full(len(trials), successes.sum() / trials.sum()), successes, trials)
    return Fit(tuple(terms), coefficients, errors, p_values, likelihood, 100 * (1 - likelihood / null), True)


def regress(counts: Counts, intersection: str, *, share: float = 0.0025) -> list[JobRegression]:
    """Fit M0, M1 and M2 for every job above the threshold, on the completions of base and the intersection.

    A job that every completion names has nothing to explain and is left out. LabError if base or the intersection lacks a
    gender, or statsmodels is missing.
    """
    categories = counts.categories(intersection)
    if not categories or intersection == BASE:
        raise LabError(f"{intersection}: a regression compares base with the categories of an intersection")
    rows = [counts.row(category, g) for category in (BASE, *categories) for g in ("woman", "man")]
    terms, matrix = design(categories)
    trials = counts.completions[rows]
    found = []
    for job in counts.frequent(intersection, share, with_base=True):
        successes = counts.mentions[rows, job]
        if (successes > trials * (1 + 1e-9)).any():
            raise LabError(
                f"{counts.jobs[job]}: counted more often than there are completions; merge before counting"
            )
        if (successes < trials * (1 - 1e-9)).any():
            successes = np.minimum(successes, trials)
            found.append(_regress_job(counts.jobs[job], terms, matrix, successes, trials))
    return found


def _regress_job(
    job: str, terms: tuple[str, ...], matrix: Floats, successes: Floats, trials: Floats
) -> JobRegression:
    k = len(terms) // 2  # intercept and categories
    m0 = fit_logistic(matrix[:, :k], successes, trials, terms[:k])  # formula: M0
    m1 = fit_logistic(matrix[:, : k + 1], successes, trials, terms[: k + 1])  # formula: M1
    m2 = fit_logistic(matrix, successes, trials, terms)  # formula: M2
    # M2 fits the cells themselves: its likelihood is known even where its coefficients run away.
    best = log_likelihood(successes / trials, successes, trials)
    m2 = _with_likelihood(m2, best, successes, trials)
    return JobRegression(
        job=job,
        m0=m0,
        m1=m1,
        m2=m2,
        separated=bool(((successes <= 0) | (successes >= trials)).any()),
        lr_p=likelihood_ratio_p(m2, m1),
        gender_p=likelihood_ratio_p(m1, m0),
        penalised=fit_penalised(matrix, successes, trials, terms),
    )


def _with_likelihood(fit: Fit, likelihood: float, successes: Floats, trials: Floats) -> Fit:
    null = log_likelihood(np.full(len(trials), successes.sum() / trials.sum()), successes, trials)
    return replace(fit, log_likelihood=likelihood, pseudo_r2=100 * (1 - likelihood / null))


def likelihood_ratio_p(larger: Fit, smaller: Fit) -> float:
    """Return the p-value of 2 (log L of the larger - log L of the smaller), chi-squared in the terms it has more."""
    df = len(larger.terms) - len(smaller.terms)
    statistic = max(0.0, 2 * (larger.log_likelihood - smaller.log_likelihood))
    return chi2_tail(statistic, df)


def chi2_tail(value: float, df: int) -> float:
    """Return P(chi² with df degrees of freedom > value)."""
    if math.isnan(value):
        return math.nan
    half = torch.tensor([df / 2, value / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


def benjamini_hochberg(p_values: ArrayLike) -> Floats:
    """Return p-values adjusted for the share of false discoveries (Benjamini and Hochberg 1995), [tests]."""
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise LabError("p-values must lie in [0, 1]")
    order = np.argsort(-p, kind="stable")
    ranks = np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum.accumulate(np.minimum(p[order] * len(p) / ranks, 1.0))
    return adjusted


def fisher_exact_greater(a: int, b: int, c: int, d: int) -> float:
    """Return the one-sided p of a 2 × 2 table [[a, b], [c, d]]: P(at least a in the first row), margins fixed."""
    if min(a, b, c, d) < 0:
        raise LabError(f"Fisher's test needs counts, got {[[a, b], [c, d]]}")
    first, hits, total = a + b, a + c, a + b + c + d
    ways = math.comb(total, hits)
    return (
        sum(math.comb(first, k) * math.comb(total - first, hits - k) for k in range(a, min(first, hits) + 1))
        / ways
    )


def require_statsmodels() -> None:
    """LabError with the extra to install if statsmodels is missing."""
    _statsmodels()


def _statsmodels() -> tuple[Any, Any]:
    """Return the class of generalised linear models and the binomial family."""
    try:
        from statsmodels.genmod.families import Binomial
        from statsmodels.genmod.generalized_linear_model import GLM
    except ImportError:
        raise LabError(f"the regressions need statsmodels: {install('bias')}") from None
    return GLM, Binomial
