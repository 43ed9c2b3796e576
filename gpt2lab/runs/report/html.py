"""A report as one HTML file: no scripts, nothing loaded from elsewhere, light and dark, on paper too."""

import re
from collections.abc import Iterator
from html import escape
from typing import Any

from gpt2lab.base.errors import LabError
from gpt2lab.base.tables import cell, columns_of, number_columns
from gpt2lab.base.wording import number, printable
from gpt2lab.plots import figures
from gpt2lab.plots.svg import clean_svg, themed, to_text
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
    interval_words,
    seed_words,
)
from gpt2lab.runs.report.stylesheet import STYLE

_COLOURS = {
    figures.INK: "var(--ink)",
    figures.MUTED: "var(--muted)",
    figures.GRID: "var(--line)",
    figures.PAPER: "var(--paper)",
    **{colour: f"var(--c{index})" for index, colour in enumerate(figures.PALETTE)},
}
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""What a browser may load for a page: nothing. It has styles, on thousands of elements of its figures, and no script."""
_MARKED = re.compile(r"`([^`]+)`|\*\*([^*`]+)\*\*")
_WIDE = 8  # columns of a table whose first one stays in view
_LONG_TABLE = 40  # rows shown before the rest is folded


def to_html(document: Document) -> str:
    """Return the whole page."""
    body = "\n".join(_Page().render(document))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{escape(document.title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def to_fragment(*blocks: Block | Section) -> str:
    """Return blocks as HTML for a notebook, in the notebook's own style."""
    page = _Page()
    return printable("\n".join(piece for block in blocks for piece in page.block(block, 3)))


class _Page:
    """Renders one document; counts figures and tables, so that the names inside them stay apart."""

    def __init__(self) -> None:
        self.pictures = self.tables = 0
        self.anchors: set[str] = set()

    def render(self, document: Document) -> Iterator[str]:
        """Yield the pieces of the page's body."""
        yield f"<header>\n<h1>{_inline(document.title)}</h1>"
        facts = [f"<span>{_inline(fact)}</span>" for fact in document.byline]
        facts += [f'<a href="{escape(to)}">{escape(words)}</a>' for words, to in document.links.items()]
        yield f'<p class="byline">{" ".join(facts)}</p>\n</header>\n<main>'
        for block in document.blocks:
            yield from self.block(block, 2)
        yield "</main>"

    def block(self, block: Block | Section, level: int) -> Iterator[str]:
        """Yield the pieces of one block; headings start at `level`."""
        match block:
            case Section():
                yield from self.section(block, level)
            case Prose():
                yield (
                    f'<p class="warning">{_inline(block.text)}</p>'
                    if block.strong
                    else f"<p>{_inline(block.text)}</p>"
                )
            case Command():
                yield f'<pre class="command"><code>{escape(block.text)}</code></pre>'
            case Verdicts():
                yield from _verdicts(block)
            case ClaimDetail():
                yield from self.claim(block)
            case DataTable():
                self.tables += 1
                yield from _table(block, f"table-{self.tables}")
            case Picture():
                yield from self.picture(block.svg, block.caption)
            case Passage():
                caption = f"<figcaption>{_inline(block.caption)}</figcaption>" if block.caption else ""
                yield f'<figure class="passage">{caption}<pre>{escape(block.text)}</pre></figure>'
            case Facts():
                yield from _facts(block)

    def section(self, section: Section, level: int) -> Iterator[str]:
        """Yield a section; a folded one opens at a click."""
        heading = f"h{min(level, 6)}"
        anchor = self.anchor(section.title)
        if section.folded:
            yield f'<details id="{anchor}"><summary><{heading}>{_inline(section.title)}</{heading}></summary>'
        else:
            yield f'<section aria-labelledby="{anchor}">\n<{heading} id="{anchor}">{_inline(section.title)}</{heading}>'
        for block in section.blocks:
            yield from self.block(block, level + 1)
        yield "</details>" if section.folded else "</section>"

    def claim(self, detail: ClaimDetail) -> Iterator[str]:
        """Yield one claim in full: the reason, the number line, the facts."""
        verdict = detail.judged.verdict
        yield f"<p>{badge(verdict.status)} {_inline(verdict.reason)}</p>"
        if detail.picture is not None:
            yield from self.picture(detail.picture.svg, "")
        yield '<dl class="claim">'
        for name, text in claim_facts(detail.judged):
            yield f"<dt>{escape(name)}</dt><dd>{_inline(text)}</dd>"
        yield "</dl>"

    def picture(self, svg: str, caption: str) -> Iterator[str]:
        """Yield a figure whose colours follow the page's."""
        self.pictures += 1
        try:
            drawing = clean_svg(svg)
        except LabError as error:
            yield f'<p class="warning">A figure cannot be shown: {escape(str(error))}</p>'
            return
        themed(drawing, f"f{self.pictures}-", _COLOURS)
        drawn = to_text(drawing)
        words = f"<figcaption>{_inline(caption)}</figcaption>" if caption else ""
        yield f'<figure><div class="drawing" tabindex="0">{drawn}</div>{words}</figure>'

    def anchor(self, title: str) -> str:
        """Return an id for a heading that no other has."""
        base = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        name, number_of = base, 2
        while name in self.anchors:
            name, number_of = f"{base}-{number_of}", number_of + 1
        self.anchors.add(name)
        return name


