"""Where text comes from: files, folders, the hub, and built-in sources that need no download."""

import functools
import itertools
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from gpt2lab.base.errors import LabError, nearest, unknown
from gpt2lab.base.extras import install
from gpt2lab.base.files import sha256, user_path
from gpt2lab.base.json_files import json_sha256
from gpt2lab.text import books, readers, rows
from gpt2lab.text.bounded import EmptyFile, string
from gpt2lab.text.built_in import BUILT_IN, built_in_arguments, built_in_documents, built_in_rows
from gpt2lab.text.data_read import noted

T = TypeVar("T")

SourceLike = str | Path | Sequence[str | Path]
"""A file, a folder, a glob, `hub:ID[@CONFIG][:SPLIT]`, a built-in `NAME[:SIZE[:SEED[:EXPOSURES]]]`, or a list of these."""


_HUB = re.compile(r"hub:(?P<id>[\w./-]+)(@(?P<config>[\w.-]+))?(:(?P<split>[\w\[\]%:]+))?")
_LONGEST_NAME = 255  # bytes of a file's name on the usual file systems
_GLOB = re.compile(r"[*?\[]")


def documents(source: SourceLike, *, field: str = "text", format: str | None = None) -> Iterator[str]:
    """Yield the documents of a source one by one, always in the same order; nothing is held in memory.

    Files of a folder or a glob come in the order of their names. `field` is the field of jsonl, csv, parquet and
    hub rows; `format` overrules what a file's name tells. Documents without any text are left out. The run that reads
    them keeps their hash: see `gpt2lab.text.data_read`.
    LabError, before anything is read, for what does not exist; while reading, with file and line.
    """
    parts = [(str(item), _resolve(item, format)) for item in _listed(source)]
    texts = [noted(name, filter(None, _read(part, field, format))) for name, part in parts]
    return itertools.chain.from_iterable(texts)


def cache_key(source: SourceLike, *, field: str = "text", format: str | None = None) -> str:
    """Return a SHA-256 (hex) that changes when the source does: content and format of its files, or its name.

    Neither times nor places of files count: a copy has the same key. Files are read whole.
    """
    state: list[Any] = [field, format]
    for item in _listed(source):
        part = _resolve(item, format)
        if isinstance(part, list):
            state += [
                [format or readers.format_of(path), path.suffix.lower() == ".gz", _content(path)]
                for path in part
            ]
        else:
            state += [part, _contents(part)]
    return json_sha256(state)


def _contents(part: str) -> list[str] | str | None:
    """Return what decides a source's text besides its name: the installed packages, a file of this package."""
    match part.split(":")[0]:
        case "docstrings":
            return _installed()
        case "books":
            return _content(books.PATH)
        case _:
            return None


