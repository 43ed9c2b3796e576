"""Muon as Conda is compared with: orthogonalised momentum for hidden matrices, AdamW for the rest.

For a matrix W [r, c] (the "Moonlight" form of the Conda authors' code):

    buffer ← μ buffer + G;   u = G + μ buffer (Nesterov) or buffer
    O = NS5(u);   W ← W (1 - η λ);   W ← W - η · 0.2 √max(r, c) · O

Queries, keys and values, gates and ups are matrices of their own wherever the published model has them so
(`gpt2lab.model.matrices`): each is orthogonalised by itself and has the factor of its own shape.

`torch.optim.Muon` with adjust_lr_fn="match_rms_adamw" is the same but for rounding: its momentum is a mean instead of a
sum, which the orthogonalisation divides out. Its default "original" scales by √max(1, r/c) instead.
"""

from collections.abc import Iterable
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from gpt2lab.base.errors import unknown
from gpt2lab.papers.conda.matrices import FORM, PROJECTED, apart, is_matrix, matrices_and_others, together
from gpt2lab.training.grouped import (
    GroupedOptimizer,
    bunches,
    check_ranges,
    gradients,
    move,
    sharded,
    whole,
    widened,
    zeros,
)

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
Adjust = Literal["match_rms_adamw", "original"]
ADJUSTMENTS: tuple[Adjust, ...] = ("match_rms_adamw", "original")


def orthogonalised(matrix: Tensor, iterations: int = 5) -> Tensor:
    """Push the singular values of a matrix towards 1 by Newton-Schulz steps in bf16; zero stays zero.

    X ← a X + (b A + c A²) X with A = X Xᵀ, from X = matrix / (‖matrix‖ + 1e-7); they end between about 0.7 and 1.2.
    A stack of matrices [..., r, c] is treated matrix by matrix. CPUs multiply in float32 and round each product to bf16,
    which is what a bf16 product with float32 sums is; their own bf16 kernels take six to thirty times as long where the
    processor has no instruction for them (benchmarks/optimizers.py).
    """
    if matrix.dim() > 3:
        return orthogonalised(matrix.flatten(0, -3), iterations).view(matrix.shape)
    a, b, c = _COEFFICIENTS
    tall = matrix.shape[-2] > matrix.shape[-1]
    kind = torch.float32 if matrix.device.type == "cpu" else torch.bfloat16

    def rounded(values: Tensor) -> Tensor:
        return values.to(torch.bfloat16).to(kind)

    x = (matrix.mT if tall else matrix).to(torch.bfloat16)
    x = (x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)).to(kind)
    plus_product = torch.baddbmm if x.dim() > 2 else torch.addmm
    for _ in range(iterations):
        gram = rounded(x @ x.mT)
        # formula: Newton-Schulz step
        x = rounded(plus_product(x, rounded(plus_product(gram, gram, gram, beta=b, alpha=c)), x, beta=a))
    return (x.mT if tall else x).to(torch.bfloat16)


class Muon(GroupedOptimizer):
    """Muon for the groups with `orthogonal`, AdamW for all others.

    `for_model` makes the hidden matrices' groups orthogonal. Given bare parameters, those with two dimensions are. A
    group with `transposed` holds matrices stored [in, out], one with `stacked` [experts, out, in], one with `rows` tensors
    that hold several matrices of so many rows one below the other. A group may set any of the options for itself.
    LabError: options out of range, sparse or complex gradients.
    """

    title = "muon"
    moments = ("momentum", "first", "second")
    form = FORM

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
        maximize: bool = False,
        orthogonal: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "adjust": adjust,
            "betas": betas,
            "eps": eps,
            "orthogonal": orthogonal,
            "maximize": maximize,
            "transposed": False,
            "stacked": False,
            "rows": (),
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
        eps: float = 1e-8,
        maximize: bool = False,
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
            eps=eps,
            maximize=maximize,
        )

    def check_group(self, group: dict[str, Any]) -> None:
        """LabError for options out of range, and for what is to be made orthogonal and is no matrix."""
        check_ranges("muon", group, positive=("lr", "weight_decay", "eps"), below_one=("momentum", "betas"))
        if group["adjust"] not in ADJUSTMENTS:
            raise unknown("adjust", str(group["adjust"]), ADJUSTMENTS)
        for parameter in group["params"]:
            _is_orthogonal(parameter, group)

    def update_group(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        """Orthogonalise the matrices one by one and move the others as AdamW does."""
        for parameter in parameters:
            if _is_orthogonal(parameter, group):
                self._orthogonal_step(parameter, group)
        if plain := [parameter for parameter in parameters if not _is_orthogonal(parameter, group)]:
            self._adamw_step(plain, group)

    def _orthogonal_step(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = zeros(parameter)
        (gradient,) = widened(gradients([parameter], group), [state["momentum"]])
        buffer = state["momentum"].mul_(group["momentum"]).add_(gradient)
        update = gradient + group["momentum"] * buffer if group["nesterov"] else buffer
        gathered = whole(update)
        parts = [orthogonalised(part).to(gradient.dtype) for part in apart(gathered, group)]
        factors = [_factor(part, group["adjust"]) for part in parts]
        for part, factor in zip(parts[1:], factors[1:], strict=True):
            part.mul_(factor / factors[0])
        direction = together(parts, group)
        if gathered is not update:
            direction = sharded(direction, parameter)
        lr = float(group["lr"])
        # formula: W
        move([parameter], [direction], times=-lr * factors[0], before=1 - lr * group["weight_decay"])

    def _adamw_step(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        lr, (beta1, beta2) = float(group["lr"]), group["betas"]
        states = [self.state[parameter] for parameter in parameters]
        for state, parameter in zip(states, parameters, strict=True):
            if not state:
                state["first"], state["second"] = zeros(parameter), zeros(parameter)
                state["steps"] = torch.zeros((), dtype=torch.int64)
            state["steps"] += 1
        counts = [int(state["steps"]) for state in states]
        firsts, seconds = ([state[name] for state in states] for name in ("first", "second"))
        for rows, bunch in bunches(parameters, gradients(parameters, group), firsts, seconds):
            weights, narrow, first, second = bunch
            gradient = widened(narrow, first)
            torch._foreach_lerp_(first, gradient, 1 - beta1)
            torch._foreach_mul_(second, beta2)
            torch._foreach_addcmul_(second, gradient, gradient, 1 - beta2)
            denominator = torch._foreach_div(second, [1 - beta2 ** counts[row] for row in rows])
            torch._foreach_sqrt_(denominator)
            torch._foreach_add_(denominator, group["eps"])
            update = torch._foreach_div(first, denominator)
            torch._foreach_mul_(update, [1 / (1 - beta1 ** counts[row]) for row in rows])
            move(weights, update, times=-lr, before=1 - lr * group["weight_decay"])


def _factor(direction: Tensor, adjust: Adjust) -> float:
    """How far a matrix is moved, by its shape."""
    rows, columns = direction.shape[-2:]
    matched = adjust == "match_rms_adamw"
    factor: float = 0.2 * max(rows, columns) ** 0.5 if matched else max(1, rows / columns) ** 0.5
    return factor


def _is_orthogonal(parameter: Tensor, group: dict[str, Any]) -> bool:
    return is_matrix(parameter, group, group["orthogonal"], "muon: a parameter made orthogonal")
