"""MAUVE: how near a model's texts are to people's, from the divergence frontier of their features in clusters.

Pillutla et al. 2021 (arXiv 2102.01454). Each text becomes a feature vector, the state of its last token under an embedding
model; the vectors of both sides are clustered together, and P and Q are the shares of each side in each cluster. With
R = λP + (1 - λ)Q the frontier is the curve of (exp(-c KL(Q|R)), exp(-c KL(P|R))) for λ in (0, 1), closed at (1, 0) and
(0, 1); MAUVE is the area under it: 1 for equal distributions, almost 0 for disjoint ones.

The figure depends on the embedding model, on the number of texts and on the clusters: only figures of the same three
compare. The published ones have gpt2-large's states of thousands of texts.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from gpt2lab.base.errors import LabError
from gpt2lab.base.extras import install
from gpt2lab.model import Transformer
from gpt2lab.papers.contrastive_search.isotropy import last_states

SCALE = 5.0
"""The constant c."""

_Array = NDArray[np.float64]


def text_features(model: Transformer, rows: Sequence[Sequence[int]], *, batch_size: int = 16) -> _Array:
    """Return the last state of each row of token ids under `model`, [texts, d_model]."""
    states = last_states(model, rows, batch_size=batch_size)
    features: _Array = torch.stack([state[-1] for state in states]).double().numpy()
    return features


def frontier(p: ArrayLike, q: ArrayLike, *, points: int = 25, scale: float = SCALE) -> _Array:
    """Return the divergence frontier of two distributions over the same clusters, [points + 2, 2], eq. 1 and 2.

    LabError unless both are distributions of one length.
    """
    ours, theirs = _distribution(p), _distribution(q)
    if ours.shape != theirs.shape:
        raise LabError(f"mauve: distributions over {len(ours)} and {len(theirs)} clusters do not compare")
    mixtures = np.linspace(1e-6, 1 - 1e-6, points)[:, None] * (ours - theirs) + theirs  # [points, clusters]
    # Pillutla et al. 2021, eq. 1 and 2
    x, y = (np.exp(-scale * _divergence(side, mixtures)) for side in (theirs, ours))
    curve = np.stack([x, y], axis=1)
    return np.concatenate([[[1.0, 0.0]], curve, [[0.0, 1.0]]])


def area(curve: _Array) -> float:
    """Return the area under a frontier, by trapezoids."""
    x, y = curve[:, 0], curve[:, 1]
    return float(((x[:-1] - x[1:]) * (y[:-1] + y[1:])).sum() / 2)


def mauve(
    people: ArrayLike, model: ArrayLike, *, clusters: int | None = None, seed: int = 0, scale: float = SCALE
) -> float:
    """Return MAUVE of two sets of features [texts, width]; the people's come first, though the figure is symmetric.

    Features are brought to length 1 and to the principal components that hold 90 % of their variance, and clustered by
    k-means (5 starts from `seed`); clusters default to a tenth of the texts of the smaller side, at least 2, as in the
    authors' package. LabError: fewer than two texts on a side, other widths, no scikit-learn.
    """
    first, second = np.asarray(people, np.float64), np.asarray(model, np.float64)
    if first.ndim != 2 or second.ndim != 2 or first.shape[1:] != second.shape[1:]:
        raise LabError(
            f"mauve: features are {list(first.shape)} and {list(second.shape)}, not [texts, width]"
        )
    if min(len(first), len(second)) < 2:
        raise LabError(f"mauve needs two texts on each side, got {len(first)} and {len(second)}")
    both = np.concatenate([first, second])
    if not np.isfinite(both).all():
        raise LabError("mauve: a feature is NaN or infinite")
    count = max(2, round(min(len(first), len(second)) / 10)) if clusters is None else clusters
    if not 1 <= count <= len(both):
        raise LabError(f"mauve: {count} clusters for {len(both)} texts; give 1 to {len(both)}")
    labels = _clustered(both, count, seed)
    p, q = (np.bincount(side, minlength=count) for side in (labels[: len(first)], labels[len(first) :]))
    return area(frontier(p / p.sum(), q / q.sum(), scale=scale))


def _clustered(features: _Array, clusters: int, seed: int) -> NDArray[np.int64]:
    """Return the cluster of each row."""
    decomposition, cluster = _scikit_learn()
    features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    if np.allclose(features, features[0]):
        return np.zeros(len(features), dtype=np.int64)
    reduced = decomposition.PCA(n_components=0.9, svd_solver="full").fit_transform(features)
    different = len(np.unique(reduced.round(12), axis=0))  # k-means warns of clusters that stay empty
    means = cluster.KMeans(n_clusters=min(clusters, different), n_init=5, max_iter=500, random_state=seed)
    labels: NDArray[np.int64] = means.fit_predict(reduced).astype(np.int64)
    return labels


def _scikit_learn() -> tuple[Any, Any]:
    try:
        from sklearn import cluster, decomposition
    except ImportError:
        raise LabError(f"mauve needs scikit-learn: {install('generation')}") from None
    return decomposition, cluster


def _divergence(p: _Array, mixtures: _Array) -> _Array:
    """Return KL(p | r) in nats for each r of mixtures [points, clusters]; 0 log 0 is 0."""
    there = p > 0
    divergence: _Array = (p[there] * (np.log(p[there]) - np.log(mixtures[:, there]))).sum(axis=1)
    return divergence


def _distribution(values: ArrayLike) -> _Array:
    shares = np.asarray(values, dtype=np.float64)
    if shares.ndim != 1 or not len(shares) or not (shares >= 0).all() or abs(shares.sum() - 1) > 1e-6:
        raise LabError("mauve: a distribution is a list of shares that add up to 1")
    return shares
