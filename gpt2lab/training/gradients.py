"""How the gradient of an update is made of its micro-batches: a sum, or clipped examples with noise."""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.training.micro_batches import Batch, Totals, added, row_count, target_count, target_shares
from gpt2lab.training.objectives import Divisible, Objective, part, refuse_parts
from gpt2lab.training.optimizer_protocols import ReadsCurvature
from gpt2lab.training.routing import room_is_of_the_batch


@dataclass(frozen=True, kw_only=True)
class Update:
    """What a strategy is given for one update."""

    model: Transformer
    """With the weights before the update."""
    objective: Objective
    """What is minimised."""
    batches: Sequence[Batch]
    """The micro-batches, on the model's device."""
    parameters: Sequence[Tensor]
    """All that the optimizer updates."""
    as_trained: Callable[[int], AbstractContextManager[None]]
    """Dropout and precision of micro-batch k of the update."""
    step: int
    """Number of the update; 0 is the first."""
    seed: int
    """Of the run."""


class GradientStrategy(Protocol):
    """How a gradient is made. A strategy has no state: what it draws is a function of the run's seed and the step."""

    def check(
        self, model: Transformer, objective: Objective, optimizer: Optimizer, accumulation: int
    ) -> None:
        """LabError for what it cannot be combined with; the loop calls this before the first update."""
        ...

    def gradient(self, update: Update) -> tuple[float, dict[str, float]]:
        """Leave the gradient in `.grad` of the parameters; return the loss of the update, nats a target, and numbers."""
        ...

    def clip(self, parameters: Sequence[Tensor], limit: float) -> float:
        """Bring the gradient's norm to at most `limit` where the strategy does so, and return the norm before."""
        ...


@dataclass(frozen=True, kw_only=True)
class SummedGradient:
    """The gradient of one large batch: every target of all micro-batches weighs the same."""

    def check(
        self, model: Transformer, objective: Objective, optimizer: Optimizer, accumulation: int
    ) -> None:
        """LabError for several micro-batches of an objective, or of a model, that cannot be computed in parts."""
        refuse_parts(objective.indivisible or room_is_of_the_batch(model.config), accumulation)

    def gradient(self, update: Update) -> tuple[float, dict[str, float]]:
        """Accumulate the gradient of one update, that of one large batch; return its loss, nats a target, and metrics."""
        whole = self._totals(update)
        loss, metrics = 0.0, dict[str, float]()
        for k, (batch, share) in enumerate(zip(update.batches, target_shares(update.batches), strict=True)):
            if whole is None and not share:
                continue  # without targets its mean may be NaN
            with update.as_trained(k):
                own, numbers = part(update.objective, update.model, batch, share, whole)
            own.backward()
            loss += float(own.detach())
            for name, value in numbers.items():
                metrics[name] = metrics.get(name, 0.0) + value
        return loss, metrics

    def clip(self, parameters: Sequence[Tensor], limit: float) -> float:
        """Bring the norm of the whole gradient to at most `limit`; return it as it was."""
        return float(torch.nn.utils.clip_grad_norm_(parameters, limit))

    def _totals(self, update: Update) -> Totals | None:
        """What the parts must know of all micro-batches; None for a single one and for a mean over targets."""
        if len(update.batches) == 1 or not isinstance(update.objective, Divisible):
            return None
        found = []
        for k, batch in enumerate(update.batches):
            with torch.no_grad(), update.as_trained(k):
                found.append(update.objective.totals(update.model, batch))
        return added(found)