def badge(status: str) -> str:
    """Return a status as a coloured word with its mark."""
    kind, mark = STATUS_MARKS[status]
    return f'<span class="badge {kind}"><span aria-hidden="true">{mark}</span> {escape(status)}</span>'


def _verdicts(table: Verdicts) -> Iterator[str]:
    """Yield the table of verdicts; on a narrow page each row becomes a card."""
    caption = "Whether the code does what it should" if table.checks else "What the seeds say of each claim"
    what, answer, source = (
        ("Check", "Outcome", "Source") if table.checks else ("Claim", "Verdict", "The paper")
    )
    yield f'<table class="verdicts">\n<caption>{caption}</caption>\n<thead><tr>'
    yield "".join(f'<th scope="col">{name}</th>' for name in (what, answer, "Measured", source))
    yield "</tr></thead>\n<tbody>"
    for judged in table.claims:
        claim, verdict = judged.claim, judged.verdict
        interval = interval_words(verdict.interval, claim.unit)
        seeds = seed_words(judged)
        measured = f'<span class="figure">{_inline(interval)}</span>' if interval else ""
        if seeds:
            measured += f'<span class="small">{seeds}</span>'
        if verdict.detectable:
            measured += f'<span class="small">80 % power for {number(verdict.detectable, 2)}</span>'
        yield (
            f'<tr><th scope="row"><span class="letter">{escape(claim.name)}</span> '
            f"{_inline(claim.sentence)}</th>"
            f'<td data-label="{answer}">{badge(verdict.status)}<span class="small">{_inline(verdict.reason)}</span></td>'
            f'<td data-label="Measured">{measured or "–"}</td>'
            f'<td data-label="{source}">{_inline(claim.paper) or "–"}</td></tr>'
        )
    yield "</tbody>\n</table>"


def _table(table: DataTable, label: str) -> Iterator[str]:
    """Yield a table under its caption; a long one shows its beginning and folds the rest."""
    columns = columns_of(table.rows)
    if not columns:
        yield f"<p>{_inline(table.caption)}: empty</p>"
        return
    right = dict(zip(columns, number_columns(table.rows, columns), strict=True))
    head = "".join(f'<th scope="col"{_right(right[name])}>{_inline(name)}</th>' for name in columns)
    named = f' aria-labelledby="{label}"' if table.caption else ""
    caption = f'<figcaption id="{label}">{_inline(table.caption)}</figcaption>' if table.caption else ""
    kind = "data wide" if len(columns) > _WIDE else "data"
    yield f'<figure class="table">{caption}'
    shown, rest = table.rows[:_LONG_TABLE], table.rows[_LONG_TABLE:]
    for rows in (shown, rest):
        if not rows:
            continue
        if rows is rest:
            yield f"<details><summary>{len(rest)} more rows</summary>"
        yield f'<div class="scroll" tabindex="0"><table class="{kind}"{named}><thead><tr>{head}</tr></thead><tbody>'
        for row in rows:
            yield f"<tr>{''.join(_cell(row.get(name), right[name]) for name in columns)}</tr>"
        yield "</tbody></table></div>" + ("</details>" if rows is rest else "")
    yield "</figure>"


def _right(yes: bool) -> str:
    return ' class="number"' if yes else ""


def _cell(value: Any, right: bool) -> str:
    text = cell(value)
    return f"<td{_right(right)}>{badge(text) if text in STATUS_MARKS else _inline(text)}</td>"


def _facts(facts: Facts) -> Iterator[str]:
    yield f'<table class="facts"><caption>{_inline(facts.caption)}</caption><tbody>'
    for fact in facts.facts:
        value = f"<code>{escape(fact.value)}</code>"
        if fact.changed_from is not None:
            value = f'<mark>{value}</mark> <span class="small">instead of {escape(fact.changed_from)}</span>'
        note = f'<span class="small">{_inline(fact.note)}</span>' if fact.note else ""
        yield f'<tr><th scope="row"><code>{escape(fact.name)}</code></th><td>{value}{note}</td></tr>'
    yield "</tbody></table>"


def _inline(text: str) -> str:
    """Return text as HTML; `backticks` become code, **stars** become strong."""
    return _MARKED.sub(
        lambda found: f"<code>{found[1]}</code>" if found[1] else f"<strong>{found[2]}</strong>",
        escape(str(text), quote=False),
    )
