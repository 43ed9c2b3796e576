"""Encoding documents into shards: in batches of bounded size, each document to its side of the split."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gpt2lab.base.errors import LabError
from gpt2lab.base.progress import Progress
from gpt2lab.text.pieces import encode_long
from gpt2lab.text.shard_files import SPLITS, Manifest, Shard, ShardWriter, read_documents, read_tokens
from gpt2lab.text.splits import HashRule
from gpt2lab.text.tokenizer import Tokenizer

_BATCH = 1 << 20  # characters encoded at a time; an encoding takes some 200 bytes per token while it lives
_RULE = HashRule()


def encode_all(
    builder: "Builder", documents: Iterable[str], workers: int | None, bar: Progress[None]
) -> None:
    """Encode documents in batches of bounded size, in order; LabError for one that is no str."""
    batch: list[str] = []
    size = 0
    for document in documents:
        if not isinstance(document, str):
            raise LabError(f"a document is a str, got {type(document).__name__}")
        if not document:
            continue
        batch.append(document)
        size += len(document)
        if size >= _BATCH:
            bar.advance(builder.add(batch, workers))
            batch, size = [], 0
    if batch:
        bar.advance(builder.add(batch, workers))


@dataclass
class _Split:
    """One side of the split while it is written."""

    name: str
    done: list[Shard]
    writer: ShardWriter | None = None


class Builder:
    """Encodes documents and writes each to its side."""

    def __init__(self, tokenizer: Tokenizer, folder: Path, valid_fraction: float, shard_tokens: int) -> None:
        self.tokenizer, self.folder, self.shard_tokens = tokenizer, folder, shard_tokens
        self.valid_fraction = valid_fraction
        self.token_bytes = 2 if tokenizer.vocab_size <= 1 << 16 else 4
        self.kind = np.dtype("<u2" if self.token_bytes == 2 else "<u4")
        self.splits = {name: _Split(name, []) for name in SPLITS}
        # The training documents with the lowest hash, which become validation if no other does.
        self.lowest = _RULE.span
        self.lowest_at: set[int] = set()
        self.trained = 0

    def add(self, documents: list[str], workers: int | None) -> int:
        """Encode and write documents; return their UTF-8 bytes."""
        texts = [document.encode("utf-8", "surrogatepass") for document in documents]
        total = 0
        for document, text, ids in zip(documents, texts, self._encode(documents, workers), strict=True):
            if self.tokenizer.eos is not None and (not ids or ids[-1] != self.tokenizer.eos):
                ids.append(self.tokenizer.eos)
            self._write(self._side(document), np.array(ids, dtype=self.kind), len(text))
            total += len(text)
        return total

    def _encode(self, documents: list[str], workers: int | None) -> Iterator[list[int]]:
        short = [document for document in documents if len(document) <= _BATCH]
        encoded: Iterator[list[int]]
        if workers == 1:
            encoded = (self.tokenizer.encode_batch([document], special=True)[0] for document in short)
        else:
            encoded = iter(self.tokenizer.encode_batch(short, special=True))
        for document in documents:
            if len(document) <= _BATCH:
                yield next(encoded)
            else:
                yield encode_long(self.tokenizer, document, special=True)

    def _side(self, document: str) -> _Split:
        """Choose the side by the hash of the text: the same text always comes to the same side."""
        value = _RULE.number(document)
        if value < self.valid_fraction * _RULE.span:
            return self.splits["valid"]
        if value < self.lowest:
            self.lowest, self.lowest_at = value, set()
        if value == self.lowest:
            self.lowest_at.add(self.trained)
        self.trained += 1
        return self.splits["train"]

    def _write(self, split: _Split, ids: npt.NDArray[np.generic], utf8: int) -> None:
        if split.writer is None:
            split.writer = self._writer(f"{split.name}.{len(split.done):03d}")
        split.writer.add(ids.tobytes(), utf8)
        if split.writer.tokens >= self.shard_tokens:
            self._close(split)

    def _writer(self, name: str) -> ShardWriter:
        return ShardWriter(
            self.folder, name, token_bytes=self.token_bytes, fingerprint=self.tokenizer.fingerprint
        )

    def _close(self, split: _Split) -> None:
        if split.writer is not None:
            split.done.append(split.writer.close())
            split.writer = None

    def finish(self, made_from: str | None) -> Manifest:
        """Complete the files and return the manifest; LabError if there was no text."""
        for split in self.splits.values():
            self._close(split)
        train, valid = self.splits["train"].done, self.splits["valid"].done
        if not train and not valid:
            raise LabError("no text to encode: the documents are empty")
        if self.valid_fraction > 0 and not valid and self.trained > len(self.lowest_at):
            self._move_lowest()
        return Manifest(
            tokenizer=self.tokenizer.fingerprint,
            vocab_size=self.tokenizer.vocab_size,
            eos=self.tokenizer.eos,
            token_bytes=self.token_bytes,
            valid_fraction=self.valid_fraction,
            key=made_from,
            splits={name: split.done for name, split in self.splits.items()},
        )

    def _move_lowest(self) -> None:
        """Write the training shards again without the documents of the lowest hash, which become validation."""
        old, self.splits["train"].done = self.splits["train"].done, []
        for shard in old:
            for kind in ("tokens", "documents"):
                (self.folder / f"{shard.name}.{kind}").rename(self.folder / f"was.{shard.name}.{kind}")
        index = 0
        for shard in (replace(shard, name=f"was.{shard.name}") for shard in old):
            tokens, start = read_tokens(self.folder, shard, self.token_bytes), 0
            for length, utf8 in read_documents(self.folder, shard).tolist():
                side = self.splits["valid" if index in self.lowest_at else "train"]
                self._write(side, tokens[start : start + length], utf8)
                start, index = start + length, index + 1
            for kind in ("tokens", "documents"):
                (self.folder / f"{shard.name}.{kind}").unlink()
        for split in self.splits.values():
            self._close(split)

    def abandon(self) -> None:
        """Close what an error has left open."""
        for split in self.splits.values():
            if split.writer is not None:
                split.writer.abandon()
