"""Weights changed for the length of a block."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError, nearest
from gpt2lab.model.checkpoints.huggingface import places_of

if TYPE_CHECKING:
    from gpt2lab.model.transformer import Transformer

Edit = Callable[[Tensor], Tensor] | Tensor | tuple[Any, Tensor | float]
"""A function old → new, the new values, or (index, delta): what is added at an index."""


@contextlib.contextmanager
def edited(model: "Transformer", changes: Mapping[str, Edit]) -> "Iterator[Transformer]":
    """Change weights while the block is open; afterwards, exceptions or not, every bit is as before.

        with edited(model, {"h.9.mlp.c_proj.weight": (1853, delta)}):   # what neuron 1853 of layer 9 writes
            logits = model(tokens)

    Names are ours (`blocks.9.mlp.down.weight`) or those of the family's Hugging Face files, with or without their
    prefix; the index and the values are then in the shape of that file's tensor. (index, delta) adds delta there. A
    tied head changes with the embedding table. LabError: an unknown name, values of a wrong shape or type.
    """
    kept: list[tuple[Tensor, Tensor]] = []
    try:
        with torch.no_grad():
            for name, change in changes.items():
                parameter, places = _found(model, name)
                kept.append((parameter, parameter.detach().clone()))
                _edit(parameter, places, change, name)
        yield model
    finally:
        with torch.no_grad():
            for parameter, before in reversed(kept):
                parameter.copy_(before)


def _found(model: "Transformer", name: str) -> tuple[Tensor, Tensor | None]:
    """The parameter, and which of its flattened entries are meant (None: all, in its own shape)."""
    parameters = dict(model.named_parameters())
    if name in parameters:
        return parameters[name], None
    found = places_of(model, name)
    if found is None:
        match = nearest(name, parameters)
        raise LabError(
            f"edited: {name} is no weight of this model" + (f"; did you mean {match}?" if match else "")
        )
    ours, places = found
    return parameters[ours], places.to(parameters[ours].device)


def _edit(parameter: Tensor, places: Tensor | None, change: Edit, name: str) -> None:
    old = parameter.detach() if places is None else parameter.detach().reshape(-1)[places]
    new = old.clone()
    if isinstance(change, tuple):
        index, delta = change
        if isinstance(delta, Tensor) and delta.dtype != old.dtype:
            raise LabError(f"edited: the change of {name} is {delta.dtype}, the weight {old.dtype}")
        try:
            new[index] += delta
        except (IndexError, RuntimeError, TypeError) as error:
            raise LabError(f"edited: the change of {name}, which is {list(old.shape)}: {error}") from None
    else:
        new = change if isinstance(change, Tensor) else change(new)
        if not isinstance(new, Tensor) or new.shape != old.shape or new.dtype != old.dtype:
            what = f"{new.dtype} {list(new.shape)}" if isinstance(new, Tensor) else type(new).__name__
            raise LabError(f"edited: the new {name} is {what}, the weight {old.dtype} {list(old.shape)}")
    if places is None:
        parameter.copy_(new)
    else:
        whole = parameter.detach().reshape(-1).clone()
        whole[places] = new
        parameter.copy_(whole.view_as(parameter))
