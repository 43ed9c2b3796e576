"""What a study prints: each claim with its verdict, what was measured and the paper's figure, in few lines."""

from pathlib import Path

import pytest

from gpt2lab.cli import main
from gpt2lab.cli.reproduce import show_study
from gpt2lab.papers.occupational_bias.study import CLAIMS, PRESETS
from gpt2lab.runs.verdicts import JudgedClaim
from gpt2lab.studies.claim import Above, Claim
from gpt2lab.studies.judge import judge
from gpt2lab.studies.study import Study

GAINS = {0: {"gain": 0.2}, 1: {"gain": 0.3}, 2: {"gain": 0.4}}


def _printed(claims: list[Claim], scale: str, capsys: pytest.CaptureFixture[str]) -> str:
    judged = [JudgedClaim(claim.recorded(), judge(claim, GAINS, scale)) for claim in claims]
    show_study(Study("tide-1", "tide", scale, (0, 1, 2), None, [], judged, [], Path("runs/tide-1")), False)
    return capsys.readouterr().out


def test_a_claim_is_printed_with_what_was_measured_beside_the_papers_figure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    claims = [
        Claim("It gains", "gain", holds_if=Above(0.0), paper="a gain of 0.5", unit="nats", name="A"),
        Claim("It gains at length", "gain", holds_if=Above(0.0), scales=("laptop",), name="B"),
        Claim("GPT-2 gains", "other", holds_if=Above(0.0), scales=("gpu", "paper"), name="C"),
    ]
    text = _printed(claims, "smoke", capsys)
    assert (
        "A  It gains\n   verdict   holds\n   measured  0.3 [0.05159, 0.5484] nats; the claim holds if above 0"
        in text
    )
    assert "   paper     a gain of 0.5" in text
    assert "verdict   not tested at this scale, but at laptop scale\n   measured  0.3 [" in text
    assert "nothing to measure at this scale:\nC  GPT-2 gains (gpu or paper)" in text
    assert "next    gpt2lab reproduce tide --scale laptop" in text
    assert "next" not in _printed(claims, "laptop", capsys)


def test_equal_numbers_of_all_seeds_are_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    claim = Claim("It is one", lambda results: 1.0, holds_if=Above(0.0), name="A")
    assert "measured  1; the claim holds if above 0" in _printed([claim], "laptop", capsys)


def test_the_first_study_of_a_newcomer_judges_no_model_that_has_not_learnt() -> None:
    """At smoke scale only what the authors released is judged; what the model did is measured."""
    assert "smoke" in PRESETS
    here = [claim for claim in CLAIMS if "smoke" in claim.scales]
    assert here and all(claim.is_check and "released" in claim.sentence for claim in here)


def test_what_the_study_can_find_is_said_before_it_runs(
    tide: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GPT2LAB_QUIET", raising=False)
    monkeypatch.setenv("GPT2LAB_HOME", str(home))
    source = (tide / "study.py").read_text(encoding="utf-8")
    stated = source.replace(
        "holds_if=Below(0.0),", 'holds_if=Below(0.0), paper_effect=-0.4, pilot_sd={"smoke": 0.05},'
    )
    (tide / "study.py").write_text(stated, encoding="utf-8")
    assert main(["reproduce", "tide", "--scale", "smoke", "--workers", "1"]) == 0
    said = capsys.readouterr()
    power = (
        "A: With the pilot's spread (s.d. 0.05) 3 seeds find a distance of 0.16 from the threshold with 80 % power, and the "
        "paper's is 0.4"
    )
    assert said.err.startswith(f"{power}\n")
    assert "A  Tide ends with a lower loss than the baseline\n   verdict   holds" in said.out


def test_a_claim_over_items_says_over_how_many(capsys: pytest.CaptureFixture[str]) -> None:
    claim = Claim("It answers", "right", holds_if=Above(0.5), over="items", name="A")
    verdict = judge(claim, {0: {}}, "laptop", {0: {"right": [1.0] * 80 + [0.0] * 20}})
    judged = [JudgedClaim(claim.recorded(), verdict)]
    show_study(Study("tide-1", "tide", "laptop", (0,), None, [], judged, [], Path("runs/tide-1")), False)
    assert "measured  0.8 [0.7082, 0.8733] (exact binomial over 100 items)" in capsys.readouterr().out


def test_checks_are_printed_apart_by_what_they_check(capsys: pytest.CaptureFixture[str]) -> None:
    claims = [
        Claim("It finds what was planted", "gain", holds_if=Above(0.0), kind="instrument", name="B"),
        Claim("It gains", "gain", holds_if=Above(0.0), name="A"),
        Claim("It is fast", "gain", holds_if=Above(9.0), kind="engineering", name="C"),
    ]
    text = _printed(claims, "laptop", capsys)
    assert text.index("A  It gains") < text.index(
        "checks of the instrument, no claim of the paper:\nB  It finds"
    )
    assert "our own engineering, no claim of the paper:\nC  It is fast: fails. It is 0.2 in seed 0" in text
    assert "checks of the implementation" not in text
