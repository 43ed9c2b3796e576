"""The alignment of two languages' word vectors over a dictionary, and how well it translates words that it has not seen."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from gpt2lab.base.errors import LabError
from gpt2lab.papers.wechsel.dictionary import Pairs, expanded
from gpt2lab.text.procrustes import procrustes
from gpt2lab.text.vector_files import SubwordVectors, Vectors
from gpt2lab.text.word_vectors import WordVectors

_Floats = npt.NDArray[np.float64]
_WORST = 0.05
"""Share of right translations below which a warning says that the alignment failed."""


@dataclass(frozen=True, kw_only=True)
class AlignmentReport:
    """What an alignment rests on, and how well it translates."""

    pairs_given: int
    """Pairs of the dictionary."""
    pairs_used: int
    """Pairs after the expansion by case whose words have vectors, repetitions counted."""
    residual: float
    """|A R - B| / |B| over the pairs used, Frobenius norms."""
    tested: int
    """Source words whose translation was looked up."""
    precision_at_1: float
    """Share of them whose nearest target word, by cosine, is one of their translations; NaN if none was tested."""
    precision_at_10: float
    """The same for the ten nearest."""

    def numbers(self) -> dict[str, float]:
        """Return every number by its name."""
        return asdict(self)


def align(
    source: Vectors,
    target: Vectors,
    pairs: Pairs,
    *,
    test: Pairs | None = None,
    held_out: float = 0.1,
    candidates: int = 20_000,
) -> tuple[_Floats, AlignmentReport]:
    """Return R, which maps source vectors (as rows, u R) to the target's, [dimensions, dimensions], and a report.

    R = argmin |A R - B| over orthogonal matrices, reflections included; A and B are the vectors of the expanded pairs as
    they are, neither centred nor normed. test: pairs on which translation is judged; without them R is fitted a second time
    without the pairs of a share `held_out` of the source words (chosen by hash), which are then translated: the R that is
    returned rests on all. candidates: the most frequent target words among which a translation is looked for.
    LabError for vectors of different sizes or that are not finite, an empty dictionary, or no pair with two vectors. Warns
    of fewer pairs than dimensions, and of a precision at 1 below 5 %.
    """
    if not pairs:
        raise LabError("the dictionary is empty; give pairs of a source word and a target word")
    if not 0 <= held_out < 1:
        raise LabError(f"held_out {held_out}: a share of the source words, in [0, 1)")
    rotation, used, residual = _fitted(source, target, pairs)
    size = len(rotation)
    if used < size:
        warnings.warn(
            f"the dictionary has {used} usable pairs for vectors of {size} numbers; the alignment is not determined",
            stacklevel=2,
        )
    judged = rotation
    if test is None:
        test = [pair for pair in pairs if _share(pair[0]) < held_out]
        rest = [pair for pair in pairs if _share(pair[0]) >= held_out]
        test, judged = (
            (test, _fitted(source, target, rest)[0])
            if test and _usable(source, target, rest)
            else ([], rotation)
        )
    tested, first, ten = _precision(source, target, test, judged, candidates)
    if tested and first < _WORST:
        warnings.warn(
            f"the alignment translates {first:.1%} of {tested} words that it has not seen; more text or a larger dictionary "
            "may help",
            stacklevel=2,
        )
    report = AlignmentReport(
        pairs_given=len(pairs),
        pairs_used=used,
        residual=residual,
        tested=tested,
        precision_at_1=first,
        precision_at_10=ten,
    )
    return rotation, report


def _fitted(source: Vectors, target: Vectors, pairs: Pairs) -> tuple[_Floats, int, float]:
    """Return R, the number of expanded pairs and |A R - B| / |B|."""
    usable = list(expanded(pairs, source, target))
    if not usable:
        raise LabError("no pair of the dictionary has a vector on both sides; is it of these two languages?")
    counts = Counter(usable)
    once = list(counts)
    weights = np.sqrt(list(counts.values()))[
        :, None
    ]  # as if the rows of a pair that counts n times stood there n times
    a = _rows(source, [one for one, _ in once]) * weights
    b = _rows(target, [other for _, other in once]) * weights
    if a.shape[1] != b.shape[1]:
        raise LabError(
            f"the vectors have {a.shape[1]} and {b.shape[1]} numbers; both languages need the same size"
        )
    rotation = np.asarray(procrustes(a, b).rotation, dtype=np.float64)  # R = U Vᵀ, SVD of Aᵀ B
    return rotation, len(usable), float(np.linalg.norm(a @ rotation - b) / np.linalg.norm(b))


def _usable(source: Vectors, target: Vectors, pairs: Pairs) -> bool:
    return next(expanded(pairs, source, target), None) is not None


def _rows(vectors: Vectors, words: Sequence[str]) -> _Floats:
    return np.stack([vectors[word] for word in words]).astype(np.float64)


def _share(word: str) -> float:
    """Return a number in [0, 1) that depends on the word alone."""
    return int.from_bytes(hashlib.blake2b(word.lower().encode(), digest_size=8).digest(), "big") / 2**64


def _precision(
    source: Vectors, target: Vectors, test: Pairs, rotation: _Floats, candidates: int
) -> tuple[int, float, float]:
    """Return how many words were translated, and the shares of right ones among the nearest and the ten nearest."""
    known = target.known(candidates) if isinstance(target, SubwordVectors) else _first(target, candidates)
    right: dict[str, set[int]] = {}
    for one, other in test:
        if one in source and other in known:
            right.setdefault(one, set()).add(known.place[other])
    if not right:
        return 0, float("nan"), float("nan")
    table = known.unit().astype(np.float64)
    mapped = _rows(source, list(right)) @ rotation
    first = ten = 0
    for vector, places in zip(mapped, right.values(), strict=True):
        nearest = np.argsort(-(table @ vector), kind="stable")[:10].tolist()
        first += nearest[0] in places
        ten += bool(places.intersection(nearest))
    return len(right), first / len(right), ten / len(right)


def _first(vectors: WordVectors, most: int) -> WordVectors:
    return (
        vectors if len(vectors.words) <= most else WordVectors(vectors.words[:most], vectors.vectors[:most])
    )
