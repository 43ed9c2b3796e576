"""Training what pruning has left (Han et al. 2015, section 3.3: the pruned connections are not restored)."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

from gpt2lab import LabError


class MaskedAdamW(AdamW):
    """AdamW under which an entry of a matrix that is zero stays zero.

    There is no mask to keep: what is zero before an update is zero after it. A matrix that is zero as a whole, such as
    a new adapter's, is trained like any other. LabError unless lr > 0 and weight_decay >= 0.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if not lr > 0 or not weight_decay >= 0:
            raise LabError(
                f"masked-adamw: lr must be above 0, weight_decay at least 0, got {lr}, {weight_decay}"
            )
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # as torch's
        """Update every parameter that has a gradient; `closure` recomputes the loss first."""
        matrices = [p for group in self.param_groups for p in group["params"] if p.dim() >= 2]
        pruned = [(matrix, matrix == 0) for matrix in matrices]
        loss = super().step(closure)
        for matrix, mask in pruned:
            if not bool(mask.all()):
                matrix.masked_fill_(mask, 0)
        return loss
