"""What a row's values mean: which are absent, names, texts; and the rows of csv by their header."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from gpt2lab.base.errors import LabError
from gpt2lab.text.bounded import EmptyFile, absent, csv_rows, missing_field, refuse_twins, string

Row = dict[str, Any]
"""A value for each field; those of csv are texts."""


def require(row: Collection[str], fields: Collection[str], where: str) -> None:
    """LabError, with the nearest or all that there are, for a field that a row lacks."""
    for field in fields:
        if field not in row:
            raise missing_field(where, field, list(row))


def headed(path: Path, lines: Iterator[str], *fields: str) -> Iterator[tuple[str, Row]]:
    """Yield (place, row) for each line of a csv file below its header; columns without a name are left out.

    LabError, with the line, for a header without one of `fields` or with two of one name, and for a row that is longer
    or shorter than it.
    """
    header: list[str] | None = None
    empty = True
    for number, row in csv_rows(path, lines):
        where = f"{path}, line {number}"
        if not row:
            continue
        if header is None:
            header = row
            refuse_twins(header, where)
            require(header, fields, where)
        else:
            if len(row) != len(header):
                raise LabError(f"{where}: {len(row)} of {len(header)} columns")
            empty = False
            yield where, {name: value for name, value in zip(header, row, strict=True) if name}
    if empty:
        raise EmptyFile(f"{path}: the file has no rows")


def text(value: object, where: str, field: str) -> str:
    """Return `value` if it is text with a character; LabError with the place if not."""
    if absent(value):
        raise LabError(f"{where}: field {field!r} is empty; give it text, or leave the row out")
    return string(value, where, field)


def named(value: object, where: str, field: str) -> str:
    """Return a label, a group or an id as text; LabError for one that is absent or is no text, number or truth value.

    1.0 is 1, since a column of whole numbers with gaps is read as one of fractions.
    """
    if absent(value):
        raise LabError(f"{where}: field {field!r} is empty")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, str | int | float):
        return str(value).strip()
    raise LabError(f"{where}: field {field!r} should hold a label, found {type(value).__name__}")


def known(row: Row, field: str, where: str) -> str | None:
    """Return a field as `named` does; None where the row lacks it or it is absent."""
    return None if absent(row.get(field)) else named(row[field], where, field)
