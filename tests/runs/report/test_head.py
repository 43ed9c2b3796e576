"""First in a report: three sentences and one figure, made from the verdicts or said by the experiment."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.runs.head import HEAD, Head, read_head, write_head
from gpt2lab.runs.report.document import Picture, Prose
from gpt2lab.runs.report.head import head_blocks
from gpt2lab.runs.report.write import write_report
from gpt2lab.runs.run import Run
from gpt2lab.runs.verdicts import FILE, JudgedClaim, Status, Verdict, write_verdicts
from gpt2lab.studies.claim import Above, AtLeast, Claim
from gpt2lab.studies.judge import judge

GAIN = Claim(
    "It gains", "x", quantity="loss of the one minus that of the other", holds_if=Above(0.0), unit="nats", name="A",
    paper_effect=0.04,
)  # fmt: skip


def judged(claim: Claim, values: Sequence[float], scale: str = "laptop") -> JudgedClaim:
    return JudgedClaim(
        claim.recorded(), judge(claim, {seed: {"x": x} for seed, x in enumerate(values)}, scale)
    )


def said(
    claims: Sequence[JudgedClaim], folder: Path, head: Head | None = None, scale: str = "laptop"
) -> list[str]:
    blocks = head_blocks(claims, head or Head(), scale, "", [], folder)
    return [block.text for block in blocks if isinstance(block, Prose)]


def test_a_claim_that_holds(tmp_path: Path) -> None:
    asked, found, means = said([judged(GAIN, [0.05, 0.06, 0.04, 0.055])], tmp_path)
    assert asked == "**What was asked.** Does this hold at laptop scale: “It gains” (A)?"
    assert found == (
        "**What was found.** The claim of the paper holds; in A, loss of the one minus that of the other is 0.0512 nats "
        "(95 % interval 0.0377 to 0.0648), the claim holds if that is above 0, and the paper's value is 0.04."
    )
    assert means == (
        "**What it means.** A is supported at this scale, which is not the paper's; the paper's value, 0.04, lies inside "
        "the interval."
    )
    assert (
        "which is not the paper's" not in said([judged(GAIN, [0.05, 0.06, 0.04])], tmp_path, scale="paper")[2]
    )


def test_a_claim_that_is_refuted_and_one_that_is_not_shown(tmp_path: Path) -> None:
    refuted = said([judged(GAIN, [-0.05, -0.06, -0.055, -0.052])], tmp_path)
    assert "The claim of the paper is refuted; in A" in refuted[1]
    assert re.search(
        r"A is refuted at this scale, [^;]*; with this spread 4 seeds find a true distance of 0\.\d+ from the threshold "
        r"with 80 % power, and the paper's is 0\.04\.$",
        refuted[2],
    )
    undecided = said([judged(GAIN, [-0.05, 0.06, 0.01])], tmp_path)
    assert "The claim of the paper is neither shown nor refuted" in undecided[1]
    assert (
        "Nothing follows for A, or against it: with this spread 3 seeds find a true distance of"
        in undecided[2]
    )
    few = said([judged(GAIN, [0.05])], tmp_path)
    assert few[2].startswith("**What it means.** Nothing follows for A, or against it: only 1 seed finished")


def test_claims_are_counted_and_the_first_that_was_tested_is_the_main_one(tmp_path: Path) -> None:
    elsewhere = Claim("It gains at length", "x", holds_if=Above(0.0), name="A", scales=("gpu",))
    weak = Claim("It triples", "x", holds_if=AtLeast(3.0), holds_in_part_if=AtLeast(1.0), name="B")
    check = Claim("It counts", "x", holds_if=Above(0.0), name="C", kind="implementation")
    values = [1.4, 1.5, 1.6]
    asked, found, means = said([judged(claim, values) for claim in (elsewhere, weak, check)], tmp_path)
    assert asked.endswith("“It gains at length” (A), and 1 further claim of the paper?")
    tally = "Of 2 claims of the paper, 1 holds in part and 1 could not be tested at this scale; in B, the quantity"
    assert tally in found
    assert (
        "B is not supported in full at this scale, which is not the paper's, but it is at least 1." in means
    )


def test_where_nothing_could_be_tested_nothing_follows(tmp_path: Path) -> None:
    needy = Claim("It gains", "x", holds_if=Above(0.0), needs="x > 9", name="A")
    _, found, means = said([judged(needy, [1.0, 2.0, 3.0])], tmp_path)
    assert found == "**What was found.** The claim of the paper could not be tested at this scale."
    assert "Nothing follows for the paper: A needs x > 9, which fails in seeds 0, 1 and 2" in means


def test_the_figure_shows_every_claim_and_no_check(tmp_path: Path) -> None:
    check = Claim("It counts", "x", holds_if=Above(0.0), name="C", kind="implementation")
    both = [judged(GAIN, [0.1, 0.2, 0.3]), judged(check, [1.0])]
    picture = head_blocks(both, Head(), "laptop", "", [], tmp_path)[-1]
    assert isinstance(picture, Picture) and picture.file is not None
    assert picture.file.read_text() == picture.svg
    assert "It gains" in picture.svg and "It counts" not in picture.svg


def test_an_experiment_says_its_own_words_and_shows_its_own_figure(tmp_path: Path) -> None:
    own = Picture("curve", "A curve", "<svg/>")
    head = Head(asked="Is it so?", means="It is.", figure="curve")
    blocks = head_blocks([judged(GAIN, [0.2, 0.21, 0.22])], head, "laptop", "", [own], tmp_path)
    assert blocks[-1] is own
    texts = [block.text for block in blocks if isinstance(block, Prose)]
    assert (texts[0], texts[2]) == ("**What was asked.** Is it so?", "**What it means.** It is.")
    assert texts[1].startswith("**What was found.** The claim of the paper holds")
    bare = head_blocks([], Head(), "laptop", "All measures.", [own], tmp_path)
    assert bare == [Prose("**What was asked.** All measures.")], "without claims there is no figure of claims"


def test_the_head_comes_first_and_its_figure_once(home: Path) -> None:
    with Run.start("study", "moon", home=home, settings={}, paper="moon", scale="laptop") as run:
        run.write_file(FILE, write_verdicts([judged(GAIN, [0.1, 0.2, 0.3])]))
        run.write_file(HEAD, write_head(Head(found="It was found.", figure="curve")))
        for name in ("other", "curve"):
            run.figure(name, f"<svg><title>{name}</title></svg>", f"The {name}")
    text = write_report(run.id, home=home).with_suffix(".md").read_text()
    order = ("**What was asked.**", "It was found.", "curve.svg", "## Verdicts", "other.svg")
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    assert text.count("curve.svg") == 1


def test_words_are_read_back_and_damaged_ones_refused(tmp_path: Path) -> None:
    assert read_head(tmp_path) == Head()
    (tmp_path / HEAD).write_text(write_head(Head("a?", "b", "c", "d")))
    assert read_head(tmp_path) == Head("a?", "b", "c", "d")
    for content in ("[]", '{"asked": 1, "found": "", "means": "", "figure": ""}'):
        (tmp_path / HEAD).write_text(content)
        with pytest.raises(LabError, match=r"head\.json: must hold the texts"):
            read_head(tmp_path)


def test_a_claim_whose_quantity_is_not_finite_has_a_head(tmp_path: Path) -> None:
    broken = JudgedClaim(
        GAIN.recorded(), Verdict(Status.INCONCLUSIVE, "The quantity is nan.", ((0, math.nan),))
    )
    assert said([broken], tmp_path)[2].endswith("Nothing follows for A, or against it: the quantity is nan.")
