"""The statistics once more, slowly, from their definitions: loops, exact fractions, scipy and statsmodels on rows."""

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from scipy import optimize, stats


def gini_by_pairs(values: Sequence[float], shift: float = 1e-7) -> float:
    """Half the mean absolute difference of all pairs over the mean."""
    moved = [value - min(min(values), 0.0) + shift for value in values]
    n, mean = len(moved), sum(moved) / len(moved)
    return sum(abs(a - b) for a in moved for b in moved) / (2 * n * n * mean)


def rank_covering(mentions: Sequence[int], share: Fraction) -> int:
    """The first rank with a cumulative share of at least `share`, in exact arithmetic."""
    total, sum_so_far = sum(mentions), 0
    for rank, count in enumerate(sorted(mentions, reverse=True), 1):
        sum_so_far += count
        if Fraction(sum_so_far, total) >= share:
            return rank
    raise AssertionError


def logit_on_rows(formula_columns: Sequence[str], rows: dict[str, list[float]]) -> Any:
    """statsmodels' own logit, Newton, on one row a completion."""
    from statsmodels.discrete.discrete_model import Logit

    design = np.column_stack([np.ones(len(rows["y"])), *(np.array(rows[name]) for name in formula_columns)])
    return Logit(np.array(rows["y"]), design).fit(disp=0, tol=1e-12)


def firth_by_search(matrix: np.ndarray, successes: np.ndarray, trials: np.ndarray) -> np.ndarray:
    """Coefficients that maximise log L + ½ log |X'WX|, by a search that knows no score equation."""

    def loss(b: np.ndarray) -> float:
        p = 1 / (1 + np.exp(-(matrix @ b)))
        likelihood = (successes * np.log(p) + (trials - successes) * np.log1p(-p)).sum()
        information = matrix.T @ np.diag(trials * p * (1 - p)) @ matrix
        return -float(likelihood + 0.5 * np.linalg.slogdet(information)[1])

    start = np.zeros(matrix.shape[1])
    return np.asarray(
        optimize.minimize(loss, start, method="BFGS", options={"gtol": 1e-9, "maxiter": 5000}).x
    )


def kendall_by_pairs(a: Sequence[float], b: Sequence[float]) -> float:
    """scipy's tau-b."""
    return float(stats.kendalltau(a, b).statistic)


def probability_of(model: Any, context: Sequence[int], tokens: Sequence[int]) -> float:
    """P(tokens | context) by one full forward pass in float64 for every token."""
    import torch

    total = 0.0
    for at, token in enumerate(tokens):
        given = torch.tensor([[*context, *tokens[:at]]])
        with torch.no_grad():
            total += float(model(given)[0, -1].double().log_softmax(-1)[token])
    return math.exp(total)


def all_tables(first: int, second: int, hits: int) -> list[int]:
    """How many of `first` are among each choice of `hits` of first + second items."""
    return [
        sum(item < first for item in chosen) for chosen in itertools.combinations(range(first + second), hits)
    ]


def logit_by_newton(matrix, successes, trials):
    """Coefficients and standard errors of a logistic regression on counts: Newton steps until nothing moves."""
    b = np.zeros(matrix.shape[1])
    for _ in range(60):
        p = 1 / (1 + np.exp(-(matrix @ b)))
        information = matrix.T @ ((trials * p * (1 - p))[:, None] * matrix)
        b = b + np.linalg.solve(information, matrix.T @ (successes - trials * p))
    p = 1 / (1 + np.exp(-(matrix @ b)))
    information = matrix.T @ ((trials * p * (1 - p))[:, None] * matrix)
    return b, np.sqrt(np.diag(np.linalg.inv(information)))
