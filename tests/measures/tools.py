"""Models of which the right answer is known, and the slow way to it."""

from typing import Any

import torch

from gpt2lab.model import Transformer, TransformerConfig
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import byte_level
from tests.tiny import tiny

START = 256
"""The id of the start token of a model that reads bytes."""

TEXT = (
    "Once upon a time there was a girl named Lily. She had a red ball. \u201cLook!\u201d she said \u2014 it rolled.\n\n"
    "Her dog, named Max, ran after the ball. They played all day, 12 times or 3.\n"
)


def reader(family: str = "gpt2", **changes: Any) -> LanguageModel:
    """A tiny random model that reads bytes."""
    return LanguageModel(tiny(family, vocab_size=257, **changes), byte_level())


def ignorant(vocab_size: int, max_positions: int = 32) -> Transformer:
    """A model to which all tokens are equally likely."""
    model = Transformer(
        TransformerConfig(
            vocab_size=vocab_size, d_model=4, n_layers=0, n_heads=1, max_positions=max_positions
        )
    )
    with torch.no_grad():
        model.embedding.weight.zero_()
    return model


def slow_losses(model: Transformer, ids: list[int], window: int, stride: int) -> list[float]:
    """-log p of every token but the first in float64, one forward pass for each, straight from the definition.

    A token is scored by the first window that reaches it: windows begin at 0, stride, 2 stride, …
    """
    exact = Transformer(model.config).double().eval()
    exact.load_state_dict(model.state_dict())
    losses = []
    for target in range(1, len(ids)):
        start = 0
        while start + window < target:
            start += stride
        with torch.no_grad():
            logits = exact(torch.tensor([ids[start:target]]))[0, -1]
        losses.append(-float(torch.log_softmax(logits, -1)[ids[target]]))
    return losses
