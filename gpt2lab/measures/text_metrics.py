"""How texts resemble each other and repeat themselves: ROUGE, distinct-n, rep-n, diversity, common spans.

A text is a string or a sequence of tokens. A string is cut into lower-cased alphanumeric words, except by
rep-n and diversity, which follow their paper and cut at whitespace. Shares are fractions, not percent.
"""

import math
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from gpt2lab.base.errors import LabError

Text = str | Sequence[Hashable]
Tokens = Sequence[Hashable]
Counting = Literal["clipped", "membership"]

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Rouge:
    """Overlap of a candidate with a reference; each part lies in [0, 1]."""

    precision: float
    """Share of the candidate found in the reference."""
    recall: float
    """Share of the reference found in the candidate."""

    @property
    def f(self) -> float:
        """Harmonic mean of precision and recall; 0 if both are 0."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def words(text: str) -> list[str]:
    """Cut a text into lower-cased words of letters and digits; everything else separates."""
    return _WORD.findall(text.lower())


def tokens_of(text: Text) -> Tokens:
    """Return the words of a string, or a token sequence as it is."""
    return words(text) if isinstance(text, str) else text


def ngrams(tokens: Tokens, n: int) -> list[tuple[Hashable, ...]]:
    """Return the n-grams of `tokens` in order; none if there are fewer than n tokens. LabError if n < 1."""
    if n < 1:
        raise LabError(f"an n-gram has at least 1 token, got n = {n}")
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))


def rouge_n(candidate: Text, reference: Text, n: int = 2, *, counting: Counting = "clipped") -> Rouge:
    """Return the n-gram overlap of two texts (Lin 2004).

    "clipped" lets an n-gram of the reference match once for each time it occurs, as ROUGE does; "membership"
    asks only whether it occurs. A text shorter than n has nothing that could match: 0, not 1.
    """
    ours, theirs = Counter(ngrams(tokens_of(candidate), n)), Counter(ngrams(tokens_of(reference), n))
    check_counting(counting)
    if counting == "clipped":
        found = found_back = (ours & theirs).total()
    else:
        found = sum(count for gram, count in ours.items() if gram in theirs)
        found_back = sum(count for gram, count in theirs.items() if gram in ours)
    return Rouge(_share(found, ours.total()), _share(found_back, theirs.total()))


def rouge_l(candidate: Text, reference: Text) -> Rouge:
    """Return the overlap by the longest common subsequence of two texts (Lin 2004, sentence level)."""
    ours, theirs = tokens_of(candidate), tokens_of(reference)
    common = common_subsequence(ours, theirs)
    return Rouge(_share(common, len(ours)), _share(common, len(theirs)))


def common_subsequence(first: Tokens, second: Tokens) -> int:
    """Return the length of the longest common subsequence, a table column at a time as bits of an integer.

    Hyyrö 2004: a zero bit at place i of `row` says that the length grows between first[:i] and first[:i + 1].
    """
    places: dict[Hashable, int] = {}
    for i, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << i
    full = (1 << len(first)) - 1
    row = full
    for token in second:
        matches = row & places.get(token, 0)
        row = ((row + matches) | (row - matches)) & full
    return len(first) - row.bit_count()


def distinct_n(texts: Iterable[Text], n: int = 2) -> float:
    """Return the share of different n-grams among all n-grams of all texts (Li et al. 2016).

    nan if no text has n tokens. It falls as the amount of text grows: compare equal amounts only.
    """
    grams = [gram for text in _several(texts) for gram in ngrams(tokens_of(text), n)]
    return len(set(grams)) / len(grams) if grams else math.nan


def repetition_n(texts: Iterable[Text], n: int, *, compat: bool = False) -> float:
    """Return rep-n: 1 - (different n-grams, counted within each text) / (all n-grams).

    Su & Collier 2022 (who print percent). `compat` drops the last n-gram of every text, as their code does.
    nan if no text has n tokens.
    """
    different = total = 0
    for text in _several(texts):
        grams = ngrams(text.split() if isinstance(text, str) else text, n)
        grams = grams[:-1] if compat else grams
        different, total = different + len(set(grams)), total + len(grams)
    return 1.0 - different / total if total else math.nan


def diversity(texts: Iterable[Text], *, compat: bool = False) -> float:
    """Return the product of 1 - rep-n over n = 2, 3, 4 (Su & Collier 2022); nan if no text has 4 tokens."""
    texts = _several(texts)
    return math.prod(1.0 - repetition_n(texts, n, compat=compat) for n in (2, 3, 4))


def cut_at_repetition(tokens: Tokens, n: int = 4) -> Tokens:
    """Return `tokens` up to the end of the first n-gram that stood there before, without that n-gram.

    Eldan & Li 2023 cut the baselines' texts so before they are graded.
    """
    seen: set[tuple[Hashable, ...]] = set()
    for start, gram in enumerate(ngrams(tokens, n)):
        if gram in seen:
            return tokens[:start]
        seen.add(gram)
    return tokens


def check_counting(counting: str) -> None:
    """Refuse any way of counting but the two. LabError."""
    if counting not in ("clipped", "membership"):
        raise LabError(f"{counting}: no such way of counting n-grams; clipped or membership")


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _several(texts: Iterable[Text]) -> list[Text]:
    if isinstance(texts, str):
        raise LabError("this measure needs several texts; put a single one in a list")
    return list(texts)
