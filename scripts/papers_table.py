"""Write docs/papers.md, the table of the papers, from their paper.toml files: `python scripts/papers_table.py`."""

from collections.abc import Sequence
from pathlib import Path

from gpt2lab.base.files import atomic_write
from gpt2lab.base.registry import WORKS, Paper, papers

PAGE = Path(__file__).parents[1] / "docs" / "papers.md"

_INTRODUCTION = """\
# The papers

Each paper adds parts to gpt2lab and a study of its own claims. `gpt2lab papers NAME` shows one in full: the idea, the
claims in words with the paper's own figures, and their verdicts. A part in italics is planned and has no code yet.
`python scripts/papers_table.py` writes this page from `gpt2lab/papers/*/paper.toml`; edit those files instead.
"""


def page(every: Sequence[Paper]) -> str:
    """Return the page as Markdown: one row a paper, by family of work in the design's order, then by date."""
    rows = sorted(every, key=lambda paper: (WORKS.index(paper.work), paper.date, paper.slug))
    lines = [
        _INTRODUCTION,
        "| paper | arXiv | date | family of work | adds | built |",
        "| --- | --- | --- | --- | --- | --- |",
        *map(_row, rows),
        "",
        f"{len(rows)} papers, {sum(paper.built for paper in rows)} built.",
    ]
    return "\n".join(lines) + "\n"


def _row(paper: Paper) -> str:
    link = f"[{paper.arxiv}](https://arxiv.org/abs/{paper.arxiv})" if paper.arxiv else "none"
    adds = ", ".join(
        f"{part.kind} {part.name}" if part.built else f"*{part.kind} {part.name}*" for part in paper.parts
    )
    built = "yes" if paper.built else "not yet"
    cells = (f"`{paper.slug}` {paper.title}", link, paper.date, paper.work, adds or "none", built)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    atomic_write(PAGE, page([paper for paper in papers() if paper.module.startswith("gpt2lab.papers.")]))
