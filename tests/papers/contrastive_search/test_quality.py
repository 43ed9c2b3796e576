"""Coherence, variety and MAUVE on texts and distributions with known answers; the measure as a whole; what search costs."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.decode import Greedy, Limits
from gpt2lab.papers.contrastive_search.costs import PeakMemory, compare
from gpt2lab.papers.contrastive_search.decoder import ContrastiveSearch
from gpt2lab.papers.contrastive_search.mauve import area, frontier, mauve, text_features
from gpt2lab.papers.contrastive_search.published import CopyingContrastiveSearch
from gpt2lab.papers.contrastive_search.quality import (
    GenerationQuality,
    Sample,
    bleu,
    coherence,
    continue_samples,
    held_out_samples,
    pass_at_k,
    variety,
)
from gpt2lab.text.language_model import LanguageModel, load, save
from gpt2lab.text.tokenizer import byte_level, word_level
from tests.papers.contrastive_search.test_decoder import LIMITS, PROMPTS, sharp
from tests.tiny import tiny

TEXTS = [
    f"The {colour} dog number {n} ran over the hill and slept." for n in range(4) for colour in ("red", "old")
]


@pytest.fixture
def lm() -> LanguageModel:
    tokenizer = byte_level()
    model = tiny("gpt2", vocab_size=tokenizer.vocab_size, eos=tokenizer.eos, max_positions=64)
    return LanguageModel(model, tokenizer)


# MAUVE


def test_the_frontier_of_equal_and_of_disjoint_distributions_is_known() -> None:
    p = np.array([0.2, 0.3, 0.5])
    assert area(frontier(p, p)) == pytest.approx(1.0, abs=1e-9)
    # Disjoint: KL(Q|R) = -log(1-λ), KL(P|R) = -log λ; the area under ((1-λ)^5, λ^5) is 5 B(6, 5) = 1/252.
    ours, theirs = np.array([0.4, 0.6, 0.0, 0.0]), np.array([0.0, 0.0, 0.9, 0.1])
    assert area(frontier(ours, theirs, points=4001)) == pytest.approx(1 / 252, rel=1e-4)
    assert area(frontier(ours, theirs)) == pytest.approx(1 / 252, rel=0.05)


def test_the_frontier_is_that_of_its_definition_and_the_area_is_symmetric() -> None:
    p, q = [0.7, 0.2, 0.1], [0.1, 0.3, 0.6]
    curve = frontier(p, q, points=5)
    for point, share in zip(curve[1:-1], np.linspace(1e-6, 1 - 1e-6, 5), strict=True):
        r = [share * a + (1 - share) * b for a, b in zip(p, q, strict=True)]
        q_from_r = sum(b * math.log(b / c) for b, c in zip(q, r, strict=True))
        p_from_r = sum(a * math.log(a / c) for a, c in zip(p, r, strict=True))
        assert point.tolist() == pytest.approx([math.exp(-5 * q_from_r), math.exp(-5 * p_from_r)])
    assert (np.diff(curve[:, 0]) <= 0).all() and (np.diff(curve[:, 1]) >= 0).all()
    assert area(curve) == pytest.approx(area(frontier(q, p, points=5)))
    with pytest.raises(LabError, match="add up to 1"):
        frontier([0.5, 0.4], [0.5, 0.5])


def test_mauve_of_features_in_clusters() -> None:
    """Four far clusters: the same shares, shares that overlap by half, none in common."""
    generator = np.random.default_rng(0)
    centres = 10 * np.eye(4, 6)

    def drawn(*which: int) -> np.ndarray:
        return np.concatenate([centres[i] + 0.01 * generator.normal(size=(20, 6)) for i in which])

    assert mauve(drawn(0, 1), drawn(0, 1), clusters=2) == pytest.approx(1.0, abs=1e-9)
    half = area(frontier([0.5, 0.5, 0.0], [0.0, 0.5, 0.5]))
    assert mauve(drawn(0, 1), drawn(1, 2), clusters=3) == pytest.approx(half, abs=1e-9)
    assert mauve(drawn(0, 1), drawn(2, 3), clusters=4) == pytest.approx(
        area(frontier([1.0, 0.0], [0.0, 1.0])), abs=1e-9
    )
    assert mauve(np.ones((5, 3)), np.ones((5, 3))) == pytest.approx(1.0)
    # By default a tenth of the smaller side: 28 and 60 texts have 3 clusters.
    generator = np.random.default_rng(3)
    people, model = generator.normal(size=(28, 5)), generator.normal(size=(60, 5)) + 0.5
    assert mauve(people, model) == mauve(people, model, clusters=3) != mauve(people, model, clusters=8)
    with pytest.raises(LabError, match="two texts"):
        mauve(np.ones((1, 3)), np.ones((5, 3)))


def test_features_are_states_of_the_last_token(lm: LanguageModel) -> None:
    rows = [[1, 2, 3], [4, 5, 6, 7, 8]]
    found = text_features(lm.model, rows)
    with torch.no_grad():
        expected = [lm.model.hidden(torch.tensor([row]))[0, -1].tolist() for row in rows]
    assert found.tolist()[0] == pytest.approx(expected[0], abs=1e-5)
    assert found.tolist()[1] == pytest.approx(expected[1], abs=1e-5)


# Coherence, variety, lengths


def test_coherence_is_the_mean_log_probability_after_a_start_token(lm: LanguageModel) -> None:
    assert lm.tokenizer is not None
    people = held_out_samples(TEXTS, lm.tokenizer, prefix=5, new=9, limit=3)
    found = coherence(lm, people, tokenizer=lm.tokenizer)
    sample = people[1]
    ids = [lm.tokenizer.eos, *sample.prefix_tokens, *sample.tokens]
    with torch.no_grad():
        logp = lm.model.double()(torch.tensor([ids]))[0].log_softmax(-1)
    lm.model.float()
    expected = sum(float(logp[i - 1, ids[i]]) for i in range(6, 15)) / 9  # type: ignore[index]
    assert found[1] == pytest.approx(expected, abs=1e-5)
    assert coherence(lm, people) == pytest.approx(found, abs=1e-5)  # through the text
    empty = Sample("a", "", [65], [])
    assert math.isnan(coherence(lm, [empty, *people])[0])


def test_another_tokenizer_reads_the_text_and_not_the_ids(lm: LanguageModel) -> None:
    words = word_level(TEXTS)
    scorer = LanguageModel(tiny("gpt2", vocab_size=words.vocab_size), words)
    assert lm.tokenizer is not None
    people = held_out_samples(TEXTS, lm.tokenizer, prefix=12, new=20, limit=2)
    assert all(value < 0 for value in coherence(scorer, people, tokenizer=lm.tokenizer))


def test_variety_in_percent_and_as_the_published_tables_have_it() -> None:
    samples = [
        Sample("", "a b a b a b", [], [1, 2, 1, 2, 1, 2]),
        Sample("", "c d e f g", [], [3, 4, 5, 6, 7]),
    ]
    found = variety(samples)
    assert found["rep_2"] == pytest.approx(100 * (1 - (2 + 4) / (5 + 4)))
    assert variety(samples, on_tokens=True) == pytest.approx(found)
    assert variety(samples, compat=True)["rep_2"] == pytest.approx(100 * (1 - (2 + 3) / (4 + 3)))
    product = math.prod(1 - found[f"rep_{n}"] / 100 for n in (2, 3, 4))
    assert found["diversity"] == pytest.approx(100 * product)


def test_all_continuations_are_equally_long_unless_the_end_token_may_come(lm: LanguageModel) -> None:
    assert lm.tokenizer is not None and lm.tokenizer.eos is not None
    people = held_out_samples(TEXTS, lm.tokenizer, prefix=5, new=9)
    with torch.no_grad():  # the end token is by far the likeliest
        lm.model.embedding.weight[lm.tokenizer.eos] = 8 * lm.model.final_norm.bias
    forced = continue_samples(lm, people, decoder="greedy", new=9)
    assert {len(sample.tokens) for sample in forced} == {9}
    free = continue_samples(lm, people, decoder="greedy", new=9, stop_at_eos=True)
    assert min(len(sample.tokens) for sample in free) < 9


def test_the_measure_compares_with_people_and_keeps_the_texts(lm: LanguageModel, tmp_path: Path) -> None:
    source, kept, judge = tmp_path / "texts.jsonl", tmp_path / "kept.jsonl", tmp_path / "scorer"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    assert lm.tokenizer is not None
    other = tiny("gpt2", seed=5, vocab_size=lm.tokenizer.vocab_size, max_positions=64)
    save(LanguageModel(other, lm.tokenizer), judge)
    found = GenerationQuality(
        data=(str(source),), texts=6, prefix=6, new=40, options={"k": "3"}, scorer=str(judge), save=str(kept)
    )(lm)
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    assert len(lines) == 6 and set(lines[0]) == {"prefix", "reference", "generation", "tokens"}
    assert (lines[0]["prefix"] + lines[0]["reference"]) == TEXTS[0][:46]
    assert 0 <= found["mauve"] <= 100 and found["diversity_of_people"] == pytest.approx(100.0)
    assert found["coherence"] < 0 and found["coherence_of_people"] < 0
    with pytest.raises(LabError, match="no text has"):
        GenerationQuality(data=(str(source),), texts=6, prefix=6, new=1000)(lm)
    with pytest.raises(LabError, match="alpha"):
        GenerationQuality(data=(str(source),), options={"alpha": "7"})(lm)


def test_bleu_is_that_of_sacrebleu_and_pass_at_k_that_of_a_loop() -> None:
    assert bleu(["the cat sat on the mat"], ["the cat sat on the mat"]) == pytest.approx(100.0)
    assert bleu(["a dog"], ["the cat sat on the mat"]) < 5
    # Of 4 programs 1 passed: of the 6 pairs of programs 3 hold it.
    assert pass_at_k([(4, 1)], 2) == pytest.approx(0.5)
    assert pass_at_k([(4, 1), (4, 4), (4, 0)], 1) == pytest.approx((0.25 + 1 + 0) / 3)
    with pytest.raises(LabError, match="at least 3"):
        pass_at_k([(2, 1)], 3)


# What it costs


def test_the_published_loop_finds_the_same_tokens_in_more_memory() -> None:
    model = sharp("gpt2")
    ours, theirs = ContrastiveSearch(k=4, alpha=0.6), CopyingContrastiveSearch(k=4, alpha=0.6)
    assert list(theirs.decode(model, PROMPTS, LIMITS)) == list(ours.decode(model, PROMPTS, LIMITS))
    found = compare(model, PROMPTS, LIMITS, ours, theirs)
    assert found["identical"] == 1.0
    assert found["ratio"] > 0 and found["seconds"] > 0
    assert found["published_bytes"] > 1.5 * found["bytes"] > 0
    different = compare(model, PROMPTS, LIMITS, Greedy(), theirs)
    assert different["identical"] < 1.0


def test_peak_memory_counts_what_lives_at_a_time() -> None:
    with PeakMemory() as memory:
        held = [torch.zeros(1000) for _ in range(3)]
        views = [one[10:20] for one in held]
        held.clear()
        del views
        torch.ones(500)
    assert memory.peak == 3 * 4000
    assert Limits(max_new_tokens=1)


@pytest.mark.parametrize("prefix", [1, 2, 3, 4, 5])
def test_prefix_and_continuation_make_up_the_text_wherever_it_is_cut(prefix: int) -> None:
    text = "🙂é日!" * 4
    (sample,) = held_out_samples([text], byte_level(), prefix=prefix, new=20 - prefix)
    assert sample.prefix + sample.text == text.encode()[:20].decode()
    assert sample.prefix == ("🙂" if prefix >= 4 else "")


def test_a_prefix_is_continued_after_the_bos_of_a_tokenizer_that_has_one(shared_data: Path) -> None:
    lm = load(shared_data / "models" / "stories260k-llama")
    story = "Once upon a time there was a little girl named Lily. She had a big red ball."
    (sample,) = held_out_samples([story], lm.tokenizer, prefix=6, new=4)
    (found,) = continue_samples(lm, [sample], decoder="greedy", new=4)
    after = [lm.tokenizer.bos, *sample.prefix_tokens]
    with torch.no_grad():
        for _ in range(4):
            after.append(int(lm.model(torch.tensor([after]))[0, -1].argmax()))
    assert found.tokens == after[-4:]
