"""The files of token shards: a manifest, and per shard its tokens and the sizes of its documents."""

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import atomic_write

MANIFEST = "manifest.json"
VERIFIED = "verified.json"
VERSION = 1
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

    def to_json(self) -> str:
        """Write the manifest as JSON text."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @staticmethod
    def read(folder: Path) -> "Manifest":
        """Read the manifest of a folder; LabError if it is no folder of shards."""
        path = folder / MANIFEST
        if not path.is_file():
            raise LabError(f"{folder}: no token shards here ({MANIFEST} is missing)")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            version = content.get("version")
            if version == VERSION:
                splits = {
                    name: [Shard(**s) for s in shards] for name, shards in content.pop("splits").items()
                }
                return Manifest(**content, splits=splits)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise LabError(f"{path}: not a manifest of token shards, or cut off ({error})") from error
        raise LabError(f"{path}: format {version}, this version reads {VERSION}; encode the text again")


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


def check(folder: Path, manifest: Manifest, *, fingerprint: str | None, checksum: bool | None) -> None:
    """LabError if a shard is missing, truncated, damaged or written by another tokenizer.

    Sizes and headers are looked at always. The checksums are computed at the first opening, and again whenever a
    file's time or size has changed (`checksum=None`), always (True) or never (False).
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
    if checksum is False:
        return
    known = {} if checksum else _read_verified(folder)
    now = _states(folder, shards)
    for shard in shards:
        for kind, expected in (("tokens", shard.tokens_sha256), ("documents", shard.documents_sha256)):
            name = f"{shard.name}.{kind}"
            if known.get(name) != now[name]:
                _check_content(folder / name, HEADER_BYTES if kind == "tokens" else 0, expected)
    if known != now:
        _write_verified(folder, now)


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


def _check_content(path: Path, start: int, expected: str) -> None:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        handle.seek(start)
        while piece := handle.read(1 << 20):
            digest.update(piece)
    if digest.hexdigest() != expected:
        raise LabError(f"{path}: damaged, its checksum is not the one of {MANIFEST}; encode the text again")


def _states(folder: Path, shards: list[Shard]) -> dict[str, Any]:
    """Return size and time of each file, and the checksum they were found to agree with."""
    states = {}
    for shard in shards:
        for kind, digest in (("tokens", shard.tokens_sha256), ("documents", shard.documents_sha256)):
            name = f"{shard.name}.{kind}"
            stat = (folder / name).stat()
            states[name] = [stat.st_size, stat.st_mtime_ns, digest]
    return states


def _read_verified(folder: Path) -> Mapping[str, Any]:
    try:
        content = json.loads((folder / VERIFIED).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_verified(folder: Path, states: Mapping[str, Any]) -> None:
    if not os.access(folder, os.W_OK):
        return  # a folder that others share: verified at every opening
    atomic_write(folder / VERIFIED, json.dumps(states))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, and that its shards, just written, agree with their checksums."""
    atomic_write(folder / MANIFEST, manifest.to_json())
    _write_verified(folder, _states(folder, [s for shards in manifest.splits.values() for s in shards]))
