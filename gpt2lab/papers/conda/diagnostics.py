"""What an update looks like: the spectrum of the step that any optimizer takes on a matrix, and how a basis drifts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from gpt2lab.papers.conda.matrices import PROJECTED, matrices_and_others


@dataclass(frozen=True)
class Spectrum:
    """Of one update D [rows, columns] with singular values σ₁ ≥ … ≥ σ_k, k the smaller side."""

    condition: float
    """σ₁ / σ_k; inf for a singular matrix."""
    stable_rank: float
    """‖D‖² / σ₁², with the Frobenius norm."""
    effective_rank: float
    """exp of the entropy of σ_i / Σσ (Roy & Vetterli 2007)."""


def spectrum(update: Tensor) -> Spectrum:
    """Return the spectrum of an update; nan for one that is zero."""
    values = torch.linalg.svdvals(update.detach().double())
    if not values.numel() or values[0] == 0:
        return Spectrum(math.nan, math.nan, math.nan)
    shares = values / values.sum()
    entropy = -(shares * shares.clamp_min(1e-300).log()).sum()
    smallest = float(values[-1])
    return Spectrum(
        condition=float(values[0]) / smallest if smallest > 0 else math.inf,
        stable_rank=float(values.square().sum() / values[0] ** 2),
        effective_rank=float(entropy.exp()),
    )


def drift(old: Tensor, new: Tensor) -> float:
    """Mean over new directions (rows) of the largest |overlap| with an old one; 1 where the basis stays."""
    return float((new.double() @ old.double().mT).abs().amax(dim=-1).mean())


class UpdateWatch:
    """Records the spectra of the updates of a model's hidden matrices at chosen steps, for any optimizer.

    The update is what the step changed, without the weight decay: (W_before (1 - η λ) - W_after) / η. Bases of Conda are
    compared across every step that changes them.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, steps: Sequence[int]) -> None:
        """Watch the optimizer's steps of these numbers, the first being 1."""
        self.steps, self.number = frozenset(steps), 0
        self.spectra: list[Spectrum] = []
        self.drifts: list[float] = []
        self.optimizer = optimizer
        groups = matrices_and_others(model, PROJECTED, "matrix")
        self.matrices: list[Tensor] = [p for group in groups if group["matrix"] for p in group["params"]]
        self.before: list[Tensor] = []
        self.bases: dict[int, Tensor] = {}
        optimizer.register_step_pre_hook(self._start)
        optimizer.register_step_post_hook(self._stop)

    def median(self, name: str) -> float:
        """Return the mean over steps of the median over matrices of one quantity; nan without any."""
        count = sum(len(_each(matrix)) for matrix in self.matrices)
        values = torch.tensor([getattr(found, name) for found in self.spectra], dtype=torch.float64)
        return float(values.view(-1, count).nanmedian(dim=1).values.mean()) if len(values) else math.nan

    def _start(self, *_: object) -> None:
        self.number += 1
        if self.number in self.steps:
            self.before = [matrix.detach().clone() for matrix in self.matrices]

    def _stop(self, *_: object) -> None:
        if self.number in self.steps:
            rates = {id(p): group for group in self.optimizer.param_groups for p in group["params"]}
            for matrix, before in zip(self.matrices, self.before, strict=True):
                group = rates[id(matrix)]
                kept = 1 - group["lr"] * group.get("weight_decay", 0.0)
                step = (kept * before.double() - matrix.detach().double()) / max(group["lr"], 1e-30)
                self.spectra += [spectrum(one) for one in _each(step)]
        for index, matrix in enumerate(self.matrices):
            basis = self.optimizer.state.get(matrix, {}).get("basis")
            if basis is not None and basis is not self.bases.get(index):
                if index in self.bases:
                    self.drifts.append(drift(self.bases[index], basis))
                self.bases[index] = basis


def _each(matrix: Tensor) -> Sequence[Tensor]:
    """The matrices of a stack, or the one."""
    return matrix.unbind() if matrix.dim() > 2 else [matrix]
