"""Models as they are when they are judged: without dropout, and unseen by any open tap."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import nn

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
def unseen(model: "Transformer") -> Iterator[None]:
    """Hide what is computed inside from the tap that is open around it, if any."""
    before, model.open_tap = model.open_tap, None
    try:
        yield
    finally:
        model.open_tap = before
