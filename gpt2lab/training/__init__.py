"""The training loop, objectives, schedules, precision and checkpoints."""

from gpt2lab.training.grouped import GroupedOptimizer
from gpt2lab.training.loop import train
from gpt2lab.training.micro_batches import Batch
from gpt2lab.training.objectives import (
    Divisible,
    Objective,
    OwnedModule,
    as_objective,
    default_objective,
    masked_tokens,
    next_token,
)
from gpt2lab.training.optimizer_protocols import ReadsCurvature
from gpt2lab.training.optimizers import adamw, make_optimizer, parameter_groups
from gpt2lab.training.settings import TrainResult, TrainSettings

__all__ = [
    "Batch",
    "Divisible",
    "GroupedOptimizer",
    "Objective",
    "OwnedModule",
    "ReadsCurvature",
    "TrainResult",
    "TrainSettings",
    "adamw",
    "as_objective",
    "default_objective",
    "make_optimizer",
    "masked_tokens",
    "next_token",
    "parameter_groups",
    "train",
]
