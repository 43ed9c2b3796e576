import gzip
import importlib.util
import json
import os
import random
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2lab.base.errors import LabError
from gpt2lab.text import readers, sources
from gpt2lab.text.built_in import BUILT_IN

needs_parquet = pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed"
)


def write_parquet(path: Path, rows: Iterable[object], field: str = "text") -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({field: list(rows)}), path)


def test_a_book_becomes_documents_of_whole_paragraphs_that_join_to_the_file(shared_data: Path) -> None:
    for path in sorted((shared_data / "english-corpus").glob("austen-*.txt")):
        documents = list(sources.documents(path))
        assert "".join(documents) == path.read_text()
        assert all(len(document) <= readers.PARAGRAPHS for document in documents)
        assert all(document.endswith("\n\n") for document in documents[:-1])
        assert len(documents) > path.stat().st_size / readers.PARAGRAPHS


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "é", "🙂", " ", "\n", "\n\n", "\r\n\r\n", "word " * 900, "x" * 20_000]))
)
def test_a_text_without_separators_is_kept_to_the_byte(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[str]
) -> None:
    path = tmp_path_factory.mktemp("txt") / "a.txt"
    text = "".join([*pieces, "."])
    path.write_bytes(text.encode())
    documents = list(sources.documents(path))
    assert "".join(documents) == text
    assert max(len(document) for document in documents) <= readers.PARAGRAPHS


def test_separator_lines_split_documents_wherever_the_chunks_end(tmp_path: Path) -> None:
    stories = [f"Story {i} é.\n\nSecond paragraph. " * (1 + 97 * (i % 13)) for i in range(900)]
    path = tmp_path / "stories.txt"
    path.write_text("\n<|endoftext|>\n".join(stories) + "\n<|endoftext|>", encoding="utf-8")
    assert path.stat().st_size > 5 << 20
    assert list(sources.documents(path)) == stories
    (tmp_path / "one.txt").write_bytes(
        b"a <|endoftext|> inside a line\r\n<|endoftext|>\r\n\r\nb\r\n<|endoftext|> \r\n"
    )
    assert list(sources.documents(tmp_path / "one.txt")) == ["a <|endoftext|> inside a line", "b"]


def test_the_tinystories_sample_holds_1010_stories(shared_data: Path) -> None:
    stories = list(sources.documents(shared_data / "tinystories" / "tinystories_sample.txt"))
    assert len(stories) == 1010
    assert stories[0].startswith("One day, a little girl named Lily found a needle")
    assert not any("<|endoftext|>" in story for story in stories)


def test_a_file_of_one_endless_line_streams(tmp_path: Path) -> None:
    path = tmp_path / "line.txt"
    path.write_text("word " * 600_000)
    lengths = [len(document) for document in sources.documents(path)]
    assert sum(lengths) == 3_000_000
    assert max(lengths) <= readers.PARAGRAPHS


def test_jsonl_csv_tsv_and_gz_give_their_field_in_order(tmp_path: Path) -> None:
    texts = ["one", "two\nlines, “quoted”", '"three"']
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"t": t, "n": 1}) for t in texts) + "\n\n")
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps(t) for t in texts))
    (tmp_path / "c.csv").write_text(
        'n,t\n1,one\n2,"two\nlines, “quoted”"\n3,"""three"""\n', encoding="utf-8-sig"
    )
    (tmp_path / "d.tsv").write_text('t\tn\none\t1\n"two\nlines, “quoted”"\t2\n"""three"""\t3\n')
    for name in ("a.jsonl", "b.jsonl", "c.csv", "d.tsv"):
        assert list(sources.documents(tmp_path / name, field="t")) == texts, name
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
        assert list(sources.documents(tmp_path / f"{name}.gz", field="t")) == texts, name


@needs_parquet
def test_parquet_gives_its_field_plain_and_compressed(tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(2500)]
    write_parquet(tmp_path / "a.parquet", texts)
    (tmp_path / "a.parquet.gz").write_bytes(gzip.compress((tmp_path / "a.parquet").read_bytes()))
    assert list(sources.documents(tmp_path / "a.parquet")) == texts
    assert list(sources.documents(tmp_path / "a.parquet.gz")) == texts
    with pytest.raises(LabError, match="no field 'txt'; did you mean 'text'"):
        list(sources.documents(tmp_path / "a.parquet", field="txt"))
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-50])
    with pytest.raises(LabError, match="not parquet, or cut off"):
        list(sources.documents(tmp_path / "b.parquet"))
    write_parquet(tmp_path / "c.parquet", ["a", None])
    with pytest.raises(LabError, match="row 2: field 'text' should hold text, found nothing"):
        list(sources.documents(tmp_path / "c.parquet"))


