"""Adapters folded into the weights: in place and back to the bit, or for good in an ordinary model."""

import copy
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import nn

from gpt2lab.base.errors import LabError
from gpt2lab.model.adapters.layers import Adapted
from gpt2lab.model.adapters.lora import Lora, adapted
from gpt2lab.model.transformer import Transformer


class HasModel(Protocol):
    """Whatever holds a model: a `LanguageModel`, for one."""

    model: Transformer


L = TypeVar("L", bound=HasModel)


@runtime_checkable
class Requantisable(Protocol):
    """A quantised linear that can quantise another weight as it did its own."""

    def requantised(self, weight: torch.Tensor) -> nn.Module:
        """Return a layer of the same kind for weight [out, in]."""
        ...


def merge(model: Transformer) -> None:
    """Compute with W + Σ strength · scale · B A from now on, in place: as fast as the base, and not trainable.

    `unmerge` gives back the same bits, since W stays beside the sum; what is saved in between is the unmerged model.
    LabError without adapters, and for a quantised base, whose weights cannot hold the sum.
    """
    layers = _layers(model)
    for path, layer in layers:
        _dense(path, layer)
    for _, layer in layers:
        layer.merge()


def unmerge(model: Transformer) -> None:
    """Undo `merge`: base and adapters compute apart again, bit for bit as before. LabError without adapters."""
    for _, layer in _layers(model):
        layer.unmerge()


@torch.no_grad()
def merged(model: Transformer, *, requantise: bool = False) -> Transformer:
    """Return an ordinary model that computes what `model` with its active adapters does; `model` stays as it is.

    A tied head is untied where adapters made it differ from the embedding table. requantise: round the sum to the
    grid of a quantised base again; without it a quantised base is refused. LabError without adapters.
    """
    for path, layer in _layers(model):
        if not requantise:
            _dense(path, layer)
    new = copy.deepcopy(model)
    changed = {path for path, layer in adapted(new) if layer.active()}
    for path, layer in list(adapted(new)):
        new.set_submodule(path, _folded(path, layer))
    new.requires_grad_(True)
    new.architectures = tuple(one for one in new.architectures if not isinstance(one, Lora))
    if new.config.tied_head and new.config.head != "none" and changed & {"embedding", "head"}:
        new.config = new.config.replace(tied_head=False)
    return new


def _folded(path: str, layer: Adapted) -> nn.Module:
    """Return the base layer with the effective weight."""
    if not layer.active():
        return layer.base  # the same bits, and still tied to what it was tied to
    weight = layer.weight
    if not isinstance(layer.base, nn.Linear | nn.Embedding):
        if not isinstance(layer.base, Requantisable):
            raise LabError(
                f"{path}: a {type(layer.base).__name__} cannot take another weight, so nothing can be merged"
            )
        return layer.base.requantised(weight)
    layer.base.weight = nn.Parameter(weight.detach().clone())
    return layer.base


def _layers(model: Transformer) -> list[tuple[str, Adapted]]:
    layers = list(adapted(model))
    if not layers:
        raise LabError("the model is without adapters, so there is nothing to merge")
    return layers


def _dense(path: str, layer: Adapted) -> None:
    if not isinstance(layer.base, nn.Linear | nn.Embedding):
        raise LabError(
            f"{path}: its base is quantised, and a sum with the adapter would be rounded once more; merge the adapter "
            "into the unquantised model, or ask for it: merge-lora --set requantise=true"
        )


@dataclass(frozen=True, kw_only=True)
class MergeLora:
    """Fold the active adapters into the weights, W + Σ strength · scale · B A (Hu et al. 2021, section 4.1)."""

    requantise: bool = False
    """Round the sums to the grid of a quantised base (changes the logits a little); otherwise such a base is refused."""

    def __call__(self, lm: L) -> L:
        """Return an ordinary model; the given one stays as it is. LabError as `merged`."""
        new = copy.copy(lm)
        new.model = merged(lm.model, requantise=self.requantise)
        return new
