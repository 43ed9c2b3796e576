"""A reader finds each main equation in the code: README → the paper's page → the file, whose line carries a mark."""

import ast
import re
from pathlib import Path

import pytest

from gpt2lab.base.registry import papers

ROOT = Path(__file__).parents[2]
_HEADING = "## Where the equations are\n"
_ROW = re.compile(
    r"^\| (?P<equation>.+) \| \[`.+?`\]\((?P<link>.+?)\) `(?P<function>.+?)` \| `(?P<mark># .+)` \|$"
)


def _rows(page: Path) -> list[re.Match[str]]:
    """Return the table's rows below its heading; every line of it must be readable."""
    _, _, section = page.read_text(encoding="utf-8").partition(_HEADING)
    lines = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("| ")][2:]
    found = [_ROW.match(line) for line in lines]
    assert all(found), f"{page.name}: {lines[found.index(None)]}" if None in found else ""
    return [row for row in found if row]


def _source(file: Path, function: str) -> str:
    """Return the source of `name` or `Class.name` in a file."""
    text = file.read_text(encoding="utf-8")
    body, lines = ast.parse(text).body, (0, 0)
    for part in function.split("."):
        named = [
            node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == part
        ]
        assert named, f"{file.name} has no {function}"
        body, lines = named[0].body, (named[0].lineno - 1, named[0].end_lineno or 0)
    return "\n".join(text.splitlines()[slice(*lines)])  # whole lines: a mark stands behind the last one too


@pytest.mark.parametrize("slug", [paper.slug for paper in papers() if paper.built])
def test_a_paper_page_names_the_functions_of_its_equations_and_they_carry_the_marks(slug: str) -> None:
    page = ROOT / "docs" / "papers" / f"{slug}.md"
    assert f"(docs/papers/{slug}.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
    rows = _rows(page)
    assert len(rows) >= 3, f"{page.name} has no table of its main equations"
    for row in rows:
        file = (page.parent / row["link"]).resolve()
        assert file.is_relative_to(ROOT / "gpt2lab" / "papers" / slug.replace("-", "_")), row["link"]
        assert row["mark"] in _source(file, row["function"]), f"{row['function']} lacks {row['mark']}"
