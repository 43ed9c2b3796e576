"""Boosted trees against a slow tree in plain Python, and as good as scikit-learn's on a task that takes two features."""

import math

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from gpt2lab.base.errors import LabError
from gpt2lab.measures.boosted_trees import BoostedTrees, BoostedTreesOptions, cross_fitted


def slow_stump(x: np.ndarray, y: np.ndarray, options: BoostedTreesOptions) -> np.ndarray:
    """One stump by trying every edge of every feature, in float64: probabilities of the rows themselves."""
    share = y.mean()
    start = math.log(share / (1 - share))
    g, h = share - y, np.full(len(y), share * (1 - share))
    lam, best = options.regularization, (0.0, None)
    for feature in range(x.shape[1]):
        for q in range(1, options.bins):
            edge = np.quantile(x[:, feature], q / options.bins)
            left = x[:, feature] <= edge
            if min(left.sum(), (~left).sum()) < options.least:
                continue
            gain = sum(g[s].sum() ** 2 / (h[s].sum() + lam) for s in (left, ~left)) - g.sum() ** 2 / (
                h.sum() + lam
            )
            if gain > best[0] + 1e-12:
                best = (gain, left)
    left = best[1]
    assert left is not None
    scores = np.full(len(y), start)
    for side in (left, ~left):
        scores[side] += -options.rate * g[side].sum() / (h[side].sum() + lam)
    return 1 / (1 + np.exp(-scores))


@pytest.mark.parametrize("seed", range(5))
def test_one_stump_is_the_best_of_all_that_a_slow_search_tries(seed: int) -> None:
    generator = np.random.default_rng(seed)
    x = np.round(generator.normal(size=(83, 4)), 1)  # with ties
    y = (x[:, seed % 4] + generator.normal(size=83) > 0.4).astype(float)
    options = BoostedTreesOptions(trees=1, depth=1, rate=0.7, bins=7, regularization=0.3, least=4)
    ours = BoostedTrees(options).fit(x, y).probabilities(x)
    assert ours == pytest.approx(slow_stump(x, y, options), rel=1e-12)


def test_trees_learn_what_two_features_say_together_and_find_nothing_in_noise() -> None:
    generator = np.random.default_rng(1)
    x = generator.normal(size=(1200, 5))
    y = (x[:, 0] * x[:, 3] > 0).astype(int)
    folds = np.arange(1200) % 5
    said = cross_fitted(x, y, folds)
    assert ((said > 0.5) == y).mean() > 0.85
    theirs = HistGradientBoostingClassifier(max_iter=100, max_leaf_nodes=8, max_depth=3, random_state=0)
    theirs.fit(x[:900], y[:900])
    ours = BoostedTrees().fit(x[:900], y[:900]).probabilities(x[900:])
    assert ((ours > 0.5) == y[900:]).mean() > theirs.score(x[900:], y[900:]) - 0.04
    noise = cross_fitted(x, generator.integers(2, size=1200), folds)
    assert abs(((noise > 0.5) == generator.integers(2, size=1200)).mean() - 0.5) < 0.06


def test_a_row_is_never_judged_by_trees_that_learnt_from_its_fold() -> None:
    x = np.arange(60.0)[:, None]
    y = np.array([0, 1] * 30)
    folds = np.repeat(np.arange(3), 20)
    other = y.copy()
    other[:20] = 1 - other[:20]
    assert cross_fitted(x, y, folds)[:20] == pytest.approx(cross_fitted(x, other, folds)[:20])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: BoostedTrees().fit([[1.0], [2.0]], [1, 1]), "one class"),
        (lambda: BoostedTrees().fit([[1.0], [2.0]], [1, 2]), "label 0 or 1"),
        (lambda: BoostedTrees().fit([[math.nan], [2.0]], [1, 0]), "not finite"),
        (lambda: BoostedTrees().fit([1.0, 2.0], [1, 0]), r"\[rows, features\]"),
        (lambda: BoostedTrees().probabilities([[1.0]]), "fit them first"),
        (lambda: BoostedTrees().fit([[1.0], [2.0]], [1, 0]).probabilities([[1.0, 2.0]]), "2 features"),
        (lambda: cross_fitted([[1.0], [2.0]], [1, 0], [0, 0]), "one fold"),
        (lambda: BoostedTreesOptions(bins=1), "sizes must be"),
    ],
)
def test_a_mistake_gets_one_sentence(call: object, said: str) -> None:
    with pytest.raises(LabError, match=said):
        call()  # type: ignore[operator]
