"""Lion, the sign-momentum optimizer that Sophia is compared with (Chen et al. 2023, algorithm 2)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from gpt2lab.training.grouped import GroupedOptimizer, bunches, check_ranges, gradients, move, widened, zeros


class Lion(GroupedOptimizer):
    """u = sign(β₁ m + (1 - β₁) g); θ ← θ (1 - η λ) - η u; m ← β₂ m + (1 - β₂) g, m in float32.

    The betas are those of the Sophia paper's comparison. LabError for options out of range.
    """

    title = "lion"
    moments = ("momentum",)

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.95, 0.98),
        weight_decay: float = 0.2,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults)

    def check_group(self, group: dict[str, Any]) -> None:
        """LabError for options out of range."""
        check_ranges("lion", group, positive=("lr", "weight_decay"), below_one=("betas",))

    def update_group(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        """Algorithm 2, lines 4 to 8, for parameters of one group."""
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum"] = zeros(parameter)
        momenta = [self.state[parameter]["momentum"] for parameter in parameters]
        lr, (beta1, beta2) = float(group["lr"]), group["betas"]
        for _, (theta, narrow, momentum) in bunches(parameters, gradients(parameters, group), momenta):
            gradient = widened(narrow, momentum)
            update = torch._foreach_lerp(momentum, gradient, 1 - beta1)
            torch._foreach_sign_(update)  # Chen et al. 2023, algorithm 2
            move(theta, update, times=-lr, before=1 - lr * group["weight_decay"])
            torch._foreach_lerp_(momentum, gradient, 1 - beta2)
