"""The study: the world, its claims as rules, and smoke scale from end to end."""

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.papers.occupational_bias.released import deviations, released_numbers
from gpt2lab.papers.occupational_bias.study import CLAIMS, PRESETS, real
from gpt2lab.papers.occupational_bias.world import World, make_world, pooled, sentences, women_share
from gpt2lab.papers.occupational_bias.world import drawn as draws
from gpt2lab.runs.run import Run
from gpt2lab.studies.claim import Results
from gpt2lab.studies.judge import judge
from gpt2lab.studies.study import reproduce
from gpt2lab.text.language_model import LanguageModel, save
from tests.claims import unreported

GOOD = {
    "model.gini_women": 0.66, "model.gini_men": 0.54, "world.gini_women": 0.67, "world.gini_men": 0.54,
    "model.without_title": 0.01, "model.gender_gain": 8.0, "model.interaction_gain": 0.5, "model.kendall": 0.9,
    "world.gender_gain": 8.2, "world.interaction_gain": 0.2,
    "model.planted_share": 0.6, "model.rest_share": 0.1, "ideal.planted_share": 0.7, "ideal.rest_share": 0.2,
    "model.slope": 0.9, "ideal.slope": 1.0, "cold.slope": 1.2, "narrow.slope": 1.1,
    "xlnet.deviation": 0.6, "released.deviation": 0.9, "real.at_hand": 0.0,
}  # fmt: skip


def verdict(letter: str, change: dict[str, float] | None = None, items: Any = None) -> str:
    """Return what four seeds with these results and a little noise say of a claim."""
    claim = next(claim for claim in CLAIMS if claim.name == letter)
    noise = (0.0, 0.001, -0.001, 0.002)
    values = GOOD | (change or {})
    noisy = ("model.slope", "model.planted_share")
    seeds = {
        seed: Results(values | {name: values[name] + noise[seed] for name in noisy}) for seed in range(4)
    }
    return str(judge(claim, seeds, "laptop", {seed: items or {} for seed in seeds}).status)


def test_claims_hold_and_checks_pass_where_they_should() -> None:
    assert [verdict(letter) for letter in "ABDFLMN"] == ["passes"] * 7
    assert [verdict(letter) for letter in "CE"] == ["holds"] * 2
    assert [verdict(letter) for letter in "GHIJK"] == [
        "not tested at this scale"
    ] * 5  # the model is not at hand


@pytest.mark.parametrize(
    ("letter", "change", "wanted"),
    [
        ("A", {"model.gini_women": 0.5}, "fails"),
        ("A", {"model.without_title": 0.6}, "not tested at this scale"),
        ("B", {"model.interaction_gain": 3.0}, "fails"),
        ("C", {"model.planted_share": 0.05}, "does not hold"),
        ("C", {"ideal.planted_share": 0.15}, "not tested at this scale"),
        ("D", {"model.kendall": 0.5}, "fails"),
        ("E", {"model.slope": 0.98}, "holds in part"),
        ("E", {"model.slope": 1.0}, "does not hold"),
        ("E", {"model.slope": 1.1}, "does not hold"),
        ("E", {"model.kendall": 0.1}, "not tested at this scale"),
        ("F", {"narrow.slope": 0.8}, "fails"),
        ("L", {"xlnet.deviation": 1.2}, "fails"),
        ("M", {"released.deviation": 1.2}, "fails"),
        ("N", {"ideal.planted_share": 0.15}, "fails"),
    ],
)
def test_claims_and_checks_fail_where_they_should(letter: str, change: dict[str, float], wanted: str) -> None:
    assert verdict(letter, change) == wanted


def test_claims_of_the_pretrained_model_are_over_jobs() -> None:
    spread = np.linspace(-1, 1, 30)
    items = {
        "real_gini_gap": 0.1 + 0.05 * spread, "real_gender_gain": 3 + spread, "real_interaction_gain": 0.5 - 0.1 * spread,
        "real_interactions": 0.3 + 0.1 * spread, "real_kendall": 0.6 + 0.3 * spread, "real_parity": 15 + spread,
    }  # fmt: skip
    there = {"real.at_hand": 1.0, "real.us.kendall.women": 0.6}
    assert [verdict(letter, there, items) for letter in "GHIJK"] == ["holds"] * 5
    assert verdict("K", there | {"real.us.kendall.women": 0.1}, items) == "not tested at this scale"
    assert verdict("I", there, items | {"real_interactions": 0.01 + 0.0 * spread}) != "holds"
    assert verdict("J", there, items | {"real_kendall": 0.0 + 0.1 * spread}) == "does not hold"


def test_the_quoted_numbers_of_the_released_files_are_computed_anew_and_a_wrong_one_is_seen() -> None:
    found = released_numbers()
    assert all(value <= 1 for value in deviations(found).values())
    off = deviations(found | {"xlnet.gini_men": 0.678, "released.shift_mens_jobs": 6.4})
    assert off["xlnet"] > 1 and off["released"] > 1


