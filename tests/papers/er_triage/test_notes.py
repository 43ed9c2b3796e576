"""Notes: labels of 0 and 1, and subsets that hold the smaller ones."""

from itertools import pairwise
from pathlib import Path

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.papers.er_triage.notes import read_notes, require_classes, subset, truth
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
    with pytest.raises(LabError, match="no document has the label 'traum'; the data have autre, trauma"):
        read_notes(file, positive="traum")
    with pytest.raises(LabError, match="field 'text' is empty"):
        read_notes(csv(tmp_path, "1,,1,2024-01-01"))
    copies = read_notes(csv(tmp_path, "1,chute,1,d", "2,Chute.,1,d", "3,toux,1,d", "4,TOUX,0,d"))[1]
    assert (copies.copies, copies.contradicting) == (1, 2)


def test_a_class_that_is_missing_is_named() -> None:
    with pytest.raises(
        LabError, match="the test part needs notes of both classes, 0 and 1; its 1 notes have 1"
    ):
        require_classes([Document("a", "b", "1")], "the test part")
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
