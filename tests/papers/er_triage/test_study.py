"""The study at smoke scale, its units, and what the rules say of planted results."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.papers.er_triage.study import CLAIMS, PRESETS, Settings, units
from gpt2lab.papers.er_triage.study.material import parts_of
from gpt2lab.runs.trial import TUNING_SEED
from gpt2lab.runs.verdicts import Status
from gpt2lab.studies.judge import judge


def test_the_smoke_study_has_every_rung_the_control_and_its_figures(tmp_path: Path) -> None:
    study = gpt2lab.reproduce("er-triage", scale="smoke", seeds=1, home=tmp_path, workers=1)
    run = study.runs[0]
    ladder = run.tables["ladder"]
    assert {(row["strategy"], int(row["labels"])) for row in ladder} == {
        *((name, n) for name in ("scratch", "pretrained", "tfidf", "tfidf_characters", "majority") for n in (4, 8)),
        *((name, 128) for name in ("scratch", "tfidf", "tfidf_characters", "majority")),
    }  # fmt: skip
    assert all(0 <= float(row["auc"]) <= 1 for row in ladder)
    assert run.arms["scratch.n8"].arrays["scores"].shape == (90,)
    notes = run.arms["pretraining"]
    assert len(notes.files["unlabelled.jsonl"].read_text().splitlines()) == 200
    assert (notes.folder / "model" / "tokenizer.json").is_file()
    assert (notes.results["notes.labelled"], notes.results["notes.test"]) == (160, 90)
    assert run.results["subsets.nested"] == 1 and run.results["subsets.leaked"] == 0
    assert run.results["control.there"] == 1 and len(run.tables["control"]) == 1
    assert run.arms["tuning_scratch"].seed == TUNING_SEED
    passed = {one.claim.name: one.verdict.status for one in study.claims}
    assert passed["H"] is Status.PASSES and passed["A"] is Status.NOT_TESTED
    report = Path(study.report).read_text()
    for words in ("Labelled notes that an AUC takes", "ROC curves with 8", "negative control"):
        assert words in report


def test_every_strategy_and_budget_is_a_unit_that_needs_its_notes_and_its_tuning() -> None:
    specs = {spec.name: spec for spec in units(PRESETS["laptop"])}
    for name in ("scratch", "pretrained"):
        assert specs[f"tuning_{name}"].tuning and specs[f"tuning_{name}"].needs == ("tuning_pretraining",)
        for n in PRESETS["laptop"].budgets:
            assert specs[f"{name}.n{n}"].needs == ("pretraining", f"tuning_{name}")
        for n in (60, 250, 1000):
            assert specs[f"control_{name}.n{n}"].needs == ("control", f"tuning_{name}")
    assert "scratch.n16000" in specs and "pretrained.n16000" not in specs
    given = {spec.name for spec in units(replace(PRESETS["laptop"], start="gpt2"))}
    assert {"tuning_given", "given.n15", "given.n2000"} <= given


def test_each_seed_has_a_world_of_its_own_and_parts_that_share_nothing() -> None:
    one, other, tuning = (parts_of(PRESETS["smoke"], seed) for seed in (0, 1, TUNING_SEED))
    texts = [
        {note.text for part in (p.unlabelled, p.labelled, p.test) for note in part}
        for p in (one, other, tuning)
    ]
    assert [len(one.unlabelled), len(one.labelled), len(one.test)] == [200, 160, 90]
    assert not texts[0] & texts[1] and not texts[0] & texts[2]
    control = parts_of(PRESETS["smoke"], 0, control=True)
    assert not {note.text for note in control.test} & texts[0]


def own(folder: Path) -> Settings:
    rows = [
        {"text": f"note {i} {'chute' if i % 2 else 'toux'}", "label": str(i % 2) if i < 230 else None}
        for i in range(300)
    ]
    file = folder / "own.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return replace(PRESETS["smoke"], data=(str(file),), test=40)


def test_of_own_notes_what_is_judged_is_never_tuned_nor_trained_on(tmp_path: Path) -> None:
    settings = own(tmp_path)
    judged, again, tuning = (parts_of(settings, seed) for seed in (0, 5, TUNING_SEED))
    held_out = {note.id for note in judged.test}
    assert held_out == {note.id for note in again.test} and len(held_out) == 40
    for parts in (judged, tuning):
        assert not held_out & {note.id for note in (*parts.labelled, *parts.unlabelled)}
    assert not held_out & {note.id for note in tuning.test}
    assert not {note.id for note in tuning.test} & {
        note.id for note in (*tuning.labelled, *tuning.unlabelled)
    }
    assert {note.label for note in judged.unlabelled} >= {None}
    assert not any(spec.name.startswith("control") for spec in units(settings))
    with pytest.raises(LabError, match="of your notes are left"):
        parts_of(replace(settings, budgets=(4, 16), long=256), 0)


GOOD = {
    "loss.pretraining": 3.5, "loss.unigram": 4.5, "auc.scratch.largest": 0.97, "auc.scratch.base": 0.95,
    "tuning.scratch.at_edge": 0, "tuning.pretrained.at_edge": 0, "factor.settled": 1, "control.there": 1,
    "auc.tfidf.n120": 0.7, "processed.reached": 1, "f1.pretrained.n120": 0.9, "auc.pretrained.n120": 0.97,
}  # fmt: skip


def status(letter: str, values: dict[str, tuple[float, ...]], **changed: float) -> Status:
    claim = next(claim for claim in CLAIMS if claim.name == letter)
    n = len(next(iter(values.values())))
    seeds = {i: GOOD | changed | {name: of[i] for name, of in values.items()} for i in range(n)}
    return judge(claim, seeds, "laptop").status


@pytest.mark.parametrize(
    ("letter", "values", "expected"),
    [
        ("A", {"factor.log10": (1.5, 1.6, 1.55)}, Status.HOLDS),
        ("A", {"factor.log10": (0.42, 0.45, 0.44)}, Status.IN_PART),
        ("A", {"factor.log10": (0.01, 0.02, -0.01)}, Status.DOES_NOT_HOLD),
        ("A", {"factor.log10": (0.1, 1.6, 0.6)}, Status.INCONCLUSIVE),
        ("B", {"gap.lowest": (0.1, 0.12, 0.11)}, Status.HOLDS),
        ("B", {"gap.lowest": (-0.1, -0.12, -0.11)}, Status.DOES_NOT_HOLD),
        ("C", {"auc.scratch.long": (0.955, 0.956, 0.957)}, Status.HOLDS),
        ("C", {"auc.scratch.long": (0.985, 0.986, 0.987)}, Status.DOES_NOT_HOLD),
        ("D", {"auc.pretrained.n120": (0.96, 0.97, 0.965)}, Status.HOLDS),
        ("D", {"f1.pretrained.n120": (0.75, 0.76, 0.755)}, Status.DOES_NOT_HOLD),
        ("E", {"processed.log10": (4.1, 4.2, 4.15)}, Status.HOLDS),
        ("E", {"processed.log10": (3.5, 3.52, 3.51)}, Status.DOES_NOT_HOLD),
        ("F", {"control.gain": (0.02, 0.03), "control.aligned": (0.3, 0.3)}, Status.PASSES),
        ("F", {"control.gain": (0.02, 0.2), "control.aligned": (0.3, 0.3)}, Status.FAILS),
    ],
)  # fmt: skip
def test_the_rules_say_of_planted_results_what_they_should(
    letter: str, values: dict[str, tuple[float, ...]], expected: Status
) -> None:
    assert status(letter, values) is expected


@pytest.mark.parametrize(
    ("letter", "name", "changed"),
    [
        ("A", "factor.log10", {"factor.settled": 0}),
        ("A", "factor.log10", {"loss.pretraining": 4.45}),
        ("B", "gap.lowest", {"tuning.pretrained.at_edge": 1}),
        ("C", "auc.scratch.long", {"auc.scratch.base": 0.6}),
        ("D", "auc.pretrained.n120", {"auc.tfidf.n120": 0.95}),
        ("E", "processed.log10", {"processed.reached": 0}),
    ],
)  # fmt: skip
def test_what_has_not_learnt_or_is_too_easy_is_not_tested(
    letter: str, name: str, changed: dict[str, float]
) -> None:
    assert status(letter, {name: (0.99, 0.98, 0.97)}, **changed) is Status.NOT_TESTED


def test_settings_that_make_no_sense_are_refused() -> None:
    wrong: dict[str, Any]
    for wrong, words in (
        ({"level": "mild"}, "level must be one of"),
        ({"budgets": (30, 15)}, "budgets must ascend"),
        ({"budgets": (15,)}, "two budgets or more"),
        ({"long": 1700}, "16 times one of the budgets"),
        ({"pool": 3000}, "a pool of 3000"),
        ({"rates": (1e-3, 5e-4)}, "rates must ascend"),
        ({"context": 7}, "at least 8 tokens"),
        ({"split_by": "date", "data": ("a.csv",)}, "name the field of the day"),
    ):
        with pytest.raises(LabError, match=words):
            Settings(**wrong)
