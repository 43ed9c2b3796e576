"""Reading and replacing named activations of a forward pass.

The forward pass calls `run.see(x, name)` at every named place. Without an open tap that is one comparison with None.
What the places are called is listed in `gpt2lab.model.hook_names`.

At every place all writes come first, those of outer taps before those of inner ones, then all reads: what is read is
what the next map receives.
"""

import contextlib
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError, nearest
from gpt2lab.model.hook_names import BY_HEAD, PATTERNS, matching, time_axis, within

Write = Callable[[Tensor, str], Tensor] | Tensor | tuple[Any, Tensor | float]
"""What takes the place of an activation x: a function of (a copy of x, its name), a tensor, or (index, values)."""


class Tapped(Protocol):
    """A model whose activations a tap can see."""

    open_tap: "Tap | TapUnder | None"

    def activation_names(self) -> list[str]:
        """Return the names of its activations, in the order of the forward pass."""
        ...


class TapUnder:
    """A tap that sees the names of a repeated forward pass behind a prefix; see `architecture.under`."""

    def __init__(self, tap: "Tap | TapUnder", prefix: str) -> None:
        self.tap, self.prefix = tap, prefix

    def wants(self, name: str) -> bool:
        """As the tap does."""
        return self.tap.wants(self.prefix + name)

    def begins(self, slots: slice) -> None:
        """As the tap does."""
        self.tap.begins(slots)

    def visit(self, x: Tensor, name: str, slots: slice | None = None, *, again: bool = False) -> Tensor:
        """As the tap does."""
        return self.tap.visit(x, self.prefix + name, slots, again=again)


class StopForward(Exception):
    """Raised inside a forward pass when the `stop_after` of a tap is reached; that tap's block swallows it."""

    def __init__(self, tap: "Tap") -> None:
        super().__init__(tap.stop_after)
        self.tap = tap


