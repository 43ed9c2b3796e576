"""The equations once more, slowly, in float64, token by token."""

import math

import torch
from torch import Tensor


def sigma(x: Tensor, eps: float = 1e-5) -> float:
    """√(mean (x - μ)² + eps) of one token [d]."""
    values = x.double().tolist()
    mean = sum(values) / len(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / len(values) + eps)


def norm(x: Tensor, gain: Tensor, bias: Tensor, constant: float | None) -> Tensor:
    """LN of one token [d], or FakeLN with a constant."""
    scale = sigma(x) if constant is None else constant
    mean = sum(x.double().tolist()) / len(x)
    return torch.stack(
        [(v - mean) / scale * g + b for v, g, b in zip(x.double(), gain.double(), bias.double(), strict=True)]
    )


def mean_sigma(states: Tensor, real: Tensor | None = None) -> float:
    """Mean over batch and positions of each token's σ; states [batch, time, d]."""
    found = [
        sigma(states[b, t])
        for b in range(states.shape[0])
        for t in range(states.shape[1])
        if real is None or bool(real[b, t])
    ]
    return sum(found) / len(found)


def spread(states: Tensor, tokens: Tensor, end: int | None) -> tuple[float, float]:
    """Target, and mean over all tokens of (σ - target)²; states [batch, time, d]."""
    rows = [[sigma(states[b, t]) for t in range(states.shape[1])] for b in range(states.shape[0])]
    usual = [
        s
        for b, row in enumerate(rows)
        for t, s in enumerate(row)
        if t > 0 and (end is None or int(tokens[b, t]) != end)
    ]
    target = sum(usual) / len(usual) if usual else 1.0
    every = [s for row in rows for s in row]
    return target, sum((s - target) ** 2 for s in every) / len(every)


def rate(step: int, peak: float, floor: float, warm: int, total: int) -> float:
    """The learning rate after the warm-up, t counted so that the last of `total` updates is at the floor."""
    p = (step - warm) / (total - 1 - warm)
    r = floor / peak
    return peak * (r + (1 - r) * (1 + math.cos(math.pi * p)) / 2)
