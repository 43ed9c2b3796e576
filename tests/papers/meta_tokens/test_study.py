"""The study of meta-tokens: smoke scale end to end, equal conditions, control arms of equal size, and its claims."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.model import load_model
from gpt2lab.papers.meta_tokens import meta_token
from gpt2lab.papers.meta_tokens.study import ARMS, CLAIMS, PRESETS, Settings, config_of, model_of, units
from gpt2lab.papers.meta_tokens.study.material import ListBatches, Material, prepare, prepared
from gpt2lab.papers.meta_tokens.task_data import TaskEncoder, task_tokenizer
from gpt2lab.runs.run import Run
from gpt2lab.runs.trial import TUNING_SEED
from gpt2lab.runs.verdicts import Status
from gpt2lab.studies.judge import judge
from gpt2lab.studies.study import Study, reproduce
from tests.claims import unreported


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    home = tmp_path_factory.mktemp("meta")
    return reproduce("meta-tokens", scale="smoke", seeds=1, home=home, workers=1)


def test_a_study_runs_at_smoke_scale_with_every_arm(study: Study) -> None:
    assert not study.failures
    assert unreported(study) == {}
    run = study.runs[0]
    assert set(PRESETS["smoke"].arms) == set(ARMS)
    for name in ("x1", "x1_5", "x2"):
        rivals = max(run.results[f"{arm}.recall.{name}"] for arm in ("plain", "full"))
        assert run.results[f"lead.{name}"] == run.results[f"meta.recall.{name}"] - rivals
        assert run.results[f"over.injected.{name}"] == (
            run.results[f"meta.recall.{name}"] - run.results[f"injected.recall.{name}"]
        )
    for arm in ARMS:
        assert 0 <= run.results[f"{arm}.recall.x1"] <= run.results[f"{arm}.recall.tokens.x1"] <= 1
        tuning = run.arms[f"tuning_{arm}"]
        assert tuning.seed == TUNING_SEED and len(tuning.tables["sweep"]) == len(PRESETS["smoke"].rates)
        assert tuning.splits.chosen.keys() == {"tuning prompts"}
        assert run.arms[arm].splits.judged.keys() == {"test prompts"}
    meta = run.arms["meta"]
    gains = [meta.results[f"no_pos.{name}"] - meta.results[f"recall.{name}"] for name in ("x1", "x1_5", "x2")]
    assert run.results["meta.no_pos_gain"] == pytest.approx(sum(gains) / 3)
    sums = {
        state: [float(row["sum"]) for row in meta.tables["rate_distortion"] if row["state"] == state]
        for state in ("meta", "token")
    }
    expected = (sum(sums["token"]) - sum(sums["meta"])) / len(sums["meta"])
    assert run.results["meta.bottleneck_gain"] == pytest.approx(expected)
    kept = load_model(meta.folder / "model")
    assert meta_token(kept) == task_tokenizer(PRESETS["smoke"].words).id("_PAUSE_")
    names = {path.stem for path in (study.folder / "figures").iterdir()}
    assert {"recall", "lengths", "zeroing", "sharpness", "rate_distortion", "caching_states"} <= names


def test_the_length_grid_tests_every_trained_length_at_every_other(study: Study) -> None:
    run = study.runs[0]
    assert PRESETS["smoke"].grid_ranges == {"w32": (24, 32), "w44": (33, 44)}
    for arm in ("meta", "plain"):
        for trained in ("w32", "w44"):
            assert run.arms[f"{arm}_at_{trained}"].splits.judged.keys() == {"test prompts"}
            for tested in ("w32", "w44"):
                share = run.results[f"{arm}.grid.{trained}.{tested}"]
                assert share == run.arms[f"{arm}_at_{trained}"].results[tested] and 0 <= share <= 1
    assert {"grid_meta", "grid_plain"} <= {path.stem for path in (study.folder / "figures").iterdir()}
    assert not PRESETS["laptop"].grid_ranges and set(PRESETS["paper"].grid_ranges) == {"w128", "w256", "w512"}


def test_no_claim_is_judged_at_smoke_scale(study: Study) -> None:
    assert {judged.verdict.status for judged in study.claims} == {Status.NOT_TESTED}


def known() -> Material:
    tokenizer = task_tokenizer(8)
    return Material(TaskEncoder(tokenizer), tokenizer, None)


def test_control_arms_have_the_same_parameters_and_begin_alike() -> None:
    for settings in (PRESETS["laptop"], PRESETS["gpu"], PRESETS["smoke"]):
        with torch.device("meta"):
            counts = {
                arm: model_of(settings, arm, 0, known()).count_parameters()["non_embedding"] for arm in ARMS
            } if settings is not PRESETS["smoke"] else {}  # fmt: skip
        if counts:
            assert counts["meta"] == counts["full"] == counts["uninjected"]
            assert counts["plain"] == counts["injected"] == counts["no_pause"] < counts["meta"]
            for arm in ("wider", "deeper"):
                assert counts[arm] == pytest.approx(counts["meta"], rel=0.01), arm
    models = {arm: model_of(PRESETS["smoke"], arm, 3, known()) for arm in ARMS}
    plain = models["plain"].state_dict()
    for arm in ("meta", "full", "injected", "no_pause", "uninjected", "full_injected"):
        state = models[arm].state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in plain.items()), arm
    assert torch.equal(models["meta"].blocks[0].meta.qkv.weight, models["full"].blocks[0].meta.qkv.weight)
    other = model_of(PRESETS["smoke"], "plain", 4, known()).state_dict()
    assert not torch.equal(other["embedding.weight"], plain["embedding.weight"])


def test_every_arm_needs_the_text_and_its_own_tuning() -> None:
    specs = {spec.name: spec for spec in units(PRESETS["laptop"])}
    assert specs["text"].shared and len(specs) == 1 + 2 * len(PRESETS["laptop"].arms)
    for arm in PRESETS["laptop"].arms:
        assert specs[arm].needs == ("text", f"tuning_{arm}") and specs[f"tuning_{arm}"].tuning


def test_pretraining_rows_are_lists_without_pause_and_question() -> None:
    settings = PRESETS["smoke"]
    material = known()
    batches = ListBatches(settings, material.encoder, 0)
    batch = batches[3]
    assert batch["tokens"].shape == (4, 32) and torch.equal(batch["tokens"][:, 1:], batch["targets"][:, :-1])
    vocabulary = material.tokenizer.vocabulary
    assert not torch.isin(
        batch["tokens"], torch.tensor([vocabulary[w] for w in ("_PAUSE_", "Q:", "A:")])
    ).any()
    assert torch.equal(batches[3]["tokens"], batch["tokens"])
    assert not torch.equal(ListBatches(settings, material.encoder, 1)[3]["tokens"], batch["tokens"])


def test_a_text_of_ones_own_is_pretrained_on_and_knows_the_tasks_words(tmp_path: Path) -> None:
    settings = replace(PRESETS["smoke"], data="tinyworld:60", vocab_size=600, text_tokens=900)
    with Run.start("arm", "text", home=tmp_path) as run:
        prepare(settings, run)
    material = prepared(run.record)
    assert material.text is not None and 900 <= len(material.text) < 1500
    assert material.pretraining(settings, 0)[0]["tokens"].shape == (4, 32)
    assert material.encoder.ids(["List", "A"]) and material.encoder.pause == material.tokenizer.id("_PAUSE_")
    with pytest.raises(LabError, match="do not fill a row"), Run.start("arm", "text", home=tmp_path) as run:
        prepare(replace(settings, context=100_000), run)


def test_tests_are_beyond_the_trained_lengths_and_fit_the_positions() -> None:
    for settings in PRESETS.values():
        tests = settings.tests
        assert next(iter(tests)) == "x1" and tests["x1"][1] == settings.longest
        assert tests["x1_5"][0] == settings.longest + 1 and tests["x2"][1] == 2 * settings.longest
        longest = max(tests["x2"][1], *settings.grid, 0)
        assert config_of(settings, "meta", 100).max_positions >= longest + 8


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"arms": ("meta", "plain")}, "arms must hold meta, plain, full, injected"),
        ({"arms": ("meta", "plain", "full", "injected", "other")}, "be among"),
        ({"tasks": ("parity",)}, "tasks must hold list-recall"),
        ({"rates": (2e-3, 1e-3)}, "rates must ascend"),
        ({"trial": 0.0}, "shares of the updates"),
        ({"ranges": ((10, 40),)}, "at least 24 words"),
        ({"longer": (1.5,)}, "2 among them"),
        ({"positions": "none"}, "rotary or learned"),
        ({"grid": (48, 32)}, "grid: lengths ascend from above 24"),
        ({"grid": (24,)}, "grid: lengths ascend from above 24"),
        ({"grid": (32,), "positions": "learned"}, "grid: learned positions"),
    ],
)
def test_settings_that_compare_nothing_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(LabError, match=words):
        Settings(**wrong)


def results(**changes: float) -> dict[str, float]:
    """A seed in which everything was learnt and meta-tokens lead."""
    found = {"max_recall.x1": 0.9, "max_recall.x2": 0.6, "rivals.recall.x1": 0.6, "rivals.recall.x2": 0.3}
    found |= {"lead.x1": 0.3, "lead.x2": 0.3, "over.injected.x1": 0.2, "injected.recall.x1": 0.7}
    found |= {
        "meta.recall.x1": 0.9,
        "meta.no_pos_gain": 0.01,
        "meta.entropy_drop": 0.4,
        "meta.bottleneck_gain": 0.2,
    }
    found |= {f"{arm}.at_edge": 0.0 for arm in ("meta", "plain", "full", "injected")}
    return {**found, **changes}


def verdicts(**changes: float) -> dict[str, Status]:
    seeds = [results(**{name: value + 0.001 * seed for name, value in changes.items()}) for seed in range(4)]
    for seed, one in enumerate(seeds):
        for name in (
            "lead.x1",
            "lead.x2",
            "over.injected.x1",
            "meta.no_pos_gain",
            "meta.entropy_drop",
            "meta.bottleneck_gain",
        ):
            one[name] += 0.002 * seed
    return {claim.name: judge(claim, dict(enumerate(seeds)), "laptop").status for claim in CLAIMS}


def test_the_rules_tell_a_lead_from_none_and_from_what_was_not_learnt() -> None:
    assert set(verdicts().values()) == {Status.HOLDS}
    assert verdicts(**{"lead.x1": -0.3})["A"] is Status.DOES_NOT_HOLD
    assert verdicts(**{"lead.x1": 0.005})["A"] is Status.IN_PART
    unlearnt = verdicts(**{"max_recall.x1": 0.3, "meta.recall.x1": 0.3})
    assert set(unlearnt.values()) == {Status.NOT_TESTED}
    assert verdicts(**{"rivals.recall.x1": 0.97})["A"] is Status.NOT_TESTED
    assert verdicts(**{"full.at_edge": 1.0})["A"] is Status.NOT_TESTED
    assert verdicts(**{"meta.no_pos_gain": -0.2})["C"] is Status.DOES_NOT_HOLD
