"""New embedding rows as means of old ones: neighbours in the common space, softmax weights, and rows drawn at random."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.base.progress import progress

_Floats = npt.NDArray[np.float64]
_CHUNK = 256
"""Target tokens whose similarities are held at a time."""


@dataclass(frozen=True)
class Mixture:
    """Of which source tokens each target token is made, and in which shares."""

    sources: npt.NDArray[np.int64]
    """[target ids, k] source ids, the most similar first."""
    weights: _Floats
    """[target ids, k], each row summing to 1; 0 for a token that has no vector."""
    similarities: _Floats
    """[target ids, k] cosines."""
    found: npt.NDArray[np.bool_]
    """[target ids] whether the token has a vector."""


def mixture(source: _Floats, target: _Floats, *, k: int = 10, tau: float = 0.1) -> Mixture:
    """Return the k nearest source tokens of every target token and their weights.

    source [source ids, dimensions], target [target ids, dimensions], in one space; a row of zeros: a token without a vector.
    Of equally similar tokens the lower id comes first. LabError for k outside 1 ... source ids, tau that is not above 0,
    other sizes, numbers that are not finite.
    """
    if not 1 <= k <= len(source):
        raise LabError(f"k {k}: a token is mixed from 1 to {len(source)} source tokens, as many as there are")
    if not 0 < tau < np.inf:
        raise LabError(f"tau {tau}: the temperature must be above 0; 0.1 is the paper's value")
    if source.ndim != 2 or target.ndim != 2 or source.shape[1] != target.shape[1]:
        raise LabError(f"token vectors of different sizes: {list(source.shape)} and {list(target.shape)}")
    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        raise LabError("token vectors hold numbers that are not finite")
    # Equal rows once: " dog" and "dog" are exactly as similar, whatever the order of sums in a product of matrices.
    once, copies = np.unique(_unit(source), axis=0, return_inverse=True)
    copies = copies.reshape(-1)
    wanted = _unit(target)
    found = np.asarray(target.any(1))
    shape = (len(target), k)
    sources, similarities = np.zeros(shape, dtype=np.int64), np.zeros(shape)
    for start in progress(range(0, len(target), _CHUNK), label="nearest source tokens", unit="part"):
        rows = slice(start, start + _CHUNK)
        sources[rows], similarities[rows] = _nearest((wanted[rows] @ once.T)[:, copies], k)
    exponents = similarities / tau
    weights = np.exp(exponents - exponents.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)  # softmax over the k that are kept
    weights[~found] = 0
    return Mixture(sources, weights, similarities, found)


def _unit(vectors: _Floats) -> _Floats:
    """Return rows divided by their length + 1e-8."""
    unit: _Floats = vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-8)  # u / (length + 1e-8)
    return unit


def _nearest(cosines: _Floats, k: int) -> tuple[npt.NDArray[np.int64], _Floats]:
    """Return the places of the k largest numbers of each row, of equal ones the lower place first, and the numbers."""
    limits = np.partition(cosines, -k, axis=1)[:, -k]
    chosen = np.empty((len(cosines), k), dtype=np.int64)
    for row, (values, limit) in enumerate(zip(cosines, limits, strict=True)):
        there = np.flatnonzero(values >= limit)
        chosen[row] = there[np.argsort(-values[there], kind="stable")[:k]]
    return chosen, np.take_along_axis(cosines, chosen, axis=1)


def mixed_rows(table: Tensor, mixed: Mixture, *, seed: int) -> Tensor:
    """Return a row for each target token, [target ids, ...], in the type of `table` [source ids, ...]: mixed, or drawn.

    Sums are made in float64. A token without a vector gets its row of `random_rows`. LabError if the table has no row for a
    source token that is mixed.
    """
    if mixed.sources.size and int(mixed.sources.max()) >= len(table):
        raise LabError(
            f"the table has {len(table)} rows, the source tokenizer more ids; give the model's own"
        )
    wide = table.detach().cpu().double()
    rows = random_rows(table, len(mixed.found), seed=seed)
    for id in np.flatnonzero(mixed.found):
        weights = torch.from_numpy(mixed.weights[id])
        rows[id] = torch.tensordot(weights, wide[mixed.sources[id]], dims=1)  # e_x = Σ softmax(s / τ) e_y
    return rows.to(table.dtype).to(table.device)


def random_rows(table: Tensor, count: int, *, seed: int) -> Tensor:
    """Return rows of N(mean, std) of the columns of a table, float64 [count, ...].

    As in the authors' package all rows are drawn at once by NumPy's RandomState: a row does not depend on which others are
    needed. Mean and population standard deviation are taken in the table's own type (float32 for narrower ones).
    """
    wide = table.detach().cpu()
    numbers = (wide if wide.dtype in (torch.float32, torch.float64) else wide.float()).numpy()
    draw = np.random.RandomState(seed)
    size = (count, *numbers.shape[1:])
    return torch.from_numpy(draw.normal(numbers.mean(0), numbers.std(0), size=size))  # N(mean, std)
