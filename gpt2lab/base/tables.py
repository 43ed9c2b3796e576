"""Rows of a table as mappings: which columns they have, which of these hold numbers, and how a cell is written."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gpt2lab.base.wording import number


def cell(value: Any, digits: int = 4) -> str:
    """Write one cell: a number in `digits` significant digits, a dash for NaN, nothing for None, all else as its text."""
    if not isinstance(value, (int, float)):
        return "" if value is None else str(value)
    return "–" if math.isnan(value) else number(value, digits)


def columns_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of all columns, in the order of their first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


def number_columns(rows: Sequence[Mapping[str, Any]], columns: Iterable[str]) -> list[bool]:
    """Return for each column whether all its cells are numbers; missing and empty ones do not count."""
    return [
        all(isinstance(row[name], (int, float)) for row in rows if row.get(name) not in (None, ""))
        for name in columns
    ]


def padded(cells: Iterable[str], widths: Iterable[int], right: Iterable[bool]) -> list[str]:
    """Return the cells of a line, each filled up with spaces to its width; on the left where `right` says so."""
    return [
        text.rjust(width) if at_right else text.ljust(width)
        for text, width, at_right in zip(cells, widths, right, strict=True)
    ]
