"""How a method changes the structure of any loaded model: its blocks, masks, inputs, or the whole forward pass.

An architecture is a frozen dataclass of options with one method, `attach`, which changes a `Transformer` in place:

- it replaces modules (`model.blocks[i] = ...`, `model.blocks[i].norm1 = ...`) by others with the same forward;
- it adds modules as attributes, whose parameters train and are saved under their own names;
- it appends a `Wrapper` to `model.wrappers`: a module that stands around the forward pass, sees its inputs, may change
  them, and may run what is inside it any number of times; the cache and the names of activations follow.

What is attached is saved as the architecture's name and options beside the weights, and attached again on loading.
Two architectures on one model act in the order in which they were attached: the wrapper of the later one stands
around that of the earlier one.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from torch import nn

from gpt2lab.base.errors import LabError
from gpt2lab.base.registry import parts
from gpt2lab.model.backbone import Architecture, Backbone
from gpt2lab.model.tap import TapUnder

M = TypeVar("M", bound=nn.Module)
B = TypeVar("B", bound=Backbone)


def attach(model: B, architecture: Architecture, *, generator: torch.Generator | None = None) -> B:
    """Attach an architecture to a model, in place, and return the model.

    generator: where new weights come from (default: seed 0). The global generator is left alone, and torch's own
    initialisations inside `attach` follow `generator` too. LabError if the architecture changes the configuration.
    """
    config = model.config
    generator = generator if generator is not None else torch.Generator("cpu").manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator, device="cpu")))
        architecture.attach(model, generator=generator)
    if model.config is not config:
        raise LabError(
            f"{type(architecture).__name__} changed the model's config; that is saved and must stay that of the bare "
            "model: resize the model first, then attach"
        )
    model.architectures = (*model.architectures, architecture)
    return model


def architecture_name(architecture: Architecture) -> str:
    """Return the name under which an architecture is saved: its part's, or that of a class that is no part.

    LabError if it is no dataclass, whose options could be written down, or takes the name of another part.
    """
    kind = type(architecture)
    known = [part for part in parts("architecture") if part.built]
    for part in known:
        if part.object.rpartition(":")[2] == kind.__name__ and part.load() is kind:
            return part.name
    if not dataclasses.is_dataclass(architecture):
        raise LabError(f"{kind.__name__} is no dataclass, so its options cannot be saved with the model")
    if kind.__name__ in [part.name for part in known]:
        raise LabError(f"{kind.__name__} has the name of another architecture; rename the class")
    return kind.__name__


@runtime_checkable
class Convertible(Protocol):
    """An architecture that says how to make an ordinary model of one that it is attached to."""

    way_out: ClassVar[str]
    """The end of a sentence."""


def ways_out(model: Backbone) -> str:
    """Return what the attached architectures advise who needs an ordinary model, each "; advice" once."""
    advice = [one.way_out for one in model.architectures if isinstance(one, Convertible)]
    return "".join(f"; {one}" for one in dict.fromkeys(advice))


@contextmanager
def under(model: Backbone, prefix: str) -> Iterator[None]:
    """Let a tap see the activations of the passes inside this scope under names that begin with `prefix` and a colon.

    A wrapper that runs the pass several times does so for all runs but the last, and announces the names.
    """
    outside = model.open_tap
    if outside is None:
        yield
        return
    model.open_tap = TapUnder(outside, f"{prefix}:")
    try:
        yield
    finally:
        model.open_tap = outside


@torch.no_grad()
def drawn(module: M, model: Backbone, generator: torch.Generator | None, *, std: float | None = None) -> M:
    """Draw the weights of a new module as the model's own are drawn, and return it on the model's device and in its type.

    Matrices come from N(0, std), by default the configuration's `init_std`; vectors named `weight` are ones, others
    zeros. On the meta device nothing is drawn.
    """
    generator = generator if generator is not None else torch.Generator("cpu").manual_seed(0)
    std = model.config.init_std if std is None else std
    if model.device.type == "meta":
        return module.to("meta", model.dtype)
    for name, parameter in module.named_parameters():
        if parameter.dim() >= 2:
            parameter.copy_(torch.empty(parameter.shape).normal_(0.0, std, generator=generator))
        else:
            parameter.fill_(1.0 if name.rpartition(".")[2] == "weight" else 0.0)
    return module.to(model.device, model.dtype)
