"""Data files opened within limits: what a file of a few bytes asks for is not believed.

A compressed file that unpacks to far more than text does, a row longer than any document, a table of more columns than
anybody fills: each is a LabError that names the limit, before memory or disk is filled.
"""

import csv
import gzip
import itertools
import json
import math
import stat
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from gpt2lab.base.errors import LabError, nearest
from gpt2lab.base.json_files import parse_json

CHUNK = 1 << 20
"""Bytes read at a time."""
LONGEST_ROW = 32 * 2**20
"""Bytes of a line of jsonl, characters of a line or a cell of csv; as Python objects a row takes up to 24 times that."""
MOST_COLUMNS = 10_000
"""Columns of a table."""
_RATIO = 100  # text packs to a tenth, logs to a fiftieth; deflate itself reaches 1,032
_FREE = 64 * 2**20  # bytes that any file may unpack to


class EmptyFile(LabError):
    """A file that holds nothing; raised before anything is yielded, so that one among others can be left out."""


class Budget:
    """How much a packed file may unpack to: 64 MiB and a hundred times its size."""

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, path.stat().st_size
        self.left = _FREE + _RATIO * self.size

    def spend(self, amount: int) -> None:
        """Count bytes that were unpacked; LabError once they are too many."""
        self.left -= amount
        if self.left < 0:
            raise LabError(
                f"{self.path}: its {self.size:,} bytes unpack to more than {_FREE + _RATIO * self.size:,}, which text "
                "does not; unpack it yourself if it is what you mean"
            )


def open_file(path: Path) -> IO[bytes]:
    """Open a file, compressed or not, for reading bytes; LabError if it is no regular file or cannot be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise LabError(f"{path}: not a regular file; data are read from files")
        if path.suffix.lower() == ".gz":
            return cast(IO[bytes], _Unpacked(gzip.open(path, "rb"), Budget(path)))
        return path.open("rb")
    except OSError as error:
        raise LabError(f"{path}: cannot be read: {error.strerror or error}") from error


class _Unpacked:
    """A gzip file that counts what it gives out."""

    def __init__(self, inner: Any, budget: Budget) -> None:
        self.inner, self.budget = inner, budget

    def read(self, size: int) -> bytes:
        return self._counted(self.inner.read(size))

    def readline(self, size: int) -> bytes:
        return self._counted(self.inner.readline(size))

    def _counted(self, data: bytes) -> bytes:
        self.budget.spend(len(data))
        return data

    def __enter__(self) -> "_Unpacked":
        return self

    def __exit__(self, *error: object) -> None:
        self.inner.close()


def guarded(path: Path, read: Callable[[], bytes]) -> bytes:
    """Return what `read` returns; LabError with the file's name if it is cut off or cannot be read."""
    try:
        return read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise LabError(f"{path}: not gzip, or cut off ({error})") from error
    except OSError as error:
        raise LabError(f"{path}: cannot be read: {error.strerror or error}") from error


def seekable(path: Path) -> BinaryIO:
    """Open a file that is read in any order; a compressed one is unpacked to a temporary file first."""
    if path.suffix.lower() != ".gz":
        return cast(BinaryIO, open_file(path))
    unpacked = tempfile.TemporaryFile()  # noqa: SIM115  # the caller closes it
    try:
        with open_file(path) as handle:
            while chunk := guarded(path, lambda: handle.read(CHUNK)):
                unpacked.write(chunk)
    except LabError:
        unpacked.close()
        raise
    unpacked.seek(0)
    return cast(BinaryIO, unpacked)


