"""Make the text of the source `books` from the raw files: python scripts/build_books.py FOLDER.

FOLDER holds the books as `gpt2lab/text/data/SOURCE.md` names them. Writes `gpt2lab/text/data/books.jsonl.gz`: a chapter a
row, with its book, author, year and number. Wrapped lines of a paragraph are joined, verse keeps its lines, and a blank line
stands between paragraphs. Left out: what stands before the first chapter, headings, the closing "THE END", marks of italics,
lines of asterisks, notes of the edition.
"""

import gzip
import hashlib
import io
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TARGET = Path(__file__).parents[1] / "gpt2lab/text/data/books.jsonl.gz"


@dataclass(frozen=True)
class Book:
    """One raw file, and how its chapters begin."""

    file: str
    title: str
    author: str
    year: int
    heading: str
    """Regular expression of what a chapter begins with, with line ends where it has several lines."""


_TITLE = r"\n\n[^\n]+(\n[^\n]+)*\n"
BOOKS = (
    Book("carroll-alice.txt", "Alice's Adventures in Wonderland", "Lewis Carroll", 1865,
         r" *CHAPTER [IVX]+(\. .+|\n\n +Alice's Evidence)\n"),
    Book("austen-emma.txt", "Emma", "Jane Austen", 1816, r"(VOLUME I+\n+)?CHAPTER [IVX]+\n"),
    Book("melville-moby_dick.txt", "Moby Dick", "Herman Melville", 1851, rf"(CHAPTER \d+{_TITLE}|Epilogue\n)"),
    Book("austen-persuasion.txt", "Persuasion", "Jane Austen", 1818, r"Chapter \d+\n"),
    Book("austen-sense.txt", "Sense and Sensibility", "Jane Austen", 1811, r"CHAPTER \d+\n"),
    Book("chesterton-ball.txt", "The Ball and the Cross", "G. K. Chesterton", 1909, r"[IVX]+\. [A-Z '-]+\n"),
    Book("chesterton-thursday.txt", "The Man Who Was Thursday", "G. K. Chesterton", 1908, rf"CHAPTER [IVX]+{_TITLE}"),
    Book("edgeworth-parents.txt", "The Parent's Assistant", "Maria Edgeworth", 1800,
         r"(?!MEN|WOMEN|SCENE)[A-Z][A-Z ,.;'-]+( or [A-Z ]+\.)?\n(\n+CHAPTER I\.\n)?"),
    Book("chesterton-brown.txt", "The Wisdom of Father Brown", "G. K. Chesterton", 1914, r"(?<=\n\n)[IVX]+\. .+\n"),
)  # fmt: skip

_CLOSING = re.compile(r"(FINIS|Finis|THE END)\.?")
_EDITION = re.compile(r"\[(At this point in the first|later editions continued).*", re.DOTALL)


def paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs of a raw text: joined lines of prose, kept lines of verse."""
    for raw in re.split(r"\n(?: *\n)+", text.strip("\n")):
        lines = raw.rstrip().split("\n")
        words = " ".join(raw.split())
        if not words or not words.strip("* ") or _CLOSING.fullmatch(words) or _EDITION.fullmatch(words):
            continue
        # The Father Brown stories indent the first line of a paragraph only; verse and letters indent each.
        if len(lines) > 1 and all(line.startswith("  ") for line in lines):
            words = "\n".join(" ".join(line.split()) for line in lines)
        yield re.sub(r"_(?=\S)([^_]*[^_\s])_", r"\1", words)  # _italics_


def chapters(book: Book, raw: str) -> Iterator[dict[str, str | int]]:
    """Yield the chapters of a raw text as rows; ValueError if it has none."""
    found = list(re.finditer(rf"^{book.heading}(?=\n)", raw, re.MULTILINE))
    if not found:
        raise ValueError(f"{book.file}: no chapter begins as {book.heading!r}")
    ends = [*(heading.start() for heading in found[1:]), len(raw)]
    for number, (heading, end) in enumerate(zip(found, ends, strict=True), start=1):
        yield {
            "book": book.title,
            "author": book.author,
            "year": book.year,
            "chapter": number,
            "text": "\n\n".join(paragraphs(raw[heading.end() : end])),
        }


def packed(rows: list[dict[str, str | int]]) -> tuple[bytes, str]:
    """Return the rows as a compressed file, the same bytes every time, and the SHA-256 of what is in it."""
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9, mtime=0, filename="") as file:
        file.write(content)
    return out.getvalue(), hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    rows = [row for book in BOOKS for row in chapters(book, (folder / book.file).read_text("latin-1"))]
    data, digest = packed(rows)
    TARGET.write_bytes(data)
    characters = sum(len(str(row["text"])) for row in rows)
    sys.stdout.write(
        f"{len(rows)} chapters, {characters:,} characters, {len(data):,} bytes; SHA-256 of the content {digest}\n"
    )
