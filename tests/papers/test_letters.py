"""The letters of claims bind paper.toml, CLAIMS, the page of the paper and its published results."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from gpt2lab.base.registry import Paper, papers
from gpt2lab.studies.claim import Claim
from gpt2lab.studies.experiment import load_experiment

DOCS = Path(__file__).parents[2] / "docs"
BUILT = [paper for paper in papers() if paper.built and paper.module.startswith("gpt2lab.")]
PUBLISHED = [paper for paper in BUILT if (DOCS / "results" / f"{paper.slug}.md").is_file()]
every_built_paper = pytest.mark.parametrize("paper", BUILT, ids=lambda paper: paper.slug)


def unbound(stated: Sequence[tuple[str, bool]], programs: Sequence[tuple[str, bool]]) -> list[str]:
    """Return a sentence for every letter that does not bind.

    stated: letters of paper.toml, each with whether it is planned only. programs: names of CLAIMS, each with whether it is
    a check, which paper.toml need not state.
    """
    names = [name for name, _ in programs]
    tested = [letter for letter, planned in stated if not planned]
    wrong = [f"{letter}: stated, but CLAIMS has none" for letter in tested if letter not in names]
    wrong += [f"{name}: planned, but CLAIMS has it" for name, planned in stated if planned and name in names]
    wrong += [
        f"{name}: in CLAIMS, but not stated" for name, check in programs if not check and name not in tested
    ]
    in_both = [name for name in names if name in tested]
    if not wrong and in_both != tested:
        wrong.append(f"another order: {tested} stated, {in_both} in CLAIMS")
    return wrong


@every_built_paper
def test_every_claim_of_paper_toml_has_its_program_or_says_why_not(paper: Paper) -> None:
    stated = [(claim.letter, bool(claim.planned)) for claim in paper.claims]
    programs: list[Claim] = list(paper.study().CLAIMS)
    letters = [letter for letter, _ in stated]
    assert all(re.fullmatch("[A-Z]", letter) for letter in letters), letters
    assert len(set(letters)) == len(letters), letters
    assert unbound(stated, [(claim.name, claim.is_check) for claim in programs]) == []


@pytest.mark.parametrize(
    ("stated", "programs", "words"),
    [
        ([("A", False), ("B", False)], [("A", False)], ["B: stated, but CLAIMS has none"]),
        ([("A", False)], [("A", False), ("B", False)], ["B: in CLAIMS, but not stated"]),
        (
            [("A", False), ("B", True)], [("A", False), ("B", False)],
            ["B: planned, but CLAIMS has it", "B: in CLAIMS, but not stated"],
        ),
        (
            [("A", False), ("B", False)], [("B", False), ("A", False)],
            ["another order: ['A', 'B'] stated, ['B', 'A'] in CLAIMS"],
        ),
        ([("A", False), ("C", True)], [("A", False), ("B", True)], []),
        ([("A", False), ("B", False)], [("A", False), ("B", True)], []),
    ],
)  # fmt: skip
def test_a_letter_that_does_not_bind_is_named(
    stated: list[tuple[str, bool]], programs: list[tuple[str, bool]], words: list[str]
) -> None:
    assert unbound(stated, programs) == words


def letters_of_tables(text: str, header: str) -> list[str]:
    """Return the letters of the rows of all tables that begin with `header`, sorted; each kind of check may have one."""
    tables = re.findall(rf"^{re.escape(header)}.*\n\|[ :|-]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    return sorted(letter for table in tables for letter in re.findall(r"^\| ([A-Z]) ", table, re.MULTILINE))


def letters_of_row(cell: str) -> list[str]:
    """Return the letters of `A`, `B of the paper`, `C, E` and `G to K`."""
    first, to, more = re.match(r"([A-Z])(?: to ([A-Z]))?((?:, [A-Z])*)\b", cell).groups()  # type: ignore[union-attr]  # every row has one
    last = to or first
    return [*map(chr, range(ord(first), ord(last) + 1)), *re.findall("[A-Z]", more)]


@every_built_paper
def test_the_page_of_a_paper_has_the_same_letters(paper: Paper) -> None:
    claims = load_experiment(paper).claims
    text = (DOCS / "papers" / f"{paper.slug}.md").read_text(encoding="utf-8")
    assert letters_of_tables(text, "| | claim |") == sorted(one.name for one in claims if one.kind == "claim")
    assert letters_of_tables(text, "| | check |") == sorted(one.name for one in claims if one.is_check)
    verdicts = re.search(r"^\| \| verdict \|.*\n\|[ :|-]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    if verdicts:  # a paper without published results has none
        rows = re.findall(r"^\| (.+?) \|", verdicts[1], re.MULTILINE)
        assert sorted(letter for row in rows for letter in letters_of_row(row)) == sorted(
            one.name for one in claims
        )


@pytest.mark.parametrize("paper", PUBLISHED, ids=lambda paper: paper.slug)
def test_the_published_results_have_the_same_letters(paper: Paper) -> None:
    claims = load_experiment(paper).claims
    text = (DOCS / "results" / f"{paper.slug}.md").read_text(encoding="utf-8")
    assert letters_of_tables(text, "|  | claim |") == sorted(
        one.name for one in claims if one.kind == "claim"
    )
    assert letters_of_tables(text, "|  | check |") == sorted(one.name for one in claims if one.is_check)


@every_built_paper
def test_every_claim_says_on_which_day_its_rule_was_fixed(paper: Paper) -> None:
    undated = [
        claim.name for claim in load_experiment(paper).claims if claim.kind == "claim" and not claim.fixed
    ]
    assert not undated