class Tap:
    """A scope in which named activations are recorded and replaced; see `Transformer.tap`."""

    def __init__(
        self,
        model: Tapped,
        read: Sequence[str] | str,
        write: Mapping[str, Write],
        *,
        grad: bool,
        pos: int | slice | None,
        heads: Sequence[int] | None = None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
        stop_after: str | None,
        reduce: Callable[[Tensor | None, Tensor, str], Tensor] | None,
    ) -> None:
        self.model = model
        self.names = tuple(model.activation_names())
        self.asked = {
            pattern: self._match(pattern) for pattern in ([read] if isinstance(read, str) else read)
        }
        self.reads = {name for names in self.asked.values() for name in names}
        self.writes = self._planned(write)
        self.stop_after = self._match(stop_after)[-1] if stop_after is not None else None
        self.pos, self.heads, self.dtype, self.device, self.reduce = pos, heads, dtype, device, reduce
        self.keep_gradient = grad
        self.values: dict[str, list[Tensor]] = {}
        """What was recorded, a tensor for each forward pass."""
        self.positions = range(0)
        """Positions that the pass at hand computes, counted from the beginning of the cached sequence."""
        self.reached: set[str] = set()
        self.chain: tuple[Tap, ...] = ()
        """This tap and those around it, the outermost first; empty until the block is entered."""
        self.touched: set[str] = set()
        self._spans: dict[str, list[range]] = {}
        self._stance: AbstractContextManager[None] = contextlib.nullcontext()
        self._check_options()

    def _planned(self, write: Mapping[str, Write]) -> dict[str, Write]:
        writes: dict[str, Write] = {}
        for pattern, change in write.items():
            if not (callable(change) or isinstance(change, (Tensor, tuple))):
                raise LabError(
                    f"tap: the write to {pattern} is {type(change).__name__}; give a function (x, name) → tensor, "
                    "a tensor, or (index, values)"
                )
            for name in self._match(pattern):
                if name in writes:
                    raise LabError(f"tap: two writes name {name}; join them into one function")
                writes[name] = change
        return writes

    def _check_options(self) -> None:
        if self.keep_gradient and not torch.is_grad_enabled():
            raise LabError("tap: grad=True inside torch.no_grad(); gradients cannot be kept there")
        if self.keep_gradient and self.reduce is not None:
            raise LabError("tap: reduce keeps no gradients; leave out grad=True or reduce")
        if isinstance(self.pos, slice) and self.pos.step is not None and self.pos.step < 1:
            raise LabError(f"tap: pos steps forwards, got {self.pos}")
        if self.heads is not None:
            without = sorted(name for name in self.reads if not name.endswith((*BY_HEAD, *PATTERNS)))
            if without:
                raise LabError(f"tap: heads={list(self.heads)}, but {without[0]} is not split into heads")

    def _match(self, pattern: str) -> list[str]:
        """Names that a glob, an exact name or a short name ("resid_post", "attn.hook_z") stands for."""
        found = matching(self.names, pattern)
        if not found:
            raise LabError(f"tap: {pattern} names no activation of this model; {self._hint(pattern)}")
        return list(found)

    def _hint(self, pattern: str) -> str:
        short = {name.rsplit("hook_", 1)[-1] for name in self.names}
        match = nearest(pattern, [*self.names, *short])
        return f"did you mean {match}?" if match else "see model.activation_names()"

    def wants(self, name: str) -> bool:
        """Whether this tap or one around it reads or writes `name`: places that cost something ask first."""
        return name in self.touched

    def begins(self, slots: slice) -> None:
        """Note that a forward pass begins, and which positions it computes."""
        for tap in self.chain:
            tap.positions = range(slots.start, slots.stop)

    def visit(self, x: Tensor, name: str, slots: slice | None = None, *, again: bool = False) -> Tensor:
        """Replace, then record, x at the place `name`; `slots` are the positions of the pass, default as it began."""
        if name not in self.touched:
            return x
        if slots is not None and (slots.start, slots.stop) != (self.positions.start, self.positions.stop):
            self.begins(slots)
        for tap in self.chain:
            if name in tap.writes:
                x = tap._changed(x, name)
        if again:
            return x
        for tap in self.chain:
            if name in tap.reads:
                x = tap._record(x, name)
        for tap in self.chain:
            if name == tap.stop_after:
                tap.reached.add(name)
                raise StopForward(tap)
        return x

    def _changed(self, x: Tensor, name: str) -> Tensor:
        change = self.writes[name]
        if isinstance(change, tuple):
            return self._set(x, name, *change)
        self.reached.add(name)
        new = change if isinstance(change, Tensor) else change(x.clone(), name)
        if not isinstance(new, Tensor):
            raise LabError(f"tap: the write to {name} returned {type(new).__name__}; it must return a tensor")
        if new.shape != x.shape or new.dtype != x.dtype or new.device != x.device:
            raise LabError(
                f"tap: the write to {name} is {new.dtype} {list(new.shape)} on {new.device}, "
                f"the model has {x.dtype} {list(x.shape)} on {x.device} there"
            )
        return new

    def _set(self, x: Tensor, name: str, index: Any, values: Tensor | float) -> Tensor:
        """Write `values` at an index whose entry for time counts from the beginning of the cached sequence."""
        if isinstance(values, Tensor) and (values.dtype != x.dtype or values.device != x.device):
            raise LabError(
                f"tap: the values written to {name} are {values.dtype} on {values.device}, "
                f"the model has {x.dtype} on {x.device} there"
            )
        axis, positions = time_axis(name), self._positions(x, name)
        places = index if isinstance(index, tuple) else (index,)
        if any(place is Ellipsis or place is None for place in places[: axis + 1]):
            if positions.start:
                raise LabError(f"tap: in a later pass, the index for {name} must name time by its own entry")
        elif len(places) > axis:
            inside = within(places[axis], positions, name)
            if inside is None:
                return x
            index = (*places[:axis], inside, *places[axis + 1 :])
        self.reached.add(name)
        new = x.clone()
        try:
            new[index] = values
        except (IndexError, RuntimeError, TypeError) as error:
            raise LabError(f"tap: the write to {name}, which is {list(x.shape)}: {error}") from None
        return new

    def _record(self, x: Tensor, name: str) -> Tensor:
        """Keep what was asked for of x, and return what the pass goes on with."""
        if self.keep_gradient:
            if not torch.is_grad_enabled():
                raise LabError(f"tap: grad=True, but {name} is computed inside torch.no_grad()")
            if not x.is_floating_point():
                raise LabError(f"tap: grad=True, but {name} holds whole numbers")
            if not x.requires_grad:  # all weights behind it are frozen: the gradient ends here
                x = x.detach().requires_grad_()
            x.retain_grad()
        positions = self._positions(x, name)
        kept = self._selected(x if self.keep_gradient else x.detach(), name, positions)
        if kept is None:
            return x
        self.reached.add(name)
        if self.reduce is not None:
            old = self.values.get(name, [None])[0]
            self.values[name] = [self.reduce(old, kept, name).to(device=self.device, dtype=self.dtype)]
            return x
        if self.keep_gradient:
            kept = x  # whole, because the gradient is that of the tensor the pass goes on with
        else:
            kept = kept.to(device=self.device, dtype=self.dtype)
            # A view would keep the whole tensor alive and could be written to later in the pass.
            shared = kept.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
            kept = kept.clone() if shared else kept
        self.values.setdefault(name, []).append(kept)
        self._spans.setdefault(name, []).append(positions)
        return x

    def _positions(self, x: Tensor, name: str) -> range:
        """Positions that x holds: those of the pass, or the last of them where the head was given only these."""
        axis = time_axis(name)
        time = x.shape[axis] if x.dim() > axis + 1 else 0
        known = self.positions
        return known[len(known) - time :] if time <= len(known) else range(time)

    def _selected(self, x: Tensor, name: str, positions: range) -> Tensor | None:
        """Cut to the positions and heads asked for; None if this pass computes none of the positions."""
        if self.pos is not None:
            axis = time_axis(name)
            if x.dim() < axis + 2:
                raise LabError(
                    f"tap: pos={self.pos}, but {name} is {list(x.shape)} here, without an axis of time"
                )
            inside = within(self.pos, positions, name)
            if inside is None:
                return None
            inside = slice(inside, inside + 1) if isinstance(inside, int) else inside
            x = x[(slice(None),) * axis + (inside,)]
        if self.heads is not None:
            axis = 1 if name.endswith(PATTERNS) else 2
            if not all(-x.shape[axis] <= head < x.shape[axis] for head in self.heads):
                raise LabError(f"tap: heads={list(self.heads)}, but {name} has {x.shape[axis]}")
            x = x[(slice(None),) * axis + (list(self.heads),)]
        return x

    def __enter__(self) -> "Tap":
        if self.chain:
            raise LabError("tap: this block was open before; open a new one with model.tap(...)")
        outside = self.model.open_tap
        if isinstance(outside, TapUnder):
            raise LabError(
                "tap: opened inside a forward pass that an architecture repeats; open it around the model"
            )
        self.outer = outside
        self.chain = (*(outside.chain if outside is not None else ()), self)
        self.touched = {
            name for tap in self.chain for name in (*tap.reads, *tap.writes, tap.stop_after) if name
        }
        if "torch._dynamo" in sys.modules:  # only then can anything be compiled
            self._stance = torch.compiler.set_stance("force_eager")
        self._stance.__enter__()
        self.model.open_tap = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.model.open_tap = self.outer
        self._stance.__exit__(None, None, None)
        stopped = isinstance(error, StopForward)
        if error is not None and not stopped:
            return False
        asked = self.reads | set(self.writes) | ({self.stop_after} if self.stop_after else set())
        missed = [name for name in self.names if name in asked - self.reached]
        if missed:
            what = f"{', '.join(missed[:5])}{f' and {len(missed) - 5} more' if len(missed) > 5 else ''}"
            raise LabError(f"tap: never reached in this block: {what}; {self._why(error)}") from None
        return stopped and error.tap is self  # type: ignore[union-attr]  # a StopForward has one

    def _why(self, error: BaseException | None) -> str:
        if isinstance(error, StopForward):
            return f"the pass stops after {error.tap.stop_after}"
        if not self.positions:
            return "the model was not called here, or nothing of it that asks the tap"
        if self.pos is not None or any(isinstance(change, tuple) for change in self.writes.values()):
            return f"the last pass computed positions {self.positions.start} to {self.positions.stop - 1}"
        return "the passes in it did not come by there"

    def __getitem__(self, name: str) -> Tensor:
        """Return one activation by its exact name, or [layers, ...] by a short name or glob.

        Forward passes that continue each other through a cache are joined along time, so that a block around `generate`
        gives the whole sequence; of passes that do not, `passes(name)` gives each.
        """
        return self._stacked(
            name, {known: self.passes(known) for known in self._match(name) if known in self.values}
        )

    def passes(self, name: str) -> list[Tensor]:
        """Return one activation (exact name) as each forward pass of the block computed it."""
        if name not in self.values:
            raise LabError(
                f"tap: {name} was not read in this block; it read {', '.join(self.asked) or 'nothing'}"
            )
        if not self.keep_gradient:
            return list(self.values[name])
        return self._converted(self.values[name], name)

    def _converted(self, parts: list[Tensor], name: str) -> list[Tensor]:
        """Tensors that were kept whole for their gradient, cut and converted as asked."""
        chosen = [
            self._selected(part, name, span) for part, span in zip(parts, self._spans[name], strict=True)
        ]
        return [part.to(device=self.device, dtype=self.dtype) for part in chosen if part is not None]

    def _stacked(self, name: str, parts: dict[str, list[Tensor]]) -> Tensor:
        """Join the passes of each name, and stack the names unless there is only the exact one."""
        wanted = [known for known in self._match(name) if known in self.reads]
        if not wanted or any(known not in parts for known in wanted):
            raise LabError(
                f"tap: {name} was not read in this block; it read {', '.join(self.asked) or 'nothing'}"
            )
        if wanted == [name]:
            return self._joined(parts[name], name)
        tensors = [self._joined(parts[known], known) for known in wanted]
        if len({tensor.shape for tensor in tensors}) > 1:
            raise LabError(
                f"tap: {name} stands for tensors of different shapes; ask for one by its exact name"
            )
        return torch.stack(tensors)

    def _joined(self, parts: list[Tensor], name: str) -> Tensor:
        if len(parts) == 1:
            return parts[0]
        if name.endswith(PATTERNS):
            raise LabError(
                f"tap: {name} was computed {len(parts)} times with growing keys; tap.passes(name) has each"
            )
        spans = self._spans[name]
        follow = all(later.start == before.stop for before, later in itertools.pairwise(spans))
        if not follow or len({part.shape[0] for part in parts}) > 1 or parts[0].dim() < 3:
            raise LabError(
                f"tap: {name} was computed by {len(parts)} forward passes that do not continue each other; "
                "tap.passes(name) has each"
            )
        return torch.cat(parts, dim=1)

    @property
    def grad(self) -> dict[str, Tensor]:
        """Gradients of the activations read with grad=True, by exact name, after backward()."""
        if not self.keep_gradient:
            raise LabError("tap: gradients were not kept; open it with grad=True")
        gradients: dict[str, Tensor] = {}
        for name, parts in self.values.items():
            found = [part.grad for part in parts if part.grad is not None]
            if len(found) != len(parts):
                raise LabError(
                    f"tap: {name} got no gradient; call backward() on something that depends on it"
                )
            gradients[name] = self._joined(self._converted(found, name), name)
        return gradients
