"""The study of the central dogma: smoke scale end to end, what its arms share, and when its claims are tested."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.base.registry import read_paper
from gpt2lab.papers.central_dogma import study as paper
from gpt2lab.papers.central_dogma.measure import judge
from gpt2lab.papers.central_dogma.study import (
    ARMS,
    CLAIMS,
    CORPORA,
    PRESETS,
    Settings,
    documents,
    test_sets,
    units,
)
from gpt2lab.runs.verdicts import Status
from gpt2lab.studies.judge import judge as verdict_of
from gpt2lab.studies.study import Study, reproduce
from gpt2lab.text.language_model import load
from tests.claims import unreported

SMOKE = PRESETS["smoke"]
test_sets.__test__ = False  # type: ignore[attr-defined]  # it is no test, whatever pytest thinks


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    home = tmp_path_factory.mktemp("central-dogma")
    return reproduce("central-dogma", scale="smoke", seeds=1, home=home, workers=1)


def test_a_study_runs_at_smoke_scale_with_every_arm(study: Study) -> None:
    assert not study.failures
    assert unreported(study) == {}
    run = study.runs[0]
    assert set(SMOKE.arms) == set(ARMS)
    for arm, spec in ARMS.items():
        assert all(
            0 <= run.results[f"{arm}.{name}"] <= 1 for name in ("own", "dna_protein", "typed", "dna_dna")
        )
        assert run.results[f"{arm}.dna_protein.left_out"] == 0
        assert len(run.arms[arm].tables["types"]) == 9
        kept = load(run.arms[arm].folder / "model")
        pairs = test_sets(SMOKE, spec, 0)["dna_protein"]
        judged, _ = judge(kept, pairs, separator="|" if spec.codons else "")
        assert judged.right / len(pairs) == pytest.approx(run.results[f"{arm}.dna_protein"])
    assert run.results["order.rule.frame0"] == run.results["dna_protein.rule.frame0"] == 1.0
    assert 0 <= run.results["order.shortcut.length"] <= 1
    names = {path.stem for path in (study.folder / "figures").iterdir()}
    assert {"order", "dna_protein", "dna_dna", "protein_protein", "own"} <= names
    control = run.arms["control"]
    assert {"codon-probe", "codon-attribution", "pair-components"} <= set(control.tables)
    assert {path.stem for path in (control.folder / "figures").iterdir()} >= {
        "codon-probe",
        "pair-components",
    }
    assert 0 <= control.results["codon_probe.match"] <= 1
    assert "codon_probe.match" not in run.arms["english"].results
    assert {"distribution", "types", "baselines"} <= {
        path.stem for path in (study.folder / "tables").iterdir()
    }


def test_test_pairs_of_a_seed_are_the_same_for_all_arms_and_new_for_every_purpose_and_seed() -> None:
    english, control = (test_sets(SMOKE, ARMS[arm], 30) for arm in ("english", "control"))
    for name in ("order", "dna_protein", "typed", "dna_dna", "protein_protein"):
        assert english[name] == control[name]
    other = test_sets(SMOKE, ARMS["control"], 40)
    texts = [
        {pair.first for pair in one[name]} for one in (control, other) for name in ("own", "dna_protein")
    ]
    assert all(not a & b for i, a in enumerate(texts) for b in texts[:i])


def test_only_the_parallel_corpus_ever_pairs_a_gene_with_its_protein() -> None:
    settings = replace(SMOKE, documents=300)
    corpora = {name: documents(settings, corpus, 7) for name, corpus in CORPORA.items()}
    both = {
        name: [
            text
            for text in texts
            if " " not in text and not set(text) <= set("ACGT") and text.startswith("ATG")
        ]
        for name, texts in corpora.items()
    }
    assert not both["mixed"] and not both["text"] and len(both["parallel"]) > 20
    assert all(" " in text for text in corpora["text"])
    assert any(" " not in text for text in corpora["mixed"])


def test_no_arm_chooses_on_what_is_judged_and_all_make_as_many_trials() -> None:
    specs = {spec.name: spec for spec in units(Settings())}
    for arm in Settings().arms:
        assert specs[f"tuning.{arm}"].tuning and f"tuning.{arm}" in specs[arm].needs
    assert specs["english"].needs[-1] == "corpus.mixed" == specs["multilingual"].needs[-1]
    assert specs["control"].needs == ("tokenizer", "tuning.control")


def results(**changes: float) -> dict[str, float]:
    found = {f"{arm}.{name}": value for arm in ARMS for name, value in (("own", 0.95), ("at_edge", 0.0))}
    found |= {f"{arm}.order": 0.5 for arm in ARMS}
    found |= {"order.shortcut.length": 0.5, "order.shortcut.composition": 0.52}
    return found | {name.replace("__", "."): value for name, value in changes.items()}


def claim(name: str) -> Any:
    return next(one for one in CLAIMS if one.name == name)


@pytest.mark.parametrize(
    ("name", "seeds", "status"),
    [
        ("A", [0.71, 0.74, 0.72, 0.75, 0.73], Status.HOLDS),
        ("A", [0.53, 0.54, 0.535, 0.545, 0.55], Status.IN_PART),
        ("A", [0.50, 0.49, 0.51, 0.505, 0.495], Status.DOES_NOT_HOLD),
        ("A", [0.30, 0.31, 0.29, 0.28, 0.32], Status.DOES_NOT_HOLD),
    ],
)
def test_claim_a_is_judged_by_its_interval_and_a_reversed_judge_never_holds(
    name: str, seeds: list[float], status: Status
) -> None:
    found = {seed: results(english__order=value) for seed, value in enumerate(seeds)}
    assert verdict_of(claim(name), found, "laptop").status == status


@pytest.mark.parametrize(
    "change", [{"english__own": 0.7}, {"order__shortcut__composition": 0.6}, {"english__at_edge": 1.0}]
)
def test_a_judge_that_has_not_learnt_or_pairs_with_a_shortcut_are_not_tested(
    change: dict[str, float],
) -> None:
    found = {seed: results(english__order=0.7 + seed / 100, **change) for seed in range(4)}
    assert verdict_of(claim("A"), found, "laptop").status == Status.NOT_TESTED


def test_a_gain_from_languages_is_tested_only_where_there_is_transfer() -> None:
    chance = {seed: results(multilingual__order=0.51 + seed / 100) for seed in range(3)}
    assert verdict_of(claim("B"), chance, "laptop").status == Status.NOT_TESTED
    found = {
        seed: results(english__order=0.7 + seed / 100, multilingual__order=0.78 + seed / 90)
        for seed in range(3)
    }
    assert verdict_of(claim("B"), found, "laptop").status == Status.HOLDS


def test_the_letters_are_those_of_the_paper() -> None:
    told = read_paper(Path(paper.__file__).parents[1], "gpt2lab.papers.central_dogma")
    assert [one.letter for one in told.claims] == [one.name for one in CLAIMS]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arms": ("english",)}, "arms must hold"),
        ({"arms": (*ARMS, "german")}, "be among"),
        ({"rates": (1e-3, 5e-4)}, "ascend"),
        ({"trial": 0.0}, "share of the updates"),
        ({"test_pairs": 10}, "at least 40"),
        ({"residues": 30}, "4 tokens a residue"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(LabError, match=said):
        replace(Settings(), **changes)


def test_the_same_seed_begins_with_the_same_weights_whatever_the_corpus() -> None:
    from gpt2lab.text.tokenizer import byte_level

    first, second = (paper.new_model(SMOKE, byte_level(), 3).model.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_letters_tell_random_proteins_apart_and_not_another_order() -> None:
    settings = replace(Settings(), test_pairs=300)
    sets = test_sets(settings, ARMS["english"], 10)
    random, order = (paper.beside(sets[name]) for name in ("dna_protein", "order"))
    assert random["shortcut.composition"] > 0.56 > 0.55 > order["shortcut.composition"]
    assert random["rule.frame0"] == order["rule.frame0"] == 1.0
