"""What an optimizer may ask of the loop, beyond torch's own interface."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import nn
from torch.optim import Optimizer

from gpt2lab.model import Transformer
from gpt2lab.training.micro_batches import Batch
from gpt2lab.training.objectives import Objective


@runtime_checkable
class ReadsCurvature(Protocol):
    """An optimizer that now and then looks at more than the gradient of the update."""

    def refreshes(self, step: int) -> Literal["before", "after"] | None:
        """Say whether update `step` (0 is the first) is preceded or followed by a refresh, or neither."""
        ...

    def refresh(
        self, model: Transformer, batches: Sequence[Batch], objective: Objective, generator: torch.Generator
    ) -> dict[str, float]:
        """Read the curvature on the micro-batches of one update and return numbers for the log.

        Before an update the batches are its own, after it those of the next one, which the weights have not seen.
        `generator` is a function of the run's seed and the step. Parameters and their `.grad` stay as they are.
        """
        ...


@runtime_checkable
class ChecksObjective(Protocol):
    """An optimizer that cannot read every objective."""

    def check_objective(self, objective: Objective) -> None:
        """LabError for one that it cannot read; the loop calls this before the first update."""
        ...


@runtime_checkable
class MadeForModel(Protocol):
    """A class of optimizers that treats parameters by their place in the model."""

    def for_model(self, model: nn.Module, *, lr: float, weight_decay: float, **options: Any) -> Optimizer:
        """Return one for a model's trainable parameters; a classmethod, whose options are its own."""
        ...
