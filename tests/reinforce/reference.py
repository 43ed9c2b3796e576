"""The equations, slowly: Python numbers, one text at a time, written from the papers and not from the package.

Texts are lists of numbers of their own length; nothing is padded. Gradients are central differences of these functions.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Rows = Sequence[Sequence[float]]


def returns(rewards: Rows, gamma: float) -> list[list[float]]:
    """G_t = Σ_{u ≥ t} γ^{u-t} r_u, term by term."""
    return [
        [sum(gamma ** (u - t) * row[u] for u in range(t, len(row))) for t in range(len(row))]
        for row in rewards
    ]


def gae(rewards: Rows, values: Rows, gamma: float, lam: float) -> list[list[float]]:
    """A_t = Σ_l (γλ)^l δ_{t+l} (Schulman et al. 2016, eq. 16, the sum itself)."""
    found = []
    for r, v in zip(rewards, values, strict=True):
        after = [*v[1:], 0.0]
        delta = [r[t] + gamma * after[t] - v[t] for t in range(len(r))]
        found.append(
            [sum((gamma * lam) ** (u - t) * delta[u] for u in range(t, len(r))) for t in range(len(r))]
        )
    return found


def flat(rows: Rows) -> list[float]:
    """All numbers of all texts."""
    return [number for row in rows for number in row]


def mean(numbers: Sequence[float]) -> float:
    """The mean; 0 of nothing."""
    return sum(numbers) / len(numbers) if numbers else 0.0


def averaged(rows: Rows, average: str) -> float:
    """The mean over tokens, or over the texts that have any of their means."""
    return mean(flat(rows)) if average == "tokens" else mean([mean(row) for row in rows if row])


def ppo(
    logprobs: Rows, old: Rows, advantages: Rows, low: float, high: float, average: str = "tokens"
) -> float:
    """-mean min(r A, clip(r) A) (Schulman et al. 2017, eq. 7)."""
    terms = []
    for new, before, gains in zip(logprobs, old, advantages, strict=True):
        row = []
        for a, b, gain in zip(new, before, gains, strict=True):
            ratio = math.exp(a - b)
            row.append(-min(ratio * gain, max(1 - low, min(1 + high, ratio)) * gain))
        terms.append(row)
    return averaged(terms, average)


def value(values: Rows, targets: Rows, old: Rows, clip: float | None) -> float:
    """½ mean of squared errors, the larger of both where the move of V is clipped."""
    terms = []
    for v, g, before in zip(flat(values), flat(targets), flat(old), strict=True):
        error = (v - g) ** 2
        if clip is not None:
            error = max(error, (max(before - clip, min(before + clip, v)) - g) ** 2)
        terms.append(error / 2)
    return mean(terms)


def dpo(chosen: float, rejected: float, ref_chosen: float, ref_rejected: float, beta: float) -> float:
    """-log σ(β Δ) (Rafailov et al. 2023, eq. 7)."""
    return -math.log(1 / (1 + math.exp(-beta * ((chosen - ref_chosen) - (rejected - ref_rejected)))))


def text_logprobs(
    logits_of: Callable[[list[int]], Tensor], prompt: list[int], text: list[int]
) -> list[float]:
    """log p of each token of a text, one forward pass a token; logits_of(ids) are those of the next token, [vocab]."""
    found = []
    for place, token in enumerate(text):
        logits = logits_of([*prompt, *text[:place]]).double()
        found.append(float(logits[token] - torch.logsumexp(logits, 0)))
    return found


def sampled(logits: Tensor, temperature: float, top_k: int) -> list[float]:
    """Probabilities after temperature and top-k, from the definition; no ties."""
    scaled = [float(x) / temperature for x in logits]
    kept = sorted(range(len(scaled)), key=lambda v: -scaled[v])[:top_k]
    total = sum(math.exp(scaled[v]) for v in kept)
    return [math.exp(scaled[v]) / total if v in kept else 0.0 for v in range(len(scaled))]


def gradient(
    function: Callable[[list[list[float]]], float], at: Rows, step: float = 1e-6
) -> list[list[float]]:
    """Central differences of a function of rows of numbers."""
    rows = [list(row) for row in at]
    found = []
    for row in rows:
        own = []
        for place, number in enumerate(row):
            row[place] = number + step
            above = function(rows)
            row[place] = number - step
            below = function(rows)
            row[place] = number
            own.append((above - below) / (2 * step))
        found.append(own)
    return found


def table(rows: Rows, width: int, filler: float) -> Tensor:
    """Rows as a tensor [rows, width], float64, `filler` behind their ends."""
    return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows], dtype=torch.float64)


def random_rows(lengths: Sequence[int], seed: int, scale: float = 1.0) -> list[list[float]]:
    """Normal numbers in texts of these lengths."""
    generator = torch.Generator().manual_seed(seed)
    return [(scale * torch.randn(n, generator=generator, dtype=torch.float64)).tolist() for n in lengths]
