"""The files of token shards: a manifest, and per shard its tokens and the sizes of its documents."""

import hashlib
import json
import re
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpt2lab.base.errors import LabError, brief
from gpt2lab.base.files import atomic_write
from gpt2lab.base.json_files import read_object
from gpt2lab.base.progress import Progress

MANIFEST = "manifest.json"
VERSION = 2
SPLITS = ("train", "valid")

# magic, version, bytes per token, tokens, fingerprint of the tokenizer; little-endian, 64 bytes
_HEADER = struct.Struct("<8sHH4xQ32s8x")
_MAGIC = b"GPT2LABT"
_DOCUMENT = struct.Struct("<II")  # tokens, UTF-8 bytes
HEADER_BYTES = _HEADER.size

TokenArray = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


@dataclass(frozen=True, kw_only=True)
class Shard:
    """What the manifest says of one shard; its files are `name`.tokens and `name`.documents."""

    name: str
    tokens: int
    documents: int
    bytes: int
    """UTF-8 bytes of the text."""
    tokens_sha256: str
    """Of the tokens without the header."""
    documents_sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a folder of shards holds and what it was made from."""

    tokenizer: str
    """Fingerprint of the tokenizer."""
    vocab_size: int
    eos: int | None
    """The id at the end of each document; None if the tokenizer has none."""
    token_bytes: int
    """2 (uint16) or 4 (uint32)."""
    valid_fraction: float
    """Share of the documents' hashes that is validation, as it was asked for."""
    key: str | None
    """What decides whether the folder can be used again; None if it was made from a stream."""
    splits: dict[str, list[Shard]] = field(default_factory=dict)
    version: int = VERSION

    def write(self, folder: Path) -> None:
        """Write the manifest, with its own checksum, into a folder of shards."""
        content = asdict(self)
        atomic_write(folder / MANIFEST, _text({**content, "checksum": _checksum(content)}))

    @staticmethod
    def read(folder: Path) -> "Manifest":
        """Read the manifest of a folder; LabError if it is no folder of shards, or the manifest was changed."""
        path = folder / MANIFEST
        if not path.is_file():
            if any(folder.glob("*.tokens")):
                raise LabError(f"{path}: missing beside its shards; encode the text again")
            raise LabError(f"{folder}: no token shards here ({MANIFEST} is missing)")
        try:
            content = read_object(path)
        except LabError as error:
            raise LabError(f"{error}; it is no manifest of token shards; encode the text again") from None
        version, checksum = content.get("version"), content.pop("checksum", None)
        if version != VERSION:
            raise LabError(f"{path}: format {version}, this version reads {VERSION}; encode the text again")
        if checksum != _checksum(content):
            raise LabError(f"{path}: damaged, its checksum is not its own; encode the text again")
        try:
            splits = {name: [Shard(**s) for s in shards] for name, shards in content.pop("splits").items()}
            manifest = Manifest(**content, splits=splits)
        except (TypeError, KeyError, AttributeError) as error:
            raise LabError(
                f"{path}: not a manifest of token shards ({brief(error)}); encode the text again"
            ) from None
        for split, shards in splits.items():
            if [shard.name for shard in shards] != [f"{split}.{i:03d}" for i in range(len(shards))]:
                raise LabError(
                    f"{path}: gives the {split} split the shards of another; encode the text again"
                )
        return manifest


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1) + "\n"


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(_text(content).encode()).hexdigest()


def foreign(folder: Path) -> str | None:
    """Return the name of something in a folder that is no part of token shards, or None."""
    ours = rf"(was\.)?({'|'.join(SPLITS)})\.\d+\.(tokens|documents)|{re.escape(MANIFEST)}"
    return next((path.name for path in sorted(folder.iterdir()) if not re.fullmatch(ours, path.name)), None)


