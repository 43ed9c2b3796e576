"""The study: the world, its claims as rules, and smoke scale from end to end."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.papers.occupational_bias.study import CLAIMS, PRESETS, run
from gpt2lab.papers.occupational_bias.world import World, make_world, pooled, sentences, women_share
from gpt2lab.runs.run import Run
from gpt2lab.studies.claim import Results
from gpt2lab.studies.judge import judge
from gpt2lab.studies.study import reproduce
from gpt2lab.text.language_model import LanguageModel, save

GOOD = {
    "model.gini_women": 0.66, "model.gini_men": 0.54, "world.gini_women": 0.66, "world.gini_men": 0.54,
    "model.without_title": 0.01, "model.gender_gain": 8.0, "model.interaction_gain": 0.5, "model.kendall": 0.9,
    "model.planted_jobs": 8.0, "model.planted_significant": 5.0, "model.rest_jobs": 16.0, "model.rest_significant": 1.0,
    "ideal.planted_jobs": 8.0, "ideal.planted_significant": 5.0, "ideal.rest_jobs": 16.0, "ideal.rest_significant": 1.0,
    "model.slope": 0.95, "ideal.slope": 1.0, "cold.slope": 1.2, "narrow.slope": 1.1,
    "xlnet.gini_women": 0.697, "xlnet.gini_men": 0.676,
    "released.shift_mens_jobs": 6.5, "released.shift_womens_jobs": -8.7,
}  # fmt: skip


def verdicts(*changes: dict[str, float]) -> list[str]:
    noisy = ("model.slope", "model.kendall", "model.gender_gain")
    seeds = {
        seed: Results(
            {name: value + (seed % 3) / 1000 * (name in noisy) for name, value in (GOOD | change).items()}
        )
        for seed, change in enumerate(changes or ({}, {}, {}))
    }
    judged = [str(judge(claim, seeds, "laptop").status) for claim in CLAIMS]
    return judged[:6] + judged[-2:]


def test_claims_hold_where_they_should_and_gpt2s_wait_for_gpt2() -> None:
    assert verdicts() == [*["holds"] * 5, *["passes"] * 3]  # F, L and M are checks
    assert verdicts({}, {}) == [*["inconclusive"] * 5, *["passes"] * 3]
    seeds = {seed: Results(GOOD) for seed in range(3)}
    statuses = [str(judge(claim, seeds, "laptop").status) for claim in CLAIMS]
    assert statuses.count("not tested at this scale") == 5


@pytest.mark.parametrize(
    ("claim", "change", "wanted"),
    [
        (0, {"model.gini_women": 0.5}, "does not hold"),
        (0, {"world.gini_women": 0.5}, "not tested at this scale"),
        (1, {"model.interaction_gain": 9.0}, "does not hold"),
        (2, {"model.planted_significant": 1.0}, "does not hold"),
        (2, {"ideal.planted_significant": 1.0}, "not tested at this scale"),
        (3, {"model.kendall": 0.5}, "does not hold"),
        (4, {"model.slope": 1.1}, "does not hold"),
        (4, {"model.kendall": 0.1}, "not tested at this scale"),
        (5, {"narrow.slope": 0.9}, "fails"),
    ],
)
def test_claims_fail_where_they_should(claim: int, change: dict[str, float], wanted: str) -> None:
    assert verdicts(change, change, change)[claim] == wanted


def test_one_seed_with_the_other_sign_is_inconclusive() -> None:
    assert verdicts({}, {}, {"model.gini_women": 0.5})[0] == "inconclusive"
    assert verdicts({"model.slope": 0.8}, {"model.slope": 1.2}, {})[4] == "inconclusive"


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


def test_shares_of_women_are_taken_over_all_cells(world: World) -> None:
    counts = world.expected(100)
    w, m = pooled(counts, "woman"), pooled(counts, "man")
    assert women_share(counts, world.jobs) == pytest.approx(w / (w + m))
    assert math.isnan(women_share(counts, ("poet",))[0])


def test_a_study_runs_at_smoke_scale_with_figures_and_tables(tmp_path: Path) -> None:
    study = reproduce("occupational-bias", scale="smoke", seeds=1, home=tmp_path, workers=1)
    assert not study.failures
    record = study.runs[0]
    assert round(record.results["xlnet.gini_women"], 3) == 0.697
    assert record.results["model.without_title"] < 0.5  # it has learnt that jobs follow
    assert record.results["exact.slope"] == pytest.approx(record.results["model.slope"], abs=0.4)
    assert {"released", "concentration", "parity", "regressions", "women"} <= set(record.tables)
    assert {path.stem for path in (study.folder / "figures").iterdir()} >= {"reflection", "slopes"}
    assert set(PRESETS) == {"smoke", "laptop", "gpu", "paper"}


def test_a_model_that_exists_is_measured_with_the_papers_prompts(lm: LanguageModel, tmp_path: Path) -> None:
    """The way of the gpu and paper scales, with a model that knows nothing: it is no evidence of parity."""
    save(lm, tmp_path / "model")
    settings = dataclasses.replace(
        PRESETS["gpu"], model=str(tmp_path / "model"), intersections=("political",), n=40, top_k=200
    )
    with Run.start("seed", "bias", home=tmp_path, seed=0) as record:
        run(settings, record)
    assert {"gini.women", "gender_gain", "exact.gender_gain", "us.kendall.women"} <= set(record.results)
    assert (record.folder / "figures" / "coefficients_political.svg").is_file()
    assert (record.folder / "tables" / "regression_summary.csv").is_file()
    made_up = {"us.kendall.women": 0.1, "us.women_shift.mens_jobs": 38.0, "us.women_shift.womens_jobs": -38.0}
    parity = next(claim for claim in CLAIMS if claim.sentence.startswith("GPT-2 is closer"))
    seeds = {seed: Results(made_up) for seed in range(3)}
    assert str(judge(parity, seeds, "gpu").status) == "not tested at this scale"


@pytest.mark.parametrize("change", [{"n": 0}, {"sentences": 0}, {"planted": 25}, {"planted": -1}])
def test_settings_that_cannot_work_are_refused_before_a_model_is_trained(change: dict[str, int]) -> None:
    with pytest.raises(LabError, match="must"):
        dataclasses.replace(PRESETS["smoke"], **change)
