"""The study of contrastive search: smoke scale end to end with a pretrained model, and its claims on made-up results."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.papers.contrastive_search.study import CLAIMS, PRESETS, Decoding, Settings
from gpt2lab.papers.contrastive_search.study.models import split
from gpt2lab.papers.contrastive_search.study.real import texts_of
from gpt2lab.studies.judge import judge
from gpt2lab.studies.study import Study, reproduce
from gpt2lab.text.language_model import LanguageModel, save
from gpt2lab.text.tokenizer import byte_level
from tests.claims import unreported
from tests.tiny import tiny

REAL: dict[str, Any] = {
    "real_decoding.texts": 20, "real_decoding.tuning_texts": 4, "real_decoding.prefix": 8, "real_decoding.new": 16,
    "real_decoding.k": (5,), "real_decoding.alpha": (0.2, 0.6), "real_decoding.top_k": (3, 20),
    "real_decoding.skip": 0, "real_decoding.top_p": (), "real_decoding.temperature": (), "real_decoding.typical": (),
    "isotropy_texts": 4, "isotropy_tokens": 32,
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model as if pretrained, and texts of several books."""
    folder = tmp_path_factory.mktemp("pretrained")
    tokenizer = byte_level()
    model = tiny("gpt2", seed=0, vocab_size=tokenizer.vocab_size, eos=tokenizer.eos, max_positions=64)
    save(LanguageModel(model, tokenizer), folder / "writer")
    rows = [
        {"book": f"book {n % 12}", "text": f"{n % 12}. Chapter {n}: nothing happened for many pages."}
        for n in range(48)
    ]
    (folder / "books.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def study(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    settings = {**REAL, "real": str(place / "writer"), "real_data": str(place / "books.jsonl")}
    home = tmp_path_factory.mktemp("home")
    return reproduce("contrastive-search", scale="smoke", seeds=1, home=home, workers=1, settings=settings)


def test_the_trained_models_write_with_the_decoders_that_the_tuning_seed_chose(study: Study) -> None:
    assert not study.failures
    assert unreported(study) == {}
    run = study.runs[0]
    chosen = run.arms["tuning"].tables["chosen"]
    assert [row["side"] for row in chosen] == ["contrastive", "contrastive", "sampler", "sampler"]
    decoders = {str(row["decoder"]) for row in run.tables["decoders"]}
    assert {"people", "contrastive_5_60", "greedy", "beam_4", "nucleus_95"} < decoders
    for name in decoders - {"people"}:
        assert 0 <= run.results[f"{name}.diversity"] <= 100
        assert run.results[f"{name}.coherence"] < 0 < run.results[f"{name}.mebibytes"]
        lines = (run.folder / "generations" / f"{name}.jsonl").read_text().splitlines()
        assert [len(json.loads(line)["tokens"]) for line in lines] == [16] * 8
    assert 0 <= run.results["isotropy.lowest"] <= 2
    assert run.results["speed.identical_in_float64"] == 1
    assert {"coherence_and_diversity", "pretrained"} <= {
        path.stem for path in (study.folder / "figures").iterdir()
    }
    assert {"similarity_greedy", "similarity_people", "similarity_contrastive_5_60"} <= set(run.figures)


def test_the_pretrained_model_gives_a_value_for_each_passage(study: Study) -> None:
    run = study.runs[0]
    names = ("real_contrastive", "real_sampler", "real_people_diversity", "real_greedy_diversity")
    assert [len(run.arrays[name]) for name in names] == [20] * 4
    assert run.arrays["real_sampler"].mean() == pytest.approx(run.results["real.sampler.matched"])
    assert run.results["real.at_hand"] == 1 and 0 <= run.results["real.isotropy_untrained"] <= 2
    assert "real_tuning" in run.arms and run.arms["real"].results["people.diversity"] > 0


def test_tuning_and_judged_passages_are_of_different_books(study: Study) -> None:
    books = [
        {text.partition(" ")[0] for text in texts_of(study.settings, part)} for part in ("tuning", "judged")
    ]
    assert all(books) and not books[0] & books[1]
    for splits in (study.runs[0].arms["real_tuning"].splits, study.runs[0].arms["tuning"].splits):
        assert splits.chosen and not splits.judged


GOOD = {
    "learnt": 2.0, "contrastive.matched": -2.4, "sampler.matched": -2.9, "contrastive.outside": 0.0,
    "sampler.outside": 1.0, "contrastive_5_60.diversity": 85.0, "people.diversity": 82.0, "greedy.diversity": 5.0,
    "beam_4.diversity": 7.0, "isotropy.lowest_change": 0.1, "real.at_hand": 0.0, "speed.ratio": 3.0,
    "speed.identical_in_float64": 1.0,
}  # fmt: skip


def verdict(letter: str, change: dict[str, float] | None = None, items: Any = None) -> str:
    claim = next(claim for claim in CLAIMS if claim.name == letter)
    noise = (0.0, 0.01, -0.01, 0.02)
    seeds = {
        seed: {name: value + (value < 0) * noise[seed] for name, value in (GOOD | (change or {})).items()}
        | {"contrastive_5_60.diversity": GOOD["contrastive_5_60.diversity"] + noise[seed]}
        | {"isotropy.lowest_change": (GOOD | (change or {}))["isotropy.lowest_change"] + noise[seed]}
        | {"sampler.matched": (GOOD | (change or {}))["sampler.matched"] - noise[seed]}
        for seed in range(4)
    }
    return str(judge(claim, seeds, "laptop", {seed: items or {} for seed in seeds}).status)


def test_claims_of_the_trained_models_hold_and_fail_where_they_should() -> None:
    assert [verdict(letter) for letter in "ABCEFM"] == [*["holds"] * 4, *["passes"] * 2]
    assert verdict("A", {"sampler.matched": -2.0}) == "does not hold"
    assert verdict("C", {"isotropy.lowest_change": -0.2}) == "holds in part"
    assert verdict("C", {"isotropy.lowest_change": -0.5}) == "does not hold"
    assert verdict("E", {"beam_4.diversity": 99.0}) == "does not hold"
    assert verdict("F", {"speed.ratio": 1.5}) == verdict("M", {"speed.identical_in_float64": 0.99}) == "fails"
    for change in ({"learnt": 0.1}, {"sampler.outside": 4.0}, {"contrastive.outside": 4.0}):
        assert verdict("A", change) == "not tested at this scale"


def test_claims_of_the_pretrained_model_are_over_passages_and_wait_for_it() -> None:
    assert [verdict(letter) for letter in "IJKL"] == ["not tested at this scale"] * 4
    there = {
        "real.at_hand": 1.0, "real.contrastive.outside": 0.0, "real.sampler.outside": 0.0,
        "real.isotropy_untrained": 0.2,
    }  # fmt: skip
    spread = np.linspace(-1, 1, 40)
    items = {
        "real_contrastive": -2.0 + spread, "real_sampler": -2.9 + 0.5 * spread, "real_isotropy": 0.7 + 0.1 * spread,
        "real_contrastive_diversity": 90 + 3 * spread, "real_people_diversity": 92 - 3 * spread,
        "real_greedy_diversity": 20 + spread, "real_beam_diversity": 10 + spread,
    }  # fmt: skip
    assert [verdict(letter, there, items) for letter in "IJKL"] == ["holds"] * 4
    assert verdict("I", there | {"real.sampler.outside": 4.0}, items) == "not tested at this scale"
    assert verdict("K", there | {"real.isotropy_untrained": 0.6}, items) == "not tested at this scale"
    assert verdict("K", there, items | {"real_isotropy": 0.3 + 0.1 * spread}) == "does not hold"


def test_no_text_is_in_both_parts_and_each_seed_has_its_own_order() -> None:
    training, held_out = split("tinyworld:500", 0)
    assert not set(training) & set(held_out)
    again = split("tinyworld:500", 1)[1]
    assert set(again) == set(held_out) and again != held_out


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(LabError, match="context"):
        Settings(context=90)
    with pytest.raises(LabError, match="nobody writes"):
        Settings(trained=False)
    for wrong in ({"alpha": (0.6, 0.2)}, {"top_k": (5,)}, {"offsets": (0.0,)}, {"texts": 1}, {"k": ()}):
        with pytest.raises(LabError):
            Decoding(**{"texts": 4, "tuning_texts": 4, **wrong})  # type: ignore[arg-type]  # values of several types
    with pytest.raises(LabError, match="at least one sampler"):
        Decoding(texts=4, tuning_texts=4, top_k=(), top_p=(), temperature=(), typical=())


def test_without_the_pretrained_model_the_rest_is_judged(tmp_path: Path) -> None:
    assert PRESETS["laptop"].real == "smollm2-135m" and not PRESETS["smoke"].real
    from gpt2lab.actions.models import is_at_hand

    assert not is_at_hand(str(tmp_path / "nothing"))
    assert is_at_hand(str(tmp_path))
