"""Gradient-boosted trees for two classes: what counts and shares of a text give away, as a baseline. Numpy only.

Second-order boosting of the logistic loss over histograms (Chen and Guestrin 2016, eq. 5 to 7; bins as in LightGBM).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpt2lab.base.errors import LabError

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class BoostedTreesOptions:
    """The trees; fixed, not chosen on the rows that are judged."""

    trees: int = 50
    """Trees that are added."""
    depth: int = 3
    """Questions on the way to a leaf."""
    rate: float = 0.2
    """Share of each tree that is added."""
    bins: int = 32
    """Quantile bins of a feature; a threshold lies between two."""
    regularization: float = 1.0
    """λ of a leaf's value, -Σ gradient / (Σ curvature + λ)."""
    least: int = 10
    """Rows on either side of a question."""

    def __post_init__(self) -> None:
        sizes = (self.trees, self.depth, self.bins - 1, self.least)
        if min(sizes) < 1 or not self.rate > 0 or not self.regularization >= 0:
            raise LabError(
                "boosted trees: sizes must be at least 1 (bins 2), rate positive, regularization not negative"
            )


@dataclass(frozen=True)
class _Tree:
    feature: _Ints
    """By node [2^depth - 1]; -1 asks nothing, and every row goes left."""
    bin: _Ints
    """Rows whose bin is larger go right."""
    leaves: _Floats
    """[2^depth]."""

    def __call__(self, bins: _Ints) -> _Floats:
        depth = (len(self.leaves)).bit_length() - 1
        node = np.zeros(len(bins), dtype=np.int64)
        rows = np.arange(len(bins))
        for _ in range(depth):
            feature = self.feature[node]
            right = (feature >= 0) & (bins[rows, feature.clip(min=0)] > self.bin[node])
            node = 2 * node + 1 + right
        found: _Floats = self.leaves[node - (len(self.leaves) - 1)]
        return found


