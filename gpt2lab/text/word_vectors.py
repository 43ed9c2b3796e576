"""Word vectors: nearest neighbours, and vectors counted from text by shifted positive PMI and a truncated SVD."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from gpt2lab.base.errors import LabError, nearest

Floats = npt.NDArray[np.floating]

_MOST_COUNTED = 10_000
"""Words whose matrix of counts is held whole: 800 MB in float64."""
_EXACT = 2000
"""Rows up to which the SVD is exact, because its time grows with their cube; beyond it is a randomised one."""


@dataclass(frozen=True)
class WordVectors:
    """A vector for each word."""

    words: tuple[str, ...]
    vectors: Floats
    """[words, dimensions], float32 of files, float64 of counts."""
    counts: tuple[int, ...] | None = None
    """How often each word stands in the text that they were made of; None where that is not known."""
    place: dict[str, int] = field(init=False, repr=False, compare=False)
    """Row of each word."""

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.words) != len(self.vectors):
            raise LabError(
                f"{len(self.words)} words need as many vectors, got an array {list(self.vectors.shape)}"
            )
        if self.counts is not None and len(self.counts) != len(self.words):
            raise LabError(f"{len(self.words)} words with {len(self.counts)} counts")
        places = {word: place for place, word in enumerate(self.words)}
        if len(places) < len(self.words):
            twice = next(word for word, count in Counter(self.words).items() if count > 1)
            raise LabError(f"word {twice!r} has two vectors")
        object.__setattr__(self, "place", places)

    def __contains__(self, word: str) -> bool:
        return word in self.place

    def __getitem__(self, word: str) -> Floats:
        """Return the vector of a word, [dimensions]. LabError for one that is not there."""
        if word not in self.place:
            match = nearest(word, self.words[:50_000])
            raise LabError(f"{word!r} has no vector" + (f"; did you mean {match!r}?" if match else ""))
        row: Floats = self.vectors[self.place[word]]
        return row

    def unit(self) -> Floats:
        """Return the vectors with length 1, [words, dimensions]; of length 0 where they are 0."""
        lengths = np.linalg.norm(self.vectors, axis=1, keepdims=True)
        return self.vectors / np.where(lengths == 0, 1, lengths)

    def neighbours(
        self, query: str | Floats, k: int = 10, *, leave_out: Sequence[str] = ()
    ) -> list[tuple[str, float]]:
        """Return the k words with the highest cosine to a word (itself left out) or to a vector, and the cosines.

        Equal ones come in the order of the words. LabError for an unknown word, a vector of another size or of length 0.
        """
        vector = np.asarray(self[query] if isinstance(query, str) else query)
        if vector.shape != (size := self.vectors.shape[1],):
            raise LabError(
                f"the words have vectors of {size} numbers, the query is an array {list(vector.shape)}"
            )
        length = float(np.linalg.norm(vector))
        if not math.isfinite(length) or length == 0:
            raise LabError(f"the query has length {length:g}: it has no direction to compare")
        cosines = self.unit() @ (vector / length)
        without = {
            self.place[word]
            for word in (*leave_out, *([query] if isinstance(query, str) else []))
            if word in self
        }
        best = [place for place in np.argsort(-cosines, kind="stable").tolist() if place not in without]
        return [(self.words[place], float(cosines[place])) for place in best[: max(k, 0)]]


@dataclass(frozen=True, kw_only=True)
class CountOptions:
    """How words are counted and factored. The values are those that Levy et al. (2015) found best for SVD."""

    window: int = 2
    """Words on either side that are a word's context."""
    weighting: Literal["flat", "harmonic"] = "flat"
    """What a context d words away counts: 1, or 1 / d."""
    least: int = 2
    """A word is kept if it occurs so often; others are removed before windows are cut."""
    shift: float = 1.0
    """k: log k is subtracted from the PMI before it is cut at 0; the number of negative samples of word2vec."""
    smoothing: float = 0.75
    """α: contexts are weighed by count^α instead of count, so that rare ones gain less; 1 is none."""
    dimensions: int = 100
    """Numbers of a vector; fewer where there are fewer words."""
    eigenvalue_weight: float = 0.5
    """p: the vectors are U Σ^p; 1 is the plain SVD, 0 leaves the singular values out."""

    def __post_init__(self) -> None:
        if self.window < 1 or self.least < 1 or self.dimensions < 1:
            raise LabError("word vectors: window, least and dimensions must be at least 1")
        if not self.shift > 0 or not 0 < self.smoothing <= 1 or not 0 <= self.eigenvalue_weight <= 1:
            raise LabError(
                "word vectors: shift must be positive, smoothing in (0, 1], eigenvalue_weight in [0, 1]"
            )


