"""Labelled spans of a text: characters, tokens, BIO labels, and back.

A span is text[start:end] with a label. A token belongs to it where they share a character that is no blank: byte-level
tokens often begin with the blank before a word, and several of them may share one character, each with some of its bytes.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from gpt2lab.base.errors import LabError

Offsets = Sequence[tuple[int, int]]
"""For each token the characters [start, end) that it stands for; an empty range for a special token."""

_UNIT = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, order=True)
class Span:
    """Characters start … end - 1 of a text, and what they are."""

    start: int
    end: int
    label: str


@dataclass(frozen=True, order=True)
class TokenSpan:
    """Tokens start … end - 1, and what they are."""

    start: int
    end: int
    label: str
    whole: bool = True
    """Whether the tokens hold all of the span: false where the text was cut inside of it."""


def checked(text: str, spans: Sequence[Span], *, overlaps: bool = False) -> list[Span]:
    """Return the spans by place, without blanks at their ends.

    LabError for one outside of the text, without a character, or without a label, and, unless `overlaps`, for two that
    overlap.
    """
    found = []
    for span in spans:
        if not 0 <= span.start < span.end <= len(text):
            raise LabError(
                f"span {span.start}-{span.end}: the text has {len(text)} characters; give start < end, end behind the last"
            )
        if not span.label or span.label == "O":
            raise LabError(
                f"span {span.start}-{span.end}: a label is needed, other than O, got {span.label!r}"
            )
        inside = text[span.start : span.end]
        if not inside.strip():
            raise LabError(f"span {span.start}-{span.end}: holds nothing but blanks")
        start = span.start + len(inside) - len(inside.lstrip())
        found.append(Span(start, start + len(inside.strip()), span.label))
    found.sort()
    if not overlaps:
        _refuse_overlaps(found)
    return found


def layers(spans: Sequence[Span]) -> list[list[Span]]:
    """Distribute spans over as few layers as nesting takes, none of which holds two that overlap; the longer ones first."""
    made: list[list[Span]] = []
    for span in sorted(spans, key=lambda one: (one.start - one.end, one)):
        for layer in made:
            if all(span.end <= other.start or other.end <= span.start for other in layer):
                layer.append(span)
                break
        else:
            made.append([span])
    return [sorted(layer) for layer in made]


def to_tokens(text: str, spans: Sequence[Span], offsets: Offsets) -> list[TokenSpan | None]:
    """Return the tokens of each span; None where the text was cut before it.

    A token that two spans share counts for both; `bio` gives it to the first. LabError as `checked`; spans may overlap.
    """
    there = [(place, *_trimmed(text, *pair)) for place, pair in enumerate(offsets)]
    there = [one for one in there if one[1] < one[2]]
    found: list[TokenSpan | None] = []
    for span in spans:
        (inner,) = checked(text, [span])
        mine = [one for one in there if one[1] < inner.end and one[2] > inner.start]
        if not mine:
            found.append(None)
            continue
        whole = min(one[1] for one in mine) <= inner.start and max(one[2] for one in mine) >= inner.end
        found.append(TokenSpan(mine[0][0], mine[-1][0] + 1, span.label, whole))
    return found


def to_characters(text: str, spans: Sequence[TokenSpan], offsets: Offsets) -> list[Span]:
    """Return the characters that the tokens of each span stand for, without blanks at their ends.

    The span that `to_tokens` was given, where it begins and ends with a token; else the whole tokens. Spans of special
    tokens and blanks alone are left out. LabError for tokens that are not there.
    """
    found = []
    for span in spans:
        if not 0 <= span.start < span.end <= len(offsets):
            raise LabError(f"tokens {span.start}-{span.end}: the text has {len(offsets)} tokens")
        ranges = [pair for pair in offsets[span.start : span.end] if pair[0] < pair[1]]
        if ranges:
            start, end = _trimmed(text, min(pair[0] for pair in ranges), max(pair[1] for pair in ranges))
            if start < end:
                found.append(Span(start, end, span.label))
    return found


def bio(count: int, spans: Sequence[TokenSpan | None]) -> list[str]:
    """Return a label for each of `count` tokens: B-X at the first of a span, I-X at its others, O elsewhere.

    A token that two neighbouring spans share is the first one's. LabError for spans that overlap in more, and for one that
    another leaves no token.
    """
    labels = ["O"] * count
    for span in sorted(one for one in spans if one is not None):
        free = [place for place in range(span.start, span.end) if labels[place] == "O"]
        if len(free) < span.end - span.start - 1 or not free:
            raise LabError(
                f"tokens {span.start}-{span.end} ({span.label}): another span holds them; split overlaps with layers"
            )
        for place in free:
            labels[place] = f"{'B' if place == free[0] else 'I'}-{span.label}"
    return labels


def from_bio(labels: Sequence[str]) -> list[TokenSpan]:
    """Return the spans of BIO labels; an I-X that continues no X begins a span, as conlleval reads it.

    LabError for a label that is neither O nor begins with B- or I-.
    """
    found: list[TokenSpan] = []
    start, kind = 0, ""
    for place, label in enumerate([*labels, "O"]):
        mark, _, name = label.partition("-")
        if label != "O" and (mark not in ("B", "I") or not name):
            raise LabError(f"label {label!r}: neither O nor B-… nor I-…")
        if kind and (mark != "I" or name != kind):
            found.append(TokenSpan(start, place, kind))
            kind = ""
        if mark != "O" and not kind:
            start, kind = place, name
    return found


def units(text: str, *layers: Sequence[Span]) -> tuple[list[tuple[int, int]], list[list[str]]]:
    """Cut a text into words and punctuation marks, also at the borders of spans; return ranges and BIO labels by layer.

    The ranges keep the text as it is: what a head learns of them is read back to characters exactly. Spans of one layer must
    not overlap; those of several may. LabError as `checked`.
    """
    kept = [checked(text, spans) for spans in layers]
    borders = {border for spans in kept for span in spans for border in (span.start, span.end)}
    ranges: list[tuple[int, int]] = []
    for match in _UNIT.finditer(text):
        cuts = [match.start(), *sorted(b for b in borders if match.start() < b < match.end()), match.end()]
        ranges += list(itertools.pairwise(cuts))
    return ranges, [bio(len(ranges), to_tokens(text, spans, ranges)) for spans in kept]


def token_windows(count: int, size: int, stride: int) -> list[tuple[int, int]]:
    """Return windows [start, end) of at most `size` tokens that advance by `stride` and together hold all `count`.

    LabError unless 1 ≤ stride ≤ size.
    """
    if not 1 <= stride <= size:
        raise LabError(
            f"stride must lie between 1 and the window of {size}, got {stride}: else tokens are left out"
        )
    last = max(count - size, 0)
    return [(start, min(start + size, count)) for start in (*range(0, last, stride), last)]


def joined(windows: Sequence[tuple[int, int]], labels: Sequence[Sequence[str]]) -> list[str]:
    """Return one label for each token from those of overlapping windows: of the window in which it has most context.

    The context of a token is the shorter of its distances to both ends of the window. LabError where lengths do not fit or
    a token stands in no window.
    """
    best: dict[int, tuple[int, str]] = {}
    for (start, end), own in zip(windows, labels, strict=True):
        if len(own) != end - start:
            raise LabError(f"window {start}-{end}: {len(own)} labels for {end - start} tokens")
        for place, label in zip(range(start, end), own, strict=True):
            context = min(place - start, end - 1 - place)
            if place not in best or context > best[place][0]:
                best[place] = context, label
    count = max((end for _, end in windows), default=0)
    if len(best) < count:
        raise LabError(f"token {min(set(range(count)) - set(best))} stands in no window")
    return [best[place][1] for place in range(count)]


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


def _refuse_overlaps(spans: Sequence[Span]) -> None:
    """LabError for two of the spans, by place, that overlap."""
    furthest: Span | None = None
    for span in spans:
        if furthest is not None and span.start < furthest.end:
            raise LabError(
                f"spans {furthest.start}-{furthest.end} ({furthest.label}) and {span.start}-{span.end} ({span.label}) "
                "overlap; a token has one label: leave one out, or give each layer a field of its own"
            )
        furthest = span
