"""The study of contrastive search: smoke scale end to end, and the rule of its headline on made-up results."""

import json
import math
from pathlib import Path

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.papers.contrastive_search.quality import Sample
from gpt2lab.papers.contrastive_search.study import CLAIMS, PRESETS, Settings, trials_of
from gpt2lab.papers.contrastive_search.study.decoding import Judged, Trial, headline
from gpt2lab.papers.contrastive_search.study.models import split
from gpt2lab.runs.run import Run
from gpt2lab.runs.verdicts import Status
from gpt2lab.studies.claim import Results
from gpt2lab.studies.study import reproduce
from gpt2lab.text.language_model import LanguageModel, save
from gpt2lab.text.tokenizer import byte_level
from tests.tiny import tiny


def test_a_study_runs_at_smoke_scale_and_shows_every_decoder(tmp_path: Path) -> None:
    study = reproduce("contrastive-search", scale="smoke", seeds=1, home=tmp_path, workers=1)
    assert not study.failures
    run = study.runs[0]
    for trial in trials_of(PRESETS["smoke"]):
        assert 0 <= run.results[f"{trial.name}.diversity"] <= 100
        assert run.results[f"{trial.name}.coherence"] < 0
        assert run.results[f"{trial.name}.mebibytes"] > 0
        lines = (run.folder / "generations" / f"{trial.name}.jsonl").read_text().splitlines()
        assert len(lines) == 8
        assert len(json.loads(lines[0])["tokens"]) == 16
    assert run.results["top_k_5.diversity_sd"] >= 0
    assert 0 <= run.results["isotropy.lowest"] <= 2
    assert run.results["speed.identical"] == 1
    assert {"coherence_and_diversity"} <= {path.stem for path in (study.folder / "figures").iterdir()}
    assert {"similarity_greedy", "similarity_people", "similarity_contrastive_5_60"} <= set(run.figures)
    assert "contrastive_5_60" in study.report.read_text()


def test_the_headline_rule_is_the_specifications() -> None:
    def verdict(differences: tuple[float, ...], searches: int = 1, samplers: int = 1) -> Status:
        seeds = [
            Results({"band.difference": value, "band.contrastive": searches, "band.samplers": samplers})
            for value in differences
        ]
        assert CLAIMS[0].rule is not None
        return CLAIMS[0].rule(seeds).status

    assert verdict((0.5, 0.6, 0.55)) is Status.HOLDS
    assert verdict((-0.5, -0.6, -0.55)) is Status.DOES_NOT_HOLD
    assert verdict((-0.5, 0.6, 0.1)) is Status.INCONCLUSIVE
    assert verdict((math.nan,) * 3, searches=0) is Status.DOES_NOT_HOLD
    assert verdict((math.nan,) * 3, samplers=0) is Status.NOT_TESTED


def test_settings_are_chosen_on_one_half_and_reported_on_the_other(tmp_path: Path) -> None:
    """In the first half setting A is the more coherent, in the second B: A is chosen, its second half counts."""
    diverse, dull = list(range(12)), [1] * 12

    def judged(name: str, family: str, tokens: list[int], coherence: list[float]) -> Judged:
        return Judged(Trial(name, family, ""), [Sample("", "", [0], tokens)] * 4, {"c": coherence}, {})

    people = judged("people", "people", diverse, [-3.0] * 4)
    every = [
        judged("a", "contrastive", diverse, [-1.0, -1.0, -2.0, -2.4]),
        judged("b", "contrastive", diverse, [-2.0, -2.0, -0.1, -0.1]),
        judged("dull", "contrastive", dull, [0.0] * 4),
        judged("greedy", "greedy", diverse, [0.0] * 4),
        judged("nucleus_95", "nucleus", diverse, [-3.0, -3.0, -3.0, -4.0]),
    ]
    with Run.start("seed", "one", home=tmp_path) as run:
        headline(people, every, 2, "c", run, on_tokens=True)
    assert run.results["band.contrastive"] == 2
    assert run.results["band.samplers"] == 1
    assert run.results["band.difference"] == pytest.approx(-2.2 + 3.5)
    assert run.results["over_nucleus"] == pytest.approx(0.0 + 3.5)  # outside of the band the dull one is best


def test_no_text_is_in_both_parts_and_each_seed_has_its_own_order() -> None:
    training, held_out = split("tinyworld:500", 0)
    assert not set(training) & set(held_out)
    again = split("tinyworld:500", 1)[1]
    assert set(again) == set(held_out) and again != held_out


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(LabError, match="context"):
        Settings(context=90)
    with pytest.raises(LabError, match="belong together"):
        Settings(given="gpt2")
    with pytest.raises(LabError, match="half"):
        Settings(texts=2)


def test_pretrained_models_take_the_place_of_trained_ones(tmp_path: Path) -> None:
    """As at gpu scale: nothing is trained, texts may end by themselves, n-grams are counted on words."""
    tokenizer = byte_level()
    for name, seed in (("writer", 0), ("judge", 1)):
        model = tiny("gpt2", seed=seed, vocab_size=tokenizer.vocab_size, eos=tokenizer.eos, max_positions=64)
        save(LanguageModel(model, tokenizer), tmp_path / name)
    given = {
        "given": str(tmp_path / "writer"),
        "given_scorers": (str(tmp_path / "judge"), str(tmp_path / "writer")),
        "given_isotropy": (str(tmp_path / "writer"),),
        "stop_at_eos": True,
        "on_tokens": False,
        "texts": 4,
        "repeats": 1,
    }
    study = reproduce(
        "contrastive-search", scale="smoke", seeds=1, home=tmp_path / "home", workers=1, settings=given
    )
    assert not study.failures
    results = study.runs[0].results
    assert 0 <= results["isotropy.writer"] <= 2
    assert results["greedy.coherence"] != results["greedy.coherence_writer"]
    assert not study.runs[0].arms
