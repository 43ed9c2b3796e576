"""A corpus as memory-mapped token ids: encoded once, split by document, checked at every opening."""

import bisect
import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import atomic_folder, locked, restore, user_path
from gpt2lab.base.json_files import json_sha256
from gpt2lab.base.progress import Progress
from gpt2lab.text import sources
from gpt2lab.text.shard_builder import Builder, encode_all
from gpt2lab.text.shard_files import (
    SPLITS,
    VERSION,
    Manifest,
    check,
    foreign,
    read_documents,
    read_tokens,
)
from gpt2lab.text.sources import SourceLike
from gpt2lab.text.tokenizer import Tokenizer

SHARD_TOKENS = 1 << 27
"""Tokens after which a new shard begins: 256 MiB of uint16."""


class TokenStream:
    """The tokens of one split, one document after the other, each ended by the tokenizer's eos.

    `len` is the number of tokens; `documents` and `bytes` (UTF-8, of the text) are counted beside it.
    """

    def __init__(self, folder: Path, manifest: Manifest, split: str) -> None:
        self.name = split
        shards = manifest.splits[split]
        self._folder, self._shards = folder, shards
        self._arrays = [read_tokens(folder, shard, manifest.token_bytes) for shard in shards]
        self._starts = [0, *itertools.accumulate(shard.tokens for shard in shards)]
        self.documents = sum(shard.documents for shard in shards)
        self.bytes = sum(shard.bytes for shard in shards)
        self._sizes: npt.NDArray[np.uint32] | None = None
        self._boundaries: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return self._starts[-1]

    def read(self, start: int, stop: int, out: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.int64]:
        """Return tokens start to stop - 1 as int64 [stop - start], copied, into `out` if given."""
        if not 0 <= start <= stop <= len(self):
            raise LabError(f"tokens {start} to {stop}: the {self.name} split has {len(self)}")
        out = np.empty(stop - start, dtype=np.int64) if out is None else out
        first = bisect.bisect_right(self._starts, start) - 1
        done = 0
        while done < stop - start:
            offset = start + done - self._starts[first]
            piece = self._arrays[first][offset : offset + stop - start - done]
            out[done : done + len(piece)] = piece
            done += len(piece)
            first += 1
        return out

    @property
    def boundaries(self) -> npt.NDArray[np.int64]:
        """Where each document begins, and the end: int64 [documents + 1]."""
        if self._boundaries is None:
            self._boundaries = np.concatenate([[0], np.cumsum(self._documents()[:, 0], dtype=np.int64)])
        return self._boundaries

    @property
    def document_bytes(self) -> npt.NDArray[np.int64]:
        """UTF-8 bytes of each document's text: int64 [documents]."""
        return self._documents()[:, 1].astype(np.int64)

    def _documents(self) -> npt.NDArray[np.uint32]:
        if self._sizes is None:
            self._sizes = np.concatenate([read_documents(self._folder, shard) for shard in self._shards])
        return self._sizes

    def document(self, index: int) -> list[int]:
        """Return the ids of one document, its eos included."""
        if not 0 <= index < self.documents:
            raise LabError(f"document {index}: the {self.name} split has {self.documents}")
        start, stop = self.boundaries[index : index + 2]
        ids: list[int] = self.read(int(start), int(stop)).tolist()
        return ids


@dataclass(frozen=True)
class Shards:
    """A folder of token shards, opened and checked."""

    folder: Path
    manifest: Manifest

    @staticmethod
    def open(folder: Path | str, *, tokenizer: Tokenizer | None = None, checksum: bool = True) -> "Shards":
        """Open a folder that `build` wrote.

        LabError if a shard is missing, truncated or damaged, or was written by another tokenizer than the one
        given. Every byte is read and compared with its checksum: 0.6 s a GB on one core of a 2-core x86 server.
        `checksum=False` looks at sizes, headers and the manifest alone, for one of many processes that open the same.
        """
        folder = user_path(folder)
        restore(folder)
        manifest = Manifest.read(folder)
        fingerprint = None if tokenizer is None else tokenizer.fingerprint
        check(folder, manifest, fingerprint=fingerprint, checksum=checksum)
        return Shards(folder, manifest)

    def split(self, name: str) -> TokenStream:
        """Return the tokens of `train` or `valid`; LabError if it is empty."""
        if name not in SPLITS:
            raise LabError(f"{name}: no such split; there are {' and '.join(SPLITS)}")
        stream = TokenStream(self.folder, self.manifest, name)
        if not len(stream):
            share = self.manifest.valid_fraction
            raise LabError(
                f"{self.folder}: the {name} split is empty: with valid_fraction {share:g} the data need more documents, "
                "which are files, rows, or what stands between lines of <|endoftext|>; long files are cut by themselves"
            )
        return stream

    def has(self, name: str) -> bool:
        """Tell whether a split holds tokens."""
        return any(shard.tokens for shard in self.manifest.splits[name])

    def __str__(self) -> str:
        counts = {
            name: [sum(getattr(s, what) for s in shards) for what in ("tokens", "documents", "bytes")]
            for name, shards in self.manifest.splits.items()
        }
        return "; ".join(
            f"{n}: {t:,} tokens, {d:,} documents, {b:,} bytes" for n, (t, d, b) in counts.items()
        )


