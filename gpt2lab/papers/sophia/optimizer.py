"""Sophia: momentum divided by a running mean of the Hessian's diagonal, clipped by coordinate.

Liu et al. 2023 (arXiv 2305.14342), algorithm 3, for every coordinate:

    m ← β₁ m + (1 - β₁) g
    h ← β₂ h + (1 - β₂) ĥ                      every k-th update only, ĥ from `estimators`
    θ ← θ - η λ θ
    θ ← θ - η clip(m / max(γ h, ε), 1)

The authors' code keeps h without the factor B of the Gauss-Newton-Bartlett estimate (B label terms in the mean) and
multiplies it back as `bs`: its `rho` is γ here, with h = B · h_code. The first version of the paper clipped m / max(h, ε)
at ρ instead; its learning rate times its ρ is the learning rate here, and its ρ is 1/γ up to that factor. Do not mix them.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.optimizer import Optimizer

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.model import Transformer
from gpt2lab.papers.sophia.estimators import (
    IGNORED,
    Noise,
    drawn_direction,
    filled,
    hessian_product,
    hutchinson,
    sampled_label_loss,
    squared,
)
from gpt2lab.train.objectives import Batch, Objective, next_token
from gpt2lab.train.optimizers import restore_state

Moment = Literal["before", "after"]


class Sophia(Optimizer):
    """What both forms share: the clipped step, the running curvature, and when the loop asks for a new estimate.

    State in float32 (float64 for float64 parameters): `momentum`, `curvature` (h with the factor B), and `refreshes`.
    Use `SophiaG` or `SophiaH`.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.965, 0.99),
        gamma: float = 0.05,
        eps: float = 1e-12,
        weight_decay: float = 0.1,
        *,
        refresh_every: int | None = 10,
        refresh_when: Moment = "after",
        curvature_rows: int | None = None,
        correct_curvature: bool = False,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "gamma": gamma, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)
        if refresh_every is not None and refresh_every < 1:
            raise LabError(
                f"sophia: refresh_every must be at least 1, or None for never, got {refresh_every}"
            )
        if curvature_rows is not None and curvature_rows < 1:
            raise LabError(
                f"sophia: curvature_rows must be at least 1, or None for all, got {curvature_rows}"
            )
        if refresh_when not in ("before", "after"):
            raise unknown("refresh_when", str(refresh_when), ("before", "after"))
        self.refresh_every, self.refresh_when = refresh_every, refresh_when
        self.curvature_rows, self.correct_curvature = curvature_rows, correct_curvature

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, its options checked."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for name in ("lr", "gamma", "eps", "weight_decay"):
            if not group[name] >= 0:  # also refuses NaN
                self.param_groups.pop()
                raise LabError(f"sophia: {name} (learning rate: lr) must not be negative, got {group[name]}")
        if not all(0 <= beta < 1 for beta in group["betas"]):
            self.param_groups.pop()
            raise LabError(f"sophia: betas must lie in [0, 1), got {group['betas']}")

    @classmethod
    def for_model(
        cls, model: nn.Module, *, lr: float = 1e-4, weight_decay: float = 0.1, **options: Any
    ) -> Self:
        """Group parameters as the paper does: matrices of linear maps decay, embeddings (tied heads) and vectors do not."""
        tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
        linear = {
            id(module.weight)
            for module in model.modules()
            if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
        }
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        decayed = [p for p in trained if id(p) in linear - tables]
        others = [p for p in trained if id(p) not in linear - tables]
        groups = [
            {"params": decayed, "weight_decay": weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return cls([group for group in groups if group["params"]], lr=lr, **options)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # as torch's
        """Update every parameter that has a gradient; `closure` recomputes the loss first.

        LabError if none has one, or one is sparse or complex.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        moved = False
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if any(p.grad.is_sparse or p.grad.is_complex() for p in parameters):
                raise LabError("sophia: sparse and complex gradients are not supported")
            moved = moved or bool(parameters)
            for parameter in parameters:
                self._move(parameter, group)
        if not moved:
            raise LabError("sophia: no parameter has a gradient; call backward() before step()")
        return loss

    @torch.no_grad()
    def add_curvature(self, estimates: Sequence[Tensor | None]) -> None:
        """h ← β₂ h + (1 - β₂) ĥ with an estimate for every parameter, in the order of the groups; None leaves it out."""
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        betas = [group["betas"][1] for group in self.param_groups for _ in group["params"]]
        for parameter, beta2, estimate in zip(parameters, betas, estimates, strict=True):
            if estimate is not None:
                state = self._prepared(parameter)
                state["curvature"].lerp_(estimate.to(state["curvature"].dtype), 1 - beta2)
                state["refreshes"] += 1

    @torch.no_grad()
    def unclipped_share(self) -> float:
        """Share of all coordinates with |m| < γ h, whose step is not clipped: the authors' win_rate, well at 0.1 to 0.5."""
        count, inside = 0, 0
        for group in self.param_groups:
            for parameter in group["params"]:
                if state := self.state.get(parameter):
                    scaled = group["gamma"] * self._curvature(state, group)
                    inside += int((state["momentum"].abs() < scaled).sum())
                    count += parameter.numel()
        return inside / count if count else 0.0

    @torch.no_grad()
    def curvature_norms(self) -> dict[str, float]:
        """L1 and L2 norm of h over all parameters."""
        every = [state["curvature"] for state in self.state.values() if state]
        return {
            "curvature_l1": sum(float(h.abs().sum(dtype=torch.float64)) for h in every),
            "curvature_l2": sum(float(h.double().square().sum()) for h in every) ** 0.5,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a saved state in the types it was saved in."""
        super().load_state_dict(state_dict)
        restore_state(self, state_dict)

    # What the training loop asks; see `gpt2lab.train.ReadsCurvature`.

    def refreshes(self, step: int) -> Moment | None:
        """Say whether an estimate follows update `step` (0 is the first; the code's order) or precedes it (the paper's)."""
        if self.refresh_every is None:
            return None
        turn = self.refresh_every - 1 if self.refresh_when == "after" else 0
        return self.refresh_when if step % self.refresh_every == turn else None

    def refresh(
        self, model: Transformer, batches: Sequence[Batch], objective: Objective, generator: torch.Generator
    ) -> dict[str, float]:
        """Estimate the curvature on `curvature_rows` rows of the batches; return win_rate and the norms of h.

        LabError for an objective other than next-token prediction, whose loss has no labels to draw here.
        """
        if objective is not next_token:
            raise LabError(
                f"sophia: the curvature is estimated for next-token prediction, not for {_name(objective)}; "
                "in a loop of your own, give add_curvature an estimate"
            )
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        self.add_curvature(self._estimate(model, _rows(batches, self.curvature_rows), parameters, generator))
        return {"win_rate": self.unclipped_share(), **self.curvature_norms()}

    def _estimate(
        self, model: Transformer, batches: list[Batch], parameters: list[Tensor], generator: torch.Generator
    ) -> list[Tensor]:
        raise NotImplementedError  # SophiaG, SophiaH

    def _prepared(self, parameter: Tensor) -> dict[str, Any]:
        state = self.state[parameter]
        if not state:
            dtype = torch.promote_types(parameter.dtype, torch.float32)
            for name in ("momentum", "curvature"):
                state[name] = torch.zeros_like(parameter, dtype=dtype, memory_format=torch.contiguous_format)
            state["refreshes"] = torch.zeros((), dtype=torch.int64)
        return state

    def _curvature(self, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        """h, divided by 1 - β₂ⁿ after n estimates if asked for."""
        count = int(state["refreshes"]) if self.correct_curvature else 0
        curvature: Tensor = state["curvature"]
        return curvature / (1 - group["betas"][1] ** count) if count else curvature

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        """Algorithm 3, lines 6 and 12 to 13, for one parameter."""
        state = self._prepared(parameter)
        assert parameter.grad is not None
        momentum = state["momentum"].lerp_(parameter.grad.to(state["momentum"].dtype), 1 - group["betas"][0])
        # max(γ h, ε) is ε wherever h is unknown or negative: there the clip makes the step η sign(m).
        scaled = (group["gamma"] * self._curvature(state, group)).clamp_(min=group["eps"])
        # ε = 0 would give 0/0 at coordinates without momentum; the authors' sign(m) · ratio is 0 there too.
        update = torch.where(momentum == 0, 0.0, momentum / scaled).clamp_(-1, 1)
        if group["weight_decay"]:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
        if parameter.dtype == update.dtype:
            parameter.add_(update, alpha=-group["lr"])
        else:
            parameter.copy_(parameter.to(update.dtype) - group["lr"] * update)


class SophiaG(Sophia):
    """Sophia with the Gauss-Newton-Bartlett estimate: squared gradients of a loss on labels that the model draws itself.

    gamma: about 0.05 at 0.5M tokens an update, growing with the root of their inverse number (`unclipped_share` tells).
    refresh_every: k; None never refreshes (sign momentum). refresh_when: "after" update k, 2k, ... on the next batch (the
    code), or "before" update 1, k+1, ... on its own batch (the paper). curvature_rows: rows of a batch that are used,
    None for all. clip: largest norm of the sampled gradient before it is squared (the code; None: no clip). vocab_size:
    draw only ids below it, for tables with padding rows. LabError: options out of range.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.965, 0.99),
        gamma: float = 0.05,
        eps: float = 1e-12,
        weight_decay: float = 0.1,
        *,
        refresh_every: int | None = 10,
        refresh_when: Moment = "after",
        curvature_rows: int | None = None,
        correct_curvature: bool = False,
        clip: float | None = 1.0,
        vocab_size: int | None = None,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            gamma,
            eps,
            weight_decay,
            refresh_every=refresh_every,
            refresh_when=refresh_when,
            curvature_rows=curvature_rows,
            correct_curvature=correct_curvature,
        )
        self.clip, self.vocab_size = clip, vocab_size

    @torch.no_grad()
    def update_curvature(self, terms: int) -> None:
        """Take the gradients now in `.grad`, of a mean over `terms` drawn labels, for an estimate: ĥ = terms · ĝ ∘ ĝ.

        For a loop of one's own; clip them before if you clip the others. Clear them afterwards. LabError unless terms >= 1.
        """
        if terms < 1:
            raise LabError(
                f"sophia: terms counts the labels in the mean of the loss, at least 1, got {terms}"
            )
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        self.add_curvature(
            [None if p.grad is None else terms * p.grad.to(torch.float32).square() for p in parameters]
        )

    def _estimate(
        self, model: Transformer, batches: list[Batch], parameters: list[Tensor], generator: torch.Generator
    ) -> list[Tensor]:
        counts = [int((batch["targets"] != IGNORED).sum()) for batch in batches]
        total = sum(counts)
        if not total:
            raise LabError("sophia: the batch has no targets to estimate the curvature from")
        mean = [torch.zeros((), device=model.device) for _ in parameters]
        for batch, count in zip(batches, counts, strict=True):
            if not count:
                continue
            loss = sampled_label_loss(
                model(batch["tokens"], attention_mask=batch.get("attention_mask")),
                generator=generator,
                keep=batch["targets"] != IGNORED,
                vocab_size=self.vocab_size,
            )
            gradients = torch.autograd.grad(loss * (count / total), parameters, allow_unused=True)
            mean = [a + b for a, b in zip(mean, filled(gradients, parameters), strict=True)]
        return squared(mean, terms=total, clip=self.clip)


class SophiaH(Sophia):
    """Sophia with Hutchinson's estimate: a random direction times the Hessian's product with it.

    noise: "normal" (the paper) or "rademacher" (±1, less variance). curvature_rows: 32 in the paper. The rest as in
    `SophiaG`. LabError: options out of range.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.965, 0.99),
        gamma: float = 0.01,
        eps: float = 1e-12,
        weight_decay: float = 0.1,
        *,
        refresh_every: int | None = 10,
        refresh_when: Moment = "after",
        curvature_rows: int | None = 32,
        correct_curvature: bool = False,
        noise: Noise = "normal",
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            gamma,
            eps,
            weight_decay,
            refresh_every=refresh_every,
            refresh_when=refresh_when,
            curvature_rows=curvature_rows,
            correct_curvature=correct_curvature,
        )
        if noise not in ("normal", "rademacher"):
            raise unknown("noise", str(noise), ("normal", "rademacher"))
        self.noise: Noise = noise

    def update_curvature(self, loss: Tensor, generator: torch.Generator | None = None) -> None:
        """Estimate from a loss that can be differentiated twice; see `hutchinson`. For a loop of one's own."""
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        self.add_curvature(hutchinson(loss, parameters, generator=generator, noise=self.noise))

    def _estimate(
        self, model: Transformer, batches: list[Batch], parameters: list[Tensor], generator: torch.Generator
    ) -> list[Tensor]:
        total = sum(int((batch["targets"] != IGNORED).sum()) for batch in batches)
        if not total:
            raise LabError("sophia: the batch has no targets to estimate the curvature from")
        directions = [drawn_direction(p, self.noise, generator) for p in parameters]
        mean = [torch.zeros((), device=model.device) for _ in parameters]
        # Products with the Hessian in bf16 are mostly rounding; the fused attention has no second derivative.
        with torch.autocast(model.device.type, enabled=False), sdpa_kernel(SDPBackend.MATH):
            for batch in batches:
                logits = model(batch["tokens"], attention_mask=batch.get("attention_mask"))
                targets = batch["targets"].flatten()
                loss = F.cross_entropy(
                    logits.flatten(0, 1).float(), targets, ignore_index=IGNORED, reduction="sum"
                )
                products = hessian_product(loss / total, parameters, directions)
                mean = [a + b for a, b in zip(mean, products, strict=True)]
        return [u * product for u, product in zip(directions, mean, strict=True)]


def _rows(batches: Sequence[Batch], limit: int | None) -> list[Batch]:
    """The first `limit` rows of the micro-batches together."""
    kept = list[Batch]()
    left = limit
    for batch in batches:
        rows = len(batch["tokens"]) if left is None else min(left, len(batch["tokens"]))
        if rows:
            kept.append({name: tensor[:rows] for name, tensor in batch.items()})
        left = None if left is None else left - rows
    return kept


def _name(objective: Objective) -> str:
    return getattr(objective, "__name__", type(objective).__name__)
