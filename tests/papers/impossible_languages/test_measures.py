"""Perplexity, surprisal and interchange against slow references in float64; examples; measures on models of their own."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.measures.perplexity import Perplexity
from gpt2lab.model import Transformer
from gpt2lab.papers.impossible_languages.corpus import write_corpus
from gpt2lab.papers.impossible_languages.generator import annotated
from gpt2lab.papers.impossible_languages.interchange import (
    find_examples,
    interchange,
    interchange_accuracy,
    regular_plural,
)
from gpt2lab.papers.impossible_languages.languages import language
from gpt2lab.papers.impossible_languages.measure import (
    InterchangeIntervention,
    LanguagePerplexity,
    MarkerSurprisal,
    examples_of,
)
from gpt2lab.papers.impossible_languages.perplexity import (
    geometric_mean,
    sampled,
    sentence_losses,
    sentence_perplexity,
)
from gpt2lab.papers.impossible_languages.surprisal import first_marker, marker_surprisals
from gpt2lab.papers.impossible_languages.vocabulary import with_markers
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import Tokenizer, byte_level, word_level
from gpt2lab.text.tokenizer_files import load_tokenizer
from tests.papers.impossible_languages import reference
from tests.tiny import tiny

SENTENCES = [[3, 7, 59, 8], [5, 60, 2, 9, 9, 1, 4], [8, 1, 1, 59], [2, 60]]
MARKERS = (59, 60)


@pytest.fixture(scope="module")
def model() -> Transformer:
    return tiny("gpt2").double()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """One id for every word, and the markers."""
    words = (word.lemma or "" for one in annotated(0, 400) for word in one.sentence.words)
    texts = [one.sentence.text for one in annotated(0, 400)]
    return with_markers(word_level([*texts, " ".join(words)], punctuation=False), language("hop_words4"))


@pytest.fixture(scope="module")
def lm(tokenizer: Tokenizer) -> LanguageModel:
    return LanguageModel(tiny("gpt2", vocab_size=tokenizer.vocab_size), tokenizer)


def test_the_perplexity_of_a_sentence_leaves_out_its_first_token(model: Transformer) -> None:
    expected = [reference.sentence_loss(model, ids) for ids in SENTENCES]
    for size in (1, 3):
        assert sentence_losses(model, SENTENCES, batch_size=size) == pytest.approx(expected, rel=1e-10)
    found = sentence_perplexity(model, SENTENCES)
    assert found == pytest.approx(np.exp(expected))
    assert geometric_mean(found) == pytest.approx(math.prod(found) ** (1 / len(found)))
    assert geometric_mean(found) < found.mean()


def test_samples_of_several_files_are_drawn_by_one_generator() -> None:
    files = [[[i] for i in range(9)], [[i] for i in range(20, 26)]]
    generator = np.random.default_rng(41)
    expected = [
        [file[i] for i in generator.choice(list(range(len(file))), 4, replace=False)] for file in files
    ]
    assert sampled(files, 4, seed=41) == expected[0] + expected[1]


def test_both_surprisals_are_read_after_the_same_prefix_in_bits(model: Transformer) -> None:
    found = marker_surprisals(model, SENTENCES, MARKERS, 0)
    for i, ids in enumerate(SENTENCES):
        place = next(t for t, token in enumerate(ids) if token in MARKERS)
        ended = [*ids, 0]
        missing = ended[:place] + ended[place + 1 :]
        # the authors' way: two whole sequences, of which one position each is read
        with_marker, _ = reference.gpt2_logits(model, ended)
        without, _ = reference.gpt2_logits(model, missing)
        bits = [
            -float(logits[place - 1].log_softmax(0)[sequence[place]]) / math.log(2)
            for logits, sequence in ((with_marker, ended), (without, missing))
        ]
        assert (found.marker[i], found.without[i]) == pytest.approx(tuple(bits), rel=1e-10)
        other = MARKERS[ids[place] == MARKERS[0]]
        assert bool(found.right[i]) == bool(
            with_marker[place - 1, ids[place]] > with_marker[place - 1, other]
        )
    assert found.difference == pytest.approx(found.without - found.marker)


def test_an_interchange_puts_one_state_into_another_run(model: Transformer) -> None:
    base, source = [3, 7, 8, 2], [3, 9, 8, 2]
    pair = torch.tensor([base, base]), torch.tensor([source, base])
    answers = torch.tensor([[5, 6], [5, 6]])
    right = interchange_accuracy(model, *pair, answers, batch_size=1)
    plain, _ = reference.gpt2_logits(model, base)
    swapped, states = reference.gpt2_logits(model, source)
    for layer in range(3):
        for position in range(4):
            expected, _ = reference.gpt2_logits(model, base, (layer, position, states[layer][position]))
            found = interchange(model, *pair, layer, position)
            assert found[0].double() == pytest.approx(expected[-1], abs=1e-9)
            assert found[1].double() == pytest.approx(plain[-1], abs=1e-9)  # a source that is the base
            assert bool(right[layer, position, 0]) == bool(expected[-1, 6] > expected[-1, 5])
    assert interchange(model, *pair, 2, 3)[0].double() == pytest.approx(swapped[-1], abs=1e-9)
    assert interchange(model, *pair, 1, 0)[0].double() == pytest.approx(plain[-1], abs=1e-9)


def test_examples_are_stretches_that_differ_in_the_place_of_the_marker_only(tokenizer: Tokenizer) -> None:
    given = [one.sentence for one in annotated(1, 1500)]
    markers = (tokenizer.vocab_size - 2, tokenizer.vocab_size - 1)
    found = examples_of(given, tokenizer, markers, "hop_words4")
    assert len(found) > 10 and len({tuple(row) for row in found.base.tolist()}) == len(found)
    texts = {one.sentence.text for one in annotated(1, 1500)}
    nouns = {"girl": "girls", "child": "children", "man": "men"}
    for base, source in zip(found.base.tolist(), found.source.tolist(), strict=True):
        words = [tokenizer.token(token) for token in base]
        other = [tokenizer.token(token) for token in source]
        assert words[0] == "the" and words[:1] + words[2:] == other[:1] + other[2:] and words[1] != other[1]
        assert nouns.get(words[1], other[1]) == other[1]
        assert any(" ".join(words[3:]) in text and f"the {words[1]} " in text for text in texts)
    control = examples_of(given, tokenizer, markers, "hop_control")
    assert control.base.shape[1] == 3 and 0 < len(control) <= len(found)
    regex = examples_of(given, tokenizer, markers, "hop_words4", paper_regex=True)
    assert 0 < len(regex) < len(found)
    assert not any("0" in str(token) for row in regex.base.tolist() for token in row)


def test_sentences_that_are_not_aligned_give_no_examples() -> None:
    one, other = [0, 1, 2, 8, 3, 4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6, 8, 7]
    found = find_examples([one], [other], [0], (8, 9), lambda token: 7)
    assert found.base.tolist() == [[0, 1, 2, 3, 4, 5, 6]] and found.source[0, 1] == 7
    for wrong in ([0, 1, 2, 3, 4, 5, 6, 9, 7], [0, 1, 2, 3, 4, 5, 8, 6, 7], [0, 1, 2, 3, 4, 6, 5, 8, 7]):
        with pytest.raises(LabError, match="no example"):
            find_examples([one], [wrong], [0], (8, 9), lambda token: 7)
    with pytest.raises(LabError, match="no example"):
        find_examples([one], [other], [0], (8, 9), lambda token: None)


def test_plurals_of_english_nouns() -> None:
    nouns = ("dog", "box", "baby", "boy", "child", "Wolf", "church")
    assert [*map(regular_plural, nouns)] == [
        "dogs",
        "boxes",
        "babies",
        "boys",
        "children",
        "Wolves",
        "churches",
    ]


def test_the_measures_find_markers_of_the_model_and_count_what_they_say(lm: LanguageModel) -> None:
    surprisal = MarkerSurprisal(annotated=("agreement:60:3",), language="hop_tokens4")(lm)
    assert surprisal["marker"] == pytest.approx(surprisal.arrays["marker"].mean())
    assert surprisal["right_number"] == surprisal.arrays["right"].mean()
    assert MarkerSurprisal(annotated=("agreement:60:3",), sample=5)(lm).arrays["marker"].shape == (5,)
    swaps = InterchangeIntervention(annotated=("agreement:900:3",))(lm)
    assert swaps.arrays["right"].shape[:2] == (3, 7)
    assert swaps["last_position"] == pytest.approx(100 * swaps.arrays["right"][-1, -1].mean())
    assert b"<svg" in swaps.figure_svg("accuracy")
    control = InterchangeIntervention(annotated=("agreement:900:3",), language="hop_control")(lm)
    assert control.arrays["right"].shape[:2] == (3, 3)


def test_languages_are_measured_on_the_same_sentences_beside_their_control(lm: LanguageModel) -> None:
    names = ("hop_control", "hop_words4")
    found = LanguagePerplexity(languages=names, data=("agreement:80:2",))(lm)
    rows = {row["language"]: row for row in found.tables["languages"]}
    gap = found.arrays["hop_words4"] - found.arrays["hop_control"]
    assert rows["hop_words4"]["over control"] == pytest.approx(math.exp(gap.mean()))
    assert "over control" not in rows["hop_control"]
    assert b"<svg" in found.figure_svg("languages")
    plain = LanguageModel(tiny("gpt2", vocab_size=257, max_positions=256), byte_level())
    shuffled = ("shuffle_control", "shuffle_even_odd")
    shuffles = LanguagePerplexity(languages=shuffled, data=("tinyworld:2",))(plain)
    assert {row["sentences"] for row in shuffles.tables["languages"]} == {
        len(shuffles.arrays["shuffle_control"])
    }


def test_a_corpus_on_disk_is_scored_as_the_sentences_are(tmp_path: Path, lm: LanguageModel) -> None:
    write_corpus("hop_words4", ["agreement:200:5"], lm.tokenizer, tmp_path / "corpus", test=30)  # type: ignore[arg-type]  # it has one
    reader = load_tokenizer(tmp_path / "corpus" / "tokens")
    lines = (tmp_path / "corpus" / "test.ids").read_text().splitlines()
    ids = [[int(word) for word in line.split()] for line in lines]
    found = Perplexity(data=(str(tmp_path / "corpus" / "test.jsonl"),), documents=True, bos=False)(
        LanguageModel(lm.model, reader)
    )
    assert found["document_perplexity"] == pytest.approx(
        geometric_mean(sentence_perplexity(lm.model, ids)), rel=1e-5
    )


def test_a_model_of_spelled_tokens_reads_text_with_the_tokenizer_of_its_corpus(
    tmp_path: Path, lm: LanguageModel
) -> None:
    write_corpus("hop_words4", ["agreement:60:5"], lm.tokenizer, tmp_path / "corpus", test=9)  # type: ignore[arg-type]  # it has one
    of_tokens = LanguageModel(lm.model, load_tokenizer(tmp_path / "corpus" / "tokens"))
    options = {"language": "hop_words4", "annotated": ("agreement:40:3",)}
    found = MarkerSurprisal(tokenizer=str(tmp_path / "corpus" / "tokenizer"), **options)(of_tokens)  # type: ignore[arg-type]  # text
    assert found.numbers == MarkerSurprisal(**options)(lm).numbers  # type: ignore[arg-type]  # text


def test_any_model_answers_sentences_of_ones_own() -> None:
    lm = LanguageModel(tiny("llama", vocab_size=257), byte_level())
    options = {"base": ("the dog",), "source": ("the dig",), "markers": ("a", "b"), "keep": False}
    found = gpt2lab.measure("interchange-intervention", lm, **options)
    assert found.arrays["right"].shape == (3, 7, 1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda lm: sentence_losses(lm.model, []), "empty"),
        (lambda lm: sentence_losses(lm.model, [[10_000, 1]]), "outside the model's vocabulary"),
        (lambda lm: geometric_mean([1.0, 0.0]), "above 0"),
        (lambda lm: sampled([[[1]]], 2, seed=0), "larger than file 0"),
        (lambda lm: first_marker([1, 2], (3,)), "holds no marker"),
        (lambda lm: first_marker([3, 2], (3,)), "begins with its marker"),
        (lambda lm: interchange(lm.model, torch.ones(1, 3).long(), torch.ones(1, 4).long(), 0, 0), "same shape"),
        (lambda lm: interchange(lm.model, torch.ones(1, 3).long(), torch.ones(1, 3).long(), 3, 0), "there are 3"),
        (lambda lm: InterchangeIntervention(base=("the dog",), source=("the the dog",))(lm), "equally many"),
        (lambda lm: InterchangeIntervention(base=("the dog",))(lm), "needs its source"),
        (lambda lm: InterchangeIntervention(base=("the dog",), source=("the dog",))(lm), "same text"),
        (lambda lm: MarkerSurprisal(language="shuffle_control"), "hop languages"),
        (lambda lm: MarkerSurprisal(markers=("a", "a")), "two different"),
        (lambda lm: MarkerSurprisal()(LanguageModel(tiny("gpt2", vocab_size=257), byte_level())), "lacks"),
        (lambda lm: LanguagePerplexity(languages=("reverse_full",))(lm), "lacks 🅁"),
        (lambda lm: LanguagePerplexity(languages=("shuffle_lokal3",)), "did you mean"),
        (lambda lm: LanguagePerplexity(languages=("hop_control",), data=("agreement:9",), sample=10)(lm), "larger"),
        (lambda lm: LanguagePerplexity(languages=("shuffle_control",), data=("agreement:9",))(lm), "has 🅂 and 🄿, which"),
        (lambda lm: marker_surprisals(lm.model, [[1, 5000, 2]], (5000, 5001), 0), "outside the model's vocabulary"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused(call: object, words: str, lm: LanguageModel) -> None:
    with pytest.raises(LabError, match=words):
        call(lm)  # type: ignore[operator]  # a function of the table
