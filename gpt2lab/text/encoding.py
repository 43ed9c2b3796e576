"""Texts, pairs and words as token ids of a model's input, cut where they are too long, and how many were cut."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.text.tokenizer import Tokenizer

Side = Literal["left", "right"]


@dataclass(frozen=True)
class TokenRow:
    """One text as a model reads it."""

    ids: list[int]
    """Token ids."""
    types: list[int]
    """For each id the text of the pair that it belongs to, 0 or 1."""
    places: list[list[int]] = field(default_factory=list)
    """For each word the places of its tokens; of a text that is read as words."""
    letters: list[tuple[int, int, int]] = field(default_factory=list)
    """For each id which text it is of, 0 or 1, and its characters there, [start, stop); of a special token (-1, 0, 0)."""


class Encoder:
    """Encodes texts for a model that reads at most `limit` tokens; `truncated` counts those it had to cut."""

    def __init__(
        self, tokenizer: Tokenizer, limit: int, *, truncate: Side = "right", separator: str = ""
    ) -> None:
        """Cut from the named side; `separator` stands between the texts of a pair whose tokenizer puts nothing there.

        LabError if `limit` leaves no room for text beside the tokenizer's special tokens.
        """
        self.tokenizer, self.limit, self.side, self.separator = tokenizer, limit, truncate, separator
        self.truncated = 0
        if limit <= tokenizer.backend.num_special_tokens_to_add(True):
            raise LabError(f"{limit} tokens leave no room for text beside the tokenizer's special tokens")

    def text(self, text: str, pair: str | None = None) -> TokenRow:
        """Return a text, or a pair, with what the tokenizer puts around it.

        Empty text becomes a single start token. Of a pair the longer text is cut first.
        """
        second = None if pair is None else self.tokenizer.encoding(self.separator + pair)
        ids, encoding = self._shaped(self.tokenizer.encoding(text), second)
        if encoding is None:
            return TokenRow(ids, [0] * len(ids), letters=[(-1, 0, 0)] * len(ids))
        before = (0, len(self.separator))
        letters = [
            (-1, 0, 0) if owner is None else (owner, start - before[owner], stop - before[owner])
            for owner, (start, stop) in zip(encoding.sequence_ids, encoding.offsets, strict=True)
        ]
        return TokenRow(ids, list(encoding.type_ids), letters=letters)

    def words(self, words: Sequence[str]) -> TokenRow:
        """Return words with a blank between them, and for each word the places of its tokens.

        A word that was cut off, or that has no token of its own, has no places.
        """
        ends = np.cumsum([len(word) + 1 for word in words], dtype=np.int64) - 1
        return self.pieces(
            " ".join(words), [(end - len(word), end) for word, end in zip(words, ends.tolist(), strict=True)]
        )

    def pieces(self, text: str, ranges: Sequence[tuple[int, int]]) -> TokenRow:
        """Return a text as it is, and for each range of its characters, in order and apart, the places of its tokens.

        A range that was cut off, or that has no token of its own, has no places.
        """
        starts = np.array([start for start, _ in ranges], dtype=np.int64)
        ids, encoding = self._shaped(self.tokenizer.encoding(text), None)
        places: list[list[int]] = [[] for _ in ranges]
        if encoding is None:
            return TokenRow(ids, [0] * len(ids), places)
        for place, ((start, stop), special) in enumerate(
            zip(encoding.offsets, encoding.special_tokens_mask, strict=True)
        ):
            if special or stop == start:
                continue
            # A token may begin with the blank before its word: its last character tells whose it is.
            owner = int(np.searchsorted(starts, stop - 1, side="right")) - 1
            if owner >= 0 and start < ranges[owner][1]:  # else it is the blank alone, which is nobody's
                places[owner].append(place)
        return TokenRow(ids, [0] * len(ids), places)

    def _shaped(self, first: Any, second: Any) -> tuple[list[int], Any]:
        """Cut to the limit and add special tokens: ids, and the encoding they come from (None for empty text)."""
        backend = self.tokenizer.backend
        room = self.limit - backend.num_special_tokens_to_add(second is not None)
        lengths = [len(first), len(second) if second is not None else 0]
        if sum(lengths) > room:
            self.truncated += 1
            for encoding, kept in zip((first, second), _shares(lengths, room), strict=True):
                if encoding is not None and len(encoding) > kept:
                    # `direction` names the side that is kept from: "right" walks from the left and cuts the right.
                    encoding.truncate(kept, direction=self.side)
        whole = backend.post_process(first, second, add_special_tokens=True)
        if len(whole):
            return self.tokenizer.ids_of(whole), whole
        start = self.tokenizer.bos if self.tokenizer.bos is not None else self.tokenizer.eos
        if start is None:
            raise LabError(
                "an empty text has no tokens, and this tokenizer has no bos or eos token to stand for it"
            )
        return [start], None


def _shares(lengths: Sequence[int], room: int) -> tuple[int, int]:
    """Cut the longer of two lengths first until both fit."""
    first, second = lengths
    if first + second <= room:
        return first, second
    half = room // 2
    if first <= half:
        return first, room - first
    if second <= room - half:
        return room - second, second
    return half, room - half


def padded(
    rows: Sequence[Sequence[int]], pad: int, side: Side = "right", *, least: int = 0
) -> tuple[Tensor, Tensor]:
    """Return rows as tokens [batch, time] int64 and a mask [batch, time] that is true at real tokens."""
    time = max([least, *(len(row) for row in rows)])
    tokens: npt.NDArray[np.int64] = np.full((len(rows), time), pad, dtype=np.int64)
    mask = np.zeros((len(rows), time), dtype=bool)
    for i, row in enumerate(rows):
        here = slice(0, len(row)) if side == "right" else slice(time - len(row), time)
        tokens[i, here], mask[i, here] = row, True
    return torch.from_numpy(tokens), torch.from_numpy(mask)


def token_batch(rows: Sequence[TokenRow], pad: int, side: Side = "right") -> dict[str, Tensor]:
    """Return {"tokens", "attention_mask"} of rows, and "token_types" where a row is a pair; all [batch, time]."""
    tokens, mask = padded([row.ids for row in rows], pad, side)
    batch = {"tokens": tokens, "attention_mask": mask}
    if any(any(row.types) for row in rows):
        batch["token_types"] = padded([row.types for row in rows], 0, side)[0]
    return batch


def pad_id(tokenizer: Tokenizer) -> int:
    """Return the id that fills rows; any does, because the mask tells which tokens are real."""
    return next((id for id in (tokenizer.pad, tokenizer.eos) if id is not None), 0)
