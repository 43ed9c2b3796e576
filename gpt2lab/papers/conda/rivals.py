"""What the study of Conda compares it with, beside Muon: AdamW, a control, SOAP on one side, Adafactor."""

from collections.abc import Iterable
from typing import Any, Self

import torch
from torch import Tensor, nn

from gpt2lab.papers.conda.matrices import PROJECTED, matrices_and_others
from gpt2lab.papers.conda.optimizer import Conda
from gpt2lab.training import parameter_groups


class AdamW(torch.optim.AdamW):
    """AdamW with the betas of the paper's GPT-2 runs, matrices and embeddings decayed."""

    @classmethod
    def for_model(cls, model: nn.Module, *, lr: float, weight_decay: float) -> Self:
        """Group a model's parameters."""
        return cls(parameter_groups(model, weight_decay), lr=lr, betas=(0.9, 0.95), fused=True)


class Control(torch.optim.AdamW):
    """AdamW with Conda's betas and decay, and its higher rate for embeddings and norms: `ratio` times the matrices'."""

    @classmethod
    def for_model(cls, model: nn.Module, *, lr: float, weight_decay: float, ratio: float) -> Self:
        """Group a model's parameters."""
        groups = matrices_and_others(model, PROJECTED, "matrix")
        for group in groups:
            group["lr"] = lr if group.pop("matrix") else ratio * lr
            group.pop("transposed", None)
            group.pop("stacked", None)
        return cls(groups, lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True)


class OneSidedSoap(Conda):
    """SOAP that rotates the smaller side alone (Vyas et al. 2024, arXiv 2409.11321, section 7).

    It is Conda with the eigenvectors of a running mean of GᵀG as its basis, taken every 10 updates as in the authors' runs,
    and the full learning rate for matrices. They are found exactly, where SOAP's code takes a step of orthogonal iteration.
    """

    @classmethod
    def for_model(cls, model: nn.Module, *, lr: float, weight_decay: float) -> Self:  # type: ignore[override]  # fixed options
        """Group a model's parameters as Conda does."""
        return super().for_model(
            model,
            lr=lr,
            weight_decay=weight_decay,
            basis_of="covariance",
            scale=1.0,
            refresh=10,
            betas=(0.9, 0.95),
        )


class Adafactor(torch.optim.Optimizer):
    """Adafactor with momentum and a learning rate of its own (Shazeer & Stern 2018, algorithms 4 and 5).

    Of the squared gradient of a matrix it keeps the means of rows and columns. With decay β₂ₜ = 1 - t^-0.8:

        R ← β₂ₜ R + (1 - β₂ₜ) mean over columns of G² + 1e-30;   C likewise over rows
        U = G / √(R C / mean(R));   U ← U / max(1, RMS(U));   M ← β₁ M + (1 - β₁) η U;   W ← W (1 - η λ) - M

    A vector keeps the whole of its squared gradient.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        beta1: float = 0.9,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "beta1": beta1, "weight_decay": weight_decay})

    @classmethod
    def for_model(cls, model: nn.Module, *, lr: float, weight_decay: float) -> Self:
        """Group a model's parameters: matrices and embeddings decay."""
        return cls(parameter_groups(model, weight_decay), lr=lr)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure is evaluated here
        """Take one step with the gradients that are there."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group)

    def _update(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        is_matrix = gradient.dim() > 1
        if not state:
            state["steps"], state["momentum"] = 0, torch.zeros_like(gradient)
            sides = (-1, -2) if is_matrix else (None,)
            means = [gradient if side is None else gradient.mean(side) for side in sides]
            state["means"] = [torch.zeros_like(mean) for mean in means]
        state["steps"] += 1
        kept, square = 1 - state["steps"] ** -0.8, gradient.square() + 1e-30
        if is_matrix:
            rows, columns = state["means"]
            rows.lerp_(square.mean(-1), 1 - kept)
            columns.lerp_(square.mean(-2), 1 - kept)
            share = rows / rows.mean(-1, keepdim=True)
            update = gradient * share.rsqrt().unsqueeze(-1) * columns.rsqrt().unsqueeze(-2)
        else:
            (mean,) = state["means"]
            mean.lerp_(square, 1 - kept)
            update = gradient * mean.rsqrt()
        update.div_(update.square().mean().sqrt().clamp_min(1.0)).mul_(group["lr"])
        state["momentum"].lerp_(update, 1 - group["beta1"])
        weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(state["momentum"])