def count_vectors(sentences: Iterable[Sequence[str]], options: CountOptions = CountOptions()) -> WordVectors:
    """Return vectors of the words in sentences: shifted positive PMI, then a truncated SVD (Levy & Goldberg 2014).

    The matrix [words, words] is held whole. LabError for more than 10,000 kept words, and for none.
    Levy & Goldberg 2014, eq. 11 and section 4.2; Levy et al. 2015, sections 3.2 and 3.3.
    """
    kept = [list(sentence) for sentence in sentences]
    counts = Counter(word for sentence in kept for word in sentence)
    words = sorted(
        (word for word, count in counts.items() if count >= options.least), key=lambda w: (-counts[w], w)
    )
    if not words:
        raise LabError(f"no word occurs {options.least} times; give more text, or a lower count")
    if len(words) > _MOST_COUNTED:
        raise LabError(
            f"{len(words):,} words are more than the {_MOST_COUNTED:,} whose matrix is held; raise least"
        )
    pairs = cooccurrences(kept, words, options.window, harmonic=options.weighting == "harmonic")
    matrix = shifted_ppmi(pairs, shift=options.shift, smoothing=options.smoothing)
    left, values = truncated_svd(matrix, options.dimensions)
    there = tuple(counts[word] for word in words)
    return WordVectors(tuple(words), left * values**options.eigenvalue_weight, there)


def cooccurrences(
    sentences: Iterable[Sequence[str]], words: Sequence[str], window: int, *, harmonic: bool = False
) -> npt.NDArray[np.float64]:
    """Return how often each word stands within `window` kept words of another, [words, words], symmetric.

    harmonic: words that stand d apart count 1 / d (Pennington et al. 2014, section 3).
    """
    place = {word: row for row, word in enumerate(words)}
    pairs = np.zeros((len(words), len(words)))
    for sentence in sentences:
        rows = np.array([place[word] for word in sentence if word in place], dtype=np.int64)
        for apart in range(1, min(window, len(rows) - 1) + 1):
            np.add.at(pairs, (rows[:-apart], rows[apart:]), 1.0 / apart if harmonic else 1.0)
    return pairs + pairs.T


def shifted_ppmi(
    pairs: npt.NDArray[np.float64], *, shift: float = 1.0, smoothing: float = 1.0
) -> npt.NDArray[np.float64]:
    """Return max(0, log(#(w, c) D / (#(w) #(c))) - log shift), [words, contexts]; 0 where a pair does not occur.

    With smoothing α, #(c) / D becomes #(c)^α / Σ #(c)^α. Levy & Goldberg 2014, eq. 11; Levy et al. 2015, eq. 3.
    LabError for counts that are all 0.
    """
    total = pairs.sum()
    if not total > 0:
        raise LabError("no two kept words stand near each other; give longer sentences or a wider window")
    smoothed = pairs.sum(0) ** smoothing
    expected = np.outer(pairs.sum(1), smoothed / smoothed.sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        pmi = np.log(pairs / expected) - math.log(shift)
    return np.where(pairs > 0, np.maximum(pmi, 0), 0)


def truncated_svd(
    matrix: npt.NDArray[np.float64], rank: int, *, exact: bool | None = None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the left singular vectors [n, rank] of the largest singular values [rank], in their order.

    At most as many as the matrix has. Exact up to 2,000 rows unless told; else a randomised range finder with 8 power
    iterations and twice as many vectors as asked for, always with the same numbers (Halko et al. 2011, algorithms 4.4
    and 5.1); 2,000 words of a flat spectrum have singular values within 0.3 % then.
    The largest component of each vector is positive, so that vectors do not depend on the library.
    """
    rank = min(rank, *matrix.shape)
    if (max(matrix.shape) <= _EXACT) if exact is None else exact:
        left, values, _ = np.linalg.svd(matrix, full_matrices=False)
    else:
        start = np.random.default_rng(0).standard_normal((matrix.shape[1], min(2 * rank + 10, *matrix.shape)))
        basis = np.linalg.qr(matrix @ start)[0]
        for _ in range(8):
            basis = np.linalg.qr(matrix @ np.linalg.qr(matrix.T @ basis)[0])[0]
        inner, values, _ = np.linalg.svd(basis.T @ matrix, full_matrices=False)
        left = basis @ inner
    left, values = left[:, :rank], values[:rank]
    largest = left[np.abs(left).argmax(0), np.arange(rank)]
    return left * np.where(largest < 0, -1.0, 1.0), values
