"""Verdicts in a run's folder: written and read without loss, old files too, others refused."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.base.interval import Interval
from gpt2lab.runs.verdicts import (
    FILE,
    JudgedClaim,
    Range,
    RecordedClaim,
    Status,
    Verdict,
    read_judgements,
    with_history,
    write_verdicts,
)

CLAIM = RecordedClaim(
    name="B",
    sentence="It gains | truly",
    measure="a - b",
    quantity="a above b",
    unit="nats",
    needs="a > 1",
    expressions=("measure", "needs"),
    holds_if=Range(0.5, math.inf, False, "above 0.5"),
    holds_in_part_if=Range(0.0, 1.0, True, "between 0 and 1"),
    scales=("laptop", "gpu"),
    paper="0.7",
    kind="implementation",
    over="items",
    best_of=12,
    effect=0.2,
    paper_value=0.7,
    no_effect=0.0,
    fixed="2026-11-30",
)
VERDICT = Verdict(
    Status.IN_PART,
    "So.",
    values=((0, 0.25), (2, math.nan)),
    interval=Interval(0.25, -math.inf, math.inf, 1, 0.5, 0.99),
    method="t over 1 seed",
    detectable=math.inf,
    power="Much.",
    precondition="met in seed 0",
)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    bare = JudgedClaim(RecordedClaim("A", "It is"), Verdict(Status.NOT_TESTED, "Not here."))
    (tmp_path / FILE).write_text(write_verdicts([bare, JudgedClaim(CLAIM, VERDICT)]))
    first, second = read_judgements(tmp_path)
    assert first == bare
    assert second.claim == CLAIM
    assert second.verdict.values[0] == (0, 0.25) and math.isnan(second.verdict.values[1][1])
    assert second.verdict.interval == VERDICT.interval
    assert (second.verdict.status, second.verdict.detectable) == (Status.IN_PART, math.inf)
    assert second.verdict.precondition == "met in seed 0"


def judged(name: str, **fields: Any) -> JudgedClaim:
    verdict = Verdict(Status.HOLDS, "So.", values=((0, 0.25), (1, 0.5)))
    return JudgedClaim(RecordedClaim(name, "It is"), verdict, **fields)


def test_judging_again_takes_nothing_away(tmp_path: Path) -> None:
    first = with_history([], [judged("A", fingerprint="0a"), judged("B")], "2026-12-01")
    assert [(one.claim.name, one.judged, one.superseded) for one in first] == [
        ("A", "2026-12-01", ""),
        ("B", "2026-12-01", ""),
    ]
    assert with_history(first, [judged("A", fingerprint="0a"), judged("B")], "2026-12-02") == first
    other = replace(judged("A", fingerprint="1b"), of_seen=VERDICT)
    second = with_history(first, [other], "2026-12-03")
    assert [(one.claim.name, one.fingerprint, one.superseded) for one in second] == [
        ("A", "1b", ""),
        ("A", "0a", "2026-12-03"),
        ("B", "", "2026-12-03"),
    ]
    assert with_history(second, [other], "2026-12-04") == second
    assert second[1].words_beside(second[0]) == "holds (over 2 seeds on 2026-12-01; by the rule of before)"
    assert second[2].words_beside(None).endswith("; the claim is not stated any more)")
    (tmp_path / FILE).write_text(write_verdicts(second))
    assert read_judgements(tmp_path)[1:] == second[1:]
    read = read_judgements(tmp_path)[0]
    assert read.of_seen is not None and read.of_seen.interval == VERDICT.interval


def test_a_run_without_verdicts_has_none(tmp_path: Path) -> None:
    assert read_judgements(tmp_path) == []


def test_a_file_of_before_quantities_rules_and_scales_were_kept_is_read(tmp_path: Path) -> None:
    entry = json.loads(write_verdicts([JudgedClaim(CLAIM, VERDICT)]))[0]
    for name in (
        "quantity",
        "scales",
        "unit",
        "kind",
        "over",
        "best_of",
        "effect",
        "paper_value",
        "no_effect",
        "fixed",
        "method",
    ):
        del entry[name]
    del entry["holds_if"]["closed"], entry["interval"]["sd"]
    entry |= {"own_rule": True, "rule": "as it says"}
    (tmp_path / FILE).write_text(json.dumps([entry]))
    (read,) = read_judgements(tmp_path)
    assert (read.claim.quantity, read.claim.scales) == ("", ())
    assert (read.claim.kind, read.claim.over, read.claim.best_of, read.claim.effect) == (
        "claim",
        "seeds",
        1,
        None,
    )
    assert (read.claim.paper_value, read.claim.no_effect) == (None, None)
    assert read.claim.holds_if is not None and read.claim.holds_if.low == 0.5
    assert read.verdict.interval is not None and math.isnan(read.verdict.interval.sd)


@pytest.mark.parametrize("content", ['{"a": 1}', "[1]", '[{"name": "A"}]', "[" + "9" * 400 + "]"])
def test_a_file_of_another_form_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(
        LabError, match=r"verdicts\.json: (must hold a JSON list|not written by this version)"
    ):
        read_judgements(tmp_path)


def test_a_range_has_numbers_inside() -> None:
    with pytest.raises(LabError, match="between 2 and 1: the lower end must be smaller"):
        Range(2.0, 1.0, True, "between 2 and 1")
