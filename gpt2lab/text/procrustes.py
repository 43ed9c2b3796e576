"""Orthogonal maps between two spaces of vectors: Procrustes, and the alignment of two languages' word vectors."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from gpt2lab.base.errors import LabError
from gpt2lab.text.word_vectors import Floats, WordVectors


@dataclass(frozen=True)
class Alignment:
    """A map from one space to another: x → scale · x · rotation, where both were centred, about their means."""

    rotation: Floats
    """[dimensions, dimensions], orthogonal."""
    scale: float = 1.0
    from_mean: Floats | float = 0.0
    to_mean: Floats | float = 0.0

    def __call__(self, vectors: Floats) -> Floats:
        """Map vectors [..., dimensions]."""
        mapped: Floats = self.scale * (vectors - self.from_mean) @ self.rotation + self.to_mean
        return mapped


def procrustes(source: Floats, target: Floats, *, scaling: bool = False, centred: bool = False) -> Alignment:
    """Return the orthogonal map that brings source nearest to target: min over Q, s of Σ |s · x Q - y|².

    source, target [pairs, dimensions]. Q = U Vᵀ of the SVD U Σ Vᵀ of sourceᵀ · target; scaling: s = Σ / |source|², else 1;
    centred: both means are removed first. Reflections count as orthogonal. LabError for shapes that differ, values that are
    not finite, or a source or target that is 0. Schönemann 1966; with scaling Schönemann & Carroll 1970.
    """
    x, y = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if x.ndim != 2 or x.shape != y.shape or not len(x):
        raise LabError(
            f"an alignment needs pairs of vectors of one size, got {list(x.shape)} and {list(y.shape)}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise LabError("an alignment needs finite vectors")
    from_mean, to_mean = (x.mean(0), y.mean(0)) if centred else (0.0, 0.0)
    x, y = x - from_mean, y - to_mean
    if not x.any() or not y.any():
        raise LabError(
            "an alignment needs vectors that are not all 0" + (" after centring" if centred else "")
        )
    left, values, right = np.linalg.svd(x.T @ y)
    scale = float(values.sum() / np.square(x).sum()) if scaling else 1.0
    return Alignment(left @ right, scale, from_mean, to_mean)


def align(
    source: WordVectors,
    target: WordVectors,
    dictionary: Iterable[tuple[str, str]],
    *,
    unit: bool = True,
    scaling: bool = False,
    centred: bool = False,
) -> Alignment:
    """Return the map from one language's vectors to another's over a dictionary of word pairs; unit: at length 1.

    Pairs with a word that has no vector are left out. LabError if none is left. Conneau et al. 2018, section 2.2.
    """
    pairs = [
        (source.place[one], target.place[other])
        for one, other in dictionary
        if one in source and other in target
    ]
    if not pairs:
        raise LabError("no pair of the dictionary has a vector on both sides")
    rows, others = (list(side) for side in zip(*pairs, strict=True))
    x, y = (vectors.unit() if unit else vectors.vectors for vectors in (source, target))
    return procrustes(x[rows], y[others], scaling=scaling, centred=centred)
