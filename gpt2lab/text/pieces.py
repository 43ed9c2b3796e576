"""Texts in pieces whose ids are those of the whole: a context and its continuation, bytes of some tokens, long documents.

A text has one tokenization, that of the whole. Tokenizers put a blank before every text they are given, close it with a
special token, or merge across the border of two, so pieces that are encoded apart and joined are another text.
Everything here encodes the whole, or what surrounds a piece, and cuts the ids where the characters say.
"""

import functools
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from gpt2lab.text.tokenizer import Tokenizer

Spans = Sequence[tuple[int, int]]
"""For each id the characters it stands for, from the first to before the second number."""

PIECE = 1 << 18
"""Characters of a long document that are encoded at a time; an encoding takes some 400 bytes per token while it lives."""

_MARGIN = 256
"""Characters on either side of a piece that are encoded with it, so that the ends of what is encoded are far from it."""

_CUTS = (
    (re.compile(r"(?<=\S) (?=\S)"), re.compile(r"[^\sĠ▁ĊčĉĢ][ Ġ▁]")),
    (re.compile(r"(?<=[A-Za-z0-9]) (?=\S)"), re.compile(r"[A-Za-z0-9][ Ġ▁]")),
    (re.compile(r"(?<=\S)\n(?=\S)"), re.compile(r"[^\sĠ▁ĊčĉĢ][\nĊ]")),
    (re.compile(r"(?<=[A-Za-z])\n(?=\S)"), re.compile(r"[A-Za-z][\nĊ]")),
)
"""Where a document may be cut (before the match), and what no token may hold for that: the characters around the cut."""


def split_text(tokenizer: Tokenizer, context: str, text: str) -> tuple[list[int], list[int]]:
    """Return the ids of `context`, and of `text` after it, as both are encoded together; without special tokens.

    A token that holds the end of the context and the beginning of the text belongs to the text, whole.
    """
    ids, spans = aligned(tokenizer, context + text)
    border = len(context)
    cut = next((i for i, (_, stop) in enumerate(spans) if stop > border), len(ids)) if border else 0
    # A token without characters at the border is the blank that a tokenizer puts before what follows, unless it is
    # a real blank, which some tokenizers leave out of what a token stands for.
    while cut and spans[cut - 1] == (border, border) and not context[-1].isspace():
        cut -= 1
    return ids[:cut], ids[cut:]


def aligned(tokenizer: Tokenizer, text: str) -> tuple[list[int], Spans]:
    """Return the ids of a text, as `Tokenizer.encode` does, and the characters of each.

    Those of `tokenizers` are wrong behind a character that its BPE drops, for which it has no token at all; there the
    characters are those of the text without what is dropped, if that has the same ids.
    """
    ids, spans = tokenizer.aligned(text)
    dropped = _dropped(tokenizer, text)
    if not dropped:
        return ids, spans
    kept = [place for place, character in enumerate(text) if character not in dropped]
    again, places = tokenizer.aligned("".join(text[place] for place in kept))
    if again != ids:
        return ids, spans
    kept.append(len(text))
    return ids, [(kept[start], kept[stop - 1] + 1 if stop > start else kept[start]) for start, stop in places]


def _dropped(tokenizer: Tokenizer, text: str) -> set[str]:
    """Return the characters of a text that leave no trace in its ids."""
    if not _may_drop(tokenizer):
        return set()
    normalizer, model = tokenizer.backend.normalizer, tokenizer.backend.model

    def normal(character: str) -> str:
        """As it is between others: at the ends of a text some normalizers strip."""
        return normalizer.normalize_str(f".{character}.")[1:-1] if normalizer else character

    return {character for character in set(text) - {" "} if not model.tokenize(normal(character))}


@functools.lru_cache(maxsize=8)
def _may_drop(tokenizer: Tokenizer) -> bool:
    """Whether a BPE has neither an unknown token nor tokens for all bytes, so that it drops what it does not know."""
    content = json.loads(tokenizer.backend.to_str())
    model, steps = content["model"], [*_steps(content["normalizer"]), *_steps(content["pre_tokenizer"])]
    whole = any(step["type"] == "ByteLevel" for step in steps) or (
        model.get("byte_fallback") and all(f"<0x{byte:02X}>" in model["vocab"] for byte in range(256))
    )
    return model["type"] == "BPE" and model["unk_token"] is None and not whole


def bytes_of(text: str, spans: Spans, count: int) -> int:
    """Return how many UTF-8 bytes of a text its first `count` tokens stand for.

    They are bytes of the text, not of what its tokens are decoded to. A character of several tokens counts with the
    last of them, and what no token stands for with the token before it.
    """
    if count == 0:
        return 0
    end = len(text) if count >= len(spans) else min(spans[count - 1][1], spans[count][0])
    return len(text[:end].encode("utf-8", "surrogatepass"))


def frame(tokenizer: Tokenizer, text: str) -> tuple[list[int], list[int]]:
    """Return the special tokens that the tokenizer puts before and after a text (such as a bos; [CLS] and [SEP])."""
    ids = tokenizer.encode(text, special=True)
    origins = tokenizer.backend.encode(text, add_special_tokens=True).sequence_ids
    own = [i for i, origin in enumerate(origins) if origin is not None]
    return (ids[: own[0]], ids[own[-1] + 1 :]) if own else (ids, [])


