"""Muon as Conda is compared with: orthogonalised momentum for hidden matrices, AdamW for the rest.

For a matrix W [r, c] (the "Moonlight" form of the Conda authors' code):

    buffer ← μ buffer + G;   u = G + μ buffer (Nesterov) or buffer
    O = NS5(u);   W ← W (1 - η λ);   W ← W - η · 0.2 √max(r, c) · O

`torch.optim.Muon` with adjust_lr_fn="match_rms_adamw" is the same but for rounding: its momentum is a mean instead of a
sum, which the orthogonalisation divides out. Its default "original" scales by √max(1, r/c) instead.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.papers.conda.optimizer import PROJECTED, matrices_and_others
from gpt2lab.train.optimizers import restore_state

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
Adjust = Literal["match_rms_adamw", "original"]
ADJUSTMENTS: tuple[Adjust, ...] = ("match_rms_adamw", "original")


def orthogonalised(matrix: Tensor, iterations: int = 5) -> Tensor:
    """Push the singular values of a matrix towards 1 by Newton-Schulz steps in bf16; zero stays zero.

    X ← a X + (b A + c A²) X with A = X Xᵀ, from X = matrix / (‖matrix‖ + 1e-7); they end between about 0.7 and 1.2.
    """
    a, b, c = _COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.mT if tall else matrix).to(torch.bfloat16)
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(Optimizer):
    """Muon for the groups with `orthogonal`, AdamW for all others.

    `for_model` makes the hidden matrices' groups orthogonal. Given bare parameters, those with two dimensions are. A
    group with `transposed` holds matrices stored [in, out]. LabError: options out of range, sparse gradients.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        *,
        nesterov: bool = True,
        adjust: Adjust = "match_rms_adamw",
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        orthogonal: bool | None = None,
    ) -> None:
        if not lr >= 0 or not weight_decay >= 0 or not eps >= 0:
            raise LabError(
                f"muon: lr, weight_decay and eps must not be negative, got {lr}, {weight_decay}, {eps}"
            )
        if not all(0 <= value < 1 for value in (momentum, *betas)):
            raise LabError(f"muon: momentum and betas must lie in [0, 1), got {momentum} and {betas}")
        if adjust not in ADJUSTMENTS:
            raise unknown("adjust", str(adjust), ADJUSTMENTS)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "adjust": adjust,
            "betas": betas,
            "eps": eps,
            "orthogonal": orthogonal,
            "transposed": False,
        }
        super().__init__(params, defaults)

    @classmethod
    def for_model(
        cls,
        model: nn.Module,
        *,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        adjust: Adjust = "match_rms_adamw",
        betas: tuple[float, float] = (0.9, 0.95),
        projected: tuple[str, ...] = PROJECTED,
    ) -> Self:
        """Orthogonalise the linear modules whose names match `projected`; the rest goes to AdamW at the same rate."""
        groups = matrices_and_others(model, projected, "orthogonal")
        return cls(
            groups,
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            nesterov=nesterov,
            adjust=adjust,
            betas=betas,
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # as torch's
        """Update every parameter that has a gradient; `closure` recomputes the loss first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None or not parameter.numel():
                    continue
                if parameter.grad.is_sparse:
                    raise LabError("muon: sparse gradients cannot be orthogonalised")
                if group["orthogonal"] or (group["orthogonal"] is None and parameter.dim() == 2):
                    self._orthogonal_step(parameter, group)
                else:
                    self._adamw_step(parameter, group)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a saved state in the types it was saved in."""
        super().load_state_dict(state_dict)
        restore_state(self, state_dict)

    def _orthogonal_step(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        dtype = torch.promote_types(parameter.dtype, torch.float32)
        gradient = parameter.grad.to(dtype)  # type: ignore[union-attr]  # step() left out those without
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        buffer = state["momentum"].mul_(group["momentum"]).add_(gradient)
        update = gradient + group["momentum"] * buffer if group["nesterov"] else buffer
        direction = orthogonalised(update.mT if group["transposed"] else update).to(dtype)
        rows, columns = direction.shape
        matched = group["adjust"] == "match_rms_adamw"
        factor = 0.2 * max(rows, columns) ** 0.5 if matched else max(1, rows / columns) ** 0.5
        direction = direction.mT if group["transposed"] else direction
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.copy_(parameter.to(dtype) - group["lr"] * factor * direction)

    def _adamw_step(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        dtype = torch.promote_types(parameter.dtype, torch.float32)
        gradient = parameter.grad.to(dtype)  # type: ignore[union-attr]  # step() left out those without
        if not state:
            state["first"], state["second"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
            state["steps"] = torch.zeros((), dtype=torch.int64)
        state["steps"] += 1
        t = int(state["steps"])
        first = state["first"].lerp_(gradient, 1 - beta1)
        second = state["second"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        denominator = (second / (1 - beta2**t)).sqrt_().add_(group["eps"])
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.copy_(parameter.to(dtype) - group["lr"] / (1 - beta1**t) * first / denominator)
