"""Batches and their parts: how many terms the means of an objective are over, and what share of them a micro-batch has."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from gpt2lab.model.loss import IGNORE

Batch = Mapping[str, Tensor]
"""Tensors by name, the rows of all along their first dimension."""
Totals = Mapping[str, Tensor]
"""Sums over a batch by name, int64 or float64: how many terms each mean is over, and what else all parts must know."""


def share(own: Tensor | int, whole: Totals | None, name: str) -> float:
    """Return which share of the terms `name` this batch has: 1 of its own; 0 where nobody has any."""
    if whole is None:
        return 1.0
    total = whole[name].item()
    return float(own) / total if total else 0.0


def row_count(batch: Batch) -> int:
    """Return the number of rows of a batch."""
    return len(next(iter(batch.values())))


def target_count(batch: Batch) -> int:
    """Return the number of targets with a loss; of a batch without "targets" that of its rows."""
    if "targets" in batch:
        return int((batch["targets"] != IGNORE).sum())
    return row_count(batch)


def target_shares(batches: Sequence[Batch]) -> list[float]:
    """Return each micro-batch's share of the targets of all, which is 1 for a single one."""
    if len(batches) == 1:
        return [1.0]
    counts = [target_count(batch) for batch in batches]
    return [count / max(1, sum(counts)) for count in counts]


def target_totals(batch: Batch) -> Totals:
    """Return the number of targets as totals."""
    return {"targets": torch.tensor(target_count(batch))}


def target_share(batch: Batch, whole: Totals | None) -> float:
    """Return this batch's share of the targets of all micro-batches."""
    return 1.0 if whole is None else share(target_count(batch), whole, "targets")


@torch.no_grad()
def added(totals: Iterable[Totals]) -> Totals:
    """Add the totals of micro-batches, name by name."""
    every = list(totals)
    return {name: torch.stack([one[name] for one in every]).sum(0) for name in every[0]}
