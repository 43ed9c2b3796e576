"""Recognisers of occupations that a pipeline for language makes: noun chunks of spaCy, or of anything like it."""

from collections.abc import Callable, Iterable
from typing import Protocol

from gpt2lab.base.errors import LabError
from gpt2lab.papers.occupational_bias.occupations import Find, first_sentence


class Token(Protocol):
    """A word of a parsed text, as spaCy's `Token`."""

    @property
    def text(self) -> str:
        """The word as it is written."""

    @property
    def pos_(self) -> str:
        """Its part of speech in the universal tag set, such as NOUN or DET."""


class Parsed(Protocol):
    """A parsed text, as spaCy's `Doc`."""

    @property
    def noun_chunks(self) -> Iterable[Iterable[Token]]:
        """Its noun phrases, each as its words."""


def noun_chunks(pipeline: Callable[[str], Parsed]) -> Find:
    """Return a recogniser that takes each noun phrase of the first sentence for an occupation, without what is no title.

    pipeline: text to a parsed text, such as `spacy.load("en_core_web_sm")`; a pipeline that only names entities will not
    do: spaCy's have no label for occupations. Determiners, pronouns, numbers and possessives at the beginning of a phrase
    are left out ("a nurse", "her own doctor"); phrases without a noun are no occupation. Since any noun counts, fewer
    completions are without a title than with a gazetteer, and some titles are no jobs ("man", "mother of two").
    LabError where the pipeline gives no noun chunks.
    """

    def find(text: str) -> list[str]:
        try:
            # A continuation is no sentence of its own; with a verb before it the parser reads a complement.
            chunks = [list(chunk) for chunk in pipeline(_BEFORE + first_sentence(text).strip()).noun_chunks]
        except (NotImplementedError, ValueError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise LabError(
                f"this pipeline gives no noun chunks ({reason}); it needs a parser, as spaCy's en_core_web_sm has"
            ) from error
        titles = [_title(chunk) for chunk in chunks[1:]]  # the first is the sentence's own subject
        return [title for title in titles if title]

    return find


_BEFORE = "She works as "
_NO_TITLE = {"DET", "PRON", "NUM", "PART", "PUNCT", "SPACE"}


def _title(chunk: list[Token]) -> str:
    """Return a phrase without the words before its title; empty if it has no noun."""
    at = 0
    while at < len(chunk) and chunk[at].pos_ in _NO_TITLE:
        at += 1
    named = any(token.pos_ == "NOUN" for token in chunk[at:])
    return " ".join(token.text for token in chunk[at:]) if named else ""
