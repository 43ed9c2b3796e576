"""`perturb`: from a language's name to a function of sentences, and whole corpora with a count of what becomes of them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from gpt2lab.base.errors import LabError
from gpt2lab.papers.impossible_languages.annotations import Sentence
from gpt2lab.papers.impossible_languages.languages import Coding, Language, language
from gpt2lab.text.tokenizer import Tokenizer

Given = str | Sequence[int] | Sentence
"""A sentence as text, as token ids, or annotated."""


class Perturbation:
    """A language as a function of one sentence after another; what it carries between them begins at the start."""

    def __init__(self, chosen: Language, coding: Coding) -> None:
        self.language, self.coding = chosen, coding
        self._rule = chosen.begin()

    def __call__(self, given: Given) -> list[int]:
        """Return the ids of a sentence in the language. LabError for ids or text where it needs words."""
        return self._rule(as_sentence(given), self.coding)

    def with_markers(self, markers: Sequence[int]) -> "Perturbation":
        """Return the language from its start, with other tokens as its markers."""
        return Perturbation(self.language, replace(self.coding, markers=tuple(markers)))

    def corpus(self, sentences: Iterable[Given]) -> "Perturbed":
        """Return all sentences in the language, those that it changes apart from the others, and counts.

        The random state of the language begins anew: a corpus, a training or a test part, does not depend on what came
        before it.
        """
        found, rule = Perturbed(self.language), self.language.begin()
        markers = set(self.coding.markers)
        for index, given in enumerate(sentences):
            sentence = as_sentence(given)
            ids = rule(sentence, self.coding)  # dropped sentences take their random numbers too
            if sum(token not in markers for token in ids) <= 1:
                found.counts["short"] += 1
            elif not self.language.affected(sentence):
                found.unaffected.append((index, ids))
            elif self.language.keep(sentence, self.coding):
                found.affected.append((index, ids))
            else:
                found.counts["filtered"] += 1
        found.counts |= {"affected": len(found.affected), "unaffected": len(found.unaffected)}
        return found


@dataclass
class Perturbed:
    """A corpus in a language; each sentence with its number in the input."""

    language: Language
    affected: list[tuple[int, list[int]]] = field(default_factory=list)
    """Sentences that the language changes, which alone are evaluated."""
    unaffected: list[tuple[int, list[int]]] = field(default_factory=list)
    """Sentences that it leaves as they are."""
    counts: dict[str, int] = field(default_factory=lambda: {"short": 0, "filtered": 0})
    """Sentences: affected, unaffected, short (one token or none, dropped), filtered (affected and dropped)."""

    def training(self) -> list[list[int]]:
        """Return all sentences that are kept, unaffected ones first, as in the authors' files."""
        return [ids for _, ids in (*self.unaffected, *self.affected)]

    def evaluation(self) -> list[list[int]]:
        """Return the affected sentences. LabError if there is none."""
        if not self.affected:
            raise LabError(
                f"{self.language.name}: no sentence is left to evaluate ({self.counts['filtered']} filtered, "
                f"{self.counts['short']} of one token or none, {self.counts['unaffected']} without a change)"
            )
        return [ids for _, ids in self.affected]


def perturb(
    name: str | Language,
    tokenizer: Tokenizer | Callable[[str], list[int]] | None = None,
    *,
    first_marker: int | None = None,
) -> Perturbation:
    """Return a language as a function: token ids, a text or an annotated sentence → the ids of the language.

    tokenizer: encodes text and words; ids alone need none. first_marker: the id of the language's first marker, the next
    ones follow; by default the one that the tokenizer has for it, else its vocabulary size, behind all ids of text.
    LabError as for `language`, and for a language with markers where neither says what ids they have.
    """
    chosen = language(name)
    encode = tokenizer.encode if isinstance(tokenizer, Tokenizer) else tokenizer
    if first_marker is None and chosen.markers:
        if not isinstance(tokenizer, Tokenizer):
            raise LabError(
                f"{chosen.name}: its markers need ids; give a tokenizer, or first_marker (50257 with GPT-2's vocabulary)"
            )
        known = [id for glyph in chosen.markers if (id := tokenizer.id(glyph)) is not None]
        if len(known) == len(chosen.markers):
            return Perturbation(chosen, Coding(encode, tuple(known)))
        first_marker = tokenizer.vocab_size
    markers = () if first_marker is None else range(first_marker, first_marker + len(chosen.markers))
    return Perturbation(chosen, Coding(encode, tuple(markers)))


def as_sentence(given: Given) -> Sentence:
    """Return a sentence of any form as one object."""
    if isinstance(given, Sentence):
        return given
    return Sentence(text=given) if isinstance(given, str) else Sentence(ids=tuple(given))
