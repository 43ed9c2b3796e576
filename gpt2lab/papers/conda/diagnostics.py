"""What an update looks like: the spectrum of the step that any optimizer takes on a matrix, and how a basis drifts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from gpt2lab.measures.spectra import effective_rank, stable_rank
from gpt2lab.papers.conda.matrices import PROJECTED, apart, matrices_and_others


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
    smallest = float(values[-1])
    return Spectrum(
        condition=float(values[0]) / smallest if smallest > 0 else math.inf,
        stable_rank=stable_rank(values.cpu().numpy()),
        effective_rank=effective_rank(values.cpu().numpy()),
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
        self.weights: list[tuple[Tensor, dict[str, Any]]] = [
            (weight, group) for group in groups if group["matrix"] for weight in group["params"]
        ]
        self.before: list[Tensor] = []
        self.bases: dict[tuple[int, str], Tensor] = {}
        optimizer.register_step_pre_hook(self._start)
        optimizer.register_step_post_hook(self._stop)

    def median(self, name: str) -> float:
        """Return the mean over steps of the median over matrices of one quantity; nan without any."""
        count = sum(len(_each(weight, group)) for weight, group in self.weights)
        values = torch.tensor([getattr(found, name) for found in self.spectra], dtype=torch.float64)
        return float(values.view(-1, count).nanmedian(dim=1).values.mean()) if len(values) else math.nan

    def _start(self, *_: object) -> None:
        self.number += 1
        if self.number in self.steps:
            self.before = [weight.detach().clone() for weight, _ in self.weights]

    def _stop(self, *_: object) -> None:
        if self.number in self.steps:
            rates = {id(p): group for group in self.optimizer.param_groups for p in group["params"]}
            for (weight, stored), before in zip(self.weights, self.before, strict=True):
                group = rates[id(weight)]
                kept = 1 - group["lr"] * group.get("weight_decay", 0.0)
                step = (kept * before.double() - weight.detach().double()) / max(group["lr"], 1e-30)
                self.spectra += [spectrum(one) for one in _each(step, stored)]
        for index, weight in enumerate(weight for weight, _ in self.weights):
            for name, basis in self.optimizer.state.get(weight, {}).items():
                place = index, name
                if name.startswith("basis") and "left" not in name and basis is not self.bases.get(place):
                    if place in self.bases:
                        self.drifts.append(drift(self.bases[place], basis))
                    self.bases[place] = basis


def _each(tensor: Tensor, group: Mapping[str, Any]) -> list[Tensor]:
    """The matrices of a parameter, one by one."""
    return [one for part in apart(tensor, group) for one in part.reshape(-1, *part.shape[-2:])]