class BoostedTrees:
    """A classifier of rows [rows, features] into 0 and 1."""

    def __init__(self, options: BoostedTreesOptions = BoostedTreesOptions()) -> None:
        self.options = options
        self._edges: list[_Floats] = []
        self._trees: list[_Tree] = []
        self._start = 0.0

    def fit(self, features: npt.ArrayLike, labels: npt.ArrayLike) -> "BoostedTrees":
        """Learn from features [rows, features] and labels [rows] of 0 and 1.

        LabError for shapes that do not fit, numbers that are not finite, and one class only.
        """
        x, y = _matrix(features), np.asarray(labels, dtype=np.float64)
        if y.shape != (len(x),) or not set(np.unique(y)) <= {0.0, 1.0}:
            raise LabError(
                f"boosted trees: need a label 0 or 1 for each of {len(x)} rows, got shape {y.shape}"
            )
        if not 0 < y.sum() < len(y):
            raise LabError("boosted trees: the rows are all of one class; it takes two")
        quantiles = np.linspace(0, 1, self.options.bins + 1)[1:-1]
        self._edges = [np.unique(np.quantile(column, quantiles)) for column in x.T]
        bins, share = self._binned(x), y.mean()
        self._start, self._trees = float(np.log(share / (1 - share))), []
        scores = np.full(len(y), self._start)
        for _ in range(self.options.trees):
            p = 1 / (1 + np.exp(-scores))
            tree = self._grown(bins, p - y, p * (1 - p))
            scores += tree(bins)
            self._trees.append(tree)
        return self

    def probabilities(self, features: npt.ArrayLike) -> _Floats:
        """Return the probability of class 1 of each row. LabError before `fit`, and for another number of features."""
        if not self._edges:
            raise LabError("boosted trees: fit them first")
        x = _matrix(features)
        if x.shape[1] != len(self._edges):
            raise LabError(f"boosted trees: {x.shape[1]} features, learnt from {len(self._edges)}")
        bins = self._binned(x)
        scores = self._start + sum((tree(bins) for tree in self._trees), np.zeros(len(x)))
        found: _Floats = 1 / (1 + np.exp(-scores))
        return found

    def _binned(self, x: _Floats) -> _Ints:
        return np.stack(
            [
                np.searchsorted(edges, column, side="left")
                for edges, column in zip(self._edges, x.T, strict=True)
            ],
            axis=1,
        )

    def _grown(self, bins: _Ints, gradient: _Floats, curvature: _Floats) -> _Tree:
        """Grow one tree level by level; a node that no question helps sends all its rows left."""
        options = self.options
        inner = 2**options.depth - 1
        feature, threshold = np.full(inner, -1, dtype=np.int64), np.zeros(inner, dtype=np.int64)
        node = np.zeros(len(bins), dtype=np.int64)
        for here in range(inner):
            rows = np.flatnonzero(node == here)
            asked = self._question(bins[rows], gradient[rows], curvature[rows]) if len(rows) else None
            right = np.zeros(len(rows), dtype=np.int64)
            if asked is not None:
                feature[here], threshold[here] = asked
                right = (bins[rows, asked[0]] > asked[1]).astype(np.int64)
            node[rows] = 2 * here + 1 + right
        leaf = node - inner
        sums = np.bincount(leaf, gradient, minlength=inner + 1)
        weights = np.bincount(leaf, curvature, minlength=inner + 1) + options.regularization
        values = np.divide(-sums, weights, out=np.zeros_like(sums), where=weights > 0)  # eq. 5
        return _Tree(feature, threshold, options.rate * values)

    def _question(self, bins: _Ints, gradient: _Floats, curvature: _Floats) -> tuple[int, int] | None:
        """Return the feature and bin whose split lowers the loss most, None if none does."""
        options, (n, features) = self.options, bins.shape
        places = (bins + options.bins * np.arange(features)).ravel()
        size = options.bins * features

        def left(values: _Floats) -> _Floats:
            """Sums over the rows up to each bin, [features, bins]."""
            sums = np.bincount(places, np.repeat(values, features), minlength=size)
            total: _Floats = sums.reshape(features, options.bins).cumsum(1)
            return total

        g, h, count = left(gradient), left(curvature), left(np.ones(n))
        whole_g, whole_h = gradient.sum(), curvature.sum()
        penalty = options.regularization + 1e-12
        gain = (
            g**2 / (h + penalty)
            + (whole_g - g) ** 2 / (whole_h - h + penalty)
            - whole_g**2 / (whole_h + penalty)
        )  # eq. 7
        gain[(count < options.least) | (n - count < options.least)] = -np.inf
        best = int(gain.argmax())
        if not gain.flat[best] > 1e-9:
            return None
        return best // options.bins, best % options.bins


def cross_fitted(
    features: npt.ArrayLike,
    labels: npt.ArrayLike,
    folds: npt.ArrayLike,
    options: BoostedTreesOptions = BoostedTreesOptions(),
) -> _Floats:
    """Return for each row the probability of class 1 by trees that learnt from the rows of the other folds, [rows].

    folds [rows] int: rows that share something (a gene) belong into one. LabError for a single fold, and as `fit`.
    """
    x, y, fold = _matrix(features), np.asarray(labels), np.asarray(folds)
    if len(np.unique(fold)) < 2:
        raise LabError("boosted trees: the rows are all in one fold; give rows that differ")
    found = np.zeros(len(x))
    for one in np.unique(fold):
        held_out = fold == one
        found[held_out] = BoostedTrees(options).fit(x[~held_out], y[~held_out]).probabilities(x[held_out])
    return found


def _matrix(features: npt.ArrayLike) -> _Floats:
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or not x.size:
        raise LabError(f"boosted trees: features are [rows, features], got {list(x.shape)}")
    if not np.isfinite(x).all():
        raise LabError("boosted trees: a feature is not finite")
    return x
