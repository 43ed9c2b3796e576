"""The thirty paper.toml files: complete, well-formed, readable in an instant, and docs/papers.md in step with them."""

import ast
import re
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

import gpt2lab.papers
from gpt2lab.base.registry import PART_KINDS, WORKS, papers, parts
from scripts.papers_table import PAGE, page

HOUSE = Path(gpt2lab.papers.__file__).parent
FILES = sorted(HOUSE.glob("*/paper.toml"))
BY_WORK = {
    "training": "tinystories sophia conda megatron knowledge-capacity impossible-languages pondering meta-tokens "
    "central-dogma",
    "adaptation": "wechsel llamantino er-triage telecom",
    "reasoning": "sim-cot perk",
    "reinforcement": "rlgf rag-policy video-salmonn-2",
    "generation": "contrastive-search vlog",
    "compression": "vtrans",
    "interpretability": "layernorm-removal anchored-answers hftp",
    "safety": "pii-leakage red-teaming occupational-bias authorship-deception",
    "evaluation": "theory-of-mind chemistry",
}
TEXTS = ("slug", "title", "arxiv", "date", "work", "repo", "summary")
ROWS = {
    "parts": ("kind", "name", "object", "summary"),
    "claims": ("words", "paper", "where"),
    "figures": ("what", "value", "where"),
}
COUNTS = {"parts": range(1, 8), "claims": range(3, 11), "figures": range(4, 11)}
MORE_CLAIMS = {"knowledge-capacity": 16}
"""The paper states twelve results, each with a verdict; the first is three statements, the sixth and the eighth are two."""

each = pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)


def read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def all_texts(content: dict[str, Any]) -> list[str]:
    rows = [row for name in ROWS for row in content[name]]
    return [content[name] for name in TEXTS] + [text for row in rows for text in row.values()]


def test_the_papers_are_the_thirty_of_the_design_each_in_its_family_of_work() -> None:
    found: dict[str, set[str]] = {}
    for path in FILES:
        content = read(path)
        found.setdefault(content["work"], set()).add(content["slug"])
    assert found == {work: set(slugs.split()) for work, slugs in BY_WORK.items()}
    assert set(found) == set(WORKS)
    assert len(FILES) == 30


@each
def test_a_paper_has_every_key_with_its_type_and_no_other(path: Path) -> None:
    content = read(path)
    assert set(content) == {*TEXTS, "authors", *ROWS}
    assert all(isinstance(content[name], str) for name in TEXTS)
    assert all(content[name] for name in TEXTS if name not in ("arxiv", "repo"))
    assert type(content["authors"]) is int
    assert content["authors"] >= 1
    for name, keys in ROWS.items():
        more = MORE_CLAIMS.get(content["slug"], 0) if name == "claims" else 0
        assert len(content[name]) == more or (not more and len(content[name]) in COUNTS[name])
        for row in content[name]:
            optional = {"letter", "planned", "where"} if name == "claims" else set()
            assert set(keys) - optional <= set(row) <= {*keys, *optional}
            assert all(isinstance(text, str) and text for text in row.values())


@each
def test_the_folder_is_the_slug_and_a_package_whose_import_imports_nothing(path: Path) -> None:
    """What a package offers under its own name, as `from gpt2lab.papers.conda import Conda`, it imports when asked."""
    assert path.parent.name == read(path)["slug"].replace("-", "_")
    tree = ast.parse((path.parent / "__init__.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom):
            assert statement.module == "typing"
        elif isinstance(statement, ast.If):
            assert ast.unparse(statement.test) == "TYPE_CHECKING"
        else:
            assert not isinstance(statement, ast.Import)


@each
def test_the_date_is_the_month_of_the_arxiv_number_or_the_one_before(path: Path) -> None:
    content = read(path)
    assert re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", content["date"])
    if content["arxiv"]:
        # A paper sent in on the last day of a month gets the next month's number (er-triage).
        assert re.fullmatch(r"\d{4}\.\d{4,5}", content["arxiv"])
        year, month = map(int, content["date"].split("-"))
        number = 12 * (2000 + int(content["arxiv"][:2])) + int(content["arxiv"][2:4])
        assert number - (12 * year + month) in (0, 1)


@each
def test_a_repository_is_an_address(path: Path) -> None:
    repo = read(path)["repo"]
    assert not repo or re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", repo)


@each
def test_a_part_has_a_kind_a_name_to_type_and_a_place_inside_the_folder(path: Path) -> None:
    for part in read(path)["parts"]:
        assert part["kind"] in PART_KINDS
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", part["name"])
        assert re.fullmatch(r"[a-z_]+(\.[a-z_]+)*:[A-Z]\w*", part["object"])


@each
def test_sentences_are_short_and_printable(path: Path) -> None:
    content = read(path)
    for text in all_texts(content):
        assert text.isprintable()
        assert text == " ".join(text.split())
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", text):
            assert len(sentence) <= 300
    assert len(re.findall(r"[.!?](?=\s+[A-Z]|$)", content["summary"])) == 2


def test_no_two_parts_share_a_name_and_the_registry_reads_them_all() -> None:
    announced = [part["name"] for path in FILES for part in read(path)["parts"]]
    assert len(announced) == len(set(announced))
    registered = [part.name for part in parts()]
    assert len(registered) == len(set(registered))
    assert set(announced) <= set(registered)


def test_no_claim_or_figure_is_stated_twice_in_a_paper() -> None:
    for path in FILES:
        content = read(path)
        for name, key in (("claims", "words"), ("figures", "what")):
            said = [row[key] for row in content[name]]
            assert len(said) == len(set(said)), path.parent.name


def test_all_thirty_are_parsed_within_a_tenth_of_a_second() -> None:
    def seconds() -> float:
        start = time.process_time()
        for path in FILES:
            read(path)
        return time.process_time() - start

    assert min(seconds() for _ in range(5)) < 0.1


def test_the_page_of_papers_is_what_its_script_writes() -> None:
    ours = [paper for paper in papers() if paper.module.startswith("gpt2lab.papers.")]
    assert PAGE.read_text(encoding="utf-8") == page(ours), "run `python scripts/papers_table.py`"
