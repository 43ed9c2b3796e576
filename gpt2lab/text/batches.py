"""Training batches by number: batch i is a pure function of the data, the seed and i.

So a run resumes by going on at i, two runs see the same data in the same order, and several processes share the
work without talking: each takes its rows of the same batch.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model.loss import IGNORE
from gpt2lab.text.permutation import Permutation
from gpt2lab.text.shards import Shards, TokenStream

_Ids = npt.NDArray[np.int64]


class Tokens(Protocol):
    """A stream of token ids with random access, such as a split of shards."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int, out: _Ids | None = None) -> _Ids:
        """Return tokens start to stop - 1, into `out` if given."""


class ArrayTokens:
    """Token ids in memory as a stream."""

    def __init__(self, ids: Sequence[int] | npt.NDArray[np.integer]) -> None:
        self.ids: _Ids = np.asarray(ids, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, start: int, stop: int, out: _Ids | None = None) -> _Ids:
        """Return tokens start to stop - 1, into `out` if given."""
        if out is None:
            return self.ids[start:stop].copy()
        out[:] = self.ids[start:stop]
        return out


class Epochs:
    """Which items a batch holds: all items once per epoch, in an order of their own each time.

    Batch i holds places i·batch_size … (i + 1)·batch_size - 1 of the endless sequence of epochs, so the sequence does
    not depend on the batch size.
    """

    def __init__(self, items: int, batch_size: int, seed: int, shuffle: bool, rank: int, world: int) -> None:
        if batch_size < 1:
            raise LabError(f"batch_size {batch_size}: must be at least 1")
        if not 0 <= rank < world:
            raise LabError(f"rank {rank}: must lie in [0, {world})")
        if batch_size % world:
            raise LabError(
                f"batch_size {batch_size}: must be a multiple of the {world} processes that share it"
            )
        self.items, self.batch_size, self.seed, self.shuffle = items, batch_size, seed, shuffle
        self.rank, self.world = rank, world
        self._permutation: tuple[int, Permutation] | None = None

    def number(self, index: int) -> int:
        """Check the number of a batch."""
        if index < 0:
            raise IndexError(f"batch {index}: batches are numbered from 0 and have no end")
        return index

    def rows(self, index: int) -> list[tuple[int, int]]:
        """Return (epoch, item) of each row that this process has in batch `index`."""
        first = self.number(index) * self.batch_size + self.rank
        places = np.arange(first, (index + 1) * self.batch_size, self.world, dtype=np.int64)
        epochs, positions = np.divmod(places, self.items)
        rows: list[tuple[int, int]] = []
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            here = positions[epochs == epoch]
            found = self._order(epoch)(here) if self.shuffle else here
            rows += [(epoch, item) for item in found.tolist()]
        return rows

    def _order(self, epoch: int) -> Permutation:
        if self._permutation is None or self._permutation[0] != epoch:
            self._permutation = epoch, Permutation(self.items, f"order {self.seed} {epoch}")
        return self._permutation[1]

    def __len__(self) -> int:
        return -(-self.items // self.batch_size)


class EpochBatches(ABC):
    """Batches whose rows `Epochs` chooses; a class makes its `_epochs`, and a batch of a number."""

    _epochs: Epochs

    @abstractmethod
    def __getitem__(self, index: int) -> dict[str, Tensor]: ...

    def __len__(self) -> int:
        """Batches per epoch; batches go on beyond it."""
        return len(self._epochs)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yield one epoch's number of batches."""
        return (self[index] for index in range(len(self)))

    def epoch(self, index: int) -> float:
        """Return how often the data were shown before batch `index`."""
        return index * self._epochs.batch_size / self._epochs.items


class PackedBatches(EpochBatches):
    """Windows over a stream of tokens: documents one after the other, cut every `context` tokens.

    batches[i] is {"tokens", "targets"}, both int64 [batch_size / world, context]; a target is the next token.
    An epoch shows each window once, in an order drawn from `seed`; each epoch cuts at other places, the stream being
    closed to a ring. `batch_size` counts the rows of all `world` processes together; process `rank` gets every
    `world`-th of them.
    """

    def __init__(
        self,
        data: Shards | Tokens,
        split: str = "train",
        *,
        batch_size: int,
        context: int,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Prepare batches of a split (ignored if `data` is no Shards); without `shuffle` in the order of the text.

        LabError if the data do not fill one window.
        """
        self.stream: Tokens = data.split(split) if isinstance(data, Shards) else data
        if context < 1:
            raise LabError(f"context {context}: must be at least 1")
        if len(self.stream) < context + 1:
            name = f"the {split} split" if isinstance(data, Shards) else "the data"
            larger = ", a larger valid_fraction" if split == "valid" else ""
            raise LabError(
                f"{name} has {len(self.stream)} tokens, a window takes {context} and one more; "
                f"give more text{larger} or a smaller context"
            )
        self.context = context
        self.windows = len(self.stream) // context
        self._epochs = Epochs(self.windows, batch_size, seed, shuffle, rank, world)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rows = self._epochs.rows(index)
        windows = np.empty((len(rows), self.context + 1), dtype=np.int64)
        shifts = {epoch: self._shift(epoch) for epoch, _ in rows}
        for window, (epoch, item) in zip(windows, rows, strict=True):
            self._read(shifts[epoch] + item * self.context, window)
        both = torch.from_numpy(windows)
        return {"tokens": both[:, :-1].contiguous(), "targets": both[:, 1:].contiguous()}

    def _shift(self, epoch: int) -> int:
        """Return where the first window of an epoch begins; the text itself begins the first, unshuffled ones."""
        if not self._epochs.shuffle:
            return 0
        digest = hashlib.blake2b(f"shift {self._epochs.seed} {epoch}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") % len(self.stream)

    def _read(self, start: int, out: _Ids) -> None:
        total = len(self.stream)
        start %= total
        missing = start + len(out) - total
        if missing <= 0:
            self.stream.read(start, start + len(out), out)
            return
        head = len(out) - missing
        self.stream.read(start, total, out[:head])
        self.stream.read(0, missing, out[head:])

    @property
    def tokens_per_batch(self) -> int:
        """Tokens of one batch over all processes."""
        return self._epochs.batch_size * self.context


class SequenceBatches(EpochBatches):
    """One sequence per row, padded on the right to the longest of the batch.

    batches[i] is {"tokens", "targets"} int64 [batch_size / world, time] and, unless switched off, "attention_mask"
    bool of the same shape (True = real). A target is the next token; padding has the target -100. Causal models
    need no mask for padding on the right, and run faster without.
    """

    def __init__(
        self,
        sequences: Iterable[Sequence[int]] | TokenStream,
        *,
        batch_size: int,
        pad: int = 0,
        seed: int = 0,
        context: int | None = None,
        loss_from: Sequence[int] | None = None,
        shuffle: bool = True,
        attention_mask: bool = True,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Take id lists, or the documents of a split.

        context: longer sequences are cut to context + 1 ids (`truncated` counts them). loss_from: for each sequence
        the index of the first id that is a target with loss, so that a prompt can be left out. LabError for a
        sequence of fewer than two ids, which has no target.
        """
        if isinstance(sequences, TokenStream):
            self.stream: Tokens = sequences
            self._starts = sequences.boundaries
        else:
            rows = [np.asarray(row, dtype=np.int64) for row in sequences]
            self.stream = ArrayTokens(np.concatenate(rows) if rows else [])
            self._starts = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)
        lengths = np.diff(self._starts)
        if not len(lengths):
            raise LabError("no sequences to make batches of")
        if lengths.min() < 2:
            short = int(np.argmax(lengths < 2))
            raise LabError(f"sequence {short} has {lengths[short]} ids; it takes two to have a target")
        if loss_from is not None and len(loss_from) != len(lengths):
            raise LabError(f"loss_from has {len(loss_from)} entries for {len(lengths)} sequences")
        self.longest = int(lengths.max()) if context is None else min(context + 1, int(lengths.max()))
        self.truncated = int((lengths > self.longest).sum())
        self.pad, self.loss_from, self.attention_mask = pad, loss_from, attention_mask
        self._mean = float(np.minimum(lengths, self.longest).mean()) - 1
        self._epochs = Epochs(len(lengths), batch_size, seed, shuffle, rank, world)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        items = [item for _, item in self._epochs.rows(index)]
        starts = self._starts[items]
        lengths = np.minimum(self._starts[np.array(items) + 1] - starts, self.longest)
        time = int(lengths.max()) - 1
        tokens = np.full((len(items), time), self.pad, dtype=np.int64)
        targets = np.full((len(items), time), IGNORE, dtype=np.int64)
        for row, (item, start, length) in enumerate(
            zip(items, starts.tolist(), lengths.tolist(), strict=True)
        ):
            ids = self.stream.read(start, start + length)
            tokens[row, : length - 1] = ids[:-1]
            begin = 0 if self.loss_from is None else max(self.loss_from[item] - 1, 0)
            targets[row, begin : length - 1] = ids[begin + 1 :]
        batch = {"tokens": torch.from_numpy(tokens), "targets": torch.from_numpy(targets)}
        if self.attention_mask:
            real = np.arange(time) < (lengths - 1)[:, None]
            batch["attention_mask"] = torch.from_numpy(real)
        return batch

    @property
    def tokens_per_batch(self) -> float:
        """Mean number of real tokens of one batch over all processes."""
        return self._epochs.batch_size * self._mean


class Numbered(Protocol):
    """Batches by number."""

    def __getitem__(self, index: int) -> Mapping[str, Tensor]: ...


class MaskedBatches:
    """Batches in which some tokens are hidden, to be told from all the others (Devlin et al. 2019, section 3.1).

    batches[i] is the wrapped batch with other "tokens" and "targets", both int64 [rows, time]. In each row 15 % of the
    real tokens that are not special (rounded, at least one) are chosen: 80 % of them become the mask token, 10 % a random
    token that is not special, 10 % stay. A target is the token that stood there, -100 where none was chosen. What is
    chosen is a pure function of (seed, i). The wrapped batch's own targets are not used.
    """

    def __init__(
        self,
        batches: Numbered,
        *,
        mask: int,
        vocab_size: int,
        special: Iterable[int] = (),
        seed: int = 0,
        share: float = 0.15,
    ) -> None:
        """Wrap batches of a tokenizer with `vocab_size` ids, of which `special` (and `mask`) are never chosen or drawn.

        LabError for a mask outside the vocabulary, a vocabulary of special tokens only, a share outside (0, 1).
        """
        if not 0 <= mask < vocab_size:
            raise LabError(f"mask token {mask}: outside the vocabulary of {vocab_size} ids")
        if not 0.0 < share < 1.0:
            raise LabError(f"share {share}: how much is hidden must lie between 0 and 1; the usual is 0.15")
        self.batches, self.mask, self.seed, self.share = batches, mask, seed, share
        self.special = torch.tensor(sorted({*special, mask}))
        ids = torch.arange(vocab_size)
        self.words = ids[~torch.isin(ids, self.special)]
        if not len(self.words):
            raise LabError(f"all {vocab_size} ids are special tokens: there is nothing to hide")

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        batch = dict(self.batches[index])
        tokens = batch["tokens"]
        free = ~torch.isin(tokens, self.special)
        if "attention_mask" in batch:
            free &= batch["attention_mask"].bool()
        digest = hashlib.blake2b(f"mask {self.seed} {index}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
        chosen = self._choose(free, generator)
        kind = torch.rand(tokens.shape, generator=generator)
        words = self.words[torch.randint(len(self.words), tokens.shape, generator=generator)]
        hidden = torch.where(kind < 0.8, self.mask, torch.where(kind < 0.9, words, tokens))
        batch["tokens"] = torch.where(chosen, hidden, tokens)
        batch["targets"] = torch.where(chosen, tokens, IGNORE)
        return batch

    def _choose(self, free: Tensor, generator: torch.Generator) -> Tensor:
        """Choose a share of the free places of each row, at least one; [rows, time] bool → same."""
        draws = torch.rand(free.shape, generator=generator).masked_fill(~free, 2.0)
        places = draws.argsort(-1).argsort(-1)  # 0 is the row's first choice
        number = (free.sum(-1) * self.share).round().clamp_min(1)
        return (places < number[:, None]) & free
