"""Texts that a verb reads: typed, or those of files."""

from collections.abc import Sequence
from typing import Any

from gpt2lab.base.errors import LabError


def typed_texts(
    texts: Sequence[str], data: str | Sequence[str] | None, field: str | None, *, flag: str, missing: str
) -> list[str]:
    """Return the texts that were typed, or those of `data`, which the flag gives, from the field of its rows.

    LabError for none (`missing` says what and how), both, a field of none, and as `gpt2lab.measures.corpus.read_lines`.
    """
    if data is None:
        if field is not None:
            raise LabError(f"--field names a field of the rows of {flag}, which is missing")
        if not texts:
            raise LabError(f"{missing}, or {flag} FILE")
        return list(texts)
    if texts:
        named = data if isinstance(data, str) else " ".join(data)
        what = flag.removeprefix("--").replace("data", "texts")
        raise LabError(f"{flag} {named}: {what} are typed as well; give one of the two")
    from gpt2lab.measures.corpus import read_lines

    return read_lines(data, field or "text")


def data_rows(data: Sequence[str], field: str | None) -> list[dict[str, Any]] | None:
    """Return the rows of `data` with all their fields; None if these are files of plain text, which have no fields.

    LabError, with file and line, for a row whose text is empty.
    """
    from gpt2lab.text import readers, rows, sources
    from gpt2lab.text.records import records

    name = field or "text"
    if any(readers.format_of(file) == "txt" for item in data for file in sources.files(item)):
        return None
    found = []
    for where, row in records(data, name):
        rows.text(row[name], where, name)
        found.append(dict(row))
    return found
