"""Which data a piece of work has read: noted where documents are read, kept by the run that does the work.

What `docstrings` holds depends on the packages that are installed, and files change: only a hash of the text itself says
that two runs read the same.
"""

import contextlib
import functools
import hashlib
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class DataRead:
    """What was read of one source."""

    name: str
    """The source as it was named: `docstrings:300000`, `notes/*.txt`."""
    documents: int
    """How many documents were read, perhaps not all that it holds."""
    size: int
    """Characters of these documents, or ids of a stream of tokens."""
    unit: Literal["characters", "tokens"]
    """What `size` counts."""
    sha256: str
    """Hash (hex) of the documents in the order in which they were read, a zero byte after each; rows count as Python writes
    them, a stream of tokens with its ids."""


@dataclass
class _Reading:
    """A source that is being read."""

    name: str
    documents: int = 0
    size: int = 0
    hash: Any = field(default_factory=hashlib.sha256)

    def through(self, documents: Iterable[T], as_text: Callable[[T], str]) -> Iterator[T]:
        for document in documents:
            text = as_text(document)
            self.documents += 1
            self.size += len(text)
            self.hash.update(text.encode("utf-8", "surrogatepass") + b"\0")
            yield document

    def found(self) -> DataRead:
        return DataRead(self.name, self.documents, self.size, "characters", self.hash.hexdigest())


@dataclass
class Notes:
    """What was read while they were taken."""

    _taken: list[_Reading | DataRead] = field(default_factory=list)

    def found(self) -> list[DataRead]:
        """Return each source that was read, once for every text that it gave."""
        every = [one.found() if isinstance(one, _Reading) else one for one in self._taken]
        return list(dict.fromkeys(one for one in every if one.documents))


_NOTES: ContextVar[Notes | None] = ContextVar("notes of the data that are read", default=None)


@contextlib.contextmanager
def noting() -> Iterator[Notes]:
    """Take notes of everything that is read inside the block, by it alone and not by a block around it."""
    notes = Notes()
    token = _NOTES.set(notes)
    try:
        yield notes
    finally:
        _NOTES.reset(token)


def noted(name: str, documents: Iterator[T], as_text: Callable[[T], str] = str) -> Iterator[T]:
    """Return the documents of a source, texts or others, noted as they are read where notes are taken."""
    notes = _NOTES.get()
    if notes is None:
        return documents
    reading = _Reading(name)
    notes._taken.append(reading)
    return reading.through(documents, as_text)


def note(*found: DataRead) -> None:
    """Note what was read before, or what no source gives."""
    if (notes := _NOTES.get()) is not None:
        notes._taken += found


def remembered(function: Callable[..., T]) -> Callable[..., T]:
    """Read data once in a process, as `functools.cache` does, and note at every call what was read at the first."""

    @functools.cache
    def first(*arguments: Hashable) -> tuple[T, list[DataRead]]:
        with noting() as notes:
            result = function(*arguments)
        return result, notes.found()

    @functools.wraps(function)
    def again(*arguments: Hashable) -> T:
        result, found = first(*arguments)
        note(*found)
        return result

    return again
