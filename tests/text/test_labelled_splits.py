"""Labelled documents in three parts: nothing is shared, every class is judged, and what cannot be split is refused."""

from typing import Any

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.text.labelled_documents import Document
from gpt2lab.text.labelled_splits import (
    Parts,
    SplitSettings,
    one_against_rest,
    refuse_leaks,
    split_documents,
)

NOTES = [Document(str(i), f"note numero {i}", str(i % 3 // 2), f"2024-01-{i + 1:02d}") for i in range(30)]
GROUPS = ("RAN1", "RAN2", "SA5", "CT6")
PAPERS = [Document(f"d{i}", f"paper {i}", GROUPS[i % 4], str(2009 + i // 10)) for i in range(120)]


@pytest.mark.parametrize("by", ["hash", "id", "date"])
def test_parts_share_no_document_and_only_labelled_ones_are_judged(by: Any) -> None:
    rest = [Document("x", "sans etiquette"), Document("y", "autre sans etiquette")]
    parts = split_documents([*NOTES, *rest], test=8, labelled=10, by=by)
    assert len(parts.test) == 8 and len(parts.labelled) == 10 and len(parts.unlabelled) == 14
    assert {one.id for one in (*parts.test, *parts.labelled, *parts.unlabelled)} == {
        one.id for one in (*NOTES, *rest)
    }
    refuse_leaks(parts)
    if by == "date":
        assert [one.id for one in parts.test] == [str(i) for i in range(22, 30)]
    again = split_documents(NOTES[::-1], test=8, by=by)
    assert {one.id for one in again.test} == {one.id for one in parts.test}, (
        "the order of the rows decides nothing"
    )


@pytest.mark.parametrize("by", ["hash", "id"])
def test_every_class_has_its_share_of_the_test_part(by: Any) -> None:
    single = Document("s", "the only one of its class", "SA6")
    parts = split_documents([*PAPERS, single], test=0.2, by=by)
    assert sorted(one.label or "" for one in parts.test) == sorted(GROUPS * 6)
    assert single in parts.labelled, "a class of one document is learnt, not judged"


def test_a_split_by_date_takes_the_latest_and_keeps_a_moment_together() -> None:
    parts = split_documents(PAPERS[::-1], test=25, by="date")
    assert {one.date for one in parts.test} == {"2019", "2020"} and len(parts.test) == 20
    assert max(one.date or "" for one in parts.labelled) == "2018"


def test_all_that_are_left_may_be_asked_for_by_their_number() -> None:
    parts = split_documents(NOTES, test=6, labelled=24)
    assert (len(parts.labelled), parts.unlabelled) == (24, [])


def test_one_class_against_the_rest() -> None:
    made = one_against_rest([PAPERS[0], PAPERS[2], Document("x", "y")], "SA5")
    assert [one.label for one in made] == ["0", "1", None]
    with pytest.raises(LabError, match="no document has the label 'SA9'; the data have CT6, RAN1, RAN2, SA5"):
        one_against_rest(PAPERS, "SA9")
    with pytest.raises(LabError, match="the data have none"):
        one_against_rest([Document("x", "y")], "SA9")


def test_leaks_are_refused() -> None:
    with pytest.raises(LabError, match="also in the labelled data"):
        refuse_leaks(Parts([], NOTES[:3], [Document("a", "Note, numero 2!")]))
    with pytest.raises(LabError, match="also in the pre-training data"):
        refuse_leaks(Parts(NOTES[:3], [], [Document("1", "autre")]))


@pytest.mark.parametrize(
    ("documents", "options", "words"),
    [
        (NOTES, {"test": 1, "by": "date"}, "needs two labels at least; its 1 document has only '1'"),
        ([Document("a", "b")], {"test": 0.5}, "no document has a label"),
        ([Document("a", "b", "1"), NOTES[0]], {"test": 1, "by": "date"}, "^a: no date to split by"),
        (NOTES, {"test": 30}, "test: 30 is too many; at most 29: documents have a label"),
        (NOTES, {"test": 6, "labelled": 25}, "labelled: 25 is too many; at most 24: "),
        (NOTES, {"test": 1.5}, "a share between 0 and 1 or a whole number of at least 1, got 1.5"),
        (NOTES, {"test": float("nan")}, "got nan"),
        (NOTES, {"test": 0}, "got 0"),
        (NOTES, {"test": 6, "labelled": -1}, "labelled: a share .* got -1"),
        (
            [*PAPERS, Document("n", "new", "SA6", "2021", "papers.csv, line 9")],
            {"test": 0.1, "by": "date"},
            r"^papers\.csv, line 9: the test part has the label 'SA6', which no document of the labelled part has",
        ),
        ([Document("a", "b", "1", "1"), Document("c", "d", "0", "1")], {"test": 1, "by": "date"}, "too few"),
    ],
)
def test_what_cannot_be_split_is_refused(
    documents: list[Document], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(LabError, match=words):
        split_documents(documents, **options)


@pytest.mark.parametrize("by", ["id", "date"])
def test_a_split_by_a_field_needs_its_name(by: Any) -> None:
    with pytest.raises(LabError, match=f"by {by}: which field holds the {by}"):
        SplitSettings(by=by)
