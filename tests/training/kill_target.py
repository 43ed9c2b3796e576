"""Run by test_kill.py in a process of its own: trains with a checkpoint every 3 updates and never ends by itself fast."""

import dataclasses
import sys
from pathlib import Path

import torch

from gpt2lab.model import save_model
from gpt2lab.training import TrainSettings, next_token, train
from gpt2lab.training.distillation import Distillation
from gpt2lab.training.gradients import PrivateGradient
from gpt2lab.training.owned_modules import save_modules
from tests.tiny import tiny
from tests.training.data import Counting
from tests.training.test_owned_modules import Constrained

folder, resume, what = Path(sys.argv[1]), sys.argv[2] == "resume", sys.argv[3]
torch.set_num_threads(1)
model = tiny("gpt2", residual_dropout=0.1)
plain = TrainSettings(steps=90, warmup=5, accumulation=2, checkpoint_every=3, keep_last=2, log_every=1)
OBJECTIVES = {
    "next token": next_token,
    "private": next_token,
    "teacher": Distillation(),
    "multiplier": Constrained(),
}
private = PrivateGradient(noise=0.1) if what == "private" else None
objective = OBJECTIVES[what]
train(
    model,
    Counting(),
    settings=dataclasses.replace(plain, privacy=private),
    objective=objective,
    checkpoints=folder / "checkpoints",
    resume=resume,
    log=lambda step, **_: print(step, flush=True),
)
save_model(model, folder / "final")
save_modules(folder / "modules", objective.modules())
