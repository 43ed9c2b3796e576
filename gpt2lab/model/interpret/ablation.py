"""Leaving out heads, neurons or whole sites while the block is open."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model.evaluating import evaluating, unseen
from gpt2lab.model.hook_names import BY_HEAD, PATTERNS
from gpt2lab.model.tap import Tap

if TYPE_CHECKING:
    from gpt2lab.model.transformer import Transformer


def ablate(
    model: "Transformer",
    site: str,
    index: int | Sequence[int] | None = None,
    *,
    mode: Literal["zero", "mean", "resample"] = "zero",
    reference: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tap:
    """Return a tap that takes activations out of the forward pass while its block is open.

        with ablate(model, "blocks.9.attn.hook_z", (3, 5)):
            logits = model(tokens)

    site: an exact name, or a short one that stands for every layer. index: which heads (sites of heads and patterns) or
    which entries of the last axis (neurons, features); None means all. mode: "zero"; "mean" over all tokens of
    `reference` [batch, time] int64; "resample", the activations at the same positions of a row of `reference` that
    `generator` draws for each row: the same row at every site, and for as long as the block is open.
    LabError: an index that is not there, a reference that is missing, given in vain, or shorter than the text.
    """
    if (mode == "zero") != (reference is None) or (mode == "resample") != (generator is not None):
        raise LabError(
            f"ablate: mode {mode}: zero takes neither reference nor generator, mean a reference, resample both"
        )
    if mode not in ("zero", "mean", "resample"):
        raise LabError(f"ablate: mode is zero, mean or resample, got {mode}")
    chosen = None if index is None else [index] if isinstance(index, int) else list(index)
    values = {} if reference is None else _of_reference(model, site, reference)
    rows = _Rows(generator)

    def replace(x: Tensor, name: str) -> Tensor:
        if mode == "zero":
            new = torch.zeros_like(x)
        elif mode == "mean":
            new = values[name].flatten(0, 1).mean(0).expand_as(x).contiguous()
        else:
            new = rows.taken(values[name], x, tap.positions, name)
        return _only(x, new, chosen, name)

    tap = model.tap(write={site: replace})
    if mode == "mean" and any(name.endswith(PATTERNS) for name in tap.writes):
        raise LabError(
            f"ablate: {site} has another shape for every length, so it has no mean; use zero or resample"
        )
    return tap


def _of_reference(model: "Transformer", site: str, reference: Tensor) -> dict[str, Tensor]:
    with evaluating(model), unseen(model), torch.no_grad(), model.tap(read=[site]) as tap:
        model(reference) if site == "logits" else model.hidden(reference)
    return {name: tap[name] for name in tap.asked[site]}


class _Rows:
    """The rows of the reference that stand in for those of a batch, drawn once for each size of batch."""

    def __init__(self, generator: torch.Generator | None) -> None:
        self.generator, self.drawn = generator, dict[int, Tensor]()

    def taken(self, values: Tensor, x: Tensor, positions: range, name: str) -> Tensor:
        """Return the reference's activations in the shape of x."""
        if len(x) not in self.drawn:
            self.drawn[len(x)] = torch.randint(len(values), (len(x),), generator=self.generator)
        part = values[self.drawn[len(x)].to(values.device)]
        span = slice(positions.start, positions.stop)
        part = part[:, :, span, : x.shape[3]] if name.endswith(PATTERNS) else part[:, span]
        if part.shape != x.shape:
            raise LabError(
                f"ablate: the reference gives {list(part.shape)} at {name}, the text {list(x.shape)}"
            )
        return part


def _only(x: Tensor, new: Tensor, chosen: list[int] | None, name: str) -> Tensor:
    """x with the chosen heads or entries taken from `new`."""
    if chosen is None:
        return new
    axis = 1 if name.endswith(PATTERNS) else 2 if name.endswith(BY_HEAD) else x.dim() - 1
    size = x.shape[axis]
    if not all(0 <= i < size for i in chosen):
        raise LabError(f"ablate: {name} has entries 0 to {size - 1}, got {chosen}")
    index = torch.tensor(chosen, device=x.device)
    return x.index_copy(axis, index, new.index_select(axis, index))
