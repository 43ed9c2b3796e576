"""Cloze against a float64 loop and against models whose answers are known."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.measures.cloze import Cloze, cloze_item
from gpt2lab.measures.continuation import score_continuations, split_continuation
from gpt2lab.model import Transformer, TransformerConfig
from gpt2lab.text.language_model import LanguageModel, load
from gpt2lab.text.tokenizer import Tokenizer, byte_level, word_level
from gpt2lab.text.tokenizer_files import load_tokenizer
from tests.measures.tools import ignorant, reader

PASSAGES = [
    "The dog saw the cat and the cat saw the dog",
    "Lily had a ball.\n\nMax liked the red ball",
    "a b",
    "“Look!” she said, and it was a “trap”",
    "one two  three\nthree",
]


def _file(folder: Path, passages: list[str]) -> tuple[str, ...]:
    path = folder / "passages.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in passages))
    return (str(path),)


def _slow(model: Transformer, text: str) -> tuple[bool, float, bool]:
    """Strict hit, summed loss of the label, loose hit: one float64 forward pass for every token."""
    exact = Transformer(model.config).double().eval()
    exact.load_state_dict(model.state_dict())
    most = model.config.max_positions

    def next_token(ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return torch.log_softmax(exact(torch.tensor([ids]))[0, -1], -1)

    word = text.split()[-1]
    context = list(text[: text.rfind(word)].strip().encode())
    label = list((" " + word).encode())
    context = context[-(most - len(label) + 1) :]
    strict, loss = True, 0.0
    for token in label:
        logprobs = next_token(context)
        strict, loss = strict and int(logprobs.argmax()) == token, loss - float(logprobs[token])
        context.append(token)
    *before, last = text.encode()
    return strict, loss, int(next_token(before[-most:]).argmax()) == last


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("batch_size", [1, 5, 32])
def test_cloze_equals_the_float64_loop_at_any_batch_size(
    family: str, batch_size: int, tmp_path: Path
) -> None:
    lm = reader(family)
    found = Cloze(data=_file(tmp_path, PASSAGES), batch_size=batch_size)(lm)
    expected = [_slow(lm.model, text) for text in PASSAGES]
    rows = found.tables["passages"]
    assert [(row["correct"], row["last_token"]) for row in rows] == [
        (hit, loose) for hit, _, loose in expected
    ]
    assert [row["loss"] for row in rows] == pytest.approx([loss for _, loss, _ in expected], abs=1e-4)
    assert found["perplexity"] == pytest.approx(math.exp(sum(loss for _, loss, _ in expected) / 5), rel=1e-4)
    assert found.about["contexts_cut_on_the_left"] == 2


def _follower(tokenizer: Tokenizer, following: dict[str, str]) -> LanguageModel:
    """A model that reads one word and is sure of the next."""
    size = tokenizer.vocab_size
    config = TransformerConfig(
        vocab_size=size,
        d_model=size,
        n_layers=0,
        n_heads=1,
        norm="none",
        positions="none",
        tied_head=False,
        max_positions=16,
    )
    model = Transformer(config)
    with torch.no_grad():
        model.embedding.weight.copy_(torch.eye(size))
        model.head.weight.zero_()
        for word, after in following.items():
            model.head.weight[tokenizer.encode(after)[0], tokenizer.encode(word)[0]] = 50.0
    return LanguageModel(model, tokenizer)


def test_a_model_that_knows_some_answers_gets_just_those(tmp_path: Path) -> None:
    words = word_level(["the cat dog sat ran on mat"])
    lm = _follower(words, {"cat": "sat", "dog": "sat", "on": "the", "the": "mat"})
    passages = ["the cat sat", "the dog ran", "cat sat on the mat", "on the dog"]
    found = Cloze(data=_file(tmp_path, passages))(lm)
    assert [row["correct"] for row in found.tables["passages"]] == [True, False, True, False]
    assert found["accuracy"] == 0.5 and found["last_token_accuracy"] == 0.5
    assert found["accuracy_low"] < 0.5 < found["accuracy_high"]


def test_every_token_of_the_word_must_be_the_likeliest(tmp_path: Path) -> None:
    lm = _follower(byte_level(), {" ": "x", "x": "y", "a": " "})
    found = Cloze(data=_file(tmp_path, ["a xy", "a zy", "b xy"]))(lm)
    rows = found.tables["passages"]
    assert [row["correct"] for row in rows] == [True, False, False]
    # loose: the last token alone; after z the model has no opinion and the lowest id is not y
    assert [row["last_token"] for row in rows] == [True, False, True]


def test_the_context_is_all_before_the_last_occurrence_stripped() -> None:
    bytes_ = byte_level()
    item = cloze_item(bytes_, "word in word \n word")
    assert item.label.context == list(b"word in word") and item.label.tokens == list(b" word")
    assert item.last.context == list(b"word in word \n wor") and item.last.tokens == [ord("d")]
    # rfind, as the public code: the last word may stand inside itself only at the end
    assert cloze_item(bytes_, "banana na").label.context == list(b"banana")


def test_a_start_token_stands_first_and_survives_the_cut(tmp_path: Path) -> None:
    bytes_ = byte_level()
    assert cloze_item(bytes_, "a b", bos=True).label.context == [256, ord("a")]
    assert cloze_item(bytes_, "alone").label.context == [256]
    long = "x" * 60 + " end"
    plain, started = (Cloze(data=_file(tmp_path, [long]), bos=bos)(reader()) for bos in (False, True))
    assert plain["perplexity"] != started["perplexity"]
    assert started.about["contexts_cut_on_the_left"] == 1


def test_the_lambada_file_has_the_papers_5153_passages(shared_data: Path) -> None:
    tokenizer = load_tokenizer(shared_data / "gpt2-tokenizer")
    path = shared_data / "megatron" / "lambada_test.jsonl"
    passages = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    items = [cloze_item(tokenizer, text) for text in passages]
    assert len(items) == 5153
    assert all(item.word == text.split()[-1] for item, text in zip(items, passages, strict=True))
    assert sum(len(item.label.tokens) for item in items) == 6542
    assert max(len(item.label.context) for item in items) < 1024


def test_an_ignorant_model_on_lambada(shared_data: Path) -> None:
    path = shared_data / "megatron" / "lambada_test.jsonl"
    lm = LanguageModel(ignorant(257, max_positions=16), byte_level())
    found = Cloze(data=(str(path),), limit=200)(lm)
    assert found["accuracy"] == 0.0 and found.about["passages"] == 200
    assert found["token_perplexity"] == pytest.approx(257, rel=1e-6)
    assert found.about["contexts_cut_on_the_left"] == 200


@pytest.mark.parametrize(
    ("passages", "options", "words"),
    [
        (["one two", "   "], {}, "passage 2: a cloze test needs words"),
        (["one two"], {"field": "txt"}, "did you mean 'text'"),
        (["one two"], {"limit": 0}, "limit must be at least 1"),
        (["one two"], {"batch_size": 0}, "batch_size must be at least 1"),
        (["one " + "x" * 60], {}, "leaves no room"),
        ([""], {}, "no passages"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(
    passages: list[str], options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(LabError, match=words) as error:
        Cloze(data=_file(tmp_path, passages), **options)(reader())
    assert "\n" not in str(error.value)


def test_a_single_word_needs_a_start_token(tmp_path: Path) -> None:
    plain = word_level(["one two"], eos=None)
    lm = LanguageModel(ignorant(plain.vocab_size), plain)
    with pytest.raises(LabError, match="passage 1: 'one' is a single word"):
        Cloze(data=_file(tmp_path, ["one"]))(lm)
    with pytest.raises(LabError, match="no tokenizer"):
        Cloze(data=_file(tmp_path, ["one two"]))(LanguageModel(ignorant(5), None))


def test_a_tokenizer_that_puts_a_blank_before_texts_is_asked_for_the_passages_own_tokens(
    tmp_path: Path, shared_data: Path
) -> None:
    lm = load(shared_data / "models" / "stories260k-llama")
    before = "Once upon a time there was a little girl named"
    found = Cloze(data=_file(tmp_path, [f"{before} Lily", f"{before} Lily\n"]))(lm)
    right = score_continuations(lm.model, [split_continuation(lm.tokenizer, before, " Lily")])[0]
    assert found["accuracy"] == found["last_token_accuracy"] == 1.0
    assert found["perplexity"] == pytest.approx(float(right.losses.sum().exp()), rel=1e-6)
    assert found["perplexity"] == pytest.approx(1.185, abs=0.001)


def test_the_words_tokens_end_the_passage_for_every_tokenizer(shared_data: Path) -> None:
    for name in ("models/stories260k-llama", "models/tinystories-656k-llama", "gpt2-tokenizer"):
        tokenizer = load_tokenizer(shared_data / name)
        for passage in ("Max had a ball", "Max said, “Bye!”", "see 日本", "a  wide gap"):
            item = cloze_item(tokenizer, passage)
            joined = " ".join(passage.rsplit(maxsplit=1))
            assert item.label.context + item.label.tokens == tokenizer.encode(joined)
            assert item.last.context + item.last.tokens == tokenizer.encode(passage)
