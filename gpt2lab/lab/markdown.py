"""A report as Markdown, its figures as files beside it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt2lab.lab.document import (
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
    cell,
    claim_facts,
    measured,
)


def to_markdown(document: Document, folder: Path) -> str:
    """Return the Markdown of a report that will lie in `folder`; figures are linked relative to it."""
    lines = [f"# {document.title}", "", " · ".join(document.byline), ""]
    if document.links:
        lines += [" · ".join(f"[{words}]({address})" for words, address in document.links.items()), ""]
    for block in document.blocks:
        lines += _block(block, 2, folder)
    return "\n".join(lines).rstrip() + "\n"


def _block(block: Block | Section, level: int, folder: Path) -> list[str]:
    match block:
        case Section():
            inner = [line for one in block.blocks for line in _block(one, level + 1, folder)]
            return [f"{'#' * min(level, 6)} {block.title}", "", *inner]
        case Prose():
            return [f"**{block.text}**" if block.strong else block.text, ""]
        case Command():
            return ["```", block.text, "```", ""]
        case Verdicts():
            return _verdicts(block.claims)
        case ClaimDetail():
            picture = _block(block.picture, level, folder) if block.picture is not None else []
            return _claim(block.claim, picture)
        case DataTable():
            return [*([f"*{block.caption}*", ""] if block.caption else []), *_table(block.rows), ""]
        case Picture():
            if block.file is None:
                return []
            link = f"![{block.caption or block.name}]({block.file.relative_to(folder).as_posix()})"
            return [link, "", *([block.caption, ""] if block.caption else [])]
        case Passage():
            fence = "`" * max(3, max((len(run) + 1 for run in re.findall("`+", block.text)), default=0))
            return [
                *([f"*{block.caption}*", ""] if block.caption else []),
                f"{fence}text",
                block.text,
                fence,
                "",
            ]
        case Facts():
            rows = [
                {
                    "name": f"`{fact.name}`",
                    "value": f"**{fact.value}** (instead of {fact.changed_from})"
                    if fact.changed_from
                    else fact.value,
                    "meaning": fact.note,
                }
                for fact in block.facts
            ]
            used = [name for name in ("name", "value", "meaning") if any(row[name] for row in rows)]
            return [*_table([{name: row[name] for name in used} for row in rows]), ""]


def _verdicts(claims: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = []
    for claim in claims:
        mark = STATUS_MARKS[claim["status"]][1]
        rows.append(
            {
                "": claim["name"],
                "claim": claim["sentence"],
                "verdict": f"{mark} **{claim['status']}**",
                "measured": measured(claim),
                "the paper": claim["paper"],
            }
        )
    return [*_table(rows), ""]


def _claim(claim: Mapping[str, Any], picture: Sequence[str]) -> list[str]:
    lines = [f"{STATUS_MARKS[claim['status']][1]} **{claim['status']}.** {claim['reason']}", "", *picture]
    lines += [f"- {name}: {text}" for name, text in claim_facts(claim) if text]
    return [*lines, ""]


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return ["(empty)"]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    right = [
        all(isinstance(row.get(name), (int, float)) for row in rows if row.get(name) not in (None, ""))
        for name in columns
    ]

    def line(cells: Sequence[str]) -> str:
        escaped = (text.replace("|", "\\|").replace("\n", " ") for text in cells)
        return "| " + " | ".join(escaped) + " |"

    return [
        line(columns),
        line(["---:" if at_right else "---" for at_right in right]),
        *(line([cell(row.get(name)) for name in columns]) for row in rows),
    ]
