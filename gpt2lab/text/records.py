"""Files and hub data sets as rows with all their fields: jsonl, csv, tsv and parquet, each also as .gz."""

import csv
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gpt2lab.base.errors import LabError
from gpt2lab.text import readers, sources

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
                raise readers.missing_field(where, field, list(row))
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
    number = 0
    with readers.open_file(path) as handle:
        while line := readers.guarded(path, handle.readline):
            number += 1
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError as error:
                raise readers.not_utf8(path, f"line {number}", line[error.start]) from error
            except json.JSONDecodeError as error:
                raise LabError(f"{where}: not JSON: {error.msg} at column {error.colno}") from error
            if not isinstance(row, dict):
                raise LabError(f"{where}: expected an object with fields, found {type(row).__name__}")
            yield where, row


def _csv(path: Path) -> Iterator[tuple[str, Record]]:
    csv.field_size_limit(min(sys.maxsize, 1 << 30))  # the default refuses a cell over 128 KiB
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    rows = csv.reader(readers.text_lines(path), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    try:
        for row in rows:
            if header is None:
                header = row
            elif row:
                if len(row) != len(header):
                    raise LabError(f"{path}, line {rows.line_num}: {len(row)} of {len(header)} columns")
                yield f"{path}, line {rows.line_num}", dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise LabError(f"{path}, line {rows.line_num}: not csv: {error}") from error


def _parquet(path: Path) -> Iterator[tuple[str, Record]]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise LabError(f"{path}: parquet needs pyarrow; pip install 'gpt2lab[parquet]'") from error
    number = 0
    with readers.seekable(path) as handle:
        try:
            for batch in parquet.ParquetFile(handle).iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
        except (pyarrow.ArrowException, OSError) as error:
            raise LabError(
                f"{path}: not parquet, or damaged after row {number} ({readers.first_line(error)})"
            ) from error


_READERS: dict[str, Callable[[Path], Iterator[tuple[str, Record]]]] = {
    "jsonl": _jsonl,
    "csv": _csv,
    "parquet": _parquet,
}
