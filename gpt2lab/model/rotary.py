"""Rotary position embeddings (Su et al. 2021, eq. 34), in Hugging Face's half-split order."""

import torch
from torch import Tensor


def rotary_tables(width: int, base: float, length: int) -> tuple[Tensor, Tensor]:
    """Return cos and sin [length, width] for positions 0 … length-1; angle of pair i at position p is p·base^(-2i/width).

    Computed in float64 and stored in float32: at position 10,000 a float32 angle is already off by 1e-3.
    """
    frequencies = base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies  # [length, width / 2]
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first `width` entries of each head; x [batch, heads, time, d_head], cos and sin [… , time, width]."""
    width = cos.shape[-1]
    turned, rest = x[..., :width], x[..., width:]
    first, second = turned.chunk(2, dim=-1)
    turned = turned * cos + torch.cat([-second, first], dim=-1) * sin
    return torch.cat([turned, rest], dim=-1) if rest.shape[-1] else turned