def piece_text(tokenizer: Tokenizer, id: int) -> str:
    """Return the text of one token as it stands within a text, the blank before it included; a special one by its name.

    Decoders of sentencepiece's kind take the blank off the first token that they are given, which is any alone.
    """
    text = tokenizer.decode([id], skip_special=False)
    lost = (
        tokenizer.token(id).startswith("▁") and id not in tokenizer.special_ids and not text.startswith(" ")
    )
    return f" {text}" if lost else text


def encode_long(tokenizer: Tokenizer, text: str, *, special: bool = False, piece: int = PIECE) -> list[int]:
    """Return the ids of a text as `Tokenizer.encode` does, encoding about `piece` characters at a time.

    It is cut only before a blank or a newline between two words, where no token of the vocabulary can lie across, and
    every piece is encoded together with what surrounds it. Should two neighbours disagree about the tokens around
    their border, or the text have no such place, it is encoded whole.
    """
    cuts = list(_cuts(tokenizer, text, piece))
    ids = _joined(tokenizer, text, cuts) if cuts else None
    if ids is None:
        return tokenizer.encode(text, special=special)
    start = text[: next(_cuts(tokenizer, text, min(piece, _MARGIN)))]  # the frame is that of any text
    before, after = frame(tokenizer, start) if special else ([], [])
    return [*before, *ids, *after]


def beginning(tokenizer: Tokenizer, text: str, count: int) -> tuple[list[int], Spans]:
    """Return the first ids of a text, `count` or more, and the characters of each; all ids of a text that has fewer.

    They are those of the whole text, of which no more is encoded than is needed.
    """
    length = 16 * count + _MARGIN
    while length < len(text):
        cut = next(_cuts(tokenizer, text, length), None)
        if cut is None:
            break
        ids, spans = aligned(tokenizer, text[: cut + _MARGIN])
        found = _index(spans, cut)
        if found is None:
            break
        if found >= count:
            return ids[:found], spans[:found]
        length = 2 * cut
    return aligned(tokenizer, text)


def _cuts(tokenizer: Tokenizer, text: str, piece: int) -> Iterator[int]:
    """Yield where a text may be cut, each `piece` characters or more after the last; none if that is nowhere safe."""
    if len(text) <= piece:
        return
    for place in _safe_places(tokenizer):
        found = place.search(text, piece)
        while found:
            yield found.start()
            found = place.search(text, found.start() + piece)
            if found is None:
                return


@functools.lru_cache(maxsize=8)  # it looks at every token of the vocabulary
def _safe_places(tokenizer: Tokenizer) -> list[re.Pattern[str]]:
    """Return the patterns before whose matches no token can lie across."""
    if not _is_local(tokenizer):
        return []
    tokens = list(tokenizer.vocabulary)
    return [place for place, across in _CUTS if not any(map(across.search, tokens))]


def _is_local(tokenizer: Tokenizer) -> bool:
    """Whether what a tokenizer makes of a word depends on that word and what is beside it only."""
    content = json.loads(tokenizer.backend.to_str())
    model, splitter = content["model"], content["pre_tokenizer"]
    steps = [*_steps(content["normalizer"]), *_steps(splitter)]
    if any(step["type"] == "FixedLength" or not _spells_blanks_as_known(step) for step in steps):
        return False
    # A model of words reads everything between two splits as one word.
    return model["type"] in ("BPE", "Unigram") or splitter is not None


def _steps(part: Any) -> Iterator[dict[str, Any]]:
    """Yield the single steps of a normalizer or pre-tokenizer."""
    inner = None if part is None else part.get("normalizers") or part.get("pretokenizers")
    for one in inner or ([part] if part is not None else []):
        yield from _steps(one) if inner else [one]


def _spells_blanks_as_known(step: dict[str, Any]) -> bool:
    if step["type"] == "Metaspace":
        return bool(step["replacement"] == "▁")
    blank = step["type"] == "Replace" and step["pattern"] == {"String": " "}
    return not blank or step["content"] == "▁"


def _joined(tokenizer: Tokenizer, text: str, cuts: Sequence[int]) -> list[int] | None:
    """Encode what lies between the cuts, each with its surroundings; None if the pieces do not fit together."""
    ids: list[int] = []
    expected: list[tuple[int, int, int]] = []
    mark = text[cuts[0]]  # the blank or newline that the text is cut before
    for start, stop in itertools.pairwise([0, *cuts, len(text)]):
        low = max(text.rfind(mark, 0, max(start - _MARGIN, 0)), 0)
        high = text.find(mark, stop + _MARGIN)
        window, spans = aligned(tokenizer, text[low : high if high >= 0 else len(text)])
        first, last = _index(spans, start - low), _index(spans, stop - low)
        if first is None or last is None or (start and _around(window, spans, start - low) != expected):
            return None
        ids += window[first:last]
        expected = _around(window, spans, stop - low)
    return ids


def _index(spans: Spans, place: int) -> int | None:
    """Return which token is the first after a place in the text; None if one lies across it."""
    if place == 0:
        return 0
    index = next((i for i, (_, stop) in enumerate(spans) if stop > place), len(spans))
    return None if index < len(spans) and spans[index][0] < place else index


def _around(ids: Sequence[int], spans: Spans, place: int) -> list[tuple[int, int, int]]:
    """Return the tokens near a place, so near that the ends of no window reach them, each with its distance from it."""
    near = _MARGIN // 2
    return [
        (token, start - place, stop - place)
        for token, (start, stop) in zip(ids, spans, strict=True)
        if place - near <= start and stop <= place + near
    ]