def test_folders_globs_and_lists_come_in_the_order_of_names(tmp_path: Path) -> None:
    names = ["b.txt", "a.txt", "sub/c.jsonl", "sub/.hidden.txt", ".cache/d.txt", "notes.pdf"]
    random.Random(1).shuffle(names)
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(name))
    assert list(sources.documents(tmp_path)) == ['"a.txt"', '"b.txt"', "sub/c.jsonl"]
    assert list(sources.documents(f"{tmp_path}/*.txt")) == ['"a.txt"', '"b.txt"']
    assert list(sources.documents([tmp_path / "b.txt", str(tmp_path / "a.txt")])) == ['"b.txt"', '"a.txt"']
    assert list(sources.documents(f"{tmp_path}/**/*.jsonl")) == ["sub/c.jsonl"]
    assert [path.name for path in sources.files(tmp_path)] == ["a.txt", "b.txt", "c.jsonl"]
    assert list(sources.documents(tmp_path / "notes.pdf", format="txt")) == ['"notes.pdf"']


def test_a_built_in_source_takes_size_and_seed_from_its_name() -> None:
    assert len(list(sources.documents("tinyworld:5"))) == 5
    assert list(sources.documents("tinyworld:5:1")) != list(sources.documents("tinyworld:5"))
    assert len(list(sources.documents(["tinyworld:3", "tinyworld-binding:2"]))) == 5


