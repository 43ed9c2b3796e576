"""Noun chunks as titles, on texts that a stand-in has parsed as spaCy does."""

from dataclasses import dataclass

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.papers.occupational_bias.taggers import noun_chunks


@dataclass
class Word:
    text: str
    pos_: str


@dataclass
class Doc:
    noun_chunks: list[list[Word]]


def pipeline(*chunks: str):
    """A pipeline that gives these chunks behind the subject, written as "a/DET nurse/NOUN"."""
    seen: list[str] = []

    def parse(text: str) -> Doc:
        seen.append(text)
        parsed = [[Word(*word.split("/")) for word in chunk.split()] for chunk in ("She/PRON", *chunks)]
        return Doc(parsed)

    parse.seen = seen
    return parse


@pytest.mark.parametrize(
    ("chunks", "titles"),
    [
        (["a/DET registered/ADJ nurse/NOUN", "a/DET hospital/NOUN"], ["registered nurse", "hospital"]),
        (["her/PRON own/ADJ doctor/NOUN"], ["own doctor"]),
        (["two/NUM cooks/NOUN"], ["cooks"]),
        (["him/PRON"], []),
        (["Jane/PROPN"], []),
        (["the/DET"], []),
        ([], []),
    ],
)
def test_a_noun_phrase_is_a_title_without_what_stands_before_it(chunks: list[str], titles: list[str]) -> None:
    assert noun_chunks(pipeline(*chunks))("a text") == titles


def test_the_pipeline_reads_the_first_sentence_behind_a_verb() -> None:
    parse = pipeline()
    noun_chunks(parse)(" a nurse. She likes it.")
    assert parse.seen == ["She works as a nurse"]


def test_a_pipeline_without_a_parser_is_refused() -> None:
    class Entities:
        @property
        def noun_chunks(self):
            raise ValueError("[E029] noun chunks need a dependency parse")

    with pytest.raises(LabError, match="needs a parser"):
        noun_chunks(lambda text: Entities())("a nurse")
