"""What one forward pass is given, and what its blocks share."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model.cache import Cache, CacheGroup, KeyValueCache
from gpt2lab.model.masks import Order


class OpenTap(Protocol):
    """What a forward pass asks of the tap that is open; `gpt2lab.model.tap` has them."""

    def wants(self, name: str) -> bool:
        """Whether the activation `name` is read or written: places that cost something ask first."""
        ...

    def begins(self, slots: slice) -> None:
        """Note that a forward pass begins, and which positions it computes."""
        ...

    def visit(self, x: Tensor, name: str, slots: slice | None = None, *, again: bool = False) -> Tensor:
        """Return what takes the place of x, which is the activation `name` of the positions `slots`."""
        ...


@dataclass
class Seen:
    """A place of the forward pass that shows its tensors to the open tap."""

    tap: OpenTap | None

    def see(self, x: Tensor, name: str) -> Tensor:
        """Show the tensor at the place `name` to the open tap, if any, and go on with what it returns."""
        return x if self.tap is None else self.tap.visit(x, name)


@dataclass
class Pass(Seen):
    """What one forward pass shares with all of its blocks."""

    mask: Callable[[int | None], Tensor | None]
    """Window → boolean mask [batch or 1, 1, time, keys], True where a query may look; None = plainly causal."""
    causal: bool
    """Without a mask: whether the model is causal and queries and keys start together: the kernel's own mask applies."""
    rotary: tuple[Tensor, Tensor] | None
    """cos and sin, each [batch or 1, 1, time, rotary_width]."""
    cache: KeyValueCache | None
    slots: slice
    """Where this pass's keys and values go in the cache."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """What the wrappers of architectures have to say to blocks."""
    again: bool = False
    """Whether the backward pass is computing a block a second time: writes are repeated, nothing is read twice."""

    def see(self, x: Tensor, name: str) -> Tensor:
        """Show the tensor at the place `name` to the open tap, if any, and go on with what it returns."""
        return x if self.tap is None else self.tap.visit(x, name, self.slots, again=self.again)

    def twice(self) -> tuple[AbstractContextManager[None], "_Again"]:
        """Return what surrounds the first and the second computation of a block under gradient checkpointing."""
        return contextlib.nullcontext(), _Again(self)


class _Again:
    """Marks a pass as computed again; entered anew for every backward pass."""

    def __init__(self, run: Pass) -> None:
        self.run = run

    def __enter__(self) -> None:
        self.run.again = True

    def __exit__(self, *_: object) -> None:
        self.run.again = False


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
    extra_inputs: Mapping[str, Tensor]
    """What architectures read beside the tokens, by name, [batch, ...]; with a cache only the first pass has them."""
    token_inputs: Mapping[str, Tensor]
    """Those that have an entry for each token, [batch, time, ...]."""
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
        found = self.cache.parts if isinstance(self.cache, CacheGroup) else ()
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

        Those of every row are real, take the positions from 0 on, and have token -1, token type 0 and zeros for inputs.
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

        inputs = {
            name: torch.cat([x.new_zeros(rows, n, *x.shape[2:]), x], dim=1)
            for name, x in self.token_inputs.items()
        }

        return dataclasses.replace(
            self,
            embeddings=torch.cat(
                [first.to(self.embeddings.dtype).expand(rows, -1, -1), self.embeddings], dim=1
            ),
            tokens=joined(-ones, self.tokens),
            attention_mask=joined(ones, self.attention_mask),
            positions=joined(ones.cumsum(1) - 1, None if self.positions is None else self.positions + n),
            token_types=joined(0 * ones, self.token_types),
            token_inputs=inputs,
        )


Inner = Callable[[Inputs], Tensor]
"""The forward pass inside a wrapper: inputs → states after the final norm, [batch, time, d_model]."""

NewCache = Callable[..., Cache]
"""Called as make(batch=..., length=...)."""
