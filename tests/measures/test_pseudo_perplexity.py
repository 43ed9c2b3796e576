"""Pseudo-perplexity against a loop straight from the definition, and what it refuses."""

import math
from pathlib import Path

import pytest
import tokenizers
import torch

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.measures.pseudo_perplexity import Framed, PseudoPerplexity, score_hidden
from gpt2lab.model import Transformer
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import Tokenizer, byte_level, for_masking
from tests.measures.tools import TEXT
from tests.tiny import BIDIRECTIONAL, tiny, tokens


def reader(family: str = "bert", **changes: object) -> LanguageModel:
    """A tiny random model that reads bytes and has a mask token."""
    tokenizer = for_masking(byte_level())
    return LanguageModel(tiny(family, vocab_size=tokenizer.vocab_size, **changes), tokenizer)


def slow(model: Transformer, ids: list[int], place: int, mask: int) -> float:
    """-log p(token | all others) in float64, one row at a time."""
    exact = Transformer(model.config).double().eval()
    exact.load_state_dict(model.state_dict())
    hidden = [*ids[:place], mask, *ids[place + 1 :]]
    with torch.no_grad():
        return -float(exact(torch.tensor([hidden]))[0, place].log_softmax(-1)[ids[place]])


@pytest.mark.parametrize("family", BIDIRECTIONAL)
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_every_token_is_told_from_all_others(family: str, batch_size: int) -> None:
    model = tiny(family)
    rows = [tokens(1, length, seed=length)[0].tolist() for length in (7, 3, 7, 1)]
    framed = [Framed(ids, 1 if len(ids) > 3 else 0, len(ids)) for ids in rows]
    scores = score_hidden(model, framed, mask=60, batch_size=batch_size)
    for row, score in zip(framed, scores, strict=True):
        expected = [slow(model, row.ids, at, 60) for at in range(row.start, row.stop)]
        assert score.losses.tolist() == pytest.approx(expected, rel=1e-5)


def test_a_document_is_framed_cut_and_told_once(tmp_path: Path) -> None:
    """Windows of 6 hold 4 tokens between [CLS] and [SEP], which are read and not told."""
    words = ["[PAD]", "[MASK]", "[CLS]", "[SEP]", *"abcdefghij"]
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, "[PAD]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    backend.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    lm = LanguageModel(tiny("bert", vocab_size=14), Tokenizer(backend, pad=0, mask=1))
    for i, text in enumerate(("a b c d e f", "g", "h i j a")):
        (tmp_path / f"{i}.txt").write_text(text)
    result = PseudoPerplexity(data=(str(tmp_path),), window=6, limit=None)(lm)
    losses = []
    for piece in ([4, 5, 6, 7], [8, 9], [10], [11, 12, 13, 4]):
        ids = [2, *piece, 3]
        losses.append([slow(lm.model, ids, at, 1) for at in range(1, len(ids) - 1)])
    mean = sum(map(sum, losses)) / 11
    assert result.numbers["loss"] == pytest.approx(mean, rel=1e-5)
    assert result.numbers["pseudo_perplexity"] == pytest.approx(math.exp(mean), rel=1e-5)
    table = result.tables["documents"]
    assert [row["tokens"] for row in table] == [6, 1, 4]
    assert table[0]["loss"] == pytest.approx((sum(losses[0]) + sum(losses[1])) / 6, rel=1e-5)
    few = PseudoPerplexity(data=(str(tmp_path),), window=6, limit=7)(lm)
    assert few.about["tokens"] == 7
    assert few.numbers["loss"] == pytest.approx(sum(map(sum, losses[:3])) / 7, rel=1e-5)
    with pytest.raises(LabError, match="window 2: has no room beside 2 special tokens"):
        PseudoPerplexity(data=(str(tmp_path),), window=2)(lm)


def test_to_an_ignorant_model_all_tokens_are_alike(tmp_path: Path) -> None:
    lm = reader()
    with torch.no_grad():
        lm.model.embedding.weight.zero_()
        lm.model.head.bias.zero_()
    (tmp_path / "text.txt").write_text(TEXT)
    result = PseudoPerplexity(data=(str(tmp_path / "text.txt"),), limit=50)(lm)
    assert result.numbers["pseudo_perplexity"] == pytest.approx(lm.config.vocab_size, rel=1e-4)


def test_what_it_cannot_measure_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    data = (str(tmp_path / "text.txt"),)
    for options, lm, message in (
        (
            {},
            LanguageModel(tiny("gpt2", vocab_size=257), byte_level()),
            "this gpt2 is causal.*measure perplexity",
        ),
        (
            {},
            LanguageModel(tiny("bert", vocab_size=257), byte_level()),
            "needs a tokenizer with a mask token",
        ),
        ({}, LanguageModel(tiny("bert")), "has no tokenizer"),
        ({}, reader(head="none"), "this bert has no language-model head"),
        ({"window": 41}, reader(), "window 41: must lie between 1 and the model's 40 positions"),
        ({"limit": 0}, reader(), "limit must be at least 1 token"),
        ({"batch_size": 0}, reader(), "batch_size must be at least 1"),
    ):
        with pytest.raises(LabError, match=message):
            PseudoPerplexity(data=data, **options)(lm)


@pytest.mark.parametrize("family", BIDIRECTIONAL)
def test_measures_that_read_from_left_to_right_refuse_in_a_sentence(family: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "choice.jsonl").write_text(
        '{"question": "a ball is", "choices": ["red", "12"], "answer": 0}\n'
    )
    lm = reader(family, max_positions=400)
    for name, file in {
        "perplexity": "text.txt",
        "cloze": "text.txt",
        "multiple-choice": "choice.jsonl",
    }.items():
        with pytest.raises(
            LabError, match=f"needs a causal model, and this {family} reads in both directions"
        ):
            gpt2lab.measure(name, lm, data=str(tmp_path / file))
