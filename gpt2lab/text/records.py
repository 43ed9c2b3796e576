"""Files, hub data sets and `books` as rows with all their fields; jsonl, csv, tsv and parquet, each also as .gz."""

from collections.abc import Callable, Iterator
from pathlib import Path

from gpt2lab.base.errors import LabError
from gpt2lab.text import readers, rows, sources
from gpt2lab.text.bounded import EmptyFile, json_rows
from gpt2lab.text.built_in import built_in_rows
from gpt2lab.text.data_read import noted
from gpt2lab.text.parquet_rows import parquet_rows
from gpt2lab.text.rows import Row


def records(source: sources.SourceLike, *fields: str) -> Iterator[tuple[str, Row]]:
    """Yield (place, row) for every row of a source; the place (`FILE, line 3`) is for error messages.

    A source is a file, folder, glob, `hub:ID[@CONFIG][:SPLIT]` or `books[:SIZE]`, or a list of these. Values of csv are
    texts, those of the others what the file holds. LabError for what does not exist, is damaged, has no fields, has
    two of one name, or lacks one of `fields`.
    """
    for item in [source] if isinstance(source, str | Path) else source:
        files = sources.files(item)
        found = sources.read_files(files, _rows) if files else _other(str(item))
        for where, row in noted(str(item), found, lambda place_and_row: repr(place_and_row[1])):
            rows.require(row, fields, where)
            yield where, row


def _other(item: str) -> Iterator[tuple[str, Row]]:
    found = sources.hub_rows(item) if item.startswith("hub:") else built_in_rows(item)
    if found is None:
        raise LabError(
            f"{item}: has text but no fields; labelled data are jsonl, csv, parquet, hub:ID or books"
        )
    for number, row in enumerate(found, start=1):
        yield f"{item}, row {number}", dict(row)


def _rows(path: Path) -> Iterator[tuple[str, Row]]:
    format = readers.format_of(path)
    if format not in _READERS:
        known = ", ".join(_READERS)
        raise LabError(
            f"{path}: labelled data need fields, which {format or 'this format'} has not; use {known}"
        )
    return _READERS[format](path)


def _jsonl(path: Path) -> Iterator[tuple[str, Row]]:
    empty = True
    for where, row in json_rows(path):
        empty = False
        if not isinstance(row, dict):
            raise LabError(f"{where}: expected an object with fields, found {type(row).__name__}")
        yield where, row
    if empty:
        raise EmptyFile(f"{path}: the file has no rows")


def _csv(path: Path) -> Iterator[tuple[str, Row]]:
    return rows.headed(path, readers.text_lines(path))


_READERS: dict[str, Callable[[Path], Iterator[tuple[str, Row]]]] = {
    "jsonl": _jsonl,
    "csv": _csv,
    "parquet": parquet_rows,
}
