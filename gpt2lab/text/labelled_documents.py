"""Documents with an id, a day and perhaps a label, as registers keep them: how they are read, copies, and leaks into a test.

Two texts are the same if they are after `normalised`: letter case, punctuation, accents' encoding and blanks do not count.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gpt2lab.base.errors import LabError
from gpt2lab.base.progress import progress
from gpt2lab.base.wording import count
from gpt2lab.text import rows, sources
from gpt2lab.text.records import records

Rewrite = Callable[[str], str]
"""What is done to a text before anything reads it, such as taking names and numbers out."""
_NO_LETTER = re.compile(r"[^\w]+")
_CONTACTS = (
    (re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+"), "<email>"),
    (re.compile(r"(?:https?://|www\.)\S+"), "<address>"),
    (re.compile(r"\b\d{1,2}[/.-]\d{1,2}[/.-](?:\d{4}|\d{2})\b|\b\d{4}-\d{2}-\d{2}\b"), "<date>"),
    (re.compile(r"(?<![\w<])\+?\d(?:[ .-]?\d){8,}\b"), "<number>"),
    (re.compile(r"\b(?:Dr|Pr|Mr|Mrs|Ms|Mme|Mlle|M)\.? +[A-ZÀ-Þ][\w'-]+(?: +[A-ZÀ-Þ][\w'-]+)*"), "<name>"),
)


@dataclass(frozen=True)
class Document:
    """One document of a register."""

    id: str
    """Its name, unique in what is read together."""
    text: str
    """What it says."""
    label: str | None = None
    """Its class, if it is known."""
    date: str | None = None
    """Its day or time as it is written, if there is one."""
    where: str = ""
    """File and line, for messages."""

    def row(self) -> dict[str, Any]:
        """Return the document as a row of a file: id, text, and date and label where they are known."""
        known = {"date": self.date, "label": self.label}
        return {"id": self.id, "text": self.text, **{name: value for name, value in known.items() if value}}


def read_documents(
    source: sources.SourceLike,
    *,
    field: str = "text",
    label: str | None = None,
    id: str | None = None,
    date: str | None = None,
    rewrite: Rewrite | None = None,
) -> list[Document]:
    """Read documents; every name is that of a field of the rows.

    label: a row in which it is empty has no label. id: without one the place of the row (`notes.csv, line 3`) is its name.
    LabError, with file and line, for an empty text (also after `rewrite`), an empty id or date, two documents of one id.
    """
    wanted = [name for name in (field, label, id, date) if name is not None]
    found: list[Document] = []
    seen: dict[str, str] = {}
    for where, row in progress(records(source, *wanted), label="reading", unit="documents"):
        text = rows.text(row[field], where, field)
        text = rewrite(text) if rewrite is not None else text
        if not normalised(text):
            raise LabError(f"{where}: field {field!r} is empty; give it text, or leave the row out")
        name = rows.named(row[id], where, id) if id is not None else where
        if name in seen:
            raise LabError(f"{where}: id {name!r} is also that of {seen[name]}; each document has its own")
        seen[name] = where
        found.append(
            Document(
                name,
                text,
                rows.known(row, label, where) if label is not None else None,
                rows.named(row[date], where, date) if date is not None else None,
                where,
            )
        )
    if not found:
        raise LabError(f"{source}: holds no document")
    return found


def normalised(text: str) -> str:
    """Return what decides whether two texts are the same: small letters and digits, one blank between words."""
    return _NO_LETTER.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def without_contacts(text: str) -> str:
    """Return a text with e-mail and web addresses, dates, long numbers and titled names replaced by what they are.

    It finds patterns, not people: a name without a title stays. Data that must be anonymous need more than this.
    """
    for pattern, instead in _CONTACTS:
        text = pattern.sub(instead, text)
    return text


@dataclass(frozen=True)
class Copies:
    """What `without_copies` left out."""

    copies: int = 0
    """Documents whose text another one has."""
    contradicting: int = 0
    """Documents left out because copies of their text have different labels."""


def without_copies(documents: Iterable[Document]) -> tuple[list[Document], Copies]:
    """Return the documents without copies, each text's first, in their order, and what was left out.

    The first gets the label of a copy if it has none itself. A text whose copies have different labels is left out whole.
    """
    by_text: dict[str, list[Document]] = {}
    for one in documents:
        by_text.setdefault(normalised(one.text), []).append(one)
    kept, copies, contradicting = list[Document](), 0, 0
    for same in by_text.values():
        labels = {one.label for one in same} - {None}
        if len(labels) > 1:
            contradicting += len(same)
            continue
        copies += len(same) - 1
        kept.append(replace(same[0], label=next(iter(labels), None)))
    return kept, Copies(copies, contradicting)


def refuse_shared(
    test: Sequence[Document], others: Sequence[Document], *, name: str = "test", other: str = "training"
) -> None:
    """LabError, with the first place, if a document of one part is also in another, by its id or by its text."""
    texts = {normalised(one.text): one for one in others}
    ids = {one.id: one for one in others}
    shared = [
        (one, found)
        for one in test
        if (found := texts.get(normalised(one.text)) or ids.get(one.id)) is not None
    ]
    if shared:
        first, second = shared[0]
        raise LabError(
            f"{count(len(shared), 'document')} of the {name} data {'is' if len(shared) == 1 else 'are'} also in the "
            f"{other} data, the first is {first.where or first.id}, as {second.where or second.id}: leave them out of one"
        )
