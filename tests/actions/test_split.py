"""The verb `split`: three files and a manifest, the same by command and function, and nothing where it is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.base.files import sha256
from gpt2lab.cli import main
from gpt2lab.text.labelled_documents import read_documents


def csv(folder: Path, *rows: str) -> str:
    file = folder / "notes.csv"
    file.write_text("\n".join(["no,text,label,day", *rows]) + "\n")
    return str(file)


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_command_writes_three_files_and_says_what_it_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        f"{i},note {i} tel 06 12 34 56 78,{i % 2 if i < 16 else ''},2024-01-{i + 1:02d}" for i in range(24)
    ]
    file = csv(tmp_path, *rows, "99,NOTE 1 tel 06 12 34 56 78,1,2024-02-01")
    out = tmp_path / "new" / "parts"
    words = ["split", file, "--out", str(out), "--id", "no", "--date", "day", "--by", "date"]
    words += ["--test", "4", "--labelled", "6", "--without-contacts"]
    assert main([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["documents"] == {"unlabelled": 14, "labelled": 6, "test": 4} and said["copies_left_out"] == 1
    assert said["labels"]["test"] == {"0": 2, "1": 2} and said["by"] == "date"
    test = rows_of(out / "test.jsonl")
    assert [row["id"] for row in test] == ["12", "13", "14", "15"]
    assert test[0] == {"id": "12", "text": "note 12 tel <number>", "date": "2024-01-13", "label": "0"}
    assert all("label" not in row for row in rows_of(out / "unlabelled.jsonl"))
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest.items() <= said.items() and manifest["sha256"]["test"] == sha256(out / "test.jsonl")
    assert main(words) == 2
    assert "parts: exists already" in capsys.readouterr().err
    assert main([*words, "--set", f"out={tmp_path}"]) == 2
    assert "--set out: no option of a split" in capsys.readouterr().err


def test_more_than_two_labels_are_kept_or_one_is_set_against_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = ("CT1", "RAN2", "SA5")
    file = csv(
        tmp_path, *(f"{i},paper {i},{groups[i % 3]},2020" for i in range(30)), "90,SA5!,CT1,1", "91,sa5,SA5,1"
    )
    assert main(["split", file, "--out", str(tmp_path / "three")]) == 0
    said = capsys.readouterr().out
    assert "test.jsonl" in said and "6 documents (CT1: 2, RAN2: 2, SA5: 2)" in said
    assert "0 copies, 2 whose copies have different labels" in said
    done = gpt2lab.split(file, out=tmp_path / "two", positive="SA5")
    assert done.path == tmp_path / "two" and done.manifest["labels"] == {
        "labelled": {"0": 16, "1": 8},
        "test": {"0": 4, "1": 2},
    }


def test_the_function_takes_several_files_and_its_files_are_read_back(tmp_path: Path) -> None:
    (tmp_path / "more.jsonl").write_text(
        '{"text": "ein Satz\\u2028: ü", "label": 1}\n{"text": "zwei", "label": 0}\n'
    )
    file = csv(tmp_path, *(f"{i},note {i},{i % 2},2020" for i in range(8)))
    gpt2lab.split([file, tmp_path / "more.jsonl"], out=tmp_path / "a", test=4)
    gpt2lab.split([file, tmp_path / "more.jsonl"], out=tmp_path / "b", test=4)
    read = [
        one
        for name in ("labelled", "test")
        for one in read_documents(tmp_path / "a" / f"{name}.jsonl", label="label", id="id")
    ]
    assert {(one.text, one.label) for one in read} == {
        *((f"note {i}", str(i % 2)) for i in range(8)),
        ("ein Satz\u2028: ü", "1"),
        ("zwei", "0"),
    }
    for name in ("unlabelled.jsonl", "labelled.jsonl", "test.jsonl", "manifest.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"label": "lable"}, "no field 'lable'; did you mean 'label'"),
        ({"positive": "2"}, "no document has the label '2'"),
        ({"by": "time"}, "by must be one of hash, id, date"),
        ({"by": "date"}, "which field holds the date"),
        ({"test": 8}, "8 is too many"),
        ({"test": "much"}, "test must be a number"),
        ({"tset": 3}, "no setting tset; did you mean test"),
    ],
)
def test_what_cannot_be_split_leaves_nothing(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    file = csv(tmp_path, *(f"{i},note {i},{i % 2},2020" for i in range(8)))
    with pytest.raises(LabError, match=words):
        gpt2lab.split(file, out=tmp_path / "parts", **options)
    assert [one.name for one in tmp_path.iterdir()] == ["notes.csv"]
