"""Models as they are when they are judged: without dropout, and unseen by any open tap."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn

from gpt2lab.base.errors import LabError
from gpt2lab.model.finite import all_finite
from gpt2lab.model.tap import Tapped

if TYPE_CHECKING:
    from gpt2lab.model.transformer import Transformer


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout off for a while, and put every module back into the mode it was in."""
    modules = list(model.modules())
    before = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, training in zip(modules, before, strict=True):
            module.training = training


@contextlib.contextmanager
def unseen(model: Tapped) -> Iterator[None]:
    """Hide what is computed inside from the tap that is open around it, if any."""
    before, model.open_tap = model.open_tap, None
    try:
        yield
    finally:
        model.open_tap = before


_PROBE_ROWS, _PROBE_TIME = 2, 32


@torch.no_grad()
def refuse_not_finite(model: "Transformer", what: str) -> None:
    """Refuse a model that can say nothing: NaN or infinity in its weights, or in its logits for two rows of 32 tokens.

    Finite weights are not enough: a state that grows from block to block overflows in the forward pass. LabError, which
    begins with `what`.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not all_finite(tensor):
            raise LabError(f"{what}: the result's {name} holds NaN or infinity, so that it is not kept")
    time = min(_PROBE_TIME, model.context)
    tokens = torch.arange(_PROBE_ROWS * time, device=model.device).view(_PROBE_ROWS, time)
    with evaluating(model), unseen(model):
        states = model.hidden(tokens * 7919 % model.config.vocab_size)  # spread over the vocabulary
        logits = states if model.config.head == "none" else model.unembed(states)
    if not all_finite(logits):
        raise LabError(f"{what}: the result gives NaN or infinite logits, so that it is not kept")
