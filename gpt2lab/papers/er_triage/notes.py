"""Notes of two classes: read, cleaned of copies, split into unlabelled, labelled and test parts, and nested subsets."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from gpt2lab.base.errors import LabError
from gpt2lab.text import sources
from gpt2lab.text.labelled import Example
from gpt2lab.text.labelled_documents import (
    Copies,
    Document,
    Rewrite,
    normalised,
    read_documents,
    refuse_shared,
    without_copies,
)
from gpt2lab.text.splits import TRAIN, HashRule, by_hash, by_time

CLASSES = ("0", "1")
By = Literal["text", "id", "date"]
HEAD = "of_class"
"""Name of the head that is fine-tuned."""


@dataclass(frozen=True)
class Parts:
    """The notes of a trial."""

    unlabelled: list[Document]
    """For pre-training; labels are not read."""
    labelled: list[Document]
    """The pool from which labelled subsets are taken."""
    test: list[Document]
    """Judged."""
    copies: Copies = field(default_factory=Copies)
    """What was left out while reading."""


def read_notes(
    source: sources.SourceLike,
    *,
    field: str = "text",
    label: str | None = "label",
    positive: str | None = None,
    id: str | None = None,
    date: str | None = None,
    rewrite: Rewrite | None = None,
) -> tuple[list[Document], Copies]:
    """Read notes whose labels are 1 and 0, without copies; `positive` is the label that counts as 1, all others as 0.

    LabError as `read_documents`, and for a label that is neither 0 nor 1 without `positive`, or a `positive` that no note
    has.
    """
    read = read_documents(source, field=field, label=label, id=id, date=date, rewrite=rewrite)
    if positive is not None:
        if not any(one.label == positive for one in read):
            known = sorted({one.label for one in read if one.label is not None})
            raise LabError(
                f"no note has the label {positive!r}; the data have {', '.join(known[:12]) or 'none'}"
            )
        read = [
            one if one.label is None else replace(one, label=str(int(one.label == positive))) for one in read
        ]
    for one in read:
        if one.label is not None and one.label not in CLASSES:
            raise LabError(
                f"{one.where}: label {one.label!r} is neither 0 nor 1; name the label that counts as 1 (positive)"
            )
    return without_copies(read)


def split_notes(
    notes: Sequence[Document],
    *,
    test: float,
    labelled: float | None = None,
    by: By = "text",
    salt: str = "",
    copies: Copies | None = None,
) -> Parts:
    """Split notes: the test part and the labelled pool are taken from those with a label, all others are for pre-training.

    test, labelled: shares (below 1) or counts; labelled None is every other note with a label. by: which notes are the test
    part follows from their text's or their id's hash, with the same share of both classes (so that a count may be one off),
    or they are the latest by date. LabError where a part would be empty or the test part has one class.
    """
    known = [one for one in notes if one.label is not None]
    rest = [one for one in notes if one.label is None]
    if not known:
        raise LabError("no note has a label; a test part needs some")
    if by == "date":
        undated = [one for one in known if one.date is None]
        if undated:
            raise LabError(f"{undated[0].where or undated[0].id}: no date to split by; name its field (date)")
        parts = by_time(known, {"test": test}, key=_text, time=lambda one: one.date)
    else:
        share = test if test < 1 else test / len(known)
        key = _text if by == "text" else _id
        parts = by_hash(known, {"test": share}, key=key, rule=HashRule(salt=salt), stratum=_label)
    pool = parts[TRAIN]
    if labelled is not None:
        chosen = by_hash(pool, {"labelled": labelled}, key=_text, rule=HashRule(salt=f"{salt}pool"))
        pool, rest = chosen["labelled"], [*rest, *chosen[TRAIN]]
    require_classes(parts["test"], "the test part")
    return Parts(rest, pool, parts["test"], copies or Copies())


def _text(one: Document) -> str:
    return normalised(one.text)


def _id(one: Document) -> str:
    return one.id


def _label(one: Document) -> str | None:
    return one.label


def refuse_leaks(parts: Parts) -> None:
    """LabError if a note of the test part is also in the labelled pool or among the notes for pre-training."""
    refuse_shared(parts.test, parts.labelled, other="labelled")
    refuse_shared(parts.test, parts.unlabelled, other="pre-training")


def require_classes(notes: Sequence[Document], what: str) -> None:
    """LabError unless notes of both classes are there."""
    have = {one.label for one in notes}
    if not have >= set(CLASSES):
        only = ", ".join(sorted(label for label in have if label is not None)) or "none"
        raise LabError(f"{what} needs notes of both classes, 0 and 1; its {len(notes)} notes have {only}")


def subset(pool: Sequence[Document], budget: int, seed: int) -> list[Document]:
    """Return the first `budget` notes of the pool in the order of a seed, and more until both classes are there.

    So every subset holds the smaller ones of its seed. LabError for a budget that is below 1 or above the pool, and for a
    pool of one class.
    """
    if not 1 <= budget <= len(pool):
        raise LabError(f"a budget of {budget} labels: the pool has {len(pool)} labelled notes")
    require_classes(pool, "the labelled pool")
    order = np.random.default_rng([6, seed]).permutation(len(pool)).tolist()
    chosen = [pool[place] for place in order[:budget]]
    for place in order[budget:]:
        if {one.label for one in chosen} >= set(CLASSES):
            break
        chosen.append(pool[place])
    return chosen


def examples_of(notes: Sequence[Document]) -> list[Example]:
    """Return notes as examples for the head `HEAD`."""
    return [Example(text=one.text, values={HEAD: one.label}, where=one.where) for one in notes]


def truth(notes: Sequence[Document]) -> npt.NDArray[np.int64]:
    """Return the classes of notes, int64 [notes]."""
    return np.array([int(one.label == "1") for one in notes], dtype=np.int64)
