"""How results are printed: aligned tables for people, one JSON object for machines."""

import codecs
import io
import json
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from gpt2lab.base.json_numbers import json_value
from gpt2lab.base.tables import cell, padded
from gpt2lab.base.wording import visible

_LEAST = 24  # columns of a text that is cut


class Visible(io.TextIOBase):
    """A terminal that shows control characters instead of obeying them: texts, names and cells are anybody's.

    Only a terminal is written to in this way; a file or a pipe gets every character.
    """

    def __init__(self, terminal: TextIO) -> None:
        super().__init__()
        self._terminal = terminal

    def write(self, text: str) -> int:
        r"""Write a text, its control characters as `\x1b`."""
        return self._terminal.write(visible(text))

    def flush(self) -> None:
        """Write what waits."""
        self._terminal.flush()

    def isatty(self) -> bool:
        """It is a terminal."""
        return True

    def fileno(self) -> int:
        """Return the terminal's descriptor."""
        return self._terminal.fileno()


def print_json(value: Any) -> None:
    """Print a value as JSON; infinities and NaN, which JSON lacks, become null."""
    plain = codecs.lookup(sys.stdout.encoding or "utf-8").name != "utf-8"  # it takes no other characters
    finite = json_value(value, not_finite=lambda _: None, other=str)
    print(json.dumps(finite, indent=2, ensure_ascii=plain, allow_nan=False))


def table(rows: Sequence[Sequence[Any]], header: Sequence[str]) -> str:
    """Align rows under a header; numbers to the right.

    Text in the last column is cut at the terminal's width, if enough of it is left to be read. Columns that do not fit
    otherwise follow below, each block under the first column again.
    """
    cells = [[cell(value) for value in row] for row in rows]
    right = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(header))]
    widths = [max(len(line[i]) for line in [header, *cells]) for i in range(len(header))]
    room = shutil.get_terminal_size((110, 24)).columns
    needed = [*widths[:-1], widths[-1] if right[-1] else min(widths[-1], _LEAST)]
    blocks = []
    for columns in _blocks(needed, room):
        lines = []
        for line in [header, *cells]:
            shown = padded(
                [line[i] for i in columns], [widths[i] for i in columns], [right[i] for i in columns]
            )
            lines.append(cut("  ".join(shown).rstrip(), room))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _blocks(widths: Sequence[int], room: int) -> list[list[int]]:
    """Return which columns stand side by side: as many as fit, the first one in every block."""
    blocks, block, taken = [], [0], widths[0]
    for column in range(1, len(widths)):
        if len(block) > 1 and taken + 2 + widths[column] > room:
            blocks.append(block)
            block, taken = [0], widths[0]
        block.append(column)
        taken += 2 + widths[column]
    return [*blocks, block]


def pairs(items: Iterable[tuple[str, Any]], indent: str = "  ") -> str:
    """Align names and values in two columns."""
    listed = [(name, cell(value)) for name, value in items]
    width = max((len(name) for name, _ in listed), default=0)
    return "\n".join(f"{indent}{name:<{width}}  {value}" for name, value in listed)


def paragraph(text: str, indent: int = 0, hanging: int | None = None) -> str:
    """Wrap a text at the terminal's width; lines after the first begin at column `hanging`."""
    return textwrap.fill(
        text,
        width=min(shutil.get_terminal_size((100, 24)).columns, 110),
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + 2 if hanging is None else hanging),
        break_long_words=False,
        break_on_hyphens=False,
    )


def cut(text: str, width: int) -> str:
    """Shorten a line to `width` columns, with an ellipsis."""
    return text if len(text) <= width else text[: max(width - 1, 1)] + "…"


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
