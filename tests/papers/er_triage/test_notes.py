"""Notes: what is read and refused, parts that share nothing, subsets that hold the smaller ones, the command."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.papers.er_triage.__main__ import main
from gpt2lab.papers.er_triage.notes import (
    Parts,
    read_notes,
    refuse_leaks,
    require_classes,
    split_notes,
    subset,
    truth,
)
from gpt2lab.text.labelled_documents import Document

NOTES = [Document(str(i), f"note numero {i}", str(i % 3 // 2), f"2024-01-{i + 1:02d}") for i in range(30)]


def csv(folder: Path, *rows: str) -> str:
    file = folder / "notes.csv"
    file.write_text("\n".join(["no,text,label,day", *rows]) + "\n")
    return str(file)


def test_labels_are_0_and_1_or_what_counts_as_1_is_named(tmp_path: Path) -> None:
    file = csv(tmp_path, "1,chute,trauma,2024-01-01", "2,toux,autre,2024-01-02", "3,rixe,,2024-01-03")
    with pytest.raises(LabError, match="line 2: label 'trauma' is neither 0 nor 1"):
        read_notes(file)
    notes, _ = read_notes(file, positive="trauma", id="no")
    assert [one.label for one in notes] == ["1", "0", None]
    with pytest.raises(LabError, match="no note has the label 'traum'; the data have autre, trauma"):
        read_notes(file, positive="traum")
    with pytest.raises(LabError, match="field 'text' is empty"):
        read_notes(csv(tmp_path, "1,,1,2024-01-01"))
    copies = read_notes(csv(tmp_path, "1,chute,1,d", "2,Chute.,1,d", "3,toux,1,d", "4,TOUX,0,d"))[1]
    assert (copies.copies, copies.contradicting) == (1, 2)


@pytest.mark.parametrize("by", ["text", "id", "date"])
def test_parts_share_no_note_and_only_labelled_ones_are_judged(by: Any) -> None:
    rest = [Document("x", "sans etiquette"), Document("y", "autre sans etiquette")]
    parts = split_notes([*NOTES, *rest], test=8, labelled=10, by=by)
    assert len(parts.test) == 8 and len(parts.labelled) == 10 and len(parts.unlabelled) == 14
    assert {one.id for one in (*parts.test, *parts.labelled, *parts.unlabelled)} == {
        one.id for one in (*NOTES, *rest)
    }
    refuse_leaks(parts)
    if by == "date":
        assert [one.id for one in parts.test] == [str(i) for i in range(22, 30)]
    again = split_notes(NOTES[::-1], test=8, by=by)
    assert {one.id for one in again.test} == {one.id for one in parts.test}, (
        "the order of the rows decides nothing"
    )


def test_leaks_and_parts_of_one_class_are_refused() -> None:
    with pytest.raises(LabError, match="also in the labelled data"):
        refuse_leaks(Parts([], NOTES[:3], [Document("a", "Note, numero 2!")]))
    with pytest.raises(LabError, match="also in the pre-training data"):
        refuse_leaks(Parts(NOTES[:3], [], [Document("1", "autre")]))
    with pytest.raises(
        LabError, match="the test part needs notes of both classes, 0 and 1; its 1 notes have"
    ):
        split_notes(NOTES, test=1, by="date")
    with pytest.raises(LabError, match="no note has a label"):
        split_notes([Document("a", "b")], test=0.5)
    with pytest.raises(LabError, match="no date to split by"):
        split_notes([Document("a", "b", "1")], test=1, by="date")
    with pytest.raises(LabError, match="have none"):
        require_classes([], "a subset")


@pytest.mark.parametrize("seed", range(6))
def test_every_subset_holds_the_smaller_ones_and_both_classes(seed: int) -> None:
    pool = [Document(str(i), f"n {i}", str(int(i in (3, 17)))) for i in range(40)]
    found = [[one.id for one in subset(pool, budget, seed)] for budget in (1, 2, 5, 20, 40)]
    assert all(large[: len(small)] == small for small, large in pairwise(found))
    for budget, ids in zip((1, 2, 5, 20, 40), found, strict=True):
        labels = [one.label for one in subset(pool, budget, seed)]
        assert set(labels) == {"0", "1"} and len(set(ids)) == len(ids) >= budget
        if len(ids) > budget:  # only as many more as it takes
            assert len(set(labels[:-1])) == 1
    assert found[3] != [one.id for one in subset(pool, 20, seed + 1)]
    assert truth(pool).sum() == 2


@pytest.mark.parametrize("budget", [0, 31])
def test_a_budget_outside_the_pool_is_refused(budget: int) -> None:
    with pytest.raises(LabError, match="the pool has 30 labelled notes"):
        subset(NOTES, budget, 0)
    with pytest.raises(LabError, match="the labelled pool needs notes of both classes"):
        subset([one for one in NOTES if one.label == "0"], 2, 0)


def test_the_command_writes_three_files_and_says_what_it_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        f"{i},note {i} tel 06 12 34 56 78,{i % 2 if i < 16 else ''},2024-01-{i + 1:02d}" for i in range(24)
    ]
    file = csv(tmp_path, *rows, "99,NOTE 1 tel 06 12 34 56 78,1,2024-02-01")
    out = tmp_path / "parts"
    words = [
        file,
        "--out",
        str(out),
        "--id",
        "no",
        "--date",
        "day",
        "--by",
        "date",
        "--test",
        "4",
        "--labelled",
        "6",
    ]
    assert main([*words, "--without-contacts"]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert (
        manifest["notes"] == {"unlabelled": 14, "labelled": 6, "test": 4} and manifest["copies left out"] == 1
    )
    test = [json.loads(line) for line in (out / "test.jsonl").read_text().splitlines()]
    assert [row["id"] for row in test] == ["12", "13", "14", "15"] and test[0][
        "text"
    ] == "note 12 tel <number>"
    assert "label" not in (out / "unlabelled.jsonl").read_text()
    assert json.loads((out / "manifest.json").read_text()) == manifest
    assert main(words) == 2
    assert "it exists already" in capsys.readouterr().err
    assert main([file, "--out", str(tmp_path / "p"), "--label", "no"]) == 2
    assert "neither 0 nor 1" in capsys.readouterr().err and not (tmp_path / "p").exists()
