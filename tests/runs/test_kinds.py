"""Claims of the paper and the three kinds of checks are told apart wherever they are shown."""

import math
import re
from pathlib import Path
from typing import get_args

import pytest

from gpt2lab.cli import main
from gpt2lab.runs.kinds import WORDS, by_kind
from gpt2lab.runs.report.claims import claim_sections
from gpt2lab.runs.report.document import Document
from gpt2lab.runs.report.html import to_html
from gpt2lab.runs.report.markdown import to_markdown
from gpt2lab.runs.report.side_by_side import verdict_rows
from gpt2lab.runs.report.write import write_comparison
from gpt2lab.runs.run import Run
from gpt2lab.runs.store import Store
from gpt2lab.runs.verdicts import (
    FILE,
    JudgedClaim,
    Kind,
    Range,
    RecordedClaim,
    Status,
    Verdict,
    write_verdicts,
)


def judged(name: str, kind: Kind, status: Status = Status.PASSES) -> JudgedClaim:
    wanted = Range(0.0, math.inf, False, "above 0")
    return JudgedClaim(
        RecordedClaim(name, f"It is {kind}", kind=kind, holds_if=wanted), Verdict(status, "So.", ((0, 1.0),))
    )


MIXED = [
    judged("E", "engineering"),
    judged("A", "claim", Status.HOLDS),
    judged("C", "implementation"),
    judged("B", "instrument"),
    judged("D", "implementation"),
]


def test_every_kind_has_words_and_claims_come_first() -> None:
    assert list(WORDS) == list(get_args(Kind))
    found = by_kind(MIXED)
    assert {kind: [one.claim.name for one in ones] for kind, ones in found.items()} == {
        "claim": ["A"], "instrument": ["B"], "implementation": ["C", "D"], "engineering": ["E"],
    }  # fmt: skip
    assert list(found) == list(WORDS)
    assert by_kind([]) == {}


def test_a_report_has_a_section_for_each_kind_with_what_it_means(tmp_path: Path) -> None:
    document = Document("x", [], claim_sections(MIXED, tmp_path))
    text = to_markdown(document, tmp_path)
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert list(sections) == [
        "Verdicts", "Claim by claim", "Checks of the instrument", "Checks of the implementation",
        "Our own engineering",
    ]  # fmt: skip
    assert re.findall(r"^\| (\w) \|", sections["Verdicts"], re.MULTILINE) == ["A"]
    assert re.findall(r"^### (\w)\.", sections["Claim by claim"], re.MULTILINE) == ["A"]
    for kind, letters in (("instrument", ["B"]), ("implementation", ["C", "D"]), ("engineering", ["E"])):
        section = sections[WORDS[kind].title]
        assert WORDS[kind].meaning in section
        assert re.findall(r"^\| (\w) \|", section, re.MULTILINE) == letters
        assert re.findall(r"^### (\w)\.", section, re.MULTILINE) == letters
    page = to_html(document)
    assert all(WORDS[kind].title in page for kind in ("instrument", "implementation", "engineering"))


def test_a_study_of_checks_alone_says_that_no_claim_was_judged(tmp_path: Path) -> None:
    text = to_markdown(Document("x", [], claim_sections(MIXED[2:3], tmp_path)), tmp_path)
    assert "## Verdicts\n\nNo claim was judged.\n\n## Checks of the implementation" in text


def test_two_studies_of_a_paper_are_compared_by_their_verdicts(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for paper, status in (("tide", Status.HOLDS), ("tide", Status.INCONCLUSIVE), ("ebb", Status.HOLDS)):
        with Run.start("study", paper, home=home, settings={}, paper=paper, scale="smoke") as run:
            run.write_file(FILE, write_verdicts([judged("A", "claim", status), *MIXED[2:]]))
    rows = {name: Store(home).find(name) for name in ("tide-1", "tide-2", "ebb-1")}
    found = verdict_rows([rows["tide-1"], rows["tide-2"]], home)
    assert found["claim"] == [{"name": "A. It is claim", "tide-1": "holds", "tide-2": "inconclusive"}]
    assert list(found) == ["claim", "instrument", "implementation"]
    assert verdict_rows([rows["tide-1"], rows["ebb-1"]], home) == {}
    page = write_comparison(["tide-1", "tide-2"], home=home).with_suffix(".md").read_text()
    assert (
        page.index("## Claims of the paper")
        < page.index("## Checks of the implementation")
        < page.index("## Results")
    )
    monkeypatch.setenv("GPT2LAB_HOME", str(home))
    assert main(["compare", "tide-1", "tide-2"]) == 0
    said = capsys.readouterr().out
    assert re.search(
        r"^claims of the paper +tide-1 +tide-2\nA\. It is claim +holds +inconclusive$", said, re.MULTILINE
    )
