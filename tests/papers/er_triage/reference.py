"""The specification's quantities, slowly, in float64, written from its text."""

import math
from collections.abc import Mapping, Sequence

import torch


def labels_for(ladder: Mapping[int, float], target: float) -> tuple[float, str]:
    """Labels that a target takes: running maximum, first rung there, linear in log n from the rung before."""
    rungs = sorted(ladder)
    for place, n in enumerate(rungs):
        highest = max(ladder[m] for m in rungs[: place + 1])
        if highest < target:
            continue
        if place == 0:
            return float(n), "at most"
        before, low = rungs[place - 1], max(ladder[m] for m in rungs[:place])
        slope = (highest - low) / (math.log(n) - math.log(before))
        return math.exp(math.log(before) + (target - low) / slope), "read"
    return float(rungs[-1]), "above"


def next_token_loss(logits: Sequence[torch.Tensor], ids: Sequence[Sequence[int]]) -> torch.Tensor:
    """Mean over the real next tokens of all rows of -log p(next); logits [time, vocab] of each row alone, unpadded."""
    losses = []
    for row, own in zip(logits, ids, strict=True):
        for place in range(len(own) - 1):
            scores = row[place].double()
            losses.append(scores.exp().sum().log() - scores[own[place + 1]])
    return torch.stack(losses).mean()


def cross_entropy(logits: torch.Tensor, labels: Sequence[int]) -> torch.Tensor:
    """Mean of -log softmax at the label, rows of logits [n, classes]."""
    wide = logits.double()
    return torch.stack(
        [row.exp().sum().log() - row[label] for row, label in zip(wide, labels, strict=True)]
    ).mean()
