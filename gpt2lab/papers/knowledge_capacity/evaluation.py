"""The field-aware evaluation: what a model's losses are on exactly the tokens of a name and of each value."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.measures.scoring import Row, check_batch_size, score_rows
from gpt2lab.papers.knowledge_capacity.alignment import Aligned, aligned
from gpt2lab.papers.knowledge_capacity.bits import Losses
from gpt2lab.text.generators.fact_text import NAME, FactSource
from gpt2lab.text.generators.random_facts import FIRST
from gpt2lab.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gpt2lab.text.language_model import LanguageModel

_Values = npt.NDArray[np.float64]
_AT_ONCE = 512
"""Texts that are encoded and scored together: a matter of memory."""
_MOST_LISTED = 20_000
"""People whose texts are read to find the ids that occur: all values stand in far fewer."""


@dataclass(frozen=True)
class FieldLosses:
    """Losses of every person that was asked for, in nats, summed over the tokens of a field and averaged over draws."""

    people: int
    """How many people there are, perhaps more than were asked for."""
    name: _Values
    """[asked]."""
    values: dict[str, _Values]
    """By attribute, [asked]; the working city and the like too, which hold no information of their own."""
    first_string: _Values | None
    """Of a value's first string, mean over attributes, [asked]."""
    exact: dict[str, _Values]
    """By attribute, in which share of the draws every token of the value was the likeliest, [asked]."""
    other: float
    """Mean loss of the tokens of no field, in nats a token: of wording and order."""

    def means(self, attributes: Sequence[str]) -> Losses:
        """Return the means over people, of the attributes that hold information."""
        return Losses(
            float(self.name.mean()),
            {name: float(self.values[name].mean()) for name in attributes},
            None if self.first_string is None else float(self.first_string.mean()),
        )


def field_losses(
    lm: "LanguageModel",
    source: FactSource,
    *,
    draws: int = 2,
    limit: int | None = None,
    batch_size: int = 16,
    label: str = "facts",
) -> FieldLosses:
    """Score texts of a source's people, or of the first `limit`, in `draws` wordings, each after an end token.

    The loss of a field is that of its tokens given all that stands before them. LabError for a model without a tokenizer,
    a tokenizer without an end token, one that joins a value with the text beside it or cannot spell it, a text that is
    longer than the model's positions, NaN logits, or a model that is not causal.
    """
    if draws < 1 or (limit is not None and limit < 1):
        raise LabError(f"draws and limit must be at least 1, got {draws} and {limit}")
    check_batch_size(batch_size)
    tokenizer = _tokenizer(lm)
    asked = min(source.people, limit or source.people)
    found = _Sums(source, asked)
    texts = (
        (person, told)
        for draw in range(draws)
        for person, told in zip(range(asked), source.judged(draw, range(asked)), strict=True)
    )
    start = start_id(tokenizer)
    while some := list(itertools.islice(texts, _AT_ONCE)):
        encoded = [aligned(tokenizer, told) for _, told in some]
        _check_length(lm, encoded)
        rows = [Row(torch.tensor([start, *one.ids]), len(one.ids)) for one in encoded]
        scores = score_rows(lm.model, rows, batch_size=batch_size, label=label)
        for (person, _), one, score in zip(some, encoded, scores, strict=True):
            found.add(person, one, score.losses.double().numpy(), score.hits.numpy())
    return found.means(draws)


def used_ids(tokenizer: Tokenizer, source: FactSource) -> set[int]:
    """Return the ids that a source's texts hold, the end token among them.

    Every sentence is read, and the texts of at most 20,000 people, which hold all values.
    """
    people = range(min(source.people, _MOST_LISTED))
    texts: Iterator[str] = itertools.chain(
        source.inventory(), (told.text for told in source.judged(0, people)), _spread(source, people)
    )
    found = {start_id(tokenizer)}
    while some := list(itertools.islice(texts, _AT_ONCE)):
        found.update(*tokenizer.encode_batch(some))
    return found


def _spread(source: FactSource, people: range) -> Iterator[str]:
    """Texts that are told, a tenth of the people's in each of ten exposures."""
    for exposure in range(10):
        yield from (told.text for told in source.told(exposure, people[exposure::10]))


def start_id(tokenizer: Tokenizer) -> int:
    """Return the id before a text: the end token of the text before, else the start token. LabError for neither."""
    token = tokenizer.eos if tokenizer.eos is not None else tokenizer.bos
    if token is None:
        raise LabError("this tokenizer has no end token, after which a name could be asked for")
    return token


def _tokenizer(lm: "LanguageModel") -> Tokenizer:
    if lm.tokenizer is None:
        raise LabError(
            "facts are read as text, and this model has no tokenizer; put its tokenizer.json beside it"
        )
    return lm.tokenizer


def _check_length(lm: "LanguageModel", encoded: Sequence[Aligned]) -> None:
    longest = max(len(one.ids) for one in encoded)
    if longest > lm.model.context and lm.config.positions != "none":
        raise LabError(
            f"a text of {longest} tokens is longer than the model's {lm.model.context} positions: a fact cut off would "
            "count as not known"
        )


class _Sums:
    """Sums over draws, person by person."""

    def __init__(self, source: FactSource, asked: int) -> None:
        self.people, self.asked = source.people, asked
        self.losses: dict[str, _Values] = {}
        self.exact: dict[str, _Values] = {}
        self.other, self.other_tokens = 0.0, 0

    def add(self, person: int, text: Aligned, losses: _Values, hits: npt.NDArray[np.bool_]) -> None:
        """Add one text's losses and hits of every token."""
        outside = np.ones(len(losses), dtype=bool)
        for label, (start, stop) in text.ranges.items():
            of = self.losses.setdefault(label, np.zeros(self.asked))
            of[person] += losses[start:stop].sum()  # p1, p2, p3: summed, a field's probability is a product
            exact = self.exact.setdefault(label, np.zeros(self.asked))
            exact[person] += hits[start:stop].all()
            outside[start:stop] = False
        self.other += float(losses[outside].sum())
        self.other_tokens += int(outside.sum())

    def means(self, draws: int) -> FieldLosses:
        """Return the means over draws."""
        losses = {label: of / draws for label, of in self.losses.items()}
        first = [of for label, of in losses.items() if label.endswith(FIRST)]
        values = {label: of for label, of in losses.items() if label != NAME and not label.endswith(FIRST)}
        return FieldLosses(
            people=self.people,
            name=losses[NAME],
            values=values,
            first_string=np.mean(first, axis=0) if first else None,
            exact={label: self.exact[label] / draws for label in values},
            other=self.other / max(self.other_tokens, 1),
        )
