"""Files as streams of documents: txt, jsonl, csv and parquet, each also compressed as .gz."""

import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.text import rows
from gpt2lab.text.bounded import (
    CHUNK,
    EmptyFile,
    guarded,
    json_rows,
    not_utf8,
    open_file,
    string,
    whole_lines,
)
from gpt2lab.text.parquet_rows import parquet_rows

SEPARATOR = "<|endoftext|>"
"""A line of a txt file that holds nothing else ends a document."""
PARAGRAPHS = 16_384
"""Characters of whole paragraphs that make one document of a txt file without separators."""

_LONGEST = 1 << 20  # characters of a separated document; a longer one is cut, so that memory stays bounded
# The look-behind (no other character than a line end before it) stands second: the search is for a fixed string.
_SEPARATOR_LINE = re.compile(r"<\|endoftext\|>(?<![^\n]<\|endoftext\|>)[ \t]*\r?\n")
_LAST_LINE = re.compile(r"<\|endoftext\|>(?<![^\n]<\|endoftext\|>)[ \t]*\Z")


def read_txt(path: Path, field: str = "text") -> Iterator[str]:
    """Yield the documents of a text file, never the file whole.

    With separator lines (`<|endoftext|>`, one of them in the first MiB): what stands between two of them, without
    the line ends around it. Without: as many whole paragraphs as fit into `PARAGRAPHS` characters, so that a book
    gives many documents for a split into training and validation; joined they are the file again, to the byte. A
    paragraph that is longer is cut at its last line end or blank before the limit.
    LabError for an empty file and for bytes that are not UTF-8.
    """
    rest, limit = "", 0
    for text in _decoded(path):
        if limit == 0:
            limit = _LONGEST if _separators(text) else PARAGRAPHS
        rest += text
        *ended, rest = _SEPARATOR_LINE.split(rest) if SEPARATOR in rest else [rest]
        for document in ended:
            yield from _pieces(document, limit)
        position = 0
        while len(rest) - position > limit + CHUNK // 8:
            end = _paragraph_end(rest, position, limit)
            yield rest[position:end]
            position = end
        rest = rest[position:]
    yield from _pieces(_LAST_LINE.sub("", rest), limit)


def _separators(text: str) -> bool:
    return bool(_SEPARATOR_LINE.search(text) or _LAST_LINE.search(text))


def _pieces(document: str, limit: int) -> Iterator[str]:
    """Yield a document, in pieces if it is longer than `limit`."""
    if limit == _LONGEST:
        document = document.strip("\r\n")
    position = 0
    while len(document) - position > limit:
        end = _paragraph_end(document, position, limit)
        yield document[position:end]
        position = end
    if position < len(document):
        yield document[position:]


def _paragraph_end(text: str, start: int, limit: int) -> int:
    """Return where the last whole paragraph (else line, else word) of `limit` characters from `start` ends."""
    stop = start + limit
    end = max(text.rfind("\n\n", start, stop), text.rfind("\n\r\n", start, stop))
    if end < 0:
        end = text.rfind("\n", start, stop)
    if end < 0:
        end = text.rfind(" ", start, stop)
    if end < 0:
        return stop
    end += 1
    while end < min(len(text), stop) and text[end] in "\r\n":  # the empty lines stay with what they end
        end += 1
    return end


def _decoded(path: Path) -> Iterator[str]:
    """Yield the text of a UTF-8 file in chunks; a byte order mark is dropped.

    Old books often hold a few accented letters of an older encoding: stray bytes, at most one in a thousand, are
    read as Windows-1252, with a warning. More of them means that the file is not UTF-8 at all: LabError.
    """
    offset, stray, waiting = 0, 0, b""
    with open_file(path) as handle:
        while chunk := guarded(path, lambda: handle.read(CHUNK)):
            if offset == 0:
                chunk = _without_mark(path, chunk)
            data = waiting + chunk
            text, waiting, wrong = _decode_leniently(data, allowed=(offset + len(data)) // 1000 - stray)
            if wrong and not stray:
                first = f"byte {offset + wrong[0]:,}"
            stray += len(wrong)
            if stray * 1000 > offset + len(data):
                raise not_utf8(path, f"byte {offset + wrong[0]:,}", data[wrong[0]])
            offset += len(data) - len(waiting)
            yield text
    if waiting:
        raise not_utf8(path, f"its last {len(waiting)} bytes, a character cut in two", waiting[0])
    if offset == 0:
        raise EmptyFile(f"{path}: the file is empty")
    if stray:
        warnings.warn(
            f"{path}: {stray} bytes are not UTF-8 (first {first}), read as Windows-1252", stacklevel=2
        )


def _decode_leniently(data: bytes, allowed: int) -> tuple[str, bytes, list[int]]:
    """Return text, an incomplete character at the end, and where stray bytes stood (at most `allowed` + 1)."""
    pieces: list[str] = []
    wrong: list[int] = []
    position = 0
    while len(wrong) <= allowed:
        try:
            pieces.append(data[position:].decode("utf-8"))
            return "".join(pieces), b"", wrong
        except UnicodeDecodeError as error:
            start = position + error.start
            pieces.append(data[position:start].decode("utf-8"))
            if len(data) - start < 4 and error.reason == "unexpected end of data":
                return "".join(pieces), data[start:], wrong
            pieces.append(data[start : start + 1].decode("cp1252", "replace"))
            wrong.append(start)
            position = start + 1
    return "".join(pieces), b"", wrong


def _without_mark(path: Path, chunk: bytes) -> bytes:
    if chunk.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise LabError(f"{path}: this is UTF-16; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)")
    return chunk.removeprefix(b"\xef\xbb\xbf")


def read_jsonl(path: Path, field: str = "text") -> Iterator[str]:
    """Yield `field` of each line of a JSON-lines file (or the line itself, where it is a string)."""
    empty = True
    for where, row in json_rows(path):
        empty = False
        if isinstance(row, dict):
            rows.require(row, (field,), where)
        yield string(row[field] if isinstance(row, dict) else row, where, field)
    if empty:
        raise EmptyFile(f"{path}: the file is empty")


def read_csv(path: Path, field: str = "text") -> Iterator[str]:
    """Yield column `field` of a csv file with a header line; see `rows.headed`."""
    for where, row in rows.headed(path, text_lines(path), field):
        yield string(row[field], where, field)


def text_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file with their ends."""
    return whole_lines(path, _decoded(path))


def read_parquet(path: Path, field: str = "text") -> Iterator[str]:
    """Yield column `field` of a parquet file, a thousand rows in memory at a time."""
    for where, row in parquet_rows(path, field):
        yield string(row[field], where, field)


FORMATS: dict[str, Callable[[Path, str], Iterator[str]]] = {
    "txt": read_txt,
    "jsonl": read_jsonl,
    "csv": read_csv,
    "parquet": read_parquet,
}
_ENDINGS = {
    ".txt": "txt",
    ".text": "txt",
    ".md": "txt",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}


def format_of(path: Path) -> str | None:
    """Return the format that a file's name tells (`corpus.jsonl.gz`: jsonl), None if it tells none."""
    name = path.name.lower().removesuffix(".gz")
    return _ENDINGS.get(Path(name).suffix)


def read(path: Path, field: str = "text", format: str | None = None) -> Iterator[str]:
    """Yield the documents of one file in the given format, by default the one its name tells."""
    format = format or format_of(path)
    if format is None:
        raise LabError(f"{path}: which format? give one of {', '.join(FORMATS)}, or a name that ends in it")
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    return FORMATS[format](path, field)
