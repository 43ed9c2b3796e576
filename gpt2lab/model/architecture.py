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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from gpt2lab.base.errors import LabError
from gpt2lab.base.registry import parts
from gpt2lab.model.cache import Cache
from gpt2lab.model.masks import Order
from gpt2lab.model.tap import TapUnder

if TYPE_CHECKING:
    from gpt2lab.model.transformer import Transformer

M = TypeVar("M", bound=nn.Module)


@runtime_checkable
class Architecture(Protocol):
    """A frozen keyword-only dataclass of options that changes the structure of a model."""

    def attach(self, model: "Transformer", *, generator: torch.Generator | None = None) -> None:
        """Change `model` in place; new weights are drawn from `generator` (see `drawn`), torch's own included.

        The model may be on the meta device, where there are shapes but no numbers. `model.config` stays as it is.
        LabError for a model that this architecture does not fit, with the model unchanged.
        """
        ...


def attach(
    model: "Transformer", architecture: Architecture, *, generator: torch.Generator | None = None
) -> "Transformer":
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


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What one forward pass is given; `dataclasses.replace` makes a changed copy for what stands inside a wrapper."""

    embeddings: Tensor
    """[batch, time, d_model], without positions."""
    tokens: Tensor | None
    """[batch, time] int64, -1 where a wrapper has put an embedding of its own; None if embeddings were given instead."""
    attention_mask: Tensor | None
    """[batch, time], 1 at real tokens; None if all are."""
    positions: Tensor | None
    """[batch or 1, time]; None counts real tokens from 0 (with a cache: goes on counting)."""
    token_types: Tensor | None
    """[batch, time], for models that have them; None is type 0 everywhere."""
    cache: Cache | None
    """As made by the `new_cache` of the model, or of what stands inside the wrapper."""
    siblings: bool = False
    """Whether the tokens are alternatives for one place, of which none sees another."""
    order: Order | None = None
    """Which keys a query may look at, padding aside; None: its own and those before it. See `masks.Order`."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """What wrappers have to say to blocks, which read it as `run.notes`."""

    def caches(self, count: int) -> Sequence[Cache | None]:
        """Return the `count` caches of a wrapper that keeps several; without a cache, as many None."""
        if self.cache is None:
            return [None] * count
        found = getattr(self.cache, "parts", ())
        if len(found) != count:
            raise LabError("this cache was made for another model; make it with model.new_cache(...)")
        if len({part.length for part in found}) > 1:
            raise LabError(
                "a forward pass over this cache was broken off, so its parts hold different numbers of tokens; "
                "make a new one, or rewind it to 0"
            )
        return list(found)

    def behind(self, first: Tensor) -> "Inputs":
        """Return these inputs with embeddings in front, [n, d_model] or [batch, n, d_model]; all else follows.

        Those of every row are real, take the positions from 0 on, and have token -1 and token type 0.
        """
        if not first.shape[-2]:
            return self
        rows, n = len(self.embeddings), first.shape[-2]
        ones = torch.ones(rows, n, dtype=torch.int64, device=self.embeddings.device)

        def joined(new: Tensor, old: Tensor | None) -> Tensor | None:
            return (
                None
                if old is None
                else torch.cat([new.to(old.dtype), old.expand(rows, *old.shape[1:])], dim=1)
            )

        return dataclasses.replace(
            self,
            embeddings=torch.cat(
                [first.to(self.embeddings.dtype).expand(rows, -1, -1), self.embeddings], dim=1
            ),
            tokens=joined(-ones, self.tokens),
            attention_mask=joined(ones, self.attention_mask),
            positions=joined(ones.cumsum(1) - 1, None if self.positions is None else self.positions + n),
            token_types=joined(0 * ones, self.token_types),
        )


Inner = Callable[[Inputs], Tensor]
"""The forward pass inside a wrapper: inputs → states after the final norm, [batch, time, d_model]."""

NewCache = Callable[..., Cache]
"""Called as make(batch=..., length=...)."""


class Wrapper(nn.Module):
    """A module around the forward pass of a model. It keeps no reference to the model, which is handed to it."""

    positions_taken: int = 0
    """Positions in front of the text that the wrapper uses up."""

    def forward(self, model: "Transformer", inner: Inner, inputs: Inputs) -> Tensor:
        """Return the states after the final norm, [batch, time, d_model], time being that of `inputs`.

        `inner` may be called several times, each time with a cache of its own (or with the same, for later tokens).
        """
        return inner(inputs)

    def new_cache(self, inner: NewCache, *, batch: int, length: int) -> Cache:
        """Return a cache for `length` tokens, made of those that `inner(batch=, length=)` makes."""
        return inner(batch=batch, length=length)

    def require_steps(self, model: "Transformer", steps: int) -> None:
        """Hear, before data is read, how long a run of the verb `train` is to be. LabError if that is too short."""

    def before_update(self, model: "Transformer", step: int) -> None:
        """Hear that update `step` of a training run (0 is the first) begins; what it changes, buffers must hold."""

    def after_update(self, model: "Transformer", step: int) -> dict[str, float]:
        """Hear that the weights are updated, before a checkpoint is written; return numbers for the log."""
        return {}

    def training_flops(self, model: "Transformer", time_steps: int, inner: float) -> float:
        """Return the operations of training on one token, given those of what stands inside; `time_steps` in a row."""
        return inner

    def activation_names(self, names: list[str]) -> list[str]:
        """Return all names of activations, given those inside; a repeated pass has its own, `under` a prefix and a colon."""
        return names


@contextmanager
def under(model: "Transformer", prefix: str) -> Iterator[None]:
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
def drawn(
    module: M, model: "Transformer", generator: torch.Generator | None, *, std: float | None = None
) -> M:
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
