"""The method: signSGD (Bernstein et al. 2018, algorithm 1 on one worker), with decoupled weight decay."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from gpt2lab.base.errors import LabError


class ExampleOptimizer(Optimizer):
    """x ← x - lr · (sign(g) + weight_decay · x).

    LabError unless lr > 0 and weight_decay >= 0.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        weight_decay: float = 0.0,
    ) -> None:
        if not lr > 0 or not weight_decay >= 0:
            raise LabError(f"lr must be above 0 and weight_decay at least 0, got {lr} and {weight_decay}")
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # as torch's
        """Update every parameter that has a gradient; `closure` recomputes the loss first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(parameter.grad.sign(), alpha=-group["lr"])
        return loss
