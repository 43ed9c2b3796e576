"""A batch in parts: what an objective says of micro-batches adds up to what it says of all of them together."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.model.loss import IGNORE

Batch = Mapping[str, Tensor]
Objective = Callable[[Transformer, Batch], tuple[Tensor, dict[str, float]]]
"""Loss and further numbers for the log, each a mean over the batch's targets (those not -100), the loss in nats.

In several micro-batches every target weighs the same. What has other means is `Divisible`, or `Indivisible`.
"""
Totals = Mapping[str, Tensor]
"""Sums over a batch by name, int64 or float64: how many terms each mean is over, and what else all parts must know."""


@runtime_checkable
class Divisible(Protocol):
    """An objective that is several means, such as a loss for each head, or whose terms read a statistic of the batch."""

    def totals(self, model: Transformer, batch: Batch) -> Totals:
        """Return sums that, added over the micro-batches, are those of all of them; called without gradients."""
        ...

    def __call__(
        self, model: Transformer, batch: Batch, whole: Totals | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Return loss and numbers of a batch, or, with the added totals, the share of this micro-batch in each.

        Over the micro-batches the shares add up to loss and numbers of one large batch, and so do their gradients.
        """
        ...


@runtime_checkable
class Indivisible(Protocol):
    """An objective for which k micro-batches cannot be one large batch; the loop refuses accumulation."""

    indivisible: str
    """Why, as the end of a sentence."""


def share(own: Tensor | int, whole: Totals | None, name: str) -> float:
    """Return which share of the terms `name` this batch has: 1 of its own; 0 where nobody has any."""
    if whole is None:
        return 1.0
    total = whole[name].item()
    return float(own) / total if total else 0.0


def target_count(batch: Batch) -> int:
    """Return the number of targets with a loss; of a batch without "targets" that of its rows."""
    if "targets" in batch:
        return int((batch["targets"] != IGNORE).sum())
    return len(next(iter(batch.values())))


def target_shares(batches: Sequence[Batch]) -> list[float]:
    """Return each micro-batch's share of the targets of all, which is 1 for a single one."""
    if len(batches) == 1:
        return [1.0]
    counts = [target_count(batch) for batch in batches]
    return [count / max(1, sum(counts)) for count in counts]


@torch.no_grad()
def added(totals: Iterable[Totals]) -> Totals:
    """Add the totals of micro-batches, name by name."""
    every = list(totals)
    return {name: torch.stack([one[name] for one in every]).sum(0) for name in every[0]}


def part(
    objective: Objective, model: Transformer, batch: Batch, share_of_targets: float, whole: Totals | None
) -> tuple[Tensor, dict[str, float]]:
    """Return a micro-batch's share of the loss and of each number; `whole` is for objectives that are `Divisible`."""
    if whole is not None:
        assert isinstance(objective, Divisible)
        return objective(model, batch, whole)
    loss, numbers = objective(model, batch)
    return loss * share_of_targets, {name: value * share_of_targets for name, value in numbers.items()}


def refuse_parts(objective: Objective, count: int) -> None:
    """LabError if a batch of several micro-batches is asked for and the objective cannot be computed in parts."""
    if count > 1 and isinstance(objective, Indivisible):
        raise LabError(
            f"accumulation {count}: {objective.indivisible}; raise batch_size instead, with gradient_checkpointing if "
            "memory is short"
        )
