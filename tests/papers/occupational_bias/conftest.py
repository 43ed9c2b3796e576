"""A random model of the world's words, and one that has the truth for its probabilities."""

import pytest
import torch

from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.papers.occupational_bias.world import World, make_world, sentences
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import word_level


@pytest.fixture(scope="session")
def world() -> World:
    return make_world(0)


@pytest.fixture
def lm(world: World) -> LanguageModel:
    """Knows every job of the world; its weights are random and small, so that every word is about as likely."""
    tokenizer = word_level([*sentences(world, 60, 0), " ".join(world.jobs), *(p.text for p in world.prompts)])
    config = gpt2_config(vocab_size=tokenizer.vocab_size, d_model=16, n_layers=1, n_heads=2, max_positions=24)
    return LanguageModel(Transformer(config, generator=torch.Generator().manual_seed(0)).eval(), tokenizer)
