"""How much a state tells of the answer at every rate: a variational information bottleneck on frozen states.

    q(z | h) = N(μ(h), diag σ²(h));   minimise E[-log q(y | z)] + β KL(q(z | h) ‖ N(0, I)),   q(y | z) = softmax(W z + b)

The first term is the distortion, the second the rate, both in nats. At every β the smaller sum has the curve below.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2lab.base.errors import LabError

_SAMPLES = 16
"""Draws of z for each state in evaluation."""


class Bottleneck(nn.Module):
    """The encoder N(μ(h), diag σ²(h)) and the decoder softmax(W z + b)."""

    def __init__(self, width: int, classes: int, size: int, generator: torch.Generator) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            self.mean, self.log_variance = nn.Linear(width, size), nn.Linear(width, size)
            self.decoder = nn.Linear(size, classes)

    def forward(self, states: Tensor, answers: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return distortion and rate by example, each [n]; states [n, width], answers [n], noise [n, size]."""
        mean, log_variance = self.mean(states), self.log_variance(states)
        z = mean + (0.5 * log_variance).exp() * noise
        distortion = F.cross_entropy(self.decoder(z), answers, reduction="none")  # eq. distortion
        rate = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)  # eq. rate
        return distortion, rate


@dataclass(frozen=True, kw_only=True)
class BottleneckSettings:
    """How a bottleneck is trained; the paper: 50 examples, batches of 1, 5 epochs. Size, optimiser and rate are ours."""

    betas: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)
    """Prices of a nat of rate."""
    size: int = 32
    """Entries of z."""
    learning_rate: float = 1e-3
    """Of Adam."""
    epochs: int = 5
    """Passes over the examples."""
    batch_size: int = 1
    """Examples of an update."""
    seed: int = 0
    """Seed of weights, order and draws."""

    def __post_init__(self) -> None:
        if not self.betas or min(self.betas) <= 0:
            raise LabError(f"rate-distortion: betas must be above 0, got {self.betas}")
        if self.size < 1 or self.epochs < 1 or self.batch_size < 1 or not self.learning_rate > 0:
            raise LabError("rate-distortion: size, epochs, batch_size and learning_rate must be above 0")


Known = tuple[Tensor, Tensor]
"""States [n, width] and answers [n] as classes from 0 on."""


def rate_distortion(
    train: Known, test: Known, classes: int, settings: BottleneckSettings
) -> Sequence[dict[str, float]]:
    """Return a row for each beta: beta, rate, distortion and their sum distortion + beta · rate, in nats, on `test`.

    States are divided by the standard deviation of all entries of the training states after their mean is taken away, so
    that no arm has a larger scale. LabError without examples, or answers outside the classes.
    """
    if not len(train[1]) or not len(test[1]):
        raise LabError("rate-distortion: needs examples to train on and others to judge on")
    if (
        min(int(train[1].min()), int(test[1].min())) < 0
        or max(int(train[1].max()), int(test[1].max())) >= classes
    ):
        raise LabError(f"rate-distortion: answers are classes from 0 to {classes - 1}")
    centre = train[0].float().mean(0)
    scale = (train[0].float() - centre).std().clamp_min(1e-12)
    states, judged = ((x.float() - centre) / scale for x in (train[0], test[0]))
    rows = []
    for beta in settings.betas:
        generator = torch.Generator().manual_seed(settings.seed)
        made = _trained(states, train[1], classes, beta, settings, generator)
        with torch.no_grad():
            found = [made(judged, test[1], _noise(len(judged), settings, generator)) for _ in range(_SAMPLES)]
        distortion = float(torch.stack([one for one, _ in found]).mean())
        rate = float(found[0][1].mean())
        rows.append({"beta": beta, "rate": rate, "distortion": distortion, "sum": distortion + beta * rate})
    return rows


def _trained(
    states: Tensor,
    answers: Tensor,
    classes: int,
    beta: float,
    settings: BottleneckSettings,
    generator: torch.Generator,
) -> Bottleneck:
    made = Bottleneck(states.shape[1], classes, settings.size, generator)
    optimizer = torch.optim.Adam(made.parameters(), lr=settings.learning_rate)
    for _ in range(settings.epochs):
        for chosen in torch.randperm(len(states), generator=generator).split(settings.batch_size):
            distortion, rate = made(states[chosen], answers[chosen], _noise(len(chosen), settings, generator))
            optimizer.zero_grad()
            (distortion + beta * rate).mean().backward()  # eq. objective
            optimizer.step()
    return made


def _noise(count: int, settings: BottleneckSettings, generator: torch.Generator) -> Tensor:
    return torch.randn(count, settings.size, generator=generator)
