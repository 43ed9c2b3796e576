"""The train verb with bidirectional families: hidden tokens, new models and given ones, the same bits after a stop."""

import json
import os
import signal

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from gpt2lab.actions.measure import measure
from gpt2lab.actions.train import train_model
from gpt2lab.actions.train_data import tokens, validation_of
from gpt2lab.base.errors import LabError
from gpt2lab.runs.run import Run
from gpt2lab.runs.run_record import record
from gpt2lab.runs.store import Store
from gpt2lab.studies.resume import resume
from gpt2lab.text.language_model import LanguageModel, load, save
from gpt2lab.text.tokenizer import byte_level, for_masking, word_level
from gpt2lab.text.tokenizer_files import load_tokenizer, save_tokenizer
from tests.actions.test_train import WORDS, small, weights
from tests.tiny import BIDIRECTIONAL, tiny


@pytest.fixture
def echoes(tmp_path):
    """Write documents that say one word over and over, so that a hidden one can be told from its neighbours."""
    folder = tmp_path / "text"
    folder.mkdir()
    for i in range(60):
        (folder / f"{i:02}.txt").write_text(" ".join([WORDS[i % len(WORDS)]] * (20 + i)))
    return folder


def masked(text, **changes):
    return small(text, **{"family": "bert", "tokenizer": "words", **changes})


@pytest.mark.parametrize("family", BIDIRECTIONAL)
def test_a_run_leaves_a_model_that_transformers_fills_in_with_alike(echoes, home, family):
    run = train_model(masked(echoes, family=family), home=home)
    lm = load(run.folder / "model")
    assert lm.config.family == family
    assert lm.tokenizer.token(lm.tokenizer.mask) == "[MASK]"
    row = Store(home).find("train")
    expected = {
        "validation_loss",
        "masked_accuracy",
        "masked_perplexity",
        "loss",
        "tokens",
        "parameters.total",
    }
    assert expected <= set(row.numbers)
    assert "perplexity" not in row.numbers
    samples = record(row, home).texts["samples"]
    assert samples.count("⟶") == 2
    assert "[MASK]" in samples
    theirs = AutoModelForMaskedLM.from_pretrained(run.folder / "model")
    their_tokenizer = AutoTokenizer.from_pretrained(run.folder / "model")
    ids = lm.tokenizer.encode("the old [MASK] cat")
    assert lm.tokenizer.mask in ids
    assert their_tokenizer("the old [MASK] cat").input_ids == ids
    with torch.no_grad():
        ours, expected = lm.model(torch.tensor([ids])), theirs(torch.tensor([ids])).logits
    assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max()
    told = measure("pseudo-perplexity", lm, data=(str(echoes),), limit=40)
    assert told.numbers["pseudo_perplexity"] > 1


def test_a_bert_learns_to_look_at_the_neighbours(echoes, home):
    sizes = {"d_model": 32, "n_heads": 4, "batch_size": 16, "context": 16}
    loop = {"train.steps": 120, "train.learning_rate": 6e-3, "train.warmup": 20}
    quiet = {"train.evaluate_every": 0, "train.checkpoint_every": 0, "train.log_every": 50}
    run = train_model(masked(echoes, evaluation_tokens=640, **sizes, **loop, **quiet), home=home)
    assert run.results["masked_accuracy"] > 0.5, "guessing finds one in eighteen"


def test_ctrl_c_then_resume_ends_with_the_weights_of_an_uninterrupted_run(echoes, home, monkeypatch):
    settings = masked(echoes, family="roberta")
    whole = train_model(settings, home=home, name="whole")
    log = Run.log

    def interrupt_at_three(run, step, **numbers):
        log(run, step, **numbers)
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Run, "log", interrupt_at_three)
    with pytest.raises(KeyboardInterrupt, match=r"stopped at step 3 of 6"):
        train_model(settings, home=home, name="stopped")
    monkeypatch.setattr(Run, "log", log)
    assert weights(resume("stopped", home=home)) == weights(whole)


def test_a_given_bert_is_trained_on_hidden_tokens_with_its_own_tokenizer(echoes, home, tmp_path):
    tokenizer = for_masking(word_level(path.read_text() for path in sorted(echoes.iterdir())))
    given = LanguageModel(tiny("bert", vocab_size=tokenizer.vocab_size, pooler=True), tokenizer)
    save(given, tmp_path / "bert")
    still = train_model(
        small(echoes, model=str(tmp_path / "bert"), **{"train.learning_rate": 0.0}), home=home
    )
    again = load(still.folder / "model")
    assert all(
        torch.equal(a, b) for a, b in zip(given.model.parameters(), again.model.parameters(), strict=True)
    )
    moved = train_model(small(echoes, model=str(tmp_path / "bert")), home=home)
    assert not torch.equal(load(moved.folder / "model").model.embedding.weight, given.model.embedding.weight)
    assert "masked_accuracy" in moved.results


def test_the_validation_loss_does_not_depend_on_the_batch_size(echoes, home):
    run = train_model(masked(echoes, **{"train.steps": 0, "train.warmup": 0}), home=home)
    lm = load(run.folder / "model")
    losses = []
    for size in (1, 5):
        settings = masked(echoes, batch_size=size)
        losses.append(validation_of(lm, tokens(run, settings, lm), settings)())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_what_cannot_be_trained_on_hidden_tokens_is_a_sentence(echoes, home, tmp_path):
    save(LanguageModel(tiny("bert", vocab_size=257), byte_level()), tmp_path / "maskless")
    tokenizer = for_masking(byte_level())
    save(
        LanguageModel(tiny("bert", vocab_size=tokenizer.vocab_size, head="none"), tokenizer),
        tmp_path / "headless",
    )
    for name, words in (
        ("maskless", "tokenizer has no mask token"),
        ("headless", "has no language-model head"),
    ):
        with pytest.raises(LabError, match=words):
            train_model(small(echoes, model=str(tmp_path / name)), home=home)


def test_a_tokenizer_for_masking_keeps_its_ids_and_is_found_again_in_files(tmp_path):
    plain = byte_level()
    made = for_masking(plain)
    assert (made.pad, made.mask, made.vocab_size) == (257, 258, 259)
    assert made.encode("a cat") == plain.encode("a cat")
    assert made.encode("a[MASK]") == [*plain.encode("a"), 258]
    assert {257, 258} <= made.special_ids
    assert plain.mask is None
    assert for_masking(made) is made
    save_tokenizer(made, tmp_path)
    again = load_tokenizer(tmp_path)
    assert (again.pad, again.mask, again.fingerprint) == (257, 258, made.fingerprint)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["mask_token"] == "[MASK]"
    unnamed = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(unnamed))
    (tmp_path / "special_tokens_map.json").unlink()
    assert load_tokenizer(tmp_path).mask is None  # nothing names it, to transformers either
