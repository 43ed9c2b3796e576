"""GGUF, the file of llama.cpp: metadata by name and tensors, read one piece at a time and dequantised.

The header is parsed here, within the file's bounds: the package `gguf` takes seconds for a vocabulary of 50,000 tokens
and believes every length. It dequantises the weights.
"""

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError, brief, shown
from gpt2lab.base.files import user_path
from gpt2lab.model.finite import all_finite

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""GGUF's number of a type → its code in `struct`."""
_TEXT, _LIST = 8, 9
_ALIGNMENT = 32
_PIECE = 2**18
"""Weights dequantised at a time: the memory that is needed beside the model's own."""
_PLAIN = {"F32": np.float32, "F16": np.float16, "F64": np.float64}
_SHORTEST_ENTRY = 8 + 4 + 1
"""Bytes of an entry of the header: the length of its name, a type or a number of dimensions, and a byte."""


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor is in the file, and how its numbers are stored."""

    name: str
    shape: tuple[int, ...]
    """As in torch: rows first. The file lists the sizes the other way round."""
    kind: Any
    """`gguf.GGMLQuantizationType`."""
    start: int
    """Of its first byte in the file."""
    row_bytes: int
    """Of shape[-1] numbers."""


class GGUFFile:
    """The metadata of a file by name, and its tensors by name; their numbers stay in the file until they are read.

    LabError: no GGUF file, of another byte order or version, one of several parts, truncated or otherwise damaged, a
    type of numbers that the package `gguf` does not know.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = user_path(path)
        self.where = str(path)
        try:
            self.size = self.path.stat().st_size
            with self.path.open("rb") as handle:
                self._check_start(handle.read(8))
                with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    header = _Header(data, self.where)
                    self.fields: dict[str, Any] = dict(header.entries())
                    self._refuse_parts()
                    self.tensors = dict(self._tensors(header))
        except OSError as error:
            raise LabError(f"{self.where}: cannot be read ({error.strerror or error})") from None

    def _check_start(self, start: bytes) -> None:
        if len(start) < 8 or start[:4] != MAGIC:
            raise LabError(f"{self.where}: not a GGUF file (it does not begin with GGUF)")
        version = int.from_bytes(start[4:], "little")
        if version in _VERSIONS:
            return
        if int.from_bytes(start[4:], "big") in _VERSIONS:
            raise LabError(
                f"{self.where}: a big-endian file; convert it: python -m gguf.scripts.gguf_convert_endian FILE little"
            )
        known = " and ".join(map(str, _VERSIONS))
        raise LabError(f"{self.where}: version {version} of GGUF is not supported, only {known}")

    def _refuse_parts(self) -> None:
        count = self.fields.get("split.count", 1)
        if isinstance(count, int) and count > 1:
            raise LabError(
                f"{self.where}: one of {count} parts of a model; make one file of them: llama-gguf-split --merge "
                "FIRST_PART OUT"
            )

    def _tensors(self, header: "_Header") -> Iterator[tuple[str, StoredTensor]]:
        # Slow to import, so not before a file is read.
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        alignment = self.fields.get("general.alignment", _ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise LabError(f"{self.where}: general.alignment must be a power of two, got {shown(alignment)}")
        listed = list(header.tensors())
        first = -(-header.place // alignment) * alignment
        for name, shape, number, offset in listed:
            try:
                kind = GGMLQuantizationType(number)
            except ValueError:
                raise LabError(
                    f"{self.where}: tensor {brief(name)} is of a type (number {number}) that the installed package "
                    "gguf does not know; a newer one may"
                ) from None
            block, block_bytes = GGML_QUANT_SIZES[kind]
            if not shape or shape[-1] % block or not all(shape):
                raise LabError(
                    f"{self.where}: damaged: tensor {brief(name)} {list(shape)} is not cut into blocks of {block}"
                )
            stored = StoredTensor(name, shape, kind, first + offset, shape[-1] // block * block_bytes)
            end = stored.start + prod(shape[:-1]) * stored.row_bytes
            if end > self.size or offset % alignment:
                raise LabError(
                    f"{self.where}: truncated or damaged: tensor {brief(name)} ends at byte {end:,} of {self.size:,}"
                )
            yield name, stored

    def read_into(self, name: str, target: Tensor) -> None:
        """Write the numbers of a tensor into a contiguous one of its shape, on any device and of any type.

        LabError: NaN or infinity in them, or a type that the package cannot dequantise.
        """
        stored = self.tensors[name]
        flat = target.view(-1, stored.shape[-1])
        rows = max(1, _PIECE // stored.shape[-1])
        with self.path.open("rb") as handle:
            for begin in range(0, len(flat), rows):
                into = flat[begin : begin + rows]
                handle.seek(stored.start + begin * stored.row_bytes)
                data = np.fromfile(handle, np.uint8, len(into) * stored.row_bytes)
                if data.size != len(into) * stored.row_bytes:
                    raise LabError(f"{self.where}: truncated while it was read")
                values = torch.from_numpy(self._dequantised(stored, data.reshape(len(into), -1)))
                if not all_finite(values):
                    raise LabError(f"{self.where}: tensor {name} holds NaN or infinity")
                into.copy_(values)

    def _dequantised(self, stored: StoredTensor, data: Any) -> Any:
        """Return rows of bytes as float numbers."""
        from gguf.quants import dequantize

        plain = _PLAIN.get(stored.kind.name)
        if plain is not None:
            return data.view(plain)
        if stored.kind.name.startswith("I") and stored.kind.name[1:].isdigit():
            raise LabError(f"{self.where}: tensor {stored.name} holds whole numbers ({stored.kind.name})")
        try:
            return dequantize(data, stored.kind)
        except NotImplementedError:
            raise LabError(
                f"{self.where}: tensor {stored.name} is quantised as {stored.kind.name}, which the package gguf cannot "
                "dequantise; convert it: llama-quantize --allow-requantize FILE OUT Q8_0"
            ) from None


class _Header:
    """Reads the entries of a header one after another, none beyond the end of the file."""

    def __init__(self, data: mmap.mmap, where: str) -> None:
        self.data, self.where = data, where
        self.place = 8
        self.n_tensors, self.n_entries = self._count(), self._count()

    def entries(self) -> Iterator[tuple[str, Any]]:
        """Yield the metadata. LabError for a name that occurs twice."""
        names = set()
        for _ in range(self.n_entries):
            name = self._text()
            if name in names:
                raise self._damaged(f"{brief(name)} occurs twice")
            names.add(name)
            yield name, self._value(self._number("I"))

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...], int, int]]:
        """Yield name, shape, number of the type and offset of each tensor. LabError for a name that occurs twice."""
        names = set()
        for _ in range(self.n_tensors):
            name, dimensions = self._text(), self._number("I")
            if name in names or dimensions > 8:
                raise self._damaged(f"tensor {brief(name)} occurs twice, or has {dimensions} dimensions")
            names.add(name)
            sizes = [self._number("Q") for _ in range(dimensions)]
            yield name, tuple(reversed(sizes)), self._number("I"), self._number("Q")

    def _count(self) -> int:
        count = self._number("Q")
        if count * _SHORTEST_ENTRY > len(self.data):
            raise self._damaged(f"it promises {count:,} entries")
        return count

    def _value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self._text()
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind != _LIST:
            raise self._damaged(f"an entry of type {kind}")
        inner, count = self._number("I"), self._number("Q")
        if inner in _SCALARS:
            code = _SCALARS[inner]
            values = self._bytes(count * struct.calcsize(code))
            return list(struct.unpack(f"<{count}{code}", values))
        if inner == _LIST or count * 8 > len(self.data):
            raise self._damaged(f"a list of {count:,} entries of type {inner}")
        return [self._value(inner) for _ in range(count)]

    def _number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self._bytes(struct.calcsize(code)))[0]

    def _text(self) -> str:
        try:
            return self._bytes(self._number("Q")).decode("utf-8")
        except UnicodeDecodeError:
            raise self._damaged("a text that is not UTF-8") from None

    def _bytes(self, count: int) -> bytes:
        found = self.data[self.place : self.place + count]
        if len(found) < count:
            raise LabError(f"{self.where}: truncated: the header goes beyond the end of the file")
        self.place += count
        return found

    def _damaged(self, what: str) -> LabError:
        return LabError(f"{self.where}: damaged: {what} (at byte {self.place:,})")


def is_gguf(path: Path | str) -> bool:
    """Tell whether a path is a file that is, or is called, a GGUF file."""
    path = user_path(path)
    try:
        if not path.is_file():
            return False
        with path.open("rb") as handle:
            return handle.read(4) == MAGIC or path.suffix == ".gguf"
    except OSError:
        return path.suffix == ".gguf"


def shapes(file: GGUFFile) -> Mapping[str, tuple[int, ...]]:
    """Return the shapes of a file's tensors by name."""
    return {name: tensor.shape for name, tensor in file.tensors.items()}
