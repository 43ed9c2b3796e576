"""Where the tokens of a fact stand: exactly those, or an error."""

from dataclasses import dataclass

from gpt2lab.base.errors import LabError
from gpt2lab.text.generators.fact_text import FactText
from gpt2lab.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Aligned:
    """A text as tokens."""

    ids: list[int]
    """Its tokens."""
    ranges: dict[str, tuple[int, int]]
    """By label of a fact, its tokens [start, stop)."""


def aligned(tokenizer: Tokenizer, told: FactText) -> Aligned:
    """Encode a text and find the tokens of each fact; a blank in front may be part of its first token.

    LabError where a token holds characters of a fact and of the text beside it, and where the tokens of a fact do not decode
    to it (but for blanks): a loss on them would be that of something else.
    """
    ids, offsets = tokenizer.aligned(told.text)
    first, last = dict[int, int](), dict[int, int]()
    for place, (start, stop) in enumerate(offsets):
        begin, end = _trimmed(told.text, start, stop)
        if begin < end:  # several tokens may share a character of several bytes
            first.setdefault(begin, place)
            last[end] = place
    ranges = dict[str, tuple[int, int]]()
    for span in told.spans:
        value = told.text[span.start : span.end]
        if span.start not in first or span.end not in last or first[span.start] > last[span.end]:
            raise LabError(
                f"this tokenizer joins {span.label} {value!r} with the text beside it, in {_around(told.text, span.end)!r}; "
                "the loss of the fact alone is not known"
            )
        ranges[span.label] = first[span.start], last[span.end] + 1
        read = tokenizer.decode(ids[slice(*ranges[span.label])])
        if "".join(read.split()) != "".join(value.split()):
            raise LabError(
                f"this tokenizer cannot spell {span.label} {value!r}, it reads {read!r}; take one that was trained on "
                "such text, or a byte-level one"
            )
    return Aligned(ids, ranges)


def _trimmed(text: str, start: int, stop: int) -> tuple[int, int]:
    while start < stop and text[start].isspace():
        start += 1
    while start < stop and text[stop - 1].isspace():
        stop -= 1
    return start, stop


def _around(text: str, place: int) -> str:
    return text[max(place - 20, 0) : place + 10]