def test_the_cache_key_follows_files_and_options(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a")
    key = sources.cache_key(path)
    assert sources.cache_key(str(path)) == key
    assert sources.cache_key(path, field="other") != key
    path.write_text("ab")
    assert sources.cache_key(path) != key
    path.write_text("a")
    assert sources.cache_key(path) == key
    assert sources.cache_key("tinyworld:5") != sources.cache_key("tinyworld:6")


def test_a_few_bytes_of_an_old_encoding_are_read_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_bytes(b"A long book about nothing. " * 200 + b"Bruneti\xe8re, Copp\xe9e\n")
    with pytest.warns(UserWarning, match=r"2 bytes are not UTF-8 \(first byte 5,407\), read as Windows-1252"):
        assert "".join(sources.documents(path)).endswith("Brunetière, Coppée\n")


def _bad(tmp_path: Path, name: str, content: bytes) -> Path:
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "the file is empty"),
        ("a.jsonl", b"\n \n", "the file is empty"),
        ("a.csv", b"", "the file is empty"),
        ("a.txt", "café".encode("latin-1"), r"not UTF-8 at .*\(0xe9\); convert it"),
        ("a.txt", "écrit à la main, déjà".encode("latin-1"), r"not UTF-8 at byte 0 \(0xe9\)"),
        ("a.txt", "né".encode("utf-16"), "this is UTF-16"),
        ("a.txt.gz", b"no gzip", "not gzip, or cut off"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 99, mtime=0)[:-9], "not gzip, or cut off"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "b"\n', "line 2: not JSON: .* at column"),
        ("a.jsonl", b'{"text": "a"}\n{"txt": "b"}\n', "line 2: no field 'text'; did you mean 'txt'"),
        ("a.jsonl", b'{"a": 1, "b": 2}\n', "line 1: no field 'text'; there are 'a', 'b'"),
        ("a.jsonl", b'{"text": 3}\n', "line 1: field 'text' should hold text, found int"),
        ("a.jsonl", b'"\xff"\n', r"not UTF-8 at line 1 \(0xff\)"),
        ("a.csv", b"body,n\na,1\n", "line 1: no field 'text'"),
        ("a.csv", b"n,text\n1,a\n2\n", "line 3: 1 of 2 columns"),
        ("a.csv", b'text\n"open\nand open\n', "line 3: not csv"),
        ("a.parquet", b"PAR1 no", "not parquet, or cut off"),
    ],
)
def test_a_broken_file_is_named_with_its_line_in_one_sentence(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = _bad(tmp_path, name, content)
    with pytest.raises(LabError, match=message) as error:
        list(sources.documents(path))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_what_does_not_exist_is_refused_before_reading(tmp_path: Path) -> None:
    (tmp_path / "stories.txt").write_text("a")
    (tmp_path / "a.bin").write_text("a")
    for source, message in [
        ("tinywrld", "did you mean tinyworld"),
        (tmp_path / "storys.txt", r"did you mean .*stories\.txt"),
        (f"{tmp_path}/*.csv", "no txt, jsonl, csv, parquet files there"),
        (tmp_path / "a.bin", "which format"),
        ("tinyworld:many", r"expected tinyworld:SIZE\[:SEED\]"),
        ("hub:", "expected hub:ID"),
        (["Once upon a time\nthere was"], "a text, not a source; texts themselves are given as an iterator"),
        ("word " * 99, "a text, not a source"),
        ([], "no data: give a file"),
    ]:
        with pytest.raises(LabError, match=message):
            sources.documents(source)  # type: ignore[arg-type]  # a list of several kinds
    with pytest.raises(LabError, match="xls: no such format"):
        sources.documents(tmp_path / "a.bin", format="xls")


def test_a_file_is_read_whatever_its_name_holds(tmp_path: Path) -> None:
    for name in ("new\nline.txt", "blank ü.txt", "a[1]*.txt", "\x07$x.txt"):
        (tmp_path / name).write_text(name)
        assert list(sources.documents(str(tmp_path / name))) == [name]


def test_hub_rows_are_streamed_through_datasets(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "train.jsonl").write_text('{"story": "a"}\n{"story": "b"}\n')
    (tmp_path / "test.jsonl").write_text('{"story": "c"}\n')
    assert list(sources.documents(f"hub:{tmp_path}", field="story")) == ["a", "b"]
    assert list(sources.documents(f"hub:{tmp_path}:test", field="story")) == ["c"]
    with pytest.raises(LabError, match="row 1: no field 'text'"):
        list(sources.documents(f"hub:{tmp_path}"))
    with pytest.raises(LabError, match=r"cannot be fetched .* local files work without the hub"):
        list(sources.documents(f"hub:{tmp_path}:nosplit"))


@pytest.mark.parametrize(("library", "extra"), [("datasets", "hub"), ("pyarrow", "parquet")])
def test_a_missing_library_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, library: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    (tmp_path / "a.parquet").write_bytes(b"")
    source = "hub:some/thing" if extra == "hub" else tmp_path / "a.parquet"
    with pytest.raises(LabError, match=rf"pip install .*\[{extra}\]'"):
        list(sources.documents(source))


@pytest.mark.parametrize("offline", [True, False])
def test_without_the_hub_one_sentence_says_what_needs_none(
    offline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(
        LabError, match="hub:some/thing: the hub cannot be reached; what needs no hub: files"
    ) as error:
        next(sources.documents("hub:some/thing"))
    assert ", ".join(sorted(BUILT_IN)) in str(error.value)


def test_times_and_places_of_files_do_not_change_the_key_and_every_byte_does(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"{name} " * 9)
    key = sources.cache_key(tmp_path)
    os.utime(tmp_path / "a.txt", (1, 1))
    assert sources.cache_key(tmp_path) == key
    for name in ("a", "b"):
        shutil.move(tmp_path / f"{name}.txt", tmp_path / "there" / f"{name}.txt")
    assert sources.cache_key(tmp_path / "there") == key
    stat = (tmp_path / "there" / "a.txt").stat()
    (tmp_path / "there" / "a.txt").write_text("a " * 8 + "A ")  # as long as before, and its time put back
    os.utime(tmp_path / "there" / "a.txt", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert sources.cache_key(tmp_path / "there") != key


def test_the_same_bytes_in_another_format_are_another_source(tmp_path: Path) -> None:
    for name in ("a.txt", "a.md", "a.jsonl", "a.txt.gz"):
        (tmp_path / name).write_text('{"text": "a"}')
    keys = [sources.cache_key(tmp_path / name) for name in ("a.txt", "a.jsonl", "a.txt.gz")]
    assert len(set(keys)) == 3
    assert sources.cache_key(tmp_path / "a.jsonl", format="txt") not in keys


def test_the_size_of_a_text_is_told_where_files_and_names_tell_it(tmp_path: Path) -> None:
    for name in ("a.txt", "b.md", "c.jsonl"):
        (tmp_path / name).write_text("dé\n", encoding="utf-8")
    with gzip.open(tmp_path / "d.txt.gz", "wt") as handle:
        handle.write("text")
    assert sources.text_bytes([tmp_path / "a.txt", tmp_path / "b.md", "docstrings:1000"]) == 8 + 1000
    assert sources.text_bytes("docstrings") == 8_000_000
    assert sources.text_bytes(tmp_path / "c.jsonl", format="txt") == 4
    for untold in (tmp_path, tmp_path / "c.jsonl", tmp_path / "d.txt.gz", "tinyworld:3", "hub:someone/text"):
        assert sources.text_bytes(untold) is None, untold
