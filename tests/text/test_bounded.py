"""What a small data file may ask for: each limit is one sentence, met before memory, disk or time are spent."""

import gzip
import io
import json
import os
import time
from pathlib import Path

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.text import bounded, records, sources
from gpt2lab.text.bounded import LONGEST_ROW, MOST_COLUMNS

parquet = pytest.importorskip("pyarrow.parquet")
pyarrow = pytest.importorskip("pyarrow")


def _bomb(path: Path, before: bytes, unit: bytes, times: int, after: bytes = b"") -> Path:
    """Write a small .gz that unpacks to many MiB."""
    with gzip.open(path, "wb", compresslevel=6) as file:
        file.write(before)
        for _ in range(times):
            file.write(unit)
        file.write(after)
    return path


def _refused(path: Path, sentence: str) -> None:
    for read in (lambda: list(sources.documents(path)), lambda: list(records.records(path))):
        start = time.process_time()
        with pytest.raises(LabError, match=sentence) as error:
            read()
        assert "\n" not in str(error.value) and len(str(error.value)) < 400
        assert time.process_time() - start < 5


def test_a_compressed_file_that_unpacks_to_far_more_than_text_does_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bounded._FREE == 2**26
    monkeypatch.setattr(bounded, "_FREE", 2**20)  # as 64 MiB, sooner
    row = json.dumps({"text": "a" * 1000}).encode() + b"\n"
    sentence = "unpack to more than .* which text does not"
    _refused(_bomb(tmp_path / "rows.jsonl.gz", b"", row * 1000, 8), sentence)
    _refused(_bomb(tmp_path / "rows.csv.gz", b"text\n", (b"a" * 999 + b"\n") * 1000, 8), sentence)
    _refused(_bomb(tmp_path / "rows.parquet.gz", b"PAR1", b"\0" * 2**20, 8), sentence)
    with pytest.raises(LabError, match=sentence):
        list(sources.documents(_bomb(tmp_path / "rows.txt.gz", b"", b"words \n" * 2**17, 8)))


def test_a_repetitive_but_ordinary_compressed_file_is_read(tmp_path: Path) -> None:
    path = _bomb(tmp_path / "log.txt.gz", b"", b"2026-11-30 everything is well\n" * 1000, 100)
    assert sum(map(len, sources.documents(path))) == 3_000_000


def test_a_row_longer_than_any_document_is_refused_in_time_that_grows_with_its_length(tmp_path: Path) -> None:
    long = b"a" * (LONGEST_ROW + 10)
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "' + long + b'"}\n')
    _refused(tmp_path / "a.jsonl", "a.jsonl, line 1: longer than 33,554,432 bytes")
    (tmp_path / "a.csv").write_bytes(b"text\n" + long)
    _refused(tmp_path / "a.csv", "a line is longer than 33,554,432 characters")
    (tmp_path / "b.csv").write_bytes(b'text\n"' + (b"a" * 99 + b"\n") * (LONGEST_ROW // 100 + 10))
    _refused(tmp_path / "b.csv", "not csv: field larger than field limit")


def test_one_large_cell_of_csv_is_read_in_time_that_grows_with_its_length(tmp_path: Path) -> None:
    times = []
    for size in (2**22, 2**24):
        (tmp_path / "a.csv").write_bytes(b"text\n" + b"a" * size + b"\n")
        start = time.process_time()
        assert [len(text) for text in sources.documents(tmp_path / "a.csv")] == [size]
        times.append(time.process_time() - start)
    assert times[1] < 16 * times[0] + 0.2, times


def test_a_million_columns_are_refused_and_not_searched_for_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"x," * 1_000_000 + b"\n1\n")
    _refused(tmp_path / "a.csv", rf"line 1: 1,000,001 columns of at most {MOST_COLUMNS:,}")
    (tmp_path / "b.jsonl").write_text(json.dumps({f"text{i}": "x" for i in range(100_000)}))
    start = time.process_time()
    with pytest.raises(LabError, match="no field 'text'"):
        list(sources.documents(tmp_path / "b.jsonl"))
    assert time.process_time() - start < 5
    table = pyarrow.table({f"c{i}": ["x"] for i in range(MOST_COLUMNS + 1)})
    parquet.write_table(table, tmp_path / "c.parquet")
    _refused(tmp_path / "c.parquet", "10,001 columns of at most 10,000")


def test_a_parquet_file_whose_text_stands_once_and_counts_a_million_times_is_refused(tmp_path: Path) -> None:
    words = pyarrow.DictionaryArray.from_arrays([0] * 1_000_000, ["a" * 10_000])
    parquet.write_table(pyarrow.table({"text": words}), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    _refused(tmp_path / "a.parquet", "unpack to more than")


def test_text_of_parquet_that_is_not_utf8_is_one_sentence(tmp_path: Path) -> None:
    broken = pyarrow.array([b"good", b"\xff\xfe"]).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"text": broken}), tmp_path / "a.parquet")
    _refused(tmp_path / "a.parquet", "row 2: text that is not UTF-8")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"text": ' + b"9" * 5000 + b"}", "4300 digits"),
        (b'{"text": "\\ud83d"}', r"holds half a character \(\\ud83d\), which no tokenizer reads"),
        (b'{"text": "\xff"}', "not UTF-8 at line 1"),
        (b'{"text": "a\0', "not JSON"),
        ('{"text": "a"}'.encode("utf-16"), "not UTF-8 at line 1"),
    ],
)
def test_a_row_of_json_that_is_none_is_one_sentence(line: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(line)
    with pytest.raises(LabError, match=sentence):
        for _, row in records.records(tmp_path / "a.jsonl"):
            bounded.string(row["text"], "here", "text")
    with pytest.raises(LabError, match=sentence):
        list(sources.documents(tmp_path / "a.jsonl"))


@pytest.mark.parametrize("damage", ["truncated", "checksum", "empty", "junk"])
def test_a_damaged_gzip_file_is_one_sentence(damage: str, tmp_path: Path) -> None:
    data = io.BytesIO()
    with gzip.GzipFile(fileobj=data, mode="wb") as file:
        file.write(json.dumps({"text": "words"}).encode() * 1000)
    whole = data.getvalue()
    damaged = {
        "truncated": whole[:-20],
        "checksum": whole[:-8] + b"\0\0\0\0" + whole[-4:],
        "empty": whole[:10],
        "junk": b"not gzip at all",
    }
    (tmp_path / "a.txt.gz").write_bytes(damaged[damage])
    with pytest.raises(LabError, match="not gzip, or cut off"):
        list(sources.documents(tmp_path / "a.txt.gz"))


def test_a_pipe_a_device_and_a_loop_of_links_are_no_data_and_nobody_waits_for_them(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    (tmp_path / "folder.jsonl").mkdir()
    for name in ("pipe", "loop", "zero", "folder"):
        with pytest.raises(LabError):
            list(sources.documents(tmp_path / f"{name}.jsonl"))
        with pytest.raises(LabError, match=r"not a regular file|cannot be read"):
            bounded.open_file(tmp_path / f"{name}.jsonl")
    (tmp_path / "real.jsonl").write_text('{"text": "words"}\n')
    assert list(sources.documents(tmp_path)) == ["words"]
