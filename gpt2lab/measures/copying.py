"""How much of a text stands in a corpus: the nearest text by ROUGE, the longest copied span.

Both answer for hundreds of texts against tens of thousands in seconds: the n-grams of the corpus are
indexed once, and all spans are followed in one pass over it.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpt2lab.base.errors import LabError
from gpt2lab.measures.text_metrics import Counting, Rouge, Text, Tokens, check_counting, tokens_of

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Nearest:
    """The text of a corpus that resembles a candidate most."""

    index: int
    """Its place in the corpus (the first of equals)."""
    rouge: Rouge
    """The candidate's overlap with it."""


@dataclass(frozen=True)
class CopiedSpan:
    """The longest run of tokens of a text that stands in some text of a corpus."""

    start: int
    """Where it begins in the text."""
    length: int
    """Its length in tokens; 0 if no token is shared."""
    index: int
    """A text of the corpus that contains it; -1 if no token is shared."""


class NgramIndex:
    """The n-grams of a corpus with the texts they stand in, for ROUGE-n of one text against all.

    Memory is about 40 bytes a token of the corpus. LabError if the corpus is empty or n < 1.
    """

    def __init__(self, corpus: Sequence[Text], n: int = 2) -> None:
        if not corpus:
            raise LabError("an index of n-grams needs at least one text, got none")
        if n < 1:
            raise LabError(f"an n-gram has at least 1 token, got n = {n}")
        self.n = n
        self._ids: dict[Hashable, int] = {}
        tokens, owner = self._number(corpus)
        self.totals: Integers = np.maximum(np.bincount(owner, minlength=len(corpus)) - n + 1, 0)
        # An n-gram is numbered through its first n - 1 tokens, so that any n and vocabulary fit 64 bits.
        self._levels: list[Integers] = []
        grams = (
            tokens  # grams[i]: the number of the n-gram that begins at token i, -1 where a text ends in it
        )
        for extra in range(1, n):
            grams = grams[: max(len(tokens) - extra, 0)]
            pairs = grams * len(self._ids) + tokens[extra:]
            whole = owner[: len(grams)] == owner[extra:]
            self._levels.append(np.unique(pairs[whole]))
            grams = np.where(whole, np.searchsorted(self._levels[-1], pairs), -1)
        whole = grams >= 0
        postings = grams[whole] * len(corpus) + owner[: len(grams)][whole]
        unique, counts = np.unique(postings, return_counts=True)
        self._texts, self._counts = unique % len(corpus), counts.astype(np.int64)
        n_grams = int(grams.max(initial=-1)) + 1
        self._starts = np.searchsorted(unique // len(corpus), np.arange(n_grams + 1))

    def _number(self, corpus: Sequence[Text]) -> tuple[Integers, Integers]:
        """Return the token numbers of all texts in a row and the text each belongs to."""
        ids, lengths, flat = self._ids, [], []
        for text in corpus:
            tokens = tokens_of(text)
            lengths.append(len(tokens))
            flat += [ids.setdefault(token, len(ids)) for token in tokens]
        owner = np.repeat(np.arange(len(corpus)), lengths)
        return np.array(flat, dtype=np.int64), owner.astype(np.int64)

    def overlaps(self, candidate: Text, *, counting: Counting = "clipped") -> tuple[Integers, Integers, int]:
        """Return how many n-grams `candidate` shares with each text, both ways, and how many it has.

        (found [texts]: the candidate's n-grams that the text holds; found_back [texts]: the text's n-grams
        that the candidate holds; total). The two differ only when counted by membership.
        """
        check_counting(counting)
        found = np.zeros(len(self.totals), dtype=np.int64)
        found_back = np.zeros_like(found)
        grams, total = self._look_up(tokens_of(candidate))
        for gram, count in zip(*np.unique(grams, return_counts=True), strict=True):
            here = slice(self._starts[gram], self._starts[gram + 1])
            texts, counts = self._texts[here], self._counts[here]  # each text once
            if counting == "clipped":
                found[texts] += np.minimum(counts, count)
            else:
                found[texts] += count
                found_back[texts] += counts
        return found, found if counting == "clipped" else found_back, total

    def _look_up(self, tokens: Tokens) -> tuple[Integers, int]:
        """Return the numbers of the n-grams of `tokens` that the corpus has, and the count of all."""
        total = max(len(tokens) - self.n + 1, 0)
        ids = np.array([self._ids.get(token, -1) for token in tokens], dtype=np.int64)
        if total == 0:
            return np.zeros(0, dtype=np.int64), 0
        grams = ids[:total]
        for extra, level in enumerate(self._levels, start=1):
            following = ids[extra : extra + total]
            pairs = grams * len(self._ids) + following
            grams = np.where((grams < 0) | (following < 0), -1, _places(level, pairs))
        return grams[grams >= 0], total

    def nearest(
        self, candidate: Text, *, by: str = "precision", counting: Counting = "clipped", skip: int = -1
    ) -> Nearest:
        """Return the text with the highest ROUGE-n precision (or "recall", "f") of `candidate` in it.

        `skip` leaves out one text, the candidate itself when it is of the corpus. LabError for another `by`.
        """
        found, found_back, total = self.overlaps(candidate, counting=counting)
        precision = found / max(total, 1)
        recall = found_back / np.maximum(self.totals, 1)
        both = precision + recall
        f = np.divide(2 * precision * recall, both, out=np.zeros_like(both), where=both > 0)
        scores = {"precision": precision, "recall": recall, "f": f}
        if by not in scores:
            raise LabError(f"{by}: the nearest text is chosen by precision, recall or f")
        chosen = scores[by]
        if skip >= 0:
            chosen = chosen.copy()
            chosen[skip] = -1.0
        index = int(chosen.argmax())
        return Nearest(index, Rouge(float(precision[index]), float(recall[index])))


def _places(level: Integers, values: Integers) -> Integers:
    """Return the place of each value in the sorted `level`, -1 where it is not there."""
    places = np.searchsorted(level, values)
    there = places < len(level)
    there[there] = level[places[there]] == values[there]
    return np.where(there, places, -1)


def nearest_texts(
    candidates: Sequence[Text], corpus: Sequence[Text], n: int = 2, *, counting: Counting = "clipped"
) -> list[Nearest]:
    """Return, for each candidate, the text of `corpus` in which its ROUGE-n precision is highest.

    Eldan & Li 2023 ask this of generated stories and the training set. The maximum grows with the corpus:
    compare it with that of held-out texts against the same corpus.
    """
    index = NgramIndex(corpus, n)
    return [index.nearest(candidate, counting=counting) for candidate in candidates]


def self_rouge(texts: Sequence[Text], n: int = 2, *, counting: Counting = "clipped") -> list[float]:
    """Return, for each text, its highest ROUGE-n F with another of `texts`. LabError unless there are two."""
    if len(texts) < 2:
        raise LabError(f"self-ROUGE compares texts with each other and needs two, got {len(texts)}")
    index = NgramIndex(texts, n)
    return [index.nearest(text, by="f", counting=counting, skip=i).rouge.f for i, text in enumerate(texts)]


def copied_spans(texts: Sequence[Text], corpus: Sequence[Text]) -> list[CopiedSpan]:
    """Return, for each text, its longest run of tokens that stands in a text of `corpus`.

    Time is linear in the tokens of both: `corpus` is read once through a suffix automaton of all `texts`.
    """
    automaton = _Automaton()
    cut = [tokens_of(text) for text in texts]
    for tokens in cut:
        automaton.add(tokens)
    for index, text in enumerate(corpus):
        automaton.follow(tokens_of(text), index)
    matched, source = automaton.longest_suffixes()
    spans = []
    for tokens in cut:
        best = CopiedSpan(0, 0, -1)
        for end, state in enumerate(automaton.walk(tokens), start=1):  # the state of tokens[:end]
            if matched[state] > best.length:
                best = CopiedSpan(end - matched[state], matched[state], source[state])
        spans.append(best)
    return spans


class _Automaton:
    """The suffix automaton of several texts (Blumer et al. 1985): a state is the spans with the same ends."""

    def __init__(self) -> None:
        self.next: list[dict[Hashable, int]] = [{}]
        self.link = [-1]
        self.length = [0]
        self.matched = [0]  # the longest span of this state seen in the corpus, and the text it was seen in
        self.source = [-1]

    def add(self, tokens: Tokens) -> None:
        """Add a text."""
        last = 0
        for token in tokens:
            last = self._extend(last, token)

    def walk(self, tokens: Tokens) -> list[int]:
        """Return the state after each token of a text that was added; adding others may have moved them."""
        state, states = 0, []
        for token in tokens:
            state = self.next[state][token]
            states.append(state)
        return states

    def _state(self, length: int, link: int, following: dict[Hashable, int]) -> int:
        self.next.append(following)
        self.link.append(link)
        self.length.append(length)
        self.matched.append(0)
        self.source.append(-1)
        return len(self.next) - 1

    def _extend(self, last: int, token: Hashable) -> int:
        known = self.next[last].get(token)
        if known is not None:  # an earlier text had this prefix or span
            return known if self.length[known] == self.length[last] + 1 else self._split(last, token, known)
        new = self._state(self.length[last] + 1, 0, {})
        state = last
        while state >= 0 and token not in self.next[state]:
            self.next[state][token] = new
            state = self.link[state]
        if state >= 0:
            target = self.next[state][token]
            fits = self.length[target] == self.length[state] + 1
            self.link[new] = target if fits else self._split(state, token, target)
        return new

    def _split(self, state: int, token: Hashable, target: int) -> int:
        """Part from `target` the spans that end in `state` + token, and return their own state."""
        clone = self._state(self.length[state] + 1, self.link[target], dict(self.next[target]))
        self.link[target] = clone
        while state >= 0 and self.next[state].get(token) == target:
            self.next[state][token] = clone
            state = self.link[state]
        return clone

    def follow(self, tokens: Tokens, index: int) -> None:
        """Read a corpus text and note the longest match at each state."""
        following, link, lengths, matched, source = (
            self.next,
            self.link,
            self.length,
            self.matched,
            self.source,
        )
        state = length = 0
        for token in tokens:
            while state and token not in following[state]:
                state = link[state]
                length = lengths[state]
            step = following[state].get(token)
            if step is None:
                continue
            state, length = step, length + 1
            if length > matched[state]:
                matched[state], source[state] = length, index

    def longest_suffixes(self) -> tuple[list[int], list[int]]:
        """Return, by state, its longest suffix seen in the corpus, and the text it was seen in."""
        matched, source = list(self.matched), list(self.source)
        by_length = sorted(range(1, len(self.next)), key=self.length.__getitem__)
        for state in reversed(by_length):  # a seen span's suffixes were seen with it
            parent = self.link[state]
            if matched[state] and parent > 0 and self.length[parent] > matched[parent]:
                matched[parent], source[parent] = self.length[parent], source[state]
        for state in by_length:
            parent = self.link[state]
            if matched[parent] > matched[state]:
                matched[state], source[state] = matched[parent], source[parent]
        return matched, source
