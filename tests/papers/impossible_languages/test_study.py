"""The study: smoke scale end to end, equal conditions, what the claims read, and what they say of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.model import load_model
from gpt2lab.papers.impossible_languages.languages import NAMES
from gpt2lab.papers.impossible_languages.study import CLAIMS, PRESETS, Settings, model_of, units
from gpt2lab.papers.impossible_languages.study.claims import HOPS, PAPER_RANKS
from gpt2lab.papers.impossible_languages.study.comparison import compared, order, travel
from gpt2lab.papers.impossible_languages.study.material import divided, unigram_loss
from gpt2lab.papers.impossible_languages.study.settings import FEW
from gpt2lab.runs.run import Run
from gpt2lab.runs.trial import TUNING_SEED
from gpt2lab.runs.verdicts import Status
from gpt2lab.studies.judge import judge
from gpt2lab.studies.study import Study, reproduce
from tests.claims import unreported


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    home = tmp_path_factory.mktemp("impossible")
    return reproduce("impossible-languages", scale="smoke", seeds=1, home=home, workers=1)


def test_the_study_trains_and_judges_every_language_at_smoke_scale(study: Study) -> None:
    assert not study.failures
    assert unreported(study) == {}
    run = study.runs[0]
    for name in FEW:
        record = run.arms[name]
        assert 2 < run.results[f"{name}.log_perplexity"] < 8
        assert [int(row["update"]) for row in record.tables["checkpoints"]] == [2, 4]
        last = record.tables["checkpoints"][-1]
        assert float(last["log_perplexity"]) == pytest.approx(run.results[f"{name}.log_perplexity"], rel=1e-5)
        assert ("marker" in record.results) == (name in HOPS)
    assert run.results["hops.least_right"] == min(run.results[f"{name}.right"] for name in HOPS)
    other = min(run.results[f"shuffle_deterministic21.on.{name}"] for name in (NAMES[3], NAMES[4], NAMES[1]))
    gap = other - run.results["shuffle_deterministic21.log_perplexity"]
    assert run.results["shuffle_deterministic21.own_gap"] == pytest.approx(gap)
    names = {path.stem for path in (study.folder / "figures").iterdir()}
    assert {"curves_shuffle", "perplexity_hop", "surprisal_marker", "interchange_hop_words4"} <= names
    kept = load_model(run.arms["hop_words4"].folder / "model")
    assert kept.config.vocab_size == load_model(run.arms["hop_control"].folder / "model").config.vocab_size


def test_checkpoints_that_are_kept_are_models_by_name(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpt2lab.papers.impossible_languages.study import learn

    finished = study.runs[0].arms
    with Run.start("seed", "ladder", home=tmp_path) as run:
        run.needed = {name: finished[name] for name in ("text", "tuning_hop_control")}
        learn(replace(PRESETS["smoke"], keep_checkpoints=True), run, name="hop_control")
    assert run.record.results["log_perplexity"] == pytest.approx(
        finished["hop_control"].results["log_perplexity"]
    )
    monkeypatch.setenv("GPT2LAB_HOME", str(tmp_path))
    half, whole, last = (gpt2lab.load(name) for name in (f"{run.id}@2", f"{run.id}@4", run.id))
    for name, weights in whole.model.state_dict().items():
        assert torch.equal(weights, last.model.state_dict()[name])
    assert not torch.equal(half.model.embedding.weight, last.model.embedding.weight)
    lens = gpt2lab.measure("logit-lens", f"{run.id}@2", prompt="the boy sees", keep=False)
    assert lens["answer"] > 0
    with pytest.raises(LabError, match=rf"{run.id} has no weights of update 3; it kept those after 2, 4"):
        gpt2lab.load(f"{run.id}@3")


def test_every_language_is_tuned_once_in_equally_many_trials_on_sentences_that_are_not_judged(
    study: Study,
) -> None:
    run = study.runs[0]
    counts = set[int]()
    for name in FEW:
        tuning = run.arms[f"tuning_{name}"]
        tried = tuning.tables["sweep"]
        counts.add(len(tried))
        best = min(tried, key=lambda row: float(row["loss"]))
        assert tuning.seed == TUNING_SEED
        assert run.results[f"{name}.learning_rate"] == pytest.approx(float(best["learning_rate"]))
        assert tuning.splits.chosen.keys() == {"tuning sentences"}
        assert run.arms[name].splits.judged.keys() == {"test sentences"}
    assert counts == {len(PRESETS["smoke"].rates) + 1}


def test_languages_of_one_vocabulary_begin_with_the_same_weights() -> None:
    settings = PRESETS["smoke"]
    one, same, other = (model_of(settings, 50, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["embedding.weight"], other["embedding.weight"])


def test_the_model_divides_scores_by_layer_and_may_have_no_positions() -> None:
    settings = PRESETS["smoke"]
    config = model_of(settings, 50, 0).config
    assert config.layer(1).attention_scale == pytest.approx(config.layer(0).attention_scale / 2)
    blind = model_of(replace(settings, positions="none"), 50, 0).eval()
    tokens = torch.tensor([[1, 2, 3, 4]])
    with (
        torch.no_grad()
    ):  # without positions the order of what stands before does not matter to the first block
        assert blind.config.positions == "none"
        with blind.tap(read=["blocks.0.hook_resid_post"]) as tap:
            blind(tokens)
        first = tap["blocks.0.hook_resid_post"][0, -1]
        with blind.tap(read=["blocks.0.hook_resid_post"]) as tap:
            blind(tokens[:, [1, 2, 0, 3]])
    assert torch.allclose(tap["blocks.0.hook_resid_post"][0, -1], first, atol=1e-6)


def test_every_sentence_is_in_one_part_and_too_few_are_refused() -> None:
    settings = replace(PRESETS["smoke"], test=3, tuning=2, sentences=4, shortest=2, longest=5)
    encoded = [[i, i + 1] for i in range(12)] + [[0, 1]] * 9 + [[1], [1] * 6]
    parts = divided(settings, encoded)
    assert {part: len(found) for part, found in parts.items()} == {"train": 4, "tuning": 2, "test": 3}
    every = [tuple(ids) for found in parts.values() for ids in found]
    assert len(set(every)) == 9 and all(len(ids) == 2 for ids in every)
    assert parts == divided(settings, encoded)
    with pytest.raises(LabError, match="held out"):
        divided(settings, encoded[:5])


def test_the_unigram_loss_is_that_of_frequencies_with_one_added() -> None:
    p = np.array([3, 2, 1]) / 6
    expected = (-(np.log(p[1]) + np.log(p[2])) / 2 - np.log(p[0])) / 2
    assert unigram_loss([[0, 0, 1]], [[2, 1, 2], [1, 0]], 3) == pytest.approx(expected)


def tables(values: dict[str, list[tuple[float, float]]]) -> dict[str, list[dict[str, Any]]]:
    """Checkpoints with (marker, difference) of each hop language, and accuracies that grow."""
    return {
        name: [
            {
                "update": i, "marker": marker, "difference": difference, "iia_0_0": 5.0, "iia_1_0": 5.0,
                "iia_0_1": 60.0, "iia_1_1": 7.0, "iia_0_2": 9.0, "iia_1_2": 40.0 + 10 * i,
            }
            for i, (marker, difference) in enumerate(pairs)
        ]
        for name, pairs in values.items()
    }  # fmt: skip


RESULTS = {f"{name}.log_perplexity": 3.0 + rank / 10 for name, rank in PAPER_RANKS.items()} | {
    "reverse_control.log_perplexity": 4.0, "reverse_partial.log_perplexity": 4.2, "reverse_full.log_perplexity": 3.9,
    **{f"{name}.right": 0.9 - i / 10 for i, name in enumerate(HOPS)},
}  # fmt: skip


def test_the_quantities_of_the_claims_are_the_smallest_over_languages_and_checkpoints() -> None:
    rows = tables(
        {HOPS[0]: [(1.0, 5.0), (0.5, 9.0)], HOPS[1]: [(1.5, 4.0), (0.7, 6.0)], HOPS[2]: [(1.2, 4.5), (2, 7)]}
    )
    found = compared(RESULTS, rows, 2)
    assert found["shuffle.smallest_gap"] == pytest.approx(0.15)
    assert found["reverse.smallest_gap"] == pytest.approx(-0.1)
    assert found["hops.smallest_marker_gap"] == pytest.approx(0.2)
    assert found["hops.smallest_difference_gap"] == pytest.approx(0.5)
    assert found["hops.least_right"] == pytest.approx(0.7)
    assert found["hops.least_travel"] == pytest.approx(45.0)  # last position after the last block: 50 - 5
    assert found["hops.earlier"] == pytest.approx(0.0)
    assert travel(rows[HOPS[0]][-1] | {"iia_0_1": 20.0}, 2) == pytest.approx(15.0)


def test_the_papers_order_gives_the_highest_correlation_and_its_reverse_the_lowest() -> None:
    assert order(RESULTS) == pytest.approx(0.971, abs=1e-3)
    backwards = {name: -value for name, value in RESULTS.items()}
    assert order(backwards) < -0.9


FULL = {
    "unigram_loss": 6.0, "shuffle_control.log_perplexity": 4.0, "hop_control.marker": 0.4, "hops.least_right": 0.9,
    **{f"{name}.at_edge": 0.0 for name in FEW},
}  # fmt: skip


def judged(letter: str, values: tuple[float, ...], **changed: float) -> Status:
    claim = next(claim for claim in CLAIMS if claim.name == letter)
    assert isinstance(claim.measure, str)
    seeds = {seed: FULL | changed | {claim.measure: value} for seed, value in enumerate(values)}
    return judge(claim, seeds, "laptop").status


@pytest.mark.parametrize("letter", ["A", "C", "D", "E", "G", "H"])
def test_the_interval_of_a_gap_decides(letter: str) -> None:
    assert judged(letter, (0.3, 0.31, 0.32)) is Status.HOLDS
    assert judged(letter, (-0.3, 0.31, 0.02)) is Status.INCONCLUSIVE
    assert judged(letter, (-0.3, -0.31, -0.32)) is Status.DOES_NOT_HOLD


@pytest.mark.parametrize(
    ("letter", "changed"),
    [
        ("A", {"shuffle_control.log_perplexity": 5.8}),
        ("B", {"shuffle_local3.at_edge": 1.0}),
        ("D", {"hop_control.marker": 3.0}),
        ("F", {"hops.least_right": 0.5}),
    ],
)
def test_where_nothing_was_learnt_or_a_rate_is_at_the_edge_nothing_is_tested(
    letter: str, changed: dict[str, float]
) -> None:
    assert judged(letter, (0.9, 0.91, 0.92), **changed) is Status.NOT_TESTED


def test_a_weak_order_or_little_travel_holds_in_part() -> None:
    assert judged("B", (0.5, 0.6, 0.55)) is Status.IN_PART
    assert judged("F", (60.0, 61.0, 62.0)) is Status.HOLDS
    assert judged("F", (10.0, 11.0, 12.0)) is Status.IN_PART


def test_units_need_the_text_and_their_own_tuning() -> None:
    specs = {spec.name: spec for spec in units(PRESETS["laptop"])}
    assert specs["text"].shared and len(specs) == 1 + 2 * len(FEW)
    assert all(specs[name].needs == ("text", f"tuning_{name}") for name in FEW)
    assert set(PRESETS["gpu"].languages) == set(PRESETS["paper"].languages) == set(NAMES)


def test_settings_that_make_no_sense_are_refused() -> None:
    for wrong in (
        {"languages": ("shuffle_control",)},
        {"languages": (*FEW, "shuffle-local7")},
        {"languages": (*FEW, "hop_control")},
        {"checkpoints": 0},
        {"checkpoints": 451},
        {"longest": 128},
        {"rates": (2e-3, 1e-3)},
        {"trial": 0.0},
    ):
        with pytest.raises(LabError):
            Settings(**wrong)  # type: ignore[arg-type]  # wrong on purpose


def test_hop_data_of_ones_own_are_divided_once(tmp_path: Path) -> None:
    from gpt2lab.papers.impossible_languages.study.material import _annotated

    rows = [
        f"1\tHe\the\tPRON\t_\t_\t2\tnsubj\t_\t_\n2\tgo{i}\tgo\tVERB\t_\t_\t0\troot\t_\t_\n" for i in range(20)
    ]
    (tmp_path / "a.conllu").write_text("\n".join(rows))
    settings = replace(PRESETS["smoke"], hop_data=str(tmp_path / "a.conllu"))
    parts = [[one.text for one in _annotated(settings, part)] for part in ("train", "tuning", "test")]
    assert [len(part) for part in parts] == [16, 2, 2] and len(
        {text for part in parts for text in part}
    ) == 20
