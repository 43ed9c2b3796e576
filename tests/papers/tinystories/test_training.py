"""Training story models: same seed same bits, equal conditions, resume."""

import math

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.measures.perplexity import token_losses
from gpt2lab.papers.tinystories.training import Recipe, check_equal, tinyworld_corpus, train_story_model


def recipe(**changes) -> Recipe:
    settings = {
        "d_model": 8, "n_layers": 1, "n_heads": 2, "learning_rate": 3e-3, "steps": 7, "batch_size": 3,
        "init_std": 0.02, "evaluate_every": 3, "samples": 2, "warmup": 2,
    }  # fmt: skip
    return Recipe(**(settings | changes))


@pytest.fixture(scope="module")
def corpus():
    return tinyworld_corpus(4, variant="standard", train_stories=50, held_out_stories=5)


def test_corpora_of_a_seed_share_no_story_and_the_tokenizer_does_not_depend_on_it(corpus):
    assert not set(corpus.train) & set(corpus.held_out)
    other = tinyworld_corpus(5, variant="standard", train_stories=50, held_out_stories=5)
    assert other.tokenizer.fingerprint == corpus.tokenizer.fingerprint
    assert not set(other.train) & set(corpus.train)
    ids = corpus.encode(corpus.train[:1])[0]
    assert ids[0] == ids[-1] == corpus.eos and corpus.tokenizer.decode(ids) == corpus.train[0]


def test_the_same_seed_gives_the_same_bits_and_evaluating_changes_nothing(corpus):
    runs = [train_story_model(corpus, recipe(evaluate_every=every), seed=1) for every in (3, 3, 0)]
    states = [run.lm.model.state_dict() for run in runs]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]) and torch.equal(value, states[2][name])
    assert str(runs[0].history) == str(runs[1].history)
    assert [row["step"] for row in runs[0].history] == [3, 6, 7]
    assert runs[0].texts == runs[2].texts


def test_losses_are_means_over_held_out_tokens_and_bytes(corpus):
    trained = train_story_model(corpus, recipe(), seed=0)
    losses = [token_losses(trained.lm.model, ids) for ids in corpus.encode(corpus.held_out)]
    total, tokens = sum(float(loss.sum()) for loss in losses), sum(map(len, losses))
    assert trained.held_out_loss == pytest.approx(total / tokens, rel=1e-6)
    n_bytes = sum(len(story.encode()) for story in corpus.held_out)
    assert trained.bits_per_byte == pytest.approx(total / math.log(2) / n_bytes, rel=1e-6)
    assert trained.first_step("grammar") == math.inf


def test_models_of_a_seed_begin_alike_whatever_their_learning_rate(corpus):
    slow, fast = (
        train_story_model(corpus, recipe(learning_rate=rate, steps=1, warmup=0), seed=2)
        for rate in (0.0, 0.0)
    )
    for name, value in slow.lm.model.state_dict().items():
        assert torch.equal(value, fast.lm.model.state_dict()[name])


def test_a_stopped_model_goes_on_to_the_same_bits_with_its_history(corpus, tmp_path):
    whole = train_story_model(corpus, recipe(checkpoint_every=2), seed=3, checkpoints=tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop(step: int, **numbers: float) -> None:
        if step == 6:
            raise Stop

    with pytest.raises(Stop):
        train_story_model(corpus, recipe(checkpoint_every=2), seed=3, log=stop, checkpoints=tmp_path / "part")
    again = train_story_model(corpus, recipe(checkpoint_every=2), seed=3, checkpoints=tmp_path / "part")
    for name, value in whole.lm.model.state_dict().items():
        assert torch.equal(value, again.lm.model.state_dict()[name])
    assert str(again.history) == str(whole.history)  # str: nan is not equal to itself


def test_unequal_models_are_not_compared():
    check_equal([100, 120])
    with pytest.raises(LabError, match="within 20%"):
        check_equal([100, 121])