def _content(path: Path) -> str:
    """Return the SHA-256 of a file's bytes; in one process a file that has not changed is read once."""
    stat = path.stat()
    return _sha256(path, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@functools.lru_cache(maxsize=1 << 16)
def _sha256(path: Path, *state: int) -> str:
    return sha256(path)


def files(source: SourceLike, *, format: str | None = None) -> list[Path]:
    """Return the files of a source in the order they are read; hub ids and built-in sources have none."""
    parts = [_resolve(item, format) for item in _listed(source)]
    return [path for part in parts if isinstance(part, list) for path in part]


def text_bytes(source: SourceLike, *, format: str | None = None) -> int | None:
    """Return about how many bytes of text a source holds, None where neither sizes of files nor its name tell."""
    total = 0
    for item in _listed(source):
        part = _resolve(item, format)
        if isinstance(part, list):
            if any(path.suffix == ".gz" or (format or readers.format_of(path)) != "txt" for path in part):
                return None
            total += sum(path.stat().st_size for path in part)
        elif part.startswith("hub:") or not BUILT_IN[part.split(":")[0]].in_characters:
            return None
        else:
            name, arguments = built_in_arguments(part)
            total += arguments[BUILT_IN[name].size]
    return total


def read_files(paths: Sequence[Path], read: Callable[[Path], Iterator[T]]) -> Iterator[T]:
    """Yield what `read` yields of the files of one source; empty ones among others are left out with a warning.

    LabError if there is nothing else.
    """
    empty = 0
    for path in paths:
        try:
            yield from read(path)
        except EmptyFile as error:
            empty += 1
            if empty == len(paths):
                raise
            warnings.warn(f"{error}; left out", stacklevel=2)


def _installed() -> list[str]:
    """Return names and versions of the installed packages, which decide what `docstrings` holds."""
    from importlib.metadata import distributions

    return sorted(f"{d.metadata['Name']} {d.version}" for d in distributions())


def _listed(source: SourceLike) -> list[str | Path]:
    items: list[str | Path] = [source] if isinstance(source, str | Path) else list(source)
    if not items:
        raise LabError(f"no data: give a file, a folder, hub:ID, or one of {', '.join(BUILT_IN)}")
    return items


def _resolve(item: str | Path, format: str | None) -> list[Path] | str:
    """Return the files an item stands for, or the item itself if it is no file."""
    if isinstance(item, str):
        if item.startswith("hub:"):
            _hub_parts(item)
            return item
        if item.split(":")[0] in BUILT_IN:
            built_in_arguments(item)
            return item
        too_long = max(len(part) for part in item.split("/")) > _LONGEST_NAME
        if too_long or ("\n" in item and not os.path.exists(user_path(item))):
            raise LabError(f"{item[:30]!r}…: a text, not a source; texts themselves are given as an iterator")
    path = user_path(item)
    if path.is_file():
        if format is None and readers.format_of(path) is None:
            known = ", ".join(readers.FORMATS)
            raise LabError(f"{path}: which format? give one of {known} (format), or a name that ends in it")
        if format is not None and format not in readers.FORMATS:
            raise unknown("format", format, readers.FORMATS)
        return [path]
    if path.is_dir():
        return _readable(path, (p for p in path.rglob("*") if not _hidden(p.relative_to(path))), format)
    if _GLOB.search(str(item)):
        found = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
        return _readable(path, (p for p in found if not _hidden(Path(p.name))), format)
    raise _no_such(str(item), path)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _readable(where: Path, found: Iterable[Path], format: str | None) -> list[Path]:
    chosen = sorted(p for p in found if p.is_file() and (format or readers.format_of(p)))
    if not chosen:
        raise LabError(f"{where}: no {', '.join(readers.FORMATS)} files there (nor .gz of them)")
    return chosen


def _no_such(item: str, path: Path) -> LabError:
    near = nearest(item, BUILT_IN)
    if near is None and path.parent.is_dir():
        name = nearest(path.name, (p.name for p in path.parent.iterdir()))
        near = str(path.parent / name) if name else None
    hint = f"did you mean {near}?" if near else f"built in are {', '.join(BUILT_IN)}; the hub's are hub:ID"
    return LabError(f"{item}: no such file, folder or built-in source; {hint}")


def _read(part: list[Path] | str, field: str, format: str | None) -> Iterator[str]:
    if isinstance(part, list):
        yield from read_files(part, lambda path: readers.read(path, field, format))
    elif part.startswith("hub:"):
        yield from _hub_documents(part, field)
    elif (found := built_in_rows(part)) is not None:
        yield from (row["text"] for row in found)
    else:
        yield from built_in_documents(part)


def _hub_parts(item: str) -> tuple[str, str | None, str]:
    match = _HUB.fullmatch(item)
    if match is None:
        raise LabError(f"{item!r}: expected hub:ID, hub:ID:SPLIT or hub:ID@CONFIG:SPLIT")
    return match["id"], match["config"], match["split"] or "train"


def _hub_documents(item: str, field: str) -> Iterator[str]:
    """Yield `field` of a data set's rows, streamed from the hub."""
    for number, row in enumerate(hub_rows(item), start=1):
        where = f"{item}, row {number}"
        rows.require(row, (field,), where)
        yield string(row[field], where, field)


def hub_rows(item: str) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of `hub:ID[@CONFIG][:SPLIT]`, streamed. LabError if it cannot be fetched."""
    try:
        import datasets
    except ImportError as error:
        raise LabError(f"{item}: hub data needs datasets; {install('hub')}") from error
    id, config, split = _hub_parts(item)
    if not Path(id).exists():  # the library reads a folder in the hub's layout too
        _ask_hub(item, id)
    try:
        found = datasets.load_dataset(id, config, split=split, streaming=True)
        classes = [
            name for name, kind in (found.features or {}).items() if isinstance(kind, datasets.ClassLabel)
        ]
        for row in found:
            # The library writes -1 for the label of a class that is not known (GLUE's test parts).
            yield {**row, **{name: None for name in classes if row[name] == -1}}
    except LabError:
        raise
    except Exception as error:  # the library raises many kinds: no network, no such id, no such split
        reason = str(error).split("\n")[0][:120]
        raise LabError(
            f"{item}: cannot be fetched ({type(error).__name__}: {reason}); local files work without the hub"
        ) from error


def _ask_hub(item: str, id: str) -> None:
    """LabError, at the first try, if the hub has no such data set or cannot be reached: the library tries for long."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    without = f"what needs no hub: files, folders and {', '.join(sorted(BUILT_IN))}"
    try:
        HfApi().dataset_info(id, timeout=20)
    except GatedRepoError as error:
        raise LabError(
            f"{item}: the hub asks you to accept its terms and log in first (hf auth login)"
        ) from error
    except RepositoryNotFoundError as error:
        raise LabError(f"{item}: no such data set on the hub; {without}") from error
    except Exception as error:  # the network's many ways to fail, and being told to stay offline
        raise LabError(f"{item}: the hub cannot be reached; {without}") from error
