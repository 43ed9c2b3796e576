"""The study of knowledge capacity: smoke scale end to end, equal trials, peaks chosen on the tuning seed, claims."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.papers.knowledge_capacity.measure import KnowledgeBits
from gpt2lab.papers.knowledge_capacity.study import CLAIMS, PRESETS, cells, curves, units
from gpt2lab.papers.knowledge_capacity.study.claims import RESULTS
from gpt2lab.papers.knowledge_capacity.study.settings import Cell, Settings
from gpt2lab.papers.knowledge_capacity.study.training import ROUNDINGS, material, new_model
from gpt2lab.runs.trial import TUNING_SEED
from gpt2lab.runs.verdicts import Status
from gpt2lab.studies.judge import judge
from gpt2lab.studies.study import Study, reproduce
from gpt2lab.text.language_model import load
from tests.claims import unreported

SMALL = {
    "shapes": "gpt2-no-mlp", "many_shapes": (), "shape_people": (8,), "people": (8, 20), "few_people": (8,),
    "exposures": 6, "rates": (4e-3, 8e-3),
}  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    home = tmp_path_factory.mktemp("capacity")
    return reproduce("knowledge-capacity", scale="smoke", seeds=1, home=home, workers=1, settings=SMALL)


def test_a_study_runs_at_smoke_scale_with_every_model(study: Study) -> None:
    assert not study.failures
    elsewhere = {name.split(".")[1] for names in unreported(study).values() for name in names}
    assert elsewhere <= set(curves(PRESETS["gpu"]))  # peaks of curves that a larger scale has
    run = study.runs[0]
    for cell in cells(study.settings):
        results = {name: run.results[f"{cell.name}.{name}"] for name in run.arms[cell.name].results}
        assert results["bits_per_parameter"] == pytest.approx(results["bits"] / results["parameters"])
        assert results["bits_per_parameter"] < results["bits_per_parameter_max"]
        assert results["updates"] == math.ceil(cell.people * cell.exposures / cell.batch_size)
    names = {path.stem for path in (study.folder / "figures").iterdir()}
    assert {"capacity", "bits_by_parameters", "components", "while_training", "rounded", "junk"} <= names
    table = study.tables["twelve_results"]
    assert [row["claim"] for row in table] == [claim.name for claim in CLAIMS]
    assert {row["verdict"] for row in table} == {str(Status.NOT_TESTED)}


def test_every_model_makes_equally_many_trials_on_other_people_and_trains_with_the_best(study: Study) -> None:
    run = study.runs[0]
    for cell in cells(study.settings):
        tuning = run.arms[f"tuning.{cell.name}"]
        tried = tuning.tables["sweep"]
        assert tuning.seed == TUNING_SEED and len(tried) == 3
        best = max(tried, key=lambda row: float(row["bits_per_parameter"]))
        assert run.results[f"{cell.name}.learning_rate"] == float(best["learning_rate"])
        assert tuning.splits.chosen.keys() == {"people of the tuning seed"}
        assert run.arms[cell.name].splits.judged.keys() == {"people of each seed"}
    for name, points in curves(study.settings).items():
        best_cell = max(
            points, key=lambda cell: run.arms[f"tuning.{cell.name}"].results["bits_per_parameter"]
        )
        assert run.results[f"peak.{name}.people"] == best_cell.people
        assert (
            run.results[f"peak.{name}.bits_per_parameter"]
            == run.results[f"{best_cell.name}.bits_per_parameter"]
        )


def test_the_model_that_is_kept_measures_as_reported_and_so_do_its_roundings(study: Study) -> None:
    run = study.runs[0]
    lm = load(run.arms["many.p20"].folder / "model")
    found = KnowledgeBits(facts="biod-symbols:20:0", draws=1)(lm)
    assert found["bits_per_parameter"] == pytest.approx(run.results["many.p20.bits_per_parameter"], rel=1e-5)
    for name in ROUNDINGS:
        kept = run.results[f"many.p20.{name}.bits_per_parameter"]
        assert run.results[f"rounded.{name}"] == kept / run.results["rounded.before"]
    assert abs(run.results["rounded.int8"] - 1) < 0.02


def test_models_of_a_seed_differ_from_others_in_people_and_weights_but_not_in_the_tokenizer() -> None:
    settings = PRESETS["smoke"]
    cell = cells(settings)[0]
    first, other = (material(settings, cell, seed) for seed in (0, 1))
    assert first.tokenizer.fingerprint == other.tokenizer.fingerprint
    assert first.source.values(0) != other.source.values(0)
    weights = [new_model(settings, cell, first.tokenizer, seed).embedding.weight for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_biographies_are_trained_on_in_windows_with_a_tokenizer_of_their_own() -> None:
    settings = replace(PRESETS["gpu"], people=(40,), quantised=40, context=64)
    for junk in ("none", "random", "repeated", "marked"):
        cell = Cell("junk", "gpt2", "bios", 40, 2, 3, junk)  # type: ignore[arg-type]  # one of the four
        text = material(settings, cell, 0)
        batch = text.batches[1]
        assert batch["tokens"].shape == (3 if junk == "none" else 24, 64)
        assert ("domain" in text.tokenizer.decode(batch["tokens"][:3].flatten().tolist())) == (
            junk == "marked"
        )
        assert text.tokenizer.vocab_size <= settings.vocab_size


def test_every_claim_is_one_of_the_twelve_results_and_reads_what_its_scales_report() -> None:
    assert [result.number for result in RESULTS] == list(range(1, 13))
    assert sorted(letter for result in RESULTS for letter in result.claims) == sorted(c.name for c in CLAIMS)
    gpu = curves(PRESETS["gpu"])
    for claim in CLAIMS:
        for scale in claim.scales:
            for text in (str(claim.measure), str(claim.needs)):
                read = {
                    word.split(".")[1] for word in text.replace("(", " ").split() if word.startswith("peak.")
                }
                assert read <= set(curves(PRESETS[scale])), (claim.name, scale)
    assert {"many_bios_simple", "many_bior", "many_biod", "few_llama_plain", "many_gpt2_experts"} <= set(gpu)


def test_units_are_a_tuning_and_a_training_of_every_model() -> None:
    specs = {spec.name: spec for spec in units(Settings())}
    for cell in cells(Settings()):
        assert specs[cell.name].needs == (f"tuning.{cell.name}",) and specs[f"tuning.{cell.name}"].tuning
    assert len(specs) == 2 * (4 + 2 + 4)


def results(**changes: float) -> dict[str, float]:
    """Results of a seed in which everything holds."""
    found = {
        "highest": 2.1, "roomy.models": 3.0, "roomy.lowest_share": 0.98, "roomy.rise": 0.001,
        "rounded.value_share": 0.9, "rounded.int8": 0.999, "rounded.int4": 0.1, "rounded.int4_gptq": 0.3,
        "junk.none.value_share": 0.9, "junk.repeated.value_share": 0.9,
        "beside_junk.random": 0.3, "beside_junk.repeated": 1.0, "beside_junk.marked": 0.98,
    }  # fmt: skip
    found |= {f"junk.{kind}.at_edge": 0.0 for kind in ("none", "random", "repeated", "marked")}
    for curve in curves(PRESETS["paper"]):
        peak = {
            "bits_per_parameter": 2.05, "bits_per_parameter_max": 2.8, "value_share": 0.9, "at_edge": 0.0, "rise": 0.001,
        }  # fmt: skip
        found |= {f"peak.{curve}.{name}": value for name, value in peak.items()}
    found |= {"peak.few.bits_per_parameter": 1.05, "peak.few_llama_tied.bits_per_parameter": 0.8}
    found |= {"peak.few_mistral_tied.bits_per_parameter": 0.75}
    found |= {"peak.few_llama_plain.bits_per_parameter": 1.04, "peak.few_gpt2_no_mlp.bits_per_parameter": 0.6}
    found |= {"peak.many_gpt2_experts.bits_per_parameter": 1.6}
    return found | changes


def verdict(name: str, **changes: float) -> Status:
    claim = next(claim for claim in CLAIMS if claim.name == name)
    seeds = {
        seed: {
            key: value * (1 + 0.001 * seed * (1 + len(key) % 7)) for key, value in results(**changes).items()
        }
        for seed in range(3)
    }
    return judge(claim, seeds, "paper").status


def test_verdicts_follow_the_rules() -> None:
    wanted = {
        claim.name: verdict(claim.name, **{"beside_junk.random": 0.3, "beside_junk.marked": 0.9})
        for claim in CLAIMS
    }
    assert set(wanted.values()) == {Status.HOLDS}, wanted
    peak = "peak.many.bits_per_parameter"
    assert verdict("A", **{peak: 1.6}) == Status.IN_PART
    assert verdict("A", **{peak: 0.6}) == Status.DOES_NOT_HOLD
    for (
        claim
    ) in "AC":  # a peak that was offered fewer bits, or that still rises, says nothing of two bits or of 2.3
        assert verdict(claim, **{"peak.many.bits_per_parameter_max": 1.9}) == Status.NOT_TESTED
        assert verdict(claim, **{"peak.many.rise": 0.03}) == Status.NOT_TESTED
    assert verdict("F", **{"peak.few.value_share": 0.01}) == Status.NOT_TESTED  # still on the plateau
    assert verdict("F", **{"peak.few.bits_per_parameter": 0.4}) == Status.IN_PART  # more than three times
    for both, shapes in (("H", ("few_llama_tied", "few_mistral_tied")), ("G", ("many_mistral_tied",))):
        for shape in shapes:  # neither of the two may be left out
            other = 1.2 if both == "H" else 1.0
            assert verdict(both, **{f"peak.{shape}.bits_per_parameter": other}) == Status.DOES_NOT_HOLD
            assert verdict(both, **{f"peak.{shape}.value_share": 0.01}) == Status.NOT_TESTED
    assert verdict("L", **{"rounded.int4_gptq": 0.6}) == Status.HOLDS
    assert verdict("L", **{"rounded.int4_gptq": 0.9}) == Status.DOES_NOT_HOLD
    assert verdict("L", **{"rounded.int4": 0.9}) == Status.DOES_NOT_HOLD
    assert verdict("P", **{"beside_junk.random": 0.9}) == Status.NOT_TESTED  # junk does no harm
    for kind in ("none", "random", "marked"):
        assert verdict("P", **{f"junk.{kind}.at_edge": 1.0}) == Status.NOT_TESTED
    for control in ("junk.none", "junk.repeated"):
        assert verdict("N", **{f"{control}.value_share": 0.2}) == Status.NOT_TESTED
        assert verdict("P", **{f"{control}.value_share": 0.2}) == Status.NOT_TESTED


def test_settings_that_make_no_study_are_refused(tmp_path: Path) -> None:
    for wrong, words in (
        ({"people": (400, 200)}, "people must ascend"),
        ({"quantised": 300}, "quantised must be one of people"),
        ({"facts": "poems"}, "facts must be among"),
        ({"shapes": ("gpt2",)}, "shapes must be among"),
        ({"trial": 0.0}, "trial and warmup are shares"),
        ({"junk_ratio": 0}, "junk_ratio must be at least 1"),
    ):
        with pytest.raises(LabError, match=words):
            replace(Settings(), **wrong)  # type: ignore[arg-type]  # a mistake each
