"""The training loop, objectives, schedules, precision and checkpoints."""

from gpt2lab.train.loop import train
from gpt2lab.train.objectives import next_token
from gpt2lab.train.optimizers import adamw, parameter_groups
from gpt2lab.train.settings import TrainResult, TrainSettings

__all__ = ["TrainResult", "TrainSettings", "adamw", "next_token", "parameter_groups", "train"]