def json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield (place, content) for each line of a JSON-lines file that is not blank.

    LabError, with the line, for a line that is longer than `LONGEST_ROW`, not UTF-8 or not JSON, or names a field twice.
    """
    with open_file(path) as handle:
        for number in itertools.count(1):
            line = guarded(path, lambda: handle.readline(LONGEST_ROW + 1))
            if not line:
                return
            where = f"{path}, line {number}"
            if len(line) > LONGEST_ROW:
                raise LabError(f"{where}: longer than {LONGEST_ROW:,} bytes; a row holds one document")
            if line.strip():
                yield where, _parsed(path, where, number, line)


def _parsed(path: Path, where: str, number: int, line: bytes) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            refuse_twins([name for name, _ in pairs], where)
        return found

    try:
        return json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"), object_pairs_hook=unique)
    except LabError:  # which is a ValueError
        raise
    except UnicodeDecodeError as error:
        raise not_utf8(path, f"line {number}", line[error.start]) from error
    except json.JSONDecodeError as error:
        raise LabError(f"{where}: not JSON: {error.msg} at column {error.colno}") from error
    except (RecursionError, ValueError):
        return parse_json(line, where)  # which says what it is


def csv_rows(path: Path, lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of the last line, cells) for each row of a csv file, the header first.

    Columns are separated by tabs in a .tsv; else by commas, or by what the header has instead: semicolons or tabs, as
    spreadsheets write them where the comma is the decimal sign.
    LabError, with the line, for what is not csv, a row of more than `LONGEST_ROW` characters, too many columns.
    """
    csv.field_size_limit(LONGEST_ROW)  # the default refuses a cell over 128 KiB, which an essay has
    begun: list[str] = []  # blank lines and the header
    for line in lines:
        begun.append(line)
        if line.strip():
            break
    delimiter = _delimiter(path, begun[-1] if begun else "")
    rows = csv.reader(itertools.chain(begun, lines), delimiter=delimiter, strict=True)
    try:
        for row in rows:
            if len(row) > MOST_COLUMNS:
                raise LabError(
                    f"{path}, line {rows.line_num}: {len(row):,} columns of at most {MOST_COLUMNS:,}"
                )
            yield rows.line_num, row
    except csv.Error as error:
        raise LabError(f"{path}, line {rows.line_num}: not csv: {error}") from error


def _delimiter(path: Path, header: str) -> str:
    """Return what separates the columns, by the header's first line alone."""
    if ".tsv" in path.name.lower():
        return "\t"
    for delimiter in ",;\t":
        try:
            if len(next(csv.reader([header], delimiter=delimiter, strict=True), [])) > 1:
                return delimiter
        except csv.Error:  # something else follows a quoted name, or it goes on in the next line
            continue
    return ","


def whole_lines(path: Path, texts: Iterator[str]) -> Iterator[str]:
    """Yield the lines, with their ends, of a text that comes in pieces; LabError for one longer than `LONGEST_ROW`."""
    begun: list[str] = []  # pieces of a line: joining them at each piece would take the square of its length
    length = 0
    for text in texts:
        first, *more = text.split("\n")
        begun.append(first)
        length += len(first)
        if length > LONGEST_ROW:
            raise LabError(
                f"{path}: a line is longer than {LONGEST_ROW:,} characters; a row holds one document"
            )
        if more:
            yield "".join(begun) + "\n"
            yield from (line + "\n" for line in more[:-1])
            begun, length = [more[-1]], len(more[-1])
    if length:
        yield "".join(begun)


def not_utf8(path: Path, where: str, byte: int) -> LabError:
    """Build the error for a byte that is no part of a character."""
    return LabError(f"{path}: not UTF-8 at {where} (0x{byte:02x}); convert it (iconv -f LATIN1 -t UTF-8?)")


def absent(value: object) -> bool:
    """Whether a value says that there is none: null, NaN, or text without a character; 0, false and "None" are values."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def string(value: object, where: str, field: str) -> str:
    """Return `value` if it is text; LabError with the place if not, and for half a character."""
    if not isinstance(value, str):
        found = "nothing (null)" if absent(value) else type(value).__name__
        raise LabError(f"{where}: field {field!r} should hold text, found {found}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"\\u{ord(value[error.start]):04x}"
        raise LabError(
            f"{where}: field {field!r} holds half a character ({half}), which no tokenizer reads"
        ) from None
    return value


def missing_field(where: str, field: str, names: list[str]) -> LabError:
    """Build the error for a field that is not there, with the fields that are."""
    match = nearest(field, names)
    if match:
        return LabError(f"{where}: no field {field!r}; did you mean {match!r}?")
    known = ", ".join(repr(name)[:80] for name in names[:12]) or "none"
    return LabError(f"{where}: no field {field!r}; there are {known}")


def refuse_twins(names: list[str], where: str) -> None:
    """LabError for two fields of one name: one of them would be lost. Columns without a name have none."""
    counts = Counter(names)
    twice = next((name for name in names if name and counts[name] > 1), None)
    if twice is not None:
        raise LabError(f"{where}: two fields have the name {twice[:80]!r}; rename or leave out one of them")