def test_the_world_is_what_it_says(world: World) -> None:
    assert world.probabilities.shape == (10, 24)
    assert world.probabilities.sum(1) == pytest.approx(1)
    assert len(world.planted) == 8
    assert make_world(0).probabilities.tolist() == world.probabilities.tolist()
    # without interactions log odds are sums of a job's, a category's and a gender's parts
    plain = np.log(make_world(0, planted=0).probabilities).reshape(5, 2, 24)
    gender = plain[:, 0] - plain[:, 1]
    relative = gender - gender[:, :1]  # the normaliser drops out
    assert relative == pytest.approx(np.broadcast_to(relative[:1], relative.shape))
    with pytest.raises(LabError, match="planted must lie"):
        make_world(0, planted=25)


def test_the_corpus_has_the_worlds_shares(world: World) -> None:
    texts = sentences(world, 5000, 0)
    assert len(texts) == 6500 and texts == sentences(world, 5000, 0) != sentences(world, 5000, 1)
    words = {word for text in texts for word in text.split()}
    assert len(words) < 200
    asked = [text for text in texts if text.startswith("The Black woman works as a ")]
    assert len(asked) == 500
    cell = next(at for at, c in enumerate(world.cells) if str(c) == "Black woman")
    for at, job in enumerate(world.jobs):
        share, p = sum(f" {job} in the" in text for text in asked) / 500, world.probabilities[cell, at]
        assert abs(share - p) < 4.5 * math.sqrt(p * (1 - p) / 500) + 1e-9


def test_draws_have_the_shares_that_they_are_drawn_from(world: World) -> None:
    drawn = draws(world.expected(3), 50_000, np.random.default_rng(0))
    assert drawn.mentions.sum(1).tolist() == [50_000] * 10 == drawn.completions.tolist()
    spread = np.sqrt(world.probabilities * (1 - world.probabilities) / 50_000)
    assert (np.abs(drawn.mentions / 50_000 - world.probabilities) < 4.5 * spread + 1e-9).all()


def test_shares_of_women_are_taken_over_all_cells(world: World) -> None:
    counts = world.expected(100)
    w, m = pooled(counts, "woman"), pooled(counts, "man")
    assert women_share(counts, world.jobs) == pytest.approx(w / (w + m))
    assert math.isnan(women_share(counts, ("poet",))[0])


def test_a_study_runs_at_smoke_scale_with_figures_and_tables(tmp_path: Path) -> None:
    study = reproduce("occupational-bias", scale="smoke", seeds=1, home=tmp_path, workers=1)
    assert not study.failures
    assert set(unreported(study)) == set("GHIJK")  # of a real model, which smoke scale has not
    record = study.runs[0]
    assert round(record.results["xlnet.gini_women"], 3) == 0.697
    assert record.results["model.without_title"] < 0.5  # it has learnt that jobs follow
    assert record.results["exact.slope"] == pytest.approx(record.results["model.slope"], abs=0.4)
    assert "released" in record.tables
    assert {"concentration", "parity", "regressions", "women"} <= set(record.arms["world"].tables)
    assert {path.stem for path in (study.folder / "figures").iterdir()} >= {"reflection", "slopes"}
    assert set(PRESETS) == {"smoke", "laptop", "gpu", "paper"}


@pytest.mark.parametrize("mode", ["exact", "both"])
def test_a_pretrained_model_is_measured_with_the_papers_prompts(
    lm: LanguageModel, tmp_path: Path, mode: Literal["exact", "both"]
) -> None:
    save(lm, tmp_path / "model")
    model = str(tmp_path / "model")
    settings = dataclasses.replace(
        PRESETS["gpu"], real=model, mode=mode, intersections=("political",), n=40, top_k=200
    )
    with Run.start("seed", "bias", home=tmp_path, seed=0) as record:
        real.measure(settings, record)
    assert {"at_hand", "gini.women", "political.gender_gain", "us.kendall.women"} <= set(record.results)
    assert (record.folder / "figures" / "coefficients_political.svg").is_file()
    assert (record.folder / "tables" / "regression_summary.csv").is_file()
    arrays = record.record.arrays
    assert arrays["real_kendall"].mean() == pytest.approx(record.results["us.kendall.women"], abs=0.05)
    shift = record.results["us.women_shift.mens_jobs"] - record.results["us.women_shift.womens_jobs"]
    assert arrays["real_parity"].mean() == pytest.approx(shift, abs=1e-6)
    assert len(arrays["real_gender_gain"]) == len(arrays["real_interactions"]) >= 1
    gap = record.results["gini.women"] - record.results["gini.men"]
    assert arrays["real_gini_gap"].mean() == pytest.approx(gap, abs=0.1)


def test_a_pretrained_model_that_is_not_at_hand_is_no_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT2LAB_HOME", str(tmp_path))
    with Run.start("seed", "bias", home=tmp_path, seed=0) as record:
        real.measure(PRESETS["laptop"], record)
    assert record.results == {"at_hand": 0.0}


@pytest.mark.parametrize(
    "change", [{"n": 0}, {"sentences": 0}, {"planted": 25}, {"planted": -1}, {"draws": 0}, {"trained": False}]
)
def test_settings_that_cannot_work_are_refused_before_a_model_is_trained(change: dict[str, int]) -> None:
    with pytest.raises(LabError, match=r"must|nothing to measure"):
        dataclasses.replace(PRESETS["smoke"], **change)
