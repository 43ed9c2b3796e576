"""Means over the tokens of texts of unequal length."""

from typing import Literal

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError

Average = Literal["tokens", "texts"]
"""Every token counts the same, or every text does, however long it is."""


def masked_mean(x: Tensor, mask: Tensor, *, average: Average = "tokens") -> Tensor:
    """Return the mean of x over the places where mask is true, []; 0 if there are none.

    x and mask [rows, steps]; what stands outside of the mask, NaN included, is never read. "texts": the mean over the
    rows that have any place, each of its own mean.
    """
    if x.shape != mask.shape:
        raise LabError(f"the mask is {list(mask.shape)}, the numbers {list(x.shape)}")
    kept = torch.where(mask, x, 0.0)
    if average == "tokens":
        return kept.sum() / mask.sum().clamp_min(1)
    lengths = mask.sum(-1)
    return (kept.sum(-1) / lengths.clamp_min(1)).sum() / (lengths > 0).sum().clamp_min(1)


def whiten(x: Tensor, mask: Tensor, *, center: bool = True, floor: float = 1e-8) -> Tensor:
    """Return (x - mean) / (std + floor) over the places where mask is true, 0 elsewhere; x and mask [rows, steps].

    std² is the unbiased variance, 0 of a single place. center=False scales without moving the mean. A floor well above 0
    keeps rare rewards from being blown up where nearly all numbers are equal.
    """
    if floor < 0:
        raise LabError(f"whiten: floor must not be negative, got {floor}")
    mean = masked_mean(x, mask)
    squares = torch.where(mask, (x - mean).square(), 0.0).sum()
    std = (squares / (mask.sum() - 1).clamp_min(1)).sqrt()
    scaled = (x - mean if center else x) / (std + floor)
    return torch.where(mask & (std + floor > 0), scaled, 0.0)
