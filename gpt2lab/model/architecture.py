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
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from gpt2lab.base.errors import LabError
from gpt2lab.base.registry import parts
from gpt2lab.model.cache import Cache
from gpt2lab.model.config import TransformerConfig
from gpt2lab.model.forward import Inner, Inputs, NewCache
from gpt2lab.model.norms import Norm
from gpt2lab.model.tap import Tap, TapUnder

M = TypeVar("M", bound=nn.Module)
B = TypeVar("B", bound="Backbone")


class Backbone(nn.Module):
    """What an architecture may use of the `Transformer` that it changes, which implements this."""

    config: TransformerConfig
    embedding: nn.Embedding
    """The table of token embeddings, [vocab, d_model]."""
    blocks: nn.ModuleList
    final_norm: Norm
    head: nn.Linear
    """The matrix from states to logits; absent where config.head is "none"."""
    wrappers: nn.ModuleList
    """What architectures put around the forward pass, the innermost first."""
    architectures: "tuple[Architecture, ...]"
    """What `attach` has attached, in order."""
    open_tap: Tap | TapUnder | None

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights: of the first, where some are kept in another (adapters, 4-bit codes)."""
        return next(self.parameters()).dtype

    @property
    def context(self) -> int:
        """Most tokens of text in a row: the configuration's positions less those that architectures take up."""
        raise NotImplementedError

    def embed(self, tokens: Tensor) -> Tensor:
        """Look up token embeddings (without positions); tokens [batch, time] int64 → [batch, time, d_model]."""
        raise NotImplementedError

    def unembed(self, hidden: Tensor) -> Tensor:
        """Return logits for the last states; [..., d_model] → [..., vocab]. LabError for a model without a head."""
        raise NotImplementedError

    def head_input(self, hidden: Tensor) -> Tensor:
        """Return what the head's matrix reads: the last states [..., d_model], transformed where the head does so."""
        raise NotImplementedError

    def count_parameters(self) -> dict[str, int]:
        """Count weights: total (tied tables once), embedding, non_embedding, and active where there are experts."""
        raise NotImplementedError

    def activation_names(self) -> list[str]:
        """Return the names that a tap knows, in the order of the forward pass."""
        raise NotImplementedError


@runtime_checkable
class Architecture(Protocol):
    """A frozen keyword-only dataclass of options that changes the structure of a model."""

    def attach(self, model: Backbone, *, generator: torch.Generator | None = None) -> None:
        """Change `model` in place; new weights are drawn from `generator` (see `drawn`), torch's own included.

        The model may be on the meta device, where there are shapes but no numbers. `model.config` stays as it is.
        LabError for a model that this architecture does not fit, with the model unchanged.
        """
        ...


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


class Wrapper(nn.Module):
    """A module around the forward pass of a model. It keeps no reference to the model, which is handed to it."""

    positions_taken: int = 0
    """Positions in front of the text that the wrapper uses up."""

    def forward(self, model: Backbone, inner: Inner, inputs: Inputs) -> Tensor:
        """Return the states after the final norm, [batch, time, d_model], time being that of `inputs`.

        `inner` may be called several times, each time with a cache of its own (or with the same, for later tokens).
        """
        return inner(inputs)

    def new_cache(self, inner: NewCache, *, batch: int, length: int) -> Cache:
        """Return a cache for `length` tokens, made of those that `inner(batch=, length=)` makes."""
        return inner(batch=batch, length=length)

    def require_steps(self, model: Backbone, steps: int) -> None:
        """Hear, before data is read, how long a run of the verb `train` is to be. LabError if that is too short."""

    def before_update(self, model: Backbone, step: int) -> None:
        """Hear that update `step` of a training run (0 is the first) begins; what it changes, buffers must hold."""

    def after_update(self, model: Backbone, step: int) -> dict[str, float]:
        """Hear that the weights are updated, before a checkpoint is written; return numbers for the log."""
        return {}

    def training_flops(self, model: Backbone, time_steps: int, inner: float) -> float:
        """Return the operations of training on one token, given those of what stands inside; `time_steps` in a row."""
        return inner

    def activation_names(self, names: list[str]) -> list[str]:
        """Return all names of activations, given those inside; a repeated pass has its own, `under` a prefix and a colon."""
        return names


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
