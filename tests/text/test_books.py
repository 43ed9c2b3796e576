import gzip
import hashlib
import importlib.util
import json
import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.text import books, sources
from gpt2lab.text.labelled import Target, read_examples
from gpt2lab.text.records import records
from gpt2lab.text.splits import by_group, field

ROOT = Path(__file__).parents[2]
RAW = """[A Book by Some Body 1900]

A note of the printer's.

CHAPTER 1

The first
of them.


It was  a _very_ long
day.  The _two
of us_ said:

     Row, row,
       row your boat.

     * * *

     And that
was all of ____ Hall.

CHAPTER 2

Last.

"Good-bye."

THE END
"""


def _builder() -> ModuleType:
    """Return the script that makes the file."""
    spec = importlib.util.spec_from_file_location("build_books", ROOT / "scripts/build_books.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["build_books"] = module
    spec.loader.exec_module(module)
    return module


def test_the_shipped_file_is_the_one_that_the_script_made() -> None:
    content = gzip.decompress(books.PATH.read_bytes())
    digest = hashlib.sha256(content).hexdigest()
    assert digest == "35009fdb3a3cb30595cf054c9f51452652fe972b9e9b94a76ceccc60a7225ddb"
    assert books.PATH.stat().st_size < 3_000_000
    rows: list[dict[str, Any]] = [json.loads(line) for line in content.decode().splitlines()]
    assert sum(len(row["text"]) for row in rows) == books.CHARACTERS
    assert len({row["text"] for row in rows}) == len(rows) == 346
    titles = [row["book"] for row in rows]
    assert titles == sorted(titles) and len(set(titles)) == 9
    for title, count in Counter(titles).items():
        assert [row["chapter"] for row in rows if row["book"] == title] == list(range(1, count + 1)), title
    source = books.PATH.with_name("SOURCE.md").read_text(encoding="utf-8")
    for book in _builder().BOOKS:
        own = [row for row in rows if row["book"] == book.title]
        line = next(line for line in source.splitlines() if line.startswith(f"| {book.file} | {book.title}"))
        assert {(row["author"], row["year"]) for row in own} == {(book.author, book.year)}
        assert f"{book.author} " in line and f"| {book.year} |" in line
        assert line.endswith(f"| {sum(len(row['text']) for row in own):,} |"), book.file


def test_every_chapter_is_prose_without_headings_or_marks() -> None:
    for row in books.chapters():
        place, text = f"{row['book']}, {row['chapter']}", row["text"]
        assert len(text) > 200 and text == text.strip(), place
        assert not re.search(
            r"\n{3}|  |\t|\r|_[a-zA-Z]|CHAPTER \w+\n|\* +\*|THE END\s*$|Project Gutenberg", text
        ), place


def test_a_size_takes_whole_chapters_from_the_beginning() -> None:
    every, few = list(books.chapters()), list(books.chapters(20_000))
    assert few == every[: len(few)]
    assert 20_000 <= sum(len(row["text"]) for row in few) < 20_000 + len(few[-1]["text"])
    assert list(sources.documents("books:20000")) == [row["text"] for row in few]
    assert len(list(sources.documents("books"))) == 346
    assert sources.text_bytes("books:20000") == 20_000 and sources.text_bytes("books") == books.CHARACTERS
    assert len({sources.cache_key(name) for name in ("books", "books:20000", "books:20001")}) == 3
    for nothing in ("books:0", "books:5:1"):
        with pytest.raises(LabError, match=r"leaves nothing|expected books:SIZE with whole numbers"):
            list(sources.documents(nothing))


def test_a_new_edition_of_the_books_is_another_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sources.cache_key("books")
    monkeypatch.setattr(books, "PATH", tmp_path / "books.jsonl.gz")
    books.PATH.write_bytes(gzip.compress(b'{"text": "another"}\n'))
    assert sources.cache_key("books") != before


def test_chapters_have_fields_by_which_a_split_keeps_a_book_together() -> None:
    parts = by_group(records("books:2000000", "book", "author"), {"valid": 1}, group=field("book"))
    titles = {name: {row["book"] for _, row in part} for name, part in parts.items()}
    assert len(titles["valid"]) == 1 and len(titles["train"]) == 2
    assert not titles["valid"] & titles["train"]
    assert next(records("books"))[0] == "books, row 1"
    with pytest.raises(LabError, match="books, row 1: no field 'auther'; did you mean 'author'"):
        list(records("books", "auther"))


def test_the_author_of_a_chapter_can_be_a_label() -> None:
    examples = read_examples("books:150000", targets=[Target("author", "classification", ("author",))])
    assert {example.values["author"] for example in examples} == {"Lewis Carroll", "Jane Austen"}


def test_the_script_joins_lines_keeps_verse_and_leaves_out_what_is_no_prose() -> None:
    made = _builder()
    book = made.Book("a.txt", "A Book", "Some Body", 1900, rf"CHAPTER \d+{made._TITLE}")
    first, last = made.chapters(book, RAW)
    assert first == {
        "book": "A Book", "author": "Some Body", "year": 1900, "chapter": 1,
        "text": "It was a very long day. The two of us said:\n\nRow, row,\nrow your boat.\n\nAnd that was all of ____ Hall.",
    }  # fmt: skip
    assert (last["chapter"], last["text"]) == (2, '"Good-bye."')
    with pytest.raises(ValueError, match=r"a\.txt: no chapter begins as"):
        list(made.chapters(book, "No chapter here.\n"))
    packed, digest = made.packed([first, last])
    assert made.packed([first, last]) == (packed, digest)
    assert digest == hashlib.sha256(gzip.decompress(packed)).hexdigest()
