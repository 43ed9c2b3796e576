"""Whether the two estimators have the exact diagonals as their means, on problems small enough to know them."""

import itertools

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2lab.papers.sophia.estimators import gauss_newton_bartlett, hutchinson


def gauss_newton_error(seed: int) -> float:
    """Largest relative error of the mean estimate over all label pairs of a softmax model, against the exact diagonal."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 3, generator=generator)
    weight = torch.randn(4, 3, generator=generator).requires_grad_()
    p = (features @ weight.T).softmax(-1).detach()
    mean = torch.zeros(4, 3)
    for labels in itertools.product(range(4), repeat=2):
        loss = F.cross_entropy(features @ weight.T, torch.tensor(labels))
        estimate = gauss_newton_bartlett(loss, [weight], terms=2)[0]
        mean += p[0, labels[0]] * p[1, labels[1]] * estimate
    exact = 0.5 * ((p * (1 - p)).T @ features.square())
    return float(((mean - exact).abs() / exact.abs().max()).max())


def hutchinson_error(seed: int, draws: int = 400) -> float:
    """Distance of the mean of Hutchinson estimates from the exact diagonal, in standard errors (root mean square)."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.randn(64, 64, generator=generator, dtype=torch.float64)
    matrix = half + half.T
    x: Tensor = torch.zeros(64, dtype=torch.float64, requires_grad=True)
    found = [hutchinson(0.5 * x @ matrix @ x, [x], generator=generator)[0] for _ in range(draws)]
    estimates = torch.stack(found)
    errors = (estimates.mean(0) - matrix.diag()) / (estimates.std(0) / draws**0.5)
    return float(errors.square().mean().sqrt())
