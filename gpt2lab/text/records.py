"""Files and hub data sets as rows with all their fields: jsonl, csv, tsv and parquet, each also as .gz."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gpt2lab.base.errors import LabError
from gpt2lab.text import readers, sources
from gpt2lab.text.bounded import csv_rows, json_rows, missing_field
from gpt2lab.text.parquet_rows import parquet_rows

Record = dict[str, Any]


def records(source: sources.SourceLike) -> Iterator[tuple[str, Record]]:
    """Yield (place, row) for every row of a source; the place (`FILE, line 3`) is for error messages.

    A source is a file, folder, glob or `hub:ID[@CONFIG][:SPLIT]`, or a list of these. Values of csv are texts, those
    of the others what the file holds. LabError for what does not exist, has no fields, or is damaged.
    """
    for item in [source] if isinstance(source, str | Path) else source:
        files = sources.files(item)
        if not files:
            yield from _other(str(item))
        for path in files:
            yield from _rows(path)


def read_records(source: sources.SourceLike, *fields: str) -> Iterator[tuple[str, Record]]:
    """Yield (place, row) as `records`; LabError, with the fields there are, for a row that lacks one of `fields`."""
    for where, row in records(source):
        for field in fields:
            if field not in row:
                raise missing_field(where, field, list(row))
        yield where, row


def _other(item: str) -> Iterator[tuple[str, Record]]:
    if not item.startswith("hub:"):
        raise LabError(f"{item}: has text but no fields; labelled data are jsonl, csv, parquet or hub:ID")
    for number, row in enumerate(sources.hub_rows(item), start=1):
        yield f"{item}, row {number}", dict(row)


def _rows(path: Path) -> Iterator[tuple[str, Record]]:
    format = readers.format_of(path)
    if format not in _READERS:
        known = ", ".join(_READERS)
        raise LabError(
            f"{path}: labelled data need fields, which {format or 'this format'} has not; use {known}"
        )
    empty = True
    for row in _READERS[format](path):
        empty = False
        yield row
    if empty:
        raise LabError(f"{path}: the file has no rows")


def _jsonl(path: Path) -> Iterator[tuple[str, Record]]:
    for where, row in json_rows(path):
        if not isinstance(row, dict):
            raise LabError(f"{where}: expected an object with fields, found {type(row).__name__}")
        yield where, row


def _csv(path: Path) -> Iterator[tuple[str, Record]]:
    header: list[str] | None = None
    for number, row in csv_rows(path, readers.text_lines(path)):
        if header is None:
            header = row
        elif row:
            if len(row) != len(header):
                raise LabError(f"{path}, line {number}: {len(row)} of {len(header)} columns")
            yield f"{path}, line {number}", dict(zip(header, row, strict=True))


_READERS: dict[str, Callable[[Path], Iterator[tuple[str, Record]]]] = {
    "jsonl": _jsonl,
    "csv": _csv,
    "parquet": parquet_rows,
}
