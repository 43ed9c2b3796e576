"""A small word-level model that several tests ask for stories."""

import pytest
import torch

from gpt2lab.model import Transformer
from gpt2lab.papers.tinystories.models import story_config
from gpt2lab.text.generators.stories import documents
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import word_level


def make_lm(d_model: int = 16, n_layers: int = 2, *, seed: int = 0, init_std: float = 0.3) -> LanguageModel:
    tokenizer = word_level(documents(0, 400), punctuation=False, unk=None)
    config = story_config(
        d_model, n_layers, vocab_size=tokenizer.vocab_size, n_heads=4, max_positions=96, init_std=init_std
    )
    return LanguageModel(Transformer(config, generator=torch.Generator().manual_seed(seed)), tokenizer)


@pytest.fixture(scope="session")
def story_lm() -> LanguageModel:
    return make_lm()
