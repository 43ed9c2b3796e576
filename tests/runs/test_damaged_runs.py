"""A run's folder whose files were damaged: what is lost is one sentence, and a row that says nothing is left out."""

import json
import math
from pathlib import Path

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.runs.run_record import RunRecord, write_table


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    captions = {"tables": {"t": "a table"}, "texts": {"x": "a text"}}
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    for name, text in (("tables/t.csv", "a,b\n1,x\n"), ("texts/x.txt", "words")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    return tmp_path


def record(folder: Path) -> RunRecord:
    return RunRecord(id="r", folder=folder, results={})


def test_a_whole_run_is_read(folder: Path) -> None:
    assert record(folder).tables == {"t": [{"a": 1.0, "b": "x"}]}
    assert record(folder).texts == {"x": "words"}


@pytest.mark.parametrize("table", [b"a,b\n1\n", b"a,b\n1,2,3\n", b'a,b\n"1,2', b"\xff,b\n1,2\n", b""])
def test_a_damaged_table_is_one_sentence(table: bytes, folder: Path) -> None:
    (folder / "tables" / "t.csv").write_bytes(table)
    with pytest.raises(LabError, match=r"t\.csv: (damaged|not UTF-8)"):
        record(folder).tables  # read when asked for


@pytest.mark.parametrize(
    "text", ["007", "1_000", "+5", "Infinity", "NaN", " 1", "１２", "1e", "-", "=1+1", "1,5", "0x1"]
)
def test_a_text_that_python_would_read_as_a_number_stays_a_text(text: str, folder: Path) -> None:
    (folder / "tables" / "t.csv").write_text(write_table([{"a": text, "b": "x"}]))
    assert record(folder).tables["t"][0]["a"] == text


@pytest.mark.parametrize("value", [0, -3, 10**20, 0.1, -2.5e-09, 1e300, 5e22, math.inf, -math.inf])
def test_a_number_comes_back_from_a_table(value: float, folder: Path) -> None:
    (folder / "tables" / "t.csv").write_text(write_table([{"a": value, "b": math.nan}]))
    row = record(folder).tables["t"][0]
    assert row["a"] == value
    assert isinstance(row["b"], float)
    assert math.isnan(row["b"])


def test_a_missing_or_damaged_text_is_one_sentence(folder: Path) -> None:
    (folder / "texts" / "x.txt").write_bytes(b"\xff")
    with pytest.raises(LabError, match=r"x\.txt: not UTF-8"):
        record(folder).texts  # read when asked for
    (folder / "texts" / "x.txt").unlink()
    with pytest.raises(LabError, match=r"x\.txt: cannot be read"):
        record(folder).texts  # read when asked for


@pytest.mark.parametrize(
    "captions", ["[]", '{"tables": 3}', '{"tables": {"../../x": "y"}}', '{"tables": {"t": 3}}', "{"]
)
def test_damaged_captions_are_one_sentence_and_lead_nowhere_else(captions: str, folder: Path) -> None:
    (folder / "captions.json").write_text(captions)
    with pytest.raises(LabError, match=r"captions\.json: "):
        record(folder).tables  # read when asked for


def test_rows_of_metrics_that_hold_no_numbers_are_left_out(folder: Path) -> None:
    rows = [
        '{"step": 1, "loss": 2.0}',
        '{"step": 2, "loss": [1]}',
        '{"step": {}}',
        "[" * 5000,
        '{"step": 3, "loss": "nan"}',
    ]
    (folder / "metrics.jsonl").write_bytes("\n".join(rows).encode() + b"\n\xff\n")
    assert record(folder).series("loss")[0] == [1, 3]