class ShardWriter:
    """Writes one shard, document by document, without holding it."""

    def __init__(self, folder: Path, name: str, *, token_bytes: int, fingerprint: str) -> None:
        self.name, self.token_bytes, self.fingerprint = name, token_bytes, fingerprint
        self.tokens = self.documents = self.bytes = 0
        self._files = [(folder / f"{name}.{kind}").open("wb") for kind in ("tokens", "documents")]
        self._hashes = [hashlib.sha256(), hashlib.sha256()]
        self._files[0].write(self._header())

    def _header(self) -> bytes:
        return _HEADER.pack(_MAGIC, VERSION, self.token_bytes, self.tokens, bytes.fromhex(self.fingerprint))

    def add(self, tokens: bytes, utf8: int) -> None:
        """Append a document: its tokens, little-endian, and how many bytes of UTF-8 they stand for."""
        count = len(tokens) // self.token_bytes
        for data, handle, digest in zip(
            (tokens, _DOCUMENT.pack(count, utf8)), self._files, self._hashes, strict=True
        ):
            handle.write(data)
            digest.update(data)
        self.tokens += count
        self.documents += 1
        self.bytes += utf8

    def close(self) -> Shard:
        """Complete the header and return what the manifest should say."""
        self._files[0].seek(0)
        self._files[0].write(self._header())
        for handle in self._files:
            handle.close()
        return Shard(
            name=self.name,
            tokens=self.tokens,
            documents=self.documents,
            bytes=self.bytes,
            tokens_sha256=self._hashes[0].hexdigest(),
            documents_sha256=self._hashes[1].hexdigest(),
        )

    def abandon(self) -> None:
        """Close the files after an error."""
        for handle in self._files:
            handle.close()


def read_tokens(folder: Path, shard: Shard, token_bytes: int) -> TokenArray:
    """Map the tokens of a shard into memory, read-only."""
    kind = np.dtype("<u2") if token_bytes == 2 else np.dtype("<u4")
    if shard.tokens == 0:
        return np.zeros(0, dtype=kind)
    path = folder / f"{shard.name}.tokens"
    mapped = np.memmap(path, dtype=kind, mode="r", offset=HEADER_BYTES, shape=(shard.tokens,))
    return np.asarray(mapped)  # a plain view of the same pages: slicing a memmap object costs 5 µs more


def read_documents(folder: Path, shard: Shard) -> npt.NDArray[np.uint32]:
    """Return tokens and UTF-8 bytes of each document of a shard, [documents, 2]."""
    return np.fromfile(folder / f"{shard.name}.documents", dtype="<u4").reshape(-1, 2)


def check(folder: Path, manifest: Manifest, *, fingerprint: str | None, checksum: bool) -> None:
    """LabError if a shard is missing, truncated, damaged or written by another tokenizer.

    Sizes and headers are looked at always; `checksum` reads every byte: nothing else finds a bit that has flipped on
    the disk.
    """
    shards = [shard for name in manifest.splits for shard in manifest.splits[name]]
    for shard in shards:
        _check_shape(folder, manifest, shard)
    if fingerprint is not None and manifest.tokenizer != fingerprint:
        name = f"{shards[0].name}.tokens" if shards else MANIFEST
        raise LabError(
            f"{folder / name}: written by tokenizer {manifest.tokenizer[:8]}…, the model uses "
            f"{fingerprint[:8]}…; encode the text again with --data FILES"
        )
    if not checksum:
        return
    total = sum(shard.tokens * manifest.token_bytes for shard in shards)
    with Progress[None](total=total, label="checking shards", unit="bytes") as bar:
        for shard in shards:
            _check_content(folder / f"{shard.name}.tokens", HEADER_BYTES, shard.tokens_sha256, bar)
            _check_content(folder / f"{shard.name}.documents", 0, shard.documents_sha256, None)


def _check_shape(folder: Path, manifest: Manifest, shard: Shard) -> None:
    expected = {
        "tokens": HEADER_BYTES + shard.tokens * manifest.token_bytes,
        "documents": shard.documents * _DOCUMENT.size,
    }
    for kind, size in expected.items():
        path = folder / f"{shard.name}.{kind}"
        if not path.is_file():
            raise LabError(f"{path}: missing; encode the text again")
        found = path.stat().st_size
        if found != size:
            what = "truncated" if found < size else "too long"
            raise LabError(f"{path}: {what}, {found:,} of {size:,} bytes; encode the text again")
    with (folder / f"{shard.name}.tokens").open("rb") as handle:
        magic, version, token_bytes, tokens, written_by = _HEADER.unpack(handle.read(HEADER_BYTES))
    header = (magic, version, token_bytes, tokens, written_by.hex())
    if header != (_MAGIC, VERSION, manifest.token_bytes, shard.tokens, manifest.tokenizer):
        raise LabError(
            f"{folder / shard.name}.tokens: its header contradicts {MANIFEST}; encode the text again"
        )


def _check_content(path: Path, start: int, expected: str, bar: Progress[None] | None) -> None:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        handle.seek(start)
        while piece := handle.read(1 << 20):
            digest.update(piece)
            if bar is not None:
                bar.advance(len(piece))
    if digest.hexdigest() != expected:
        raise LabError(f"{path}: damaged, its checksum is not the one of {MANIFEST}; encode the text again")
