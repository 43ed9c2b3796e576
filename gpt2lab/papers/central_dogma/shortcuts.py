"""Shortcut baselines: how well pairs are told apart by lengths, GC content, letters or shared k-mers, without reading them.

Each learns from four fifths of the pairs and is judged on the last, five times: it may use the labels of the target task,
which a zero-shot judge may not. So it bounds what that judge could gain from the shortcut.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from gpt2lab.base.errors import LabError
from gpt2lab.measures.boosted_trees import cross_fitted
from gpt2lab.text.generators.sequence_pairs import Pair

_FOLDS = 5
_LONGEST_KMER = 3
_Floats = npt.NDArray[np.float64]


def lengths(pairs: Sequence[Pair]) -> _Floats:
    """Return letters of both texts and their ratio, [pairs, 3]."""
    sizes = np.array([(len(pair.first), len(pair.second)) for pair in pairs], dtype=np.float64)
    return np.column_stack([sizes, sizes[:, 1] / sizes[:, 0]])


def gc_content(pairs: Sequence[Pair]) -> _Floats:
    """Return the share of G and C in each text, [pairs, 2]."""
    return np.array(
        [
            [sum(text.upper().count(base) for base in "GC") / len(text) for text in (p.first, p.second)]
            for p in pairs
        ]
    )


def composition(pairs: Sequence[Pair]) -> _Floats:
    """Return the share of each letter, small or capital, in each text, [pairs, letters of first and second texts]."""
    return np.hstack([_shares([pair.first for pair in pairs]), _shares([pair.second for pair in pairs])])


def _shares(texts: Sequence[str]) -> _Floats:
    counts = [Counter(text.upper()) for text in texts]
    letters = sorted(set[str]().union(*counts))
    return np.array([[count[one] / count.total() for one in letters] for count in counts])


def kmer_overlap(pairs: Sequence[Pair]) -> _Floats:
    """Return the share of the second text's k-mers that the first has, for k of 1, 2, 3, [pairs, 3]."""
    return np.array([[_overlap(pair, k) for k in range(1, _LONGEST_KMER + 1)] for pair in pairs])


def _overlap(pair: Pair, k: int) -> float:
    first, second = (
        Counter(text[i : i + k] for i in range(len(text) - k + 1))
        for text in (pair.first.upper(), pair.second.upper())
    )
    return (first & second).total() / max(second.total(), 1)  # k-mer overlap


SHORTCUTS: Mapping[str, Callable[[Sequence[Pair]], _Floats]] = {
    "length": lengths,
    "gc": gc_content,
    "composition": composition,
    "kmers": kmer_overlap,
}
"""Features of each shortcut, each judged by boosted trees."""


def shortcut_predictions(pairs: Sequence[Pair]) -> dict[str, npt.NDArray[np.int64]]:
    """Return what each shortcut says of every pair, 0 or 1 [pairs], learnt from pairs with other first texts.

    LabError for fewer than 40 pairs, one label only, or a single first text.
    """
    labels = np.array([pair.label for pair in pairs])
    if len(pairs) < 40 or len(set(labels.tolist())) < 2:
        raise LabError(
            f"shortcut baselines need 40 pairs of both labels, got {len(pairs)}; give more, or baselines=false"
        )
    folds = np.array([_fold(pair.first) for pair in pairs])
    return {
        name: (cross_fitted(features(pairs), labels, folds) > 0.5).astype(np.int64)
        for name, features in SHORTCUTS.items()
    }


def _fold(text: str) -> int:
    """Pairs of one first text are in one fold, so that no gene is learnt and judged."""
    return hashlib.sha256(text.upper().encode()).digest()[0] % _FOLDS