def build(
    source: SourceLike | Iterator[str],
    tokenizer: Tokenizer,
    folder: Path | str,
    *,
    valid_fraction: float = 0.05,
    field: str = "text",
    format: str | None = None,
    workers: int | None = None,
    shard_tokens: int = SHARD_TOKENS,
    reuse: bool = True,
) -> Shards:
    """Encode a corpus into a folder of token shards and open it.

    `source` is what `sources.documents` takes, or an iterator of documents (a list is read as a list of sources).
    Each document becomes what the tokenizer makes of it (with its bos, if it writes one) and its eos. A document
    belongs to validation by the hash of its text, so the same text is always on the same side; if no hash falls
    below `valid_fraction`, the document with the lowest one is taken, so that two documents suffice.
    A folder already built from the same files with the same tokenizer is opened instead (`reuse`).
    The folder appears whole or not at all; of several processes one builds it and the others wait. `workers=1` encodes
    on one core, None on all.
    """
    if not 0.0 <= valid_fraction < 1.0:
        raise LabError(f"valid_fraction {valid_fraction}: must lie in [0, 1)")
    folder = user_path(folder)
    made_from = None
    total = None
    if isinstance(source, str | Path | Sequence):
        made_from = key(source, tokenizer, valid_fraction=valid_fraction, field=field, format=format)
        if reuse and (built := _built(folder, made_from, tokenizer)):
            return built
        total = sources.text_bytes(source, format=format)
        source = sources.documents(source, field=field, format=format)
    with locked(folder):
        if made_from is not None and reuse and (built := _built(folder, made_from, tokenizer)):
            return built  # by another process, while this one waited
        if folder.exists() and (found := folder.name if folder.is_file() else foreign(folder)):
            raise LabError(
                f"{folder}: exists and holds no token shards ({found} is none); move it away, or give another folder"
            )
        with atomic_folder(folder) as temporary:
            builder = Builder(tokenizer, temporary, valid_fraction, shard_tokens)
            try:
                with Progress[None](total=total, label="encoding", unit="bytes") as bar:
                    encode_all(builder, source, workers, bar)
                manifest = builder.finish(made_from)
            finally:
                builder.abandon()
            manifest.write(temporary)
        return Shards.open(folder, tokenizer=tokenizer)


def key(
    source: SourceLike,
    tokenizer: Tokenizer,
    *,
    valid_fraction: float = 0.05,
    field: str = "text",
    format: str | None = None,
) -> str:
    """Return a SHA-256 (hex) of all that decides the shards of a source: a name for a folder to build them in."""
    state = [VERSION, sources.cache_key(source, field=field, format=format), tokenizer.fingerprint]
    state += [tokenizer.eos, tokenizer.encode("", special=True), valid_fraction]
    return json_sha256(state)


def _built(folder: Path, made_from: str, tokenizer: Tokenizer) -> Shards | None:
    """Return the shards already there if they are whole and made from the same, else None; damaged ones are named."""
    restore(folder)
    if not any(folder.glob("*.tokens")):
        return None
    try:
        shards = Shards.open(folder)
    except LabError as error:
        said = str(error).removesuffix("; encode the text again")
        warnings.warn(f"{said}; the text is encoded again", stacklevel=3)
        return None
    same = shards.manifest.key == made_from and shards.manifest.tokenizer == tokenizer.fingerprint
    return shards if same else None
