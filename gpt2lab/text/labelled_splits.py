"""Labelled documents as three parts: unlabelled for pre-training, labelled for fine-tuning, and a test part; no text in two.

Copies are left out before the split. Any number of classes; a class against the rest makes two of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from gpt2lab.base.errors import LabError
from gpt2lab.base.wording import count
from gpt2lab.text import sources
from gpt2lab.text.labelled_documents import (
    Copies,
    Document,
    normalised,
    read_documents,
    refuse_shared,
    without_contacts,
    without_copies,
)
from gpt2lab.text.splits import TRAIN, HashRule, by_hash, by_time

By = Literal["hash", "id", "date"]


@dataclass(frozen=True, kw_only=True)
class SplitSettings:
    """How rows are read and split."""

    field: str = "text"
    """Field of the text."""
    label: str = "label"
    """Field of the label, empty where it is not known."""
    positive: str | None = None
    """The label that becomes 1; all others become 0. Without it, labels stay as they are."""
    id: str | None = None
    """Field of the id."""
    date: str | None = None
    """Field of the date."""
    by: By = "hash"
    """What chooses the test part: the hash of the text, the hash of the id, or the date, of which the latest are taken."""
    test: float = 0.2
    """Share (below 1) or number of the documents with a label that are the test part."""
    labelled: float | None = None
    """Share or number of the other documents with a label that keep it; the rest go unlabelled. None: all."""
    without_contacts: bool = False
    """Replace addresses, dates, long numbers and titled names first; this does not make texts anonymous."""

    def __post_init__(self) -> None:
        named = {"hash": self.field, "id": self.id, "date": self.date}
        if named[self.by] is None:
            raise LabError(f"by {self.by}: which field holds the {self.by}? Name it ({self.by})")


@dataclass(frozen=True)
class Parts:
    """The documents of a trial."""

    unlabelled: list[Document]
    """For pre-training; labels are not read."""
    labelled: list[Document]
    """For fine-tuning."""
    test: list[Document]
    """Judged."""
    copies: Copies = field(default_factory=Copies)
    """What was left out while reading."""


def labelled_parts(source: sources.SourceLike, settings: SplitSettings) -> Parts:
    """Read documents, leave copies out, and split. LabError as the functions below, and `read_documents`."""
    read = read_documents(
        source,
        field=settings.field,
        label=settings.label,
        id=settings.id,
        date=settings.date,
        rewrite=without_contacts if settings.without_contacts else None,
    )
    if settings.positive is not None:
        read = one_against_rest(read, settings.positive)
    kept, copies = without_copies(read)
    parts = split_documents(
        kept, test=settings.test, labelled=settings.labelled, by=settings.by, copies=copies
    )
    refuse_leaks(parts)
    return parts


def one_against_rest(documents: Sequence[Document], positive: str) -> list[Document]:
    """Return documents whose label is 1 where it was `positive`, else 0. LabError for a label that no document has."""
    known = sorted({one.label for one in documents if one.label is not None})
    if positive not in known:
        raise LabError(
            f"no document has the label {positive!r}; the data have {', '.join(known[:12]) or 'none'}"
        )
    return [
        one if one.label is None else replace(one, label=str(int(one.label == positive))) for one in documents
    ]


def split_documents(
    documents: Sequence[Document],
    *,
    test: float,
    labelled: float | None = None,
    by: By = "hash",
    salt: str = "",
    copies: Copies | None = None,
) -> Parts:
    """Split documents without copies: test and labelled part are of those with a label, all others go unlabelled.

    test, labelled: shares (below 1) or counts; labelled None is every other document with a label. by: the test part follows
    from the hash of the text or of the id, with the same share of every class (so that a count is met but for rounding in
    each class, and a class of one document is not in the test part), or it is the latest by date. LabError where a part
    would be empty, the test part has one class, or a class that no document of the labelled part has.
    """
    known = [one for one in documents if one.label is not None]
    rest = [one for one in documents if one.label is None]
    if not known:
        raise LabError("no document has a label; a test part needs some")
    test = _size("test", test, len(known), "documents have a label")
    if by == "date":
        undated = [one for one in known if one.date is None]
        if undated:
            raise LabError(f"{undated[0].where or undated[0].id}: no date to split by; name its field (date)")
        parts = by_time(known, {"test": test}, key=_text, time=lambda one: one.date)
    else:
        share = test if test < 1 else test / len(known)
        key = _text if by == "hash" else _id
        parts = by_hash(known, {"test": share}, key=key, rule=HashRule(salt=salt), stratum=_label)
    pool = parts[TRAIN]
    if labelled is not None:
        size = _size(
            "labelled", labelled, len(pool) + 1, "documents with a label are left beside the test part"
        )
        if size != len(pool):
            chosen = by_hash(pool, {"labelled": size}, key=_text, rule=HashRule(salt=f"{salt}pool"))
            pool, rest = chosen["labelled"], [*rest, *chosen[TRAIN]]
    _check_classes(parts["test"], pool)
    return Parts(rest, pool, parts["test"], copies or Copies())


def _size(name: str, size: float, end: int, what: str) -> float:
    """Return a share as it is and a count as a whole number. LabError for neither, and a count of `end` or more."""
    if 0 < size < 1:
        return size
    if size < 1 or size % 1 != 0:  # also what is not a number
        raise LabError(f"{name}: a share between 0 and 1 or a whole number of at least 1, got {size:g}")
    if size >= end:
        room = end - 1
        raise LabError(f"{name}: {size:g} is too many; at most {room}: {what}")
    return int(size)


def _check_classes(test: Sequence[Document], pool: Sequence[Document]) -> None:
    classes, learnt = ({one.label for one in part} for part in (test, pool))
    if len(classes) < 2:
        raise LabError(
            f"the test part needs two labels at least; its {count(len(test), 'document')} "
            f"{'has' if len(test) == 1 else 'have'} only {test[0].label!r}"
        )
    unseen = [one for one in test if one.label not in learnt]
    if unseen:
        raise LabError(
            f"{unseen[0].where or unseen[0].id}: the test part has the label {unseen[0].label!r}, which no document of the "
            "labelled part has; leave this label out, or choose another split"
        )


def refuse_leaks(parts: Parts) -> None:
    """LabError if a document of the test part is also in the labelled part or among those for pre-training."""
    refuse_shared(parts.test, parts.labelled, other="labelled")
    refuse_shared(parts.test, parts.unlabelled, other="pre-training")


def _text(one: Document) -> str:
    return normalised(one.text)


def _id(one: Document) -> str:
    return one.id


def _label(one: Document) -> str | None:
    return one.label
