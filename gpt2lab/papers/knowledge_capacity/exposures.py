"""Training batches whose unit is the exposure: one text of one person seen once, by number, without end.

Row r of a stream is a pure function of the source, the seed and r, so that a run resumes where it stopped. Two kinds of
rows: a text by itself between end tokens, or a window of texts that follow one another. Junk is a second stream.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model.loss import IGNORE
from gpt2lab.papers.knowledge_capacity.evaluation import start_id
from gpt2lab.text.generators.biographies import Biographies
from gpt2lab.text.generators.fact_text import FactSource, FactText, Information
from gpt2lab.text.generators.random_facts import RandomFacts
from gpt2lab.text.permutation import Permutation
from gpt2lab.text.spans import Span
from gpt2lab.text.tokenizer import Tokenizer

_Ids = npt.NDArray[np.int64]
_KEPT = 2
"""Exposures that are held encoded: a batch may lie across the border of two."""


class Told(Protocol):
    """What a stream needs of a source."""

    @property
    def people(self) -> int:
        """Texts of an exposure."""
        ...

    def told(self, exposure: int, people: Sequence[int] | None = None) -> Iterator[FactText]:
        """Yield the texts of one exposure."""
        ...


class Rows(Protocol):
    """Rows of token ids by number."""

    @property
    def of_an_exposure(self) -> int:
        """How many rows show everybody once."""
        ...

    def read(self, row: int) -> _Ids:
        """Return the ids of a row, the last of which is a target only."""
        ...


class PersonRows:
    """Every row is one text, between end tokens; in each exposure the people come in another order."""

    def __init__(self, source: Told, tokenizer: Tokenizer, *, seed: int = 0) -> None:
        self.source, self.tokenizer, self.seed = source, tokenizer, seed
        self.end = start_id(tokenizer)
        self._encoded: dict[int, list[list[int]]] = {}

    @property
    def of_an_exposure(self) -> int:
        """How many rows show everybody once."""
        return self.source.people

    def read(self, row: int) -> _Ids:
        """Return [end, text, end] of the person whose turn it is."""
        exposure, place = divmod(row, self.source.people)
        return np.array([self.end, *self.encoded(exposure)[place], self.end], dtype=np.int64)

    def encoded(self, exposure: int) -> list[list[int]]:
        """Return the texts of an exposure as ids, in its order."""
        if exposure not in self._encoded:
            while len(self._encoded) >= _KEPT:
                del self._encoded[next(iter(self._encoded))]
            numbers = np.arange(self.source.people, dtype=np.int64)
            order = Permutation(self.source.people, f"people {self.seed} {exposure}")(numbers).tolist()
            texts = [told.text for told in self.source.told(exposure, order)]
            self._encoded[exposure] = self.tokenizer.encode_batch(texts)
        return self._encoded[exposure]


class WindowRows:
    """Every row is a window of texts, each after an end token, as the paper trains: cut at other places each exposure.

    An exposure has as many windows as the first; where its wording makes it longer or shorter, the ring of its texts loses
    or repeats a few tokens, less than a window in a hundred.
    """

    def __init__(self, source: Told, tokenizer: Tokenizer, *, context: int, seed: int = 0) -> None:
        """Cut windows of `context` + 1 tokens. LabError if one exposure does not fill a window."""
        self.texts, self.context = PersonRows(source, tokenizer, seed=seed), context
        self._stream: tuple[int, _Ids] | None = None
        length = len(self._ring(0))
        if length <= context:
            raise LabError(
                f"an exposure has {length} tokens, a window takes {context} and one more; give more people or a smaller "
                "context"
            )
        self.of_an_exposure = length // context

    def read(self, row: int) -> _Ids:
        """Return a window of context + 1 ids."""
        exposure, window = divmod(row, self.of_an_exposure)
        ring = self._ring(exposure)
        key = f"windows {self.texts.seed} {exposure}"
        shift = int(np.random.default_rng([self.texts.seed, exposure]).integers(len(ring)))
        place = int(Permutation(self.of_an_exposure, key)(np.array([window]))[0])
        places = (shift + place * self.context + np.arange(self.context + 1)) % len(ring)
        return np.asarray(ring[places])

    def _ring(self, exposure: int) -> _Ids:
        """All texts of an exposure, each after an end token."""
        if self._stream is None or self._stream[0] != exposure:
            ids = [id for text in self.texts.encoded(exposure) for id in (self.texts.end, *text)]
            self._stream = exposure, np.array(ids, dtype=np.int64)
        return self._stream[1]


class ExposureBatches:
    """Rows of facts, and beside them in every batch rows of junk.

    batches[i] is {"tokens", "targets"}, int64 [batch_size + junk_size, time]; shorter rows are filled up on the right, where
    the target is -100.
    """

    def __init__(
        self, rows: Rows, *, batch_size: int, junk: Rows | None = None, junk_size: int = 0, pad: int = 0
    ) -> None:
        """Take `batch_size` rows of facts and `junk_size` of junk for each batch. LabError for none of either."""
        if batch_size < 1 or (junk is not None and junk_size < 1):
            raise LabError(f"a batch needs rows, got {batch_size} of facts and {junk_size} of junk")
        self.rows, self.batch_size, self.pad = rows, batch_size, pad
        self.junk, self.junk_size = junk, junk_size if junk is not None else 0

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rows = [self.rows.read(index * self.batch_size + i) for i in range(self.batch_size)]
        if self.junk is not None:
            rows += [self.junk.read(index * self.junk_size + i) for i in range(self.junk_size)]
        time = max(map(len, rows)) - 1
        tokens = np.full((len(rows), time), self.pad, dtype=np.int64)
        targets = np.full((len(rows), time), IGNORE, dtype=np.int64)
        for i, row in enumerate(rows):
            tokens[i, : len(row) - 1], targets[i, : len(row) - 1] = row[:-1], row[1:]
        return {"tokens": torch.from_numpy(tokens), "targets": torch.from_numpy(targets)}

    def batches_for(self, exposures: int) -> int:
        """Return how many batches show everybody so many times."""
        return -(-exposures * self.rows.of_an_exposure // self.batch_size)


@dataclass(frozen=True)
class FreshPeople:
    """Junk that never comes again: every exposure tells of other people, each once (the paper's bioS of 100 million)."""

    source: Biographies | RandomFacts
    """Those of the first exposure; the others have the seeds that follow."""

    @property
    def people(self) -> int:
        """Texts of an exposure."""
        return self.source.people

    def told(self, exposure: int, people: Sequence[int] | None = None) -> Iterator[FactText]:
        """Yield the texts of one exposure."""
        return dataclasses.replace(self.source, seed=self.source.seed + exposure).told(0, people)


@dataclass(frozen=True)
class Marked:
    """A source every text of which begins with one and the same word: a domain's name before what is worth knowing."""

    source: FactSource
    """Whose texts are marked."""
    mark: str = "domain"
    """The word."""

    @property
    def people(self) -> int:
        """How many people there are."""
        return self.source.people

    @property
    def information(self) -> Information:
        """What is to be known: the same."""
        return self.source.information

    def told(self, exposure: int, people: Sequence[int] | None = None) -> Iterator[FactText]:
        """Yield the texts of one exposure behind the mark."""
        return map(self._marked, self.source.told(exposure, people))

    def judged(self, draw: int, people: Sequence[int] | None = None) -> Iterator[FactText]:
        """Yield the texts on which a model is judged behind the mark."""
        return map(self._marked, self.source.judged(draw, people))

    def inventory(self) -> Iterator[str]:
        """Yield texts that hold every sentence, and the mark."""
        yield f" {self.mark}"
        yield from self.source.inventory()

    def values(self, person: int) -> Mapping[str, str]:
        """Return the values of a person by attribute."""
        return self.source.values(person)

    def _marked(self, told: FactText) -> FactText:
        before = f" {self.mark}"
        spans = (Span(s.start + len(before), s.end + len(before), s.label) for s in told.spans)
        return FactText(before + told.text, tuple(spans))
