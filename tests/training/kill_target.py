"""Run by test_kill.py in a process of its own: trains with a checkpoint every 3 updates and never ends by itself fast."""

import sys
from pathlib import Path

import torch

from gpt2lab.model import save_model
from gpt2lab.training import TrainSettings, train
from tests.tiny import tiny
from tests.training.data import Counting

folder, resume = Path(sys.argv[1]), sys.argv[2] == "resume"
torch.set_num_threads(1)
model = tiny("gpt2", residual_dropout=0.1)
settings = TrainSettings(steps=90, warmup=5, accumulation=2, checkpoint_every=3, keep_last=2, log_every=1)
train(
    model,
    Counting(),
    settings=settings,
    checkpoints=folder / "checkpoints",
    resume=resume,
    log=lambda step, **_: print(step, flush=True),
)
save_model(model, folder / "final")
