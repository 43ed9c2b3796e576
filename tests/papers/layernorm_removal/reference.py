"""The equations once more, slowly, in float64, token by token."""

import math
from collections.abc import Callable

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


def log_spread(
    places: list[Tensor], tokens: Tensor, end: int | None, scale: Callable[[Tensor], float]
) -> float:
    """Mean over places and all tokens of (log σ - target)², target the mean over all but position 0 and ends of text."""
    total = 0.0
    for states in places:
        rows = [[math.log(scale(token)) for token in row] for row in states]
        usual = [
            value
            for b, row in enumerate(rows)
            for t, value in enumerate(row)
            if t > 0 and int(tokens[b, t]) != end
        ]
        target = sum(usual) / len(usual) if usual else 0.0
        every = [value for row in rows for value in row]
        total += sum((value - target) ** 2 for value in every) / len(every)
    return total / len(places)


def rate(step: int, peak: float, floor: float, warm: int, total: int) -> float:
    """The learning rate after the warm-up, t counted so that the last of `total` updates is at the floor."""
    p = (step - warm) / (total - 1 - warm)
    r = floor / peak
    return peak * (r + (1 - r) * (1 + math.cos(math.pi * p)) / 2)


def confidence_ranking(vectors: Tensor, unembedding: Tensor, gain: Tensor, *, centred: bool) -> list[int]:
    """Neurons by ||w|| / variance over the vocabulary (unbiased) of cos(w, W_U[:, k]), the largest first.

    vectors [neurons, d], a row for each neuron of the last block; unembedding [vocab, d]; gain [d] of the final norm, which
    is folded into W_U. centred: the norm subtracts the mean over d, of what it reads and so of W_U's columns. The mean over
    the vocabulary, which no probability sees, is subtracted too.
    """
    rows = [[float(u) * float(g) for u, g in zip(row, gain, strict=True)] for row in unembedding]
    written = [[float(x) for x in row] for row in vectors]
    if centred:
        rows, written = ([[x - sum(row) / len(row) for x in row] for row in kind] for kind in (rows, written))
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    rows = [[x - m for x, m in zip(row, means, strict=True)] for row in rows]
    lengths = [math.sqrt(sum(x * x for x in row)) for row in rows]
    scores = []
    for w in written:
        norm = math.sqrt(sum(x * x for x in w))
        cosines = [
            sum(x * y for x, y in zip(w, row, strict=True)) / (norm * length)
            for row, length in zip(rows, lengths, strict=True)
        ]
        mean = sum(cosines) / len(cosines)
        scores.append(norm / (sum((c - mean) ** 2 for c in cosines) / (len(cosines) - 1)))
    return sorted(range(len(scores)), key=lambda i: -scores[i])
