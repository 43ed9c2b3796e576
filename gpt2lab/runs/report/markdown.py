"""A report as Markdown, its figures as files beside it.

What a report shows comes from prompts, settings, cells, captions and messages of anybody. Whatever Markdown would take
for markup in it is escaped, but for `code` and **strong**, which the lab's own sentences use.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gpt2lab.base.tables import cell, columns_of, number_columns
from gpt2lab.runs.report.document import (
    STATUS_MARKS,
    Block,
    ClaimDetail,
    Command,
    DataTable,
    Document,
    Facts,
    Passage,
    Picture,
    Prose,
    Section,
    Verdicts,
    claim_facts,
    measured,
)
from gpt2lab.runs.verdicts import JudgedClaim

_SIDE_BY_SIDE = 10  # columns of a table that has more than twice as many


def to_markdown(document: Document, folder: Path) -> str:
    """Return the Markdown of a report that will lie in `folder`; figures are linked relative to it."""
    lines = [f"# {inline(document.title)}", "", " · ".join(map(_paragraph, document.byline)), ""]
    if document.links:
        links = (f"[{inline(words)}]({quote(to, safe=_IN_ADDRESS)})" for words, to in document.links.items())
        lines += [" · ".join(links), ""]
    for block in document.blocks:
        lines += _block(block, 2, folder)
    return "\n".join(lines).rstrip() + "\n"


def _block(block: Block | Section, level: int, folder: Path) -> list[str]:
    match block:
        case Section():
            inner = [line for one in block.blocks for line in _block(one, level + 1, folder)]
            return [f"{'#' * min(level, 6)} {inline(block.title)}", "", *inner]
        case Prose():
            return [_strong(block.text) if block.strong else _paragraph(block.text), ""]
        case Command():
            return _fenced(block.text, "")
        case Verdicts():
            return _verdicts(block)
        case ClaimDetail():
            picture = _block(block.picture, level, folder) if block.picture is not None else []
            return _claim(block.judged, picture)
        case DataTable():
            return [*_caption(block.caption), *_table(block.rows), ""]
        case Picture():
            if block.file is None:
                return []
            place = quote(block.file.relative_to(folder).as_posix())
            words = inline(block.caption or block.name, within_link=True)
            return [f"![{words}]({place})", "", *([_paragraph(block.caption), ""] if block.caption else [])]
        case Passage():
            return [*_caption(block.caption), *_fenced(block.text, "text")]
        case Facts():
            rows = [
                {
                    "name": _code(fact.name),
                    "value": inline(fact.value)
                    if fact.changed_from is None
                    else f"{_strong(fact.value)} (instead of {inline(fact.changed_from)})",
                    "meaning": inline(fact.note),
                }
                for fact in block.facts
            ]
            used = [name for name in ("name", "value", "meaning") if any(row[name] for row in rows)]
            return [*_lines(used, [[row[name] for name in used] for row in rows], [False] * len(used)), ""]


def _verdicts(table: Verdicts) -> list[str]:
    what, answer, source = (
        ("check", "outcome", "source") if table.checks else ("claim", "verdict", "the paper")
    )
    rows = [
        {
            "": judged.claim.name,
            what: judged.claim.sentence,
            answer: f"{STATUS_MARKS[judged.verdict.status][1]} **{judged.verdict.status}**",
            "measured": measured(judged),
            source: judged.claim.paper,
        }
        for judged in table.claims
    ]
    return [*_table(rows), ""]


def _claim(judged: JudgedClaim, picture: Sequence[str]) -> list[str]:
    status = judged.verdict.status
    lines = [f"{STATUS_MARKS[status][1]} **{status}.** {inline(judged.verdict.reason)}", "", *picture]
    lines += [f"- {name}: {inline(text)}" for name, text in claim_facts(judged)]
    return [*lines, ""]


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return ["(empty)"]
    columns = columns_of(rows)
    right = number_columns(rows, columns)

    cells = [[inline(cell(row.get(name))) for name in columns] for row in rows]
    lines: list[str] = []
    for block in _blocks(len(columns)):
        head = [inline(columns[i]) for i in block]
        below = [[line[i] for i in block] for line in cells]
        lines += [*([""] if lines else []), *_lines(head, below, [right[i] for i in block])]
    return lines


def _blocks(columns: int) -> list[list[int]]:
    """Return which columns stand side by side: all, or of a table too wide to read so many, the first one in each."""
    if columns <= 2 * _SIDE_BY_SIDE:
        return [list(range(columns))]
    return [[0, *range(at, min(at + _SIDE_BY_SIDE, columns))] for at in range(1, columns, _SIDE_BY_SIDE)]


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    """Return a table of cells that are Markdown already."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |"

    rule = line(["---:" if at_right else "---" for at_right in right])
    return [line(head), rule, *map(line, rows)]


def _fenced(text: str, kind: str) -> list[str]:
    fence = "`" * max(3, max((len(run) + 1 for run in re.findall("`+", text)), default=0))
    return [f"{fence}{kind}", text, fence, ""]


def _code(text: str) -> str:
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    space = " " if len(fence) > 1 else ""
    return f"{fence}{space}{' '.join(text.split())}{space}{fence}"


def _caption(text: str) -> list[str]:
    return [f"*{inline(text).replace('**', '')}*", ""] if text else []


def _strong(text: str) -> str:
    return f"**{inline(text.replace('**', ''))}**"


# Text of others.

_IN_ADDRESS = ":/?#@!$&'*+,;=%~"
_MARKED = re.compile(r"(`[^`]+`|\*\*[^*`]+\*\*)")
_PUNCTUATION = r"!-/:-@\[-`{-~"
_ESCAPES = (
    (re.compile(rf"\\(?=[{_PUNCTUATION}]|$)"), r"\\\\"),
    (re.compile(r"<(?=[A-Za-z/!?])"), r"\<"),
    (re.compile(r"&(?=#?\w+;)"), r"&amp;"),
    (re.compile(r"([*`])"), r"\\\1"),
    (re.compile(r"~(?=~)"), r"\~"),
    (re.compile(r"(?<![^\W_])_|_(?![^\W_])"), r"\_"),
)
_BEGINS_BLOCK = re.compile(r"^([#>+=~-]|\d+(?=[.)]))")


def inline(text: str, *, within_link: bool = False) -> str:
    """Return text as one line of Markdown that shows it literally, but for `code` and **strong**."""
    text = " ".join(str(text).split())
    # Elsewhere a bracket is markup only before what makes it a link, an image or the definition of one.
    brackets = within_link or bool(re.search(r"\]\s*[(\[:]", text))
    pieces = []
    for index, piece in enumerate(_MARKED.split(text)):
        if index % 2 == 0:
            pieces.append(_escaped(piece, brackets))
        elif piece.startswith("`"):
            pieces.append(piece)
        else:
            pieces.append(f"**{_escaped(piece[2:-2], brackets)}**")
    return "".join(pieces)


def _paragraph(text: str) -> str:
    """Return a line of its own: what would begin a heading, a list, a quote or a rule is escaped too."""
    line = inline(text)
    begins = _BEGINS_BLOCK.match(line)
    if begins is None:
        return line
    at = begins.end() if begins[0].isdigit() else 0
    return f"{line[:at]}\\{line[at:]}"


def _escaped(text: str, brackets: bool) -> str:
    for pattern, replacement in _ESCAPES:
        text = pattern.sub(replacement, text)
    return re.sub(r"([\[\]])", r"\\\1", text) if brackets else text
