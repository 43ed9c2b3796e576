"""The study: smoke scale end to end, the cipher, equal conditions, what the claims read and what they say of it."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.papers.wechsel.cipher import ciphered, plain_lines, word_cipher
from gpt2lab.papers.wechsel.study import CLAIMS, PRESETS, Settings, first_update_at, units
from gpt2lab.papers.wechsel.study.material import _texts, unigram_loss
from gpt2lab.papers.wechsel.study.settings import ARMS
from gpt2lab.runs.trial import TUNING_SEED
from gpt2lab.runs.verdicts import Status
from gpt2lab.studies.judge import judge
from gpt2lab.studies.study import Study, reproduce
from gpt2lab.text.language_model import load
from tests.claims import unreported


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return reproduce("wechsel", scale="smoke", seeds=1, home=tmp_path_factory.mktemp("wechsel"), workers=1)


def test_the_study_begins_trains_and_judges_every_arm_at_smoke_scale(study: Study) -> None:
    assert not study.failures
    assert unreported(study) == {}
    results, arms = study.runs[0].results, study.runs[0].arms
    for arm in ARMS:
        curve = arms[arm].tables["curve"]
        assert [int(row["update"]) for row in curve] == [0, 2, 4, 6, 8]
        assert float(curve[-1]["loss"]) == pytest.approx(results[f"{arm}.loss"], rel=1e-5)
        assert results[f"{arm}.quarter"] == pytest.approx(float(curve[1]["loss"]))
        assert ("tokens" in arms[arm].tables) == (ARMS[arm] in ("wechsel", "nearest", "permuted"))
        assert 0.5 < results[f"{arm}.bits_per_byte"] < 9
    assert results["wechsel.start"] == pytest.approx(results["wechsel_scarce.start"])
    assert results["transinner.start"] == pytest.approx(results["frozen.start"])
    least = min(results["transinner.loss"], results["fullrand.loss"])
    assert results["quarter_gap"] == pytest.approx(least - results["wechsel.quarter"])
    assert results["transinner.updates_to_transinner"] <= 8
    names = {path.stem for path in (study.folder / "figures").iterdir()}
    assert {"curves", "curves_scarce", "losses"} <= names
    source, new = load(arms["source_model"].folder / "model"), load(arms["wechsel"].folder / "model")
    assert source.tokenizer is not None and new.tokenizer is not None
    assert source.tokenizer.fingerprint != new.tokenizer.fingerprint


def test_every_arm_is_tuned_in_equally_many_trials_on_text_that_is_not_judged(study: Study) -> None:
    run = study.runs[0]
    for arm in ARMS:
        tuning = run.arms[f"tuning_{arm}"]
        tried = tuning.tables["sweep"]
        best = min(tried, key=lambda row: float(row["loss"]))
        assert tuning.seed == TUNING_SEED and len(tried) == len(PRESETS["smoke"].rates) + 1
        assert run.results[f"{arm}.learning_rate"] == pytest.approx(float(best["learning_rate"]))
        assert tuning.splits.chosen.keys() == {"tuning text"} and run.arms[arm].splits.judged.keys() == {
            "validation text"
        }


def test_plain_lines_are_lower_case_words_each_once() -> None:
    text = "'It's  ALICE's cat--NO. 42,' she SAID!\nshort line\nIt's alice's cat no. , she said!\n"
    assert plain_lines([text]) == ["it's alice's cat no. , she said!"]


def test_the_cipher_replaces_each_word_by_one_invented_word_of_its_own() -> None:
    lines = [
        "a cat and a dog, don't they? the cat's grandmother.",
        "the dog and the cat and the a of internationalism",
    ]
    cipher = word_cipher(lines)
    assert cipher == word_cipher(lines) != word_cipher(lines, seed=6)
    assert len(set(cipher.values())) == len(cipher) and not set(cipher.values()) & set(cipher)
    for word, made in cipher.items():
        assert re.fullmatch(r"([bdfgklmnprstvz][aeiouy])+[nrst]?", made)
        if len(word) > 3:  # a short word takes more syllables once short ones run out
            assert len(re.findall(r"[bdfgklmnprstvz][aeiouy]", made)) == max(1, round(len(word) / 2))
    there = ciphered(lines, cipher)
    assert (
        there[0].count(",") == 1 and there[0].endswith(".") and len(there[0].split()) == len(lines[0].split())
    )
    back = {made: word for word, made in cipher.items()}
    assert [re.sub(r"[a-z]+", lambda found: back[found.group()], line) for line in there] == lines
    with pytest.raises(LabError, match="no word for 'bird'"):
        ciphered(["a bird"], cipher)


def test_source_and_target_share_no_line_and_no_word_and_the_dictionary_holds_frequent_words() -> None:
    settings = PRESETS["smoke"]
    source, target, pairs, test = _texts(settings)
    assert abs(len(source) - len(target)) <= 1 and len(pairs) == len(test) == settings.dictionary_words
    words = [set(re.findall(r"[a-z']+", " ".join(lines))) for lines in (source, target)]
    assert not words[0] & words[1]
    assert {one for one, _ in pairs} <= words[0] and not {one for one, _ in pairs} & {one for one, _ in test}


def test_a_real_language_is_read_from_its_text_with_a_dictionary(tmp_path: Path) -> None:
    lines = [f"Ligne numéro {i} où l'été est très chaud." for i in range(50)]
    (tmp_path / "fr.txt").write_text("\n".join(lines))
    (tmp_path / "d.tsv").write_text("summer\tété\nhot\tchaud\n")
    settings = replace(
        PRESETS["smoke"], target=str(tmp_path / "fr.txt"), dictionary=str(tmp_path / "d.tsv"), plain=False
    )
    source, target, pairs, test = _texts(settings)
    assert sorted(target) == sorted(lines) and pairs == [("summer", "été"), ("hot", "chaud")] and not test
    assert len(source) > 100
    with pytest.raises(LabError, match="2 different lines"):
        (tmp_path / "few.txt").write_text("\n".join(lines[:2]))
        _texts(replace(settings, target=str(tmp_path / "few.txt")))


def test_the_unigram_loss_is_that_of_frequencies_with_one_added() -> None:
    p = np.array([3, 2, 1]) / 6
    assert unigram_loss(np.array([0, 0, 1]), np.array([2, 1, 0]), 3) == pytest.approx(
        -np.log(p[[1, 0]]).mean()
    )


def test_the_update_at_which_a_loss_is_reached_is_interpolated() -> None:
    curve = [{"update": u, "loss": loss} for u, loss in ((0, 6.0), (10, 5.0), (20, 4.5), (30, 4.75))]
    assert first_update_at(curve, 5.5) == pytest.approx(5) and first_update_at(curve, 4.75) == pytest.approx(
        15
    )
    assert first_update_at(curve, 7.0) == 0 and first_update_at(curve, 4.0) is None


LEARNT = {
    "alignment.precision_at_10": 0.5, "source.loss": 4.0, "source.unigram_loss": 6.0, "fullrand.loss": 5.0,
    "unigram_loss": 6.0, **{f"{arm}.at_edge": 0.0 for arm in ARMS}, "over.fullrand": 0.5,
}  # fmt: skip


def judged(letter: str, values: tuple[float, ...], **changed: float) -> Status:
    claim = next(claim for claim in CLAIMS if claim.name == letter)
    name = {"A": "quarter_gap", "B": "over.fullrand", "C": "scarce_gain"}[letter]
    seeds = {seed: LEARNT | changed | {name: value} for seed, value in enumerate(values)}
    return judge(claim, seeds, "laptop").status


@pytest.mark.parametrize("letter", ["A", "B"])
def test_the_interval_of_a_gap_decides(letter: str) -> None:
    assert judged(letter, (0.3, 0.31, 0.32)) is Status.HOLDS
    assert judged(letter, (-0.3, 0.31, 0.02)) is Status.INCONCLUSIVE
    assert judged(letter, (-0.3, -0.31, -0.32)) is Status.DOES_NOT_HOLD


def test_the_gain_of_scarce_text_is_compared_with_that_of_all_text() -> None:
    assert judged("C", (0.8, 0.81, 0.82)) is Status.HOLDS
    assert judged("C", (0.3, 0.31, 0.32)) is Status.DOES_NOT_HOLD


@pytest.mark.parametrize(
    "changed",
    [
        {"alignment.precision_at_10": 0.1},
        {"source.loss": 5.8},
        {"fullrand.loss": 5.9},
        {"wechsel.at_edge": 1.0},
    ],
)
def test_where_the_alignment_failed_or_nothing_was_learnt_nothing_is_tested(
    changed: dict[str, float],
) -> None:
    for letter in "ABC":
        assert judged(letter, (0.9, 0.91, 0.92), **changed) is Status.NOT_TESTED


def test_arms_need_the_source_model_of_their_seed_and_their_own_tuning() -> None:
    specs = {spec.name: spec for spec in units(PRESETS["laptop"])}
    assert (
        specs["languages"].shared and specs["tuning_source_model"].tuning and len(specs) == 3 + 2 * len(ARMS)
    )
    assert specs["wechsel"].needs == ("languages", "source_model", "tuning_wechsel")


def test_settings_that_make_no_sense_are_refused() -> None:
    for wrong in (
        {"arms": ("wechsel",)}, {"arms": (*ARMS, "other")}, {"target": "fr.txt"}, {"plain": False}, {"steps": 10},
        {"evaluations": 6}, {"rates": (2e-3, 1e-3)}, {"scarce": 0.0}, {"windows": 0},
    ):  # fmt: skip
        with pytest.raises(LabError):
            Settings(**wrong)  # type: ignore[arg-type]  # wrong on purpose
