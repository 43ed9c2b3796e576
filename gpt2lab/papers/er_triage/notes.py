"""Notes of two classes, 0 and 1: read, cleaned of copies, and nested subsets of them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gpt2lab.base.errors import LabError
from gpt2lab.text import sources
from gpt2lab.text.labelled import Example
from gpt2lab.text.labelled_documents import (
    Copies,
    Document,
    Rewrite,
    read_documents,
    without_copies,
)
from gpt2lab.text.labelled_splits import one_against_rest

CLASSES = ("0", "1")
HEAD = "of_class"
"""Name of the head that is fine-tuned."""


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
        read = one_against_rest(read, positive)
    for one in read:
        if one.label is not None and one.label not in CLASSES:
            raise LabError(
                f"{one.where}: label {one.label!r} is neither 0 nor 1; name the label that counts as 1 (positive)"
            )
    return without_copies(read)


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
