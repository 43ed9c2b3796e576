"""Lion, the sign-momentum optimizer that Sophia is compared with (Chen et al. 2023, algorithm 2)."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from gpt2lab.base.errors import LabError
from gpt2lab.train.optimizers import restore_state


class Lion(Optimizer):
    """u = sign(β₁ m + (1 - β₁) g); θ ← θ (1 - η λ) - η u; m ← β₂ m + (1 - β₂) g, m in float32.

    The betas are those of the Sophia paper's comparison. LabError for options out of range.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.95, 0.98),
        weight_decay: float = 0.2,
    ) -> None:
        if not lr >= 0 or not weight_decay >= 0:
            raise LabError(f"lion: lr and weight_decay must not be negative, got {lr} and {weight_decay}")
        if not all(0 <= beta < 1 for beta in betas):
            raise LabError(f"lion: betas must lie in [0, 1), got {betas}")
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a saved state in the types it was saved in."""
        super().load_state_dict(state_dict)
        restore_state(self, state_dict)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # as torch's
        """Update every parameter that has a gradient; `closure` recomputes the loss first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                gradient = parameter.grad.to(torch.promote_types(parameter.dtype, torch.float32))
                if not state:
                    state["momentum"] = torch.zeros_like(gradient)
                update = state["momentum"].lerp(gradient, 1 - beta1).sign_()
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.copy_(parameter - group["lr"] * update)
                state["momentum"].lerp_(gradient, 1 - beta2)
        return loss