@dataclass(frozen=True, kw_only=True)
class PrivateGradient:
    """Each row's gradient clipped, summed, with Gaussian noise added (DP-SGD; Abadi et al. 2016, algorithm 1).

        g = (Σᵢ gᵢ / max(1, ‖gᵢ‖ / C) + N(0, σ²C² I)) / L

    A row is an example, so a person whose texts fill several rows is protected less. Rows are gone through one by one.
    The noise of an update is a function of the run's seed
    and the step: a resumed run adds the same, and whoever knows the seed can take it off, so keep a seed secret where
    the guarantee matters. The loss and the other numbers of the log are not private.
    """

    clip_norm: float = 1.0
    """C: largest norm of a row's gradient, over all parameters together."""
    noise: float = 1.0
    """σ: standard deviation of the noise in units of C; 0 clips only."""
    lot_size: int = 0
    """L: divisor of the sum; 0 means the number of rows of the update."""

    def __post_init__(self) -> None:
        if not 0 < self.clip_norm < math.inf:
            raise LabError(f"privacy: clip_norm must be above 0, got {self.clip_norm}")
        if not 0 <= self.noise < math.inf:
            raise LabError(f"privacy: noise must not be negative, got {self.noise}")
        if self.lot_size < 0:
            raise LabError(f"privacy: lot_size must not be negative, got {self.lot_size}")

    def check(
        self, model: Transformer, objective: Objective, optimizer: Optimizer, accumulation: int
    ) -> None:
        """LabError for an objective whose rows have no loss of their own, or an optimizer that reads the data itself."""
        if reason := objective.no_example_loss(model):
            raise LabError(f"privacy: {objective.name} has no loss for each row: {reason}")
        if isinstance(optimizer, ReadsCurvature):
            raise LabError(
                f"privacy: {type(optimizer).__name__} reads the data a second time for the curvature, without noise; take "
                "another optimizer"
            )

    def gradient(self, update: Update) -> tuple[float, dict[str, float]]:
        """Leave the noisy mean in `.grad`; return the mean loss of the rows, and the share of rows that were clipped."""
        trained = [parameter for parameter in update.parameters if parameter.requires_grad]
        sums = [torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in trained]
        loss, count, metrics = 0.0, 0, {"clipped": 0.0}
        for k, batch in enumerate(update.batches):
            with update.as_trained(k):
                for row in rows(batch):
                    own, numbers = update.objective(update.model, row)
                    found = torch.autograd.grad(own, trained, allow_unused=True)
                    norm = self._add(sums, found)
                    count, loss = count + 1, loss + float(own.detach())
                    for name, value in {**numbers, "clipped": float(norm > self.clip_norm)}.items():
                        metrics[name] = metrics.get(name, 0.0) + value
        lot = self.lot_size or sum(map(row_count, update.batches))
        generator = noise_generator(update)
        for parameter, total in zip(trained, sums, strict=True):
            drawn = torch.empty_like(total).normal_(generator=generator)
            parameter.grad = (total.add_(drawn, alpha=self.noise * self.clip_norm) / lot).to(parameter.dtype)
        seen = max(1, count)
        return loss / seen, {name: value / seen for name, value in metrics.items()}

    def clip(self, parameters: Sequence[Tensor], limit: float) -> float:
        """Return the norm of the whole gradient; rows have been clipped one by one."""
        return float(torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))

    def _add(self, sums: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> float:
        """Add one row's clipped gradient, and return its norm."""
        there = [
            (total, g.to(total.dtype)) for total, g in zip(sums, gradients, strict=True) if g is not None
        ]
        norm = float(torch.nn.utils.get_total_norm([gradient for _, gradient in there])) if there else 0.0
        for total, gradient in there:
            total.add_(gradient, alpha=1 / max(1.0, norm / self.clip_norm))
        return norm


def rows(batch: Batch) -> Iterator[Batch]:
    """Yield the rows of a batch that have a target, each as a batch of one."""
    for i in range(row_count(batch)):
        row = {name: tensor[i : i + 1] for name, tensor in batch.items()}
        if target_count(row):
            yield row


def noise_generator(update: Update) -> torch.Generator:
    """Return the generator of an update's noise, apart from the streams of dropout and data of the same seed."""
    digest = hashlib.sha256(f"gradient noise {update.seed} {update.step}".encode()).digest()
    seed = int.from_bytes(digest[:8], "big") % 2**63
    return torch.Generator(update.model.device).manual_seed(seed)
