"""What is fixed before a run: fingerprints of rules, changed rules, splits that choose and are judged."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.runs.run import Run
from gpt2lab.runs.store import Store
from gpt2lab.runs.trial import (
    TRIAL,
    PlannedClaim,
    Splits,
    Trial,
    merged,
    read_splits,
    read_trial,
    write_plain,
)
from gpt2lab.runs.verdicts import Status, read_judgements
from gpt2lab.studies.claim import Above, AtLeast, Below, Claim
from gpt2lab.studies.fingerprint import rule_fingerprint
from gpt2lab.studies.resume import resume
from gpt2lab.studies.study import reproduce, resume_study
from gpt2lab.studies.trial import Past, plan_trial

BASE = Claim("Tide gains", name="A", measure="gain", holds_if=Above(0.0), needs="learnt > 0")


@pytest.mark.parametrize(
    "change",
    [
        {"measure": "gain - 1"}, {"holds_if": Above(0.1)}, {"holds_if": AtLeast(0.0)}, {"holds_in_part_if": Above(-1)},
        {"needs": None}, {"kind": "implementation"}, {"over": "items"}, {"best_of": 3},
        {"paper_effect": 1.0}, {"pilot_sd": 0.1}, {"scales": ("gpu",)}, {"measure": lambda results: results["gain"]},
    ],
)  # fmt: skip
def test_the_fingerprint_changes_with_everything_that_decides(change):
    assert rule_fingerprint(replace(BASE, **change)) != rule_fingerprint(BASE)


def test_the_fingerprint_does_not_change_with_words_and_dates():
    words = replace(
        BASE, sentence="It gains", quantity="the gain", paper="Table 1", unit="nats", fixed="2026-11-30"
    )
    assert rule_fingerprint(words) == rule_fingerprint(BASE)


def test_a_recorded_fingerprint_stays_the_same_from_version_to_version():
    assert rule_fingerprint(BASE) == "4e17f6233180db58"


def test_a_function_counts_with_its_code_and_what_it_closes_over():
    def margin(least):
        def measure(results):
            # a remark
            return results["gain"] - least

        return measure

    one, same, other = (rule_fingerprint(replace(BASE, measure=margin(least))) for least in (1.0, 1.0, 2.0))
    assert one == same != other


def past(ran, claim=BASE, seen=(), name="tide-1"):
    planned = PlannedClaim(claim.name, rule_fingerprint(claim), seen=seen, since="2026-11-30")
    return Past(name, Trial("2026-11-30", (planned,)), ran)


def planned(claim, seeds, *pasts):
    return plan_trial([claim], "laptop", range(seeds), pasts).claims[0]


CHANGED = replace(BASE, holds_if=Above(0.5))


def test_a_changed_rule_is_a_new_claim_for_the_seeds_after_it():
    assert planned(BASE, 3).seen == ()
    same = planned(BASE, 3, past((0, 1)))
    assert (same.seen, same.since) == ((), "2026-11-30")
    after = planned(CHANGED, 3, past((0, 1)))
    assert after.seen == (0, 1) and after.since > "2026-11-30"
    assert planned(CHANGED, 6, past((0, 1, 2, 3), CHANGED, seen=(0, 1))).seen == (0, 1), "it stays so"
    assert planned(BASE, 6, past((2, 3), CHANGED, seen=(0, 1))).seen == (0, 1, 2, 3), "changed once more"
    assert planned(replace(BASE, name="B"), 3, past((0,))).seen == (0,), "a new one"
    check = Claim("Ours is theirs", name="A", measure="x", holds_if=Below(1.0), kind="implementation")
    assert planned(check, 3, past((0, 1))).seen == (), "a check may be mended"


def test_seeds_that_ran_after_a_rule_was_recorded_are_its_own_in_whatever_study():
    other = past((0, 1, 2), CHANGED, name="tide-2")
    assert planned(BASE, 6, past((0, 1)), other).seen == (), "its rule is the older one"
    assert planned(CHANGED, 6, past((0, 1)), other).seen == (0, 1)
    assert planned(CHANGED, 1, past((0, 1)), other).seen == (0,), "of those that are asked for"


@pytest.mark.usefixtures("tide")
def test_a_study_that_begins_again_with_a_changed_rule_is_not_judged_on_the_seeds_that_were_seen(home, tide):
    reproduce("tide", scale="smoke", seeds=1, home=home)
    reproduce("tide", scale="smoke", seeds=1, home=home, settings={"gain": 0.1})
    source = (tide / "study.py").read_text()
    (tide / "study.py").write_text(source.replace("holds_if=Below(0.0)", "holds_if=Below(-0.1)"))
    forget_the_module()
    with pytest.warns(
        UserWarning, match="the rules of A were changed after tide-smoke-1 had run seeds 0: they are"
    ):
        study = reproduce("tide", scale="smoke", seeds=2, home=home)
    assert [claim.claim.seen for claim in study.claims[:2]] == [(0,), ()]
    assert seeds_of(study.claims[0]) == (1,)


def test_the_power_is_recorded_before_the_run():
    assert planned(replace(BASE, pilot_sd=0.1, paper_effect=0.5), 3).power == (
        "With the pilot's spread (s.d. 0.1) 3 seeds find a distance of 0.33 from the threshold with 80 % power, and the "
        "paper's is 0.5."
    )


@pytest.mark.usefixtures("tide")
def test_a_changed_rule_is_judged_on_new_seeds_and_what_was_judged_before_is_kept(home, tide):
    study = reproduce("tide", scale="smoke", home=home)
    recorded = read_trial(study.folder)
    assert recorded is not None and recorded.late == ()
    assert all(claim.seen == () for claim in recorded.claims)
    assert study.claims[0].verdict.status is Status.HOLDS and study.earlier == []
    source = (tide / "study.py").read_text()
    assert "holds_if=Below(0.0)" in source
    (tide / "study.py").write_text(source.replace("holds_if=Below(0.0)", "holds_if=Below(-0.1)"))
    forget_the_module()

    again = resume_study(Store(home).find("tide"), home=home)
    changed, kept = again.claims[0], again.claims[1]
    assert changed.claim.seen == (0, 1, 2)
    assert changed.verdict.reason.startswith(
        "After the rule was changed no seed was run (before it: 0, 1 and 2)"
    )
    assert changed.of_seen is not None and changed.of_seen.status is Status.HOLDS
    assert kept == study.claims[1], "what only repeats keeps its time"
    (old,) = again.earlier
    assert replace(old, superseded="").to_plain() == study.claims[0].to_plain()
    assert old.superseded == changed.judged
    page = again.report.with_suffix(".md").read_text()
    for words in (
        "A: the rule was changed after seeds 0, 1 and 2 had run; it is a new claim",
        "A was judged before: holds (t over 3 seeds on 20",
        "; by the rule of before).",
        "A, not a verdict, for these seeds were seen before the rule: holds.",
        "rule changed: after seeds 0, 1 and 2 had run",
    ):
        assert words in page, words

    more = resume("tide", home=home, seeds=(4, 3, 5))
    changed, kept = more.claims[0], more.claims[1]
    assert (seeds_of(changed), seeds_of(kept)) == ((3, 4, 5), (0, 1, 2, 3, 4, 5))
    assert changed.verdict.status is Status.HOLDS and changed.of_seen is None
    said = [(one.claim.name, one.verdict.status, len(seeds_of(one))) for one in more.earlier]
    assert said[:2] == [("A", Status.HOLDS, 3), ("A", Status.INCONCLUSIVE, 0)]
    assert ("B", Status.IN_PART, 3) in said
    row = Store(home).find("tide")
    assert row.command == "gpt2lab reproduce tide --scale smoke --seeds 6"
    assert json.loads(row.settings)["seeds"] == [0, 1, 2, 3, 4, 5]
    assert resume("tide", home=home).earlier == more.earlier, "nothing new was said"
    assert len(read_judgements(more.folder)) == len(more.claims) + len(more.earlier)


def seeds_of(judged):
    return tuple(seed for seed, _ in judged.verdict.values)


@pytest.mark.usefixtures("tide")
def test_further_seeds_are_refused_where_they_cannot_be(home):
    reproduce("tide", scale="smoke", seeds=1, home=home)
    for seeds, words in (
        ((0, 7), "seed 0: tide-smoke-1 has it; its seeds are 0"),
        ((1000,), "seed 1000: settings"),
    ):
        with pytest.raises(LabError, match=words):
            resume("tide", home=home, seeds=seeds)
    with Run.start("train", "one", home=home, settings={}):
        pass
    with pytest.raises(LabError, match="one-1: only a study has seeds, and this is a run of kind train"):
        resume("one", home=home, seeds=(1,))


def forget_the_module():
    import sys

    for name in [
        name for name in sys.modules if name.partition(".")[0] == "tide" or name.endswith("tide.study")
    ]:
        del sys.modules[name]


@pytest.mark.usefixtures("tide")
def test_the_page_says_how_each_rule_was_met(home):
    study = reproduce("tide", scale="smoke", home=home)
    page = study.report.with_suffix(".md").read_text()
    assert page.count("## How each rule") == 1
    lines = page.partition("## How each rule of a fair trial was met")[2].partition("\n## ")[0]
    for words in (
        "**1. The rules were fixed before the run.** A, B, C and D: no day is stated. The rules were recorded on 20",
        ", before the first unit.",
        "A: `loss.base < 3.5`, met in all 3 seeds (loss.base 2.",
        "). B, C and D: none is stated.",
        "A, B, C and D: no pilot, so the power is known from this run's spread alone.",
        "The study does not state on which data anything was chosen and judged.",
        "E: checks of the implementation. They get no verdict.",
        "The arms of a seed share that seed. What each cost is in the table below.",
        "| base | 3 | ",
        "A, B, C and D: t over 3 seeds.",
    ):
        assert words in lines, words
    assert re.findall(r"^\*\*(\d)\. ", lines, re.MULTILINE) == list("1234567")


# Splits.


def test_what_is_chosen_on_a_split_is_not_judged_on_it(home):
    with Run.start("train", "one", home=home, settings={}) as run:
        run.chooses("learning rate", on="tuning stream")
        run.judges("final loss", on="validation stream")
        run.chooses("checkpoint", on="tuning stream")
        with pytest.raises(
            LabError, match="tuning stream: checkpoint is chosen on it, so accuracy cannot be judged on it"
        ):
            run.judges("accuracy", on="tuning stream")
    assert read_splits(run.folder).judged["validation stream"] == "final loss"


@pytest.mark.usefixtures("tide")
@pytest.mark.parametrize("workers", [1, 2])
def test_an_arm_that_chooses_where_another_is_judged_fails_its_seed(home, tide, workers):
    edit(
        tide,
        "def run_arm(settings, arm, run):\n",
        '    (run.chooses if arm == "base" else run.judges)("loss", on="validation")\n',
    )
    with pytest.raises(LabError, match="seed 0: validation: loss is chosen on it"):
        reproduce("tide", scale="smoke", seeds=1, home=home, workers=workers)


@pytest.mark.usefixtures("tide")
def test_a_seed_that_is_judged_where_its_arms_chose_fails_and_one_that_is_not_says_so(home, tide):
    edit(tide, "def run_arm(settings, arm, run):\n", '    run.chooses("learning rate", on="tuning")\n')
    edit(
        tide,
        "def run(settings, run):\n",
        '    run.judges("loss", on="validation" if run.seed else "tuning")\n',
    )
    study = reproduce("tide", scale="smoke", home=home, workers=1)
    assert len(study.failures) == 1
    assert study.failures[0].startswith(
        "seed 0: tuning: learning rate is chosen on it, so loss cannot be judged on it"
    )
    page = study.report.with_suffix(".md").read_text()
    assert "Chosen: learning rate on tuning, within every seed anew. Judged: loss on" in page


def edit(folder: Path, head: str, line: str) -> None:
    source = (folder / "study.py").read_text()
    assert head in source
    (folder / "study.py").write_text(source.replace(head, head + line))


def test_splits_and_plans_are_read_as_they_were_written_and_damaged_ones_named(tmp_path):
    claim = PlannedClaim("A", "0a1b", "It can.", (0, 2), "2026-12-01T00:00:00")
    trial = Trial("2026-11-30T10:00:00", (claim,), (1,))
    (tmp_path / TRIAL).write_text(write_plain(trial))
    assert read_trial(tmp_path) == trial
    splits = Splits({"a": "rate"}, {"b": "loss"})
    (tmp_path / "splits.json").write_text(write_plain(splits))
    assert read_splits(tmp_path) == splits == merged([Splits(splits.chosen), Splits(judged=splits.judged)])
    for name, read in ((TRIAL, read_trial), ("splits.json", read_splits)):
        for content in ("[]", "{}", '{"claims": [1], "began": "", "late": []}'):
            (tmp_path / name).write_text(content)
            with pytest.raises(LabError, match=name):
                read(tmp_path)
