"""Architectures to put through the battery: the examples of the tests, alone and composed, and every registered part."""

from typing import Any

import pytest
import torch

from gpt2lab.base.registry import parts
from gpt2lab.model import Architecture, Transformer, attach
from gpt2lab.papers.layernorm_removal.schedule import Schedule
from tests.architectures import EXAMPLES
from tests.tiny import tiny

SMALL: dict[str, dict[str, Any]] = {
    "meta-attention": {"token": 7, "draw": "model"},  # the padding of the battery has this token too
    "soft-prompt": {"length": 4},
    "head": {"language_head": True},
    "staged-norms": {
        "schedule": Schedule(start=1, mlp_gap=1, qk_gap=0, v_gap=2, eot_after=0, bos_after=0),
        "special_positions": True,
        "end_of_text": 5,
    },
}
"""Options that fit a tiny model which writes text; a part that is not here is attached with its defaults."""


def everything() -> list[Any]:
    """Lists of architectures to attach in order, as pytest parameters."""
    registered = {
        part.name: [part.load()(**SMALL.get(part.name, {}))] for part in parts("architecture") if part.built
    }
    return [pytest.param(value, id=name) for name, value in {**EXAMPLES, **registered}.items()]


def made(architectures: list[Architecture], family: str = "gpt2", *, seed: int = 0) -> Transformer:
    """A tiny model with architectures attached."""
    model = tiny(family)
    for architecture in architectures:
        attach(model, architecture, generator=torch.Generator().manual_seed(seed))
    return model.eval()
