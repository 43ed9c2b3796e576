"""How concentrated the jobs of a group are: ranks that cover a share, Gini, Lorenz, entropy."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpt2lab.base.errors import LabError

Floats = NDArray[np.float64]


def shares(mentions: ArrayLike) -> Floats:
    """Return mentions [jobs] as shares of their sum. LabError if there are none, or one is negative."""
    values = np.asarray(mentions, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not (values >= 0).all() or not 0 < values.sum() < np.inf:
        raise LabError("shares of jobs need finite counts of at least one mention, none negative")
    return values / values.sum()


def jobs_covering(mentions: ArrayLike, share: float) -> int:
    """Return the first rank, jobs in descending order, at which the cumulative share is at least `share`.

    Sums of counts are compared, so that a half of whole numbers is exactly a half.
    """
    if not 0 < share <= 1:
        raise LabError(f"the share to be covered must lie in (0, 1], got {share}")
    shares(mentions)
    ordered = np.sort(np.asarray(mentions, dtype=np.float64))[::-1].cumsum()
    # formula: rank of a cumulative share
    return int(np.argmax(ordered >= share * ordered[-1] * (1 - 1e-12))) + 1


def gini(values: ArrayLike, shift: float = 1e-7) -> float:
    """Return Σ (2i - n - 1) x_i / (n Σ x_i), x ascending from i = 1, after adding `shift` to every value.

    0 if all are equal, towards 1 if one has all. Depends on the zeros among `values`: compare groups, and models, over
    the same jobs. Negative values are first moved up to 0, as in the authors' code.
    """
    x = np.sort(np.asarray(values, dtype=np.float64))
    if x.ndim != 1 or not len(x) or not np.isfinite(x).all():
        raise LabError("a Gini coefficient needs a list of finite numbers")
    x = x - min(x[0], 0.0) + shift
    n = len(x)
    return float(((2 * np.arange(1, n + 1) - n - 1) * x).sum() / (n * x.sum()))  # formula: Gini


def entropy(mentions: ArrayLike) -> float:
    """Return -Σ s log s of the shares, in nats; exp of it is the effective number of jobs."""
    s = shares(mentions)
    s = s[s > 0]
    return float(-(s * np.log(s)).sum())


def lorenz(mentions: ArrayLike) -> tuple[list[float], list[float]]:
    """Return (cumulative share of workers, share of jobs k / (n - 1)), jobs in descending order, k from 0."""
    ordered = np.sort(shares(mentions))[::-1]
    steps = max(len(ordered) - 1, 1)
    return ordered.cumsum().tolist(), [k / steps for k in range(len(ordered))]
