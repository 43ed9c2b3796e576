"""Modules that an objective brings along: placed, trained or frozen, checkpointed and saved beside the model."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from gpt2lab.base.errors import LabError
from gpt2lab.model.checkpoints.tensor_files import write_safetensors
from gpt2lab.training.objectives import Owned
from gpt2lab.training.optimizers import parameter_groups


class Multiplier(nn.Module):
    """A Lagrange multiplier λ = log(1 + exp(raw)), which stays positive under gradient ascent on `raw`."""

    def __init__(self, start: float = 1.0) -> None:
        super().__init__()
        if not start > 0:
            raise LabError(f"a multiplier starts above 0, got {start}")
        self.raw = nn.Parameter(torch.tensor(start, dtype=torch.float64).expm1().log().float())

    def forward(self) -> Tensor:
        """Return λ, a scalar with a gradient."""
        return F.softplus(self.raw)


def place(owned: Owned, device: torch.device, *, training: bool) -> None:
    """Put the modules on a device; those that train go into training or evaluation mode, the others into evaluation mode."""
    for one in owned.values():
        one.module.to(device).train(training and one.trains)


def add_groups(optimizer: Optimizer, owned: Owned) -> None:
    """Add groups for the modules' trainable parameters to an optimizer that has them not yet.

    LabError for a module to be maximised, and an optimizer whose groups have no `maximize`.
    """
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    first = optimizer.param_groups[0]
    usual = float(first.get("initial_lr", first["lr"]))
    for name, one in owned.items():
        if one.maximize and "maximize" not in optimizer.defaults:
            raise LabError(
                f"{name} is maximised, and {type(optimizer).__name__} has no `maximize`; take an optimizer that has"
            )
        for group in parameter_groups(one.module, one.weight_decay):
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in known]
            known |= {id(parameter) for parameter in group["params"]}
            if group["params"]:
                ascent = {"maximize": True} if one.maximize else {}
                rate = usual if one.learning_rate is None else one.learning_rate
                optimizer.add_param_group({**group, "lr": rate, **ascent})


def save_modules(folder: Path, owned: Owned) -> list[Path]:
    """Write NAME.safetensors for each module that trains, and return the files; a frozen one is what it was before."""
    written = []
    for name, one in owned.items():
        if one.trains:
            folder.mkdir(parents=True, exist_ok=True)
            tensors = {
                key: t.detach().cpu().contiguous().clone() for key, t in one.module.state_dict().items()
            }
            write_safetensors(tensors, folder / f"{name}.safetensors")
            written.append(folder / f"{name}.safetensors")
    return written
