"""Documents of registers: what is read, what is the same text, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.text.labelled_documents import (
    Copies,
    Document,
    normalised,
    read_documents,
    refuse_shared,
    without_contacts,
    without_copies,
)


def write(folder: Path, *rows: dict[str, Any]) -> str:
    file = folder / "notes.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def test_csv_and_jsonl_are_read_with_and_without_labels_ids_and_dates(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text("no;note;trauma;day\n7;chute de velo;1;2024-03-01\n8;toux;;2024-03-02\n")
    first, second = read_documents(str(tmp_path / "n.csv"), field="note", label="trauma", id="no", date="day")
    assert (first.id, first.text, first.label, first.date) == ("7", "chute de velo", "1", "2024-03-01")
    assert second.label is None and second.row() == {"id": "8", "text": "toux", "date": "2024-03-02"}
    (only,) = read_documents(write(tmp_path, {"text": "toux", "label": 0}), label="label")
    assert only.label == "0" and only.id.endswith("line 1") and only.date is None


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        ([{"text": "a"}, {"text": " .. "}], {}, "line 2: field 'text' is empty"),
        ([{"text": ""}], {}, "line 1: field 'text' is empty"),
        ([{"text": "x@y.org"}], {"rewrite": lambda text: ""}, "is empty"),
        ([{"text": "a", "id": 1}, {"text": "b", "id": 1}], {"id": "id"}, "line 2: id '1' is also that of"),
        ([{"text": "a", "day": None}], {"date": "day"}, "field 'day' is empty"),
        ([{"text": "a"}], {"label": "labl"}, "labl"),
    ],
)
def test_rows_that_cannot_be_meant_so_are_refused(
    tmp_path: Path, rows: list[dict[str, Any]], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(LabError, match=words):
        read_documents(write(tmp_path, *rows), **options)


def test_case_punctuation_and_blanks_make_no_other_text() -> None:
    assert normalised(" Chute, de  VELO. ") == normalised("chute de velo") == "chute de velo"
    assert normalised("e\u0301te\u0301") == normalised("été")
    assert normalised("chute 2") != normalised("chute 3") and normalised("...") == ""


def test_copies_are_left_out_and_contradictions_whole() -> None:
    found, counts = without_copies(
        [
            Document("1", "Chute de velo"),
            Document("2", "toux", "0"),
            Document("3", "chute  de velo.", "1"),
            Document("4", "fievre", "0"),
            Document("5", "FIEVRE", "1"),
            Document("6", "fievre"),
        ]
    )
    assert [(one.id, one.label) for one in found] == [("1", "1"), ("2", "0")]
    assert counts == Copies(copies=1, contradicting=3)


def test_a_document_on_both_sides_is_refused_by_text_and_by_id() -> None:
    test = [Document("1", "Chute de velo", where="test.csv, line 2"), Document("2", "toux")]
    refuse_shared(test, [Document("3", "fievre")])
    with pytest.raises(
        LabError, match=r"1 document of the test data is also in the training data.*test\.csv, line 2"
    ):
        refuse_shared(test, [Document("3", "chute de VELO")])
    with pytest.raises(LabError, match="2 documents of the test data are also in the pre-training data"):
        refuse_shared(test, [Document("1", "a"), Document("9", "toux!")], other="pre-training")


def test_contacts_are_replaced_and_the_rest_stays() -> None:
    said = without_contacts(
        "Mme Durand vue le 03/04/2024, tel 06 12 34 56 78, a.b@chu.fr, www.chu.fr; 85 ans, TA 12/8, EVA 5, M. Le Goff"
    )
    assert said == ("<name> vue le <date>, tel <number>, <email>, <address> 85 ans, TA 12/8, EVA 5, <name>")
