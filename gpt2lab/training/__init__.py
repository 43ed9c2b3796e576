"""The training loop, objectives, schedules, precision and checkpoints."""

from gpt2lab.training.grouped import GroupedOptimizer
from gpt2lab.training.loop import train
from gpt2lab.training.objectives import default_objective, masked_tokens, next_token
from gpt2lab.training.optimizers import ReadsCurvature, adamw, make_optimizer, parameter_groups
from gpt2lab.training.settings import TrainResult, TrainSettings

__all__ = [
    "GroupedOptimizer",
    "ReadsCurvature",
    "TrainResult",
    "TrainSettings",
    "adamw",
    "default_objective",
    "make_optimizer",
    "masked_tokens",
    "next_token",
    "parameter_groups",
    "train",
]
