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

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.model import Transformer
from gpt2lab.papers.sophia.estimators import (
    Noise,
    drawn_direction,
    filled,
    hessian_product,
    hutchinson,
    squared,
)
from gpt2lab.papers.sophia.losses import Sample, drawn_sample, require_labels
from gpt2lab.training.grouped import (
    GroupedOptimizer,
    Ready,
    bunches,
    check_count,
    check_ranges,
    gradients,
    move,
    whole,
    wide,
    widened,
    zeros,
)
from gpt2lab.training.micro_batches import Batch
from gpt2lab.training.objectives import LossFunction, Objective
from gpt2lab.training.optimizers import linear_weights

Moment = Literal["before", "after"]


class Sophia(GroupedOptimizer):
    """What both forms share: the clipped step, the running curvature, and when the loop asks for a new estimate.

    State in float32 (float64 for float64 parameters): `momentum`, `curvature` (h with the factor B), and `refreshes`.
    Use `SophiaG` or `SophiaH`.
    """

    title = "sophia"
    moments = ("momentum", "curvature")
    options = (
        "refresh_every",
        "refresh_when",
        "curvature_rows",
        "correct_curvature",
        "clip",
        "vocab_size",
        "noise",
    )

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
        maximize: bool = False,
    ) -> None:
        check_count("sophia", "refresh_every", refresh_every, none="never")
        check_count("sophia", "curvature_rows", curvature_rows, none="all")
        if refresh_when not in ("before", "after"):
            raise unknown("refresh_when", str(refresh_when), ("before", "after"))
        self.refresh_every, self.refresh_when = refresh_every, refresh_when
        self.curvature_rows, self.correct_curvature = curvature_rows, correct_curvature
        defaults = {"lr": lr, "betas": betas, "gamma": gamma, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "maximize": maximize})

    def check_group(self, group: dict[str, Any]) -> None:
        """LabError for options out of range."""
        check_ranges("sophia", group, positive=("lr", "gamma", "eps", "weight_decay"), below_one=("betas",))

    @classmethod
    def for_model(
        cls, model: nn.Module, *, lr: float = 1e-4, weight_decay: float = 0.1, **options: Any
    ) -> Self:
        """Group parameters as the paper does: matrices of linear maps decay, embeddings (tied heads) and vectors do not."""
        tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
        linear = {id(matrix.weight) for matrix in linear_weights(model)}
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        decayed = [p for p in trained if id(p) in linear - tables]
        others = [p for p in trained if id(p) not in linear - tables]
        groups = [
            {"params": decayed, "weight_decay": weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return cls([group for group in groups if group["params"]], lr=lr, **options)

    def check_gradients(self, ready: Ready) -> None:
        """LabError if no parameter has a gradient, or one is sparse or complex."""
        super().check_gradients(ready)
        if not any(parameters for _, parameters in ready):
            raise LabError("sophia: no parameter has a gradient; call backward() before step()")

    def update_group(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        """Algorithm 3, lines 6 and 12 to 13, for parameters of one group."""
        states = [self._prepared(parameter) for parameter in parameters]
        factors = [group["gamma"] * self._correction(state, group) for state in states]
        lr, decay = float(group["lr"]), float(group["weight_decay"])
        momenta, curvatures = ([state[name] for state in states] for name in self.moments)
        for rows, bunch in bunches(parameters, gradients(parameters, group), momenta, curvatures):
            theta, gradient, momentum, curvature = bunch
            # algorithm 3, line 6
            torch._foreach_lerp_(momentum, widened(gradient, momentum), 1 - group["betas"][0])
            # max(γ h, ε) is ε wherever h is unknown or negative: there the clip makes the step η sign(m).
            scaled = torch._foreach_mul(curvature, [factors[row] for row in rows])
            torch._foreach_clamp_min_(scaled, group["eps"])
            update = list(torch._foreach_div(momentum, scaled))
            if not group["eps"]:  # 0/0 where there is no momentum; the authors' sign(m) · ratio is 0 there
                update = [u.masked_fill_(m == 0, 0.0) for u, m in zip(update, momentum, strict=True)]
            torch._foreach_clamp_min_(update, -1.0)  # algorithm 3, line 13: clip
            torch._foreach_clamp_max_(update, 1.0)
            move(theta, update, times=-lr, before=1 - lr * decay)  # algorithm 3, lines 12 and 13

    @torch.no_grad()
    def add_curvature(self, estimates: Sequence[Tensor | None]) -> None:
        """h ← β₂ h + (1 - β₂) ĥ with an estimate for every parameter, in the order of the groups; None leaves it out.

        LabError, before anything changes: another number of estimates, another shape, or one that is not finite.
        """
        parameters = self._parameters()
        if len(estimates) != len(parameters):
            raise LabError(
                f"sophia: {len(estimates)} curvature estimates for {len(parameters)} parameters; None leaves one out"
            )
        for parameter, estimate in zip(parameters, estimates, strict=True):
            if estimate is None:
                continue
            if estimate.shape != parameter.shape:
                raise LabError(
                    f"sophia: a curvature estimate of shape {list(estimate.shape)} for a parameter of shape "
                    f"{list(parameter.shape)}"
                )
            if not bool(whole(torch.isfinite(estimate).all())):
                raise LabError(
                    "sophia: the curvature estimate is not finite; the running one is kept as it is"
                )
        betas = [group["betas"][1] for group in self.param_groups for _ in group["params"]]
        for parameter, beta2, estimate in zip(parameters, betas, estimates, strict=True):
            if estimate is not None:
                state = self._prepared(parameter)
                state["curvature"].lerp_(estimate.to(state["curvature"].dtype), 1 - beta2)  # algorithm 3: h
                state["refreshes"] += 1

    @torch.no_grad()
    def unclipped_share(self) -> float:
        """Share of all coordinates with |m| < γ h, whose step is not clipped: the authors' win_rate, well at 0.1 to 0.5."""
        count, inside = 0, 0
        for group in self.param_groups:
            for parameter in group["params"]:
                if state := self.state.get(parameter):
                    scaled = state["curvature"] * (group["gamma"] * self._correction(state, group))
                    inside += int(whole((state["momentum"].abs() < scaled).sum()))
                    count += parameter.numel()
        return inside / count if count else 0.0

    @torch.no_grad()
    def curvature_norms(self) -> dict[str, float]:
        """L1 and L2 norm of h over all parameters."""
        # In the order of the parameters: a loaded state has another, and a sum in another order other last bits.
        every = [state["curvature"] for p in self._parameters() if (state := self.state.get(p))]
        return {
            "curvature_l1": sum(float(whole(h.abs().sum(dtype=torch.float64))) for h in every),
            "curvature_l2": sum(float(whole(h.double().square().sum())) for h in every) ** 0.5,
        }

    # What the training loop asks; see `gpt2lab.training.ReadsCurvature`.

    def refreshes(self, step: int) -> Moment | None:
        """Say whether an estimate follows update `step` (0 is the first; the code's order) or precedes it (the paper's)."""
        if self.refresh_every is None:
            return None
        turn = self.refresh_every - 1 if self.refresh_when == "after" else 0
        return self.refresh_when if step % self.refresh_every == turn else None

    def refresh(
        self,
        model: Transformer,
        batches: Sequence[Batch],
        objective: Objective | LossFunction,
        generator: torch.Generator,
    ) -> dict[str, float]:
        """Estimate the curvature on `curvature_rows` rows of the batches; return win_rate and the norms of h.

        Frozen parameters are left out. LabError for an objective that has no labels to draw (Sophia-G) or no second
        derivative (Sophia-H), and for batches without a target.
        """
        sample = drawn_sample(model, batches, objective, rows=self.curvature_rows)
        trained = [parameter for parameter in self._parameters() if parameter.requires_grad]
        found = self._estimate(sample, trained, generator)
        estimates = dict(zip(map(id, trained), found, strict=True))
        self.add_curvature([estimates.get(id(parameter)) for parameter in self._parameters()])
        return {"win_rate": self.unclipped_share(), **self.curvature_norms()}

    def _estimate(self, sample: Sample, parameters: list[Tensor], generator: torch.Generator) -> list[Tensor]:
        raise NotImplementedError  # SophiaG, SophiaH

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def _prepared(self, parameter: Tensor) -> dict[str, Any]:
        state = self.state[parameter]
        if not state:
            state["momentum"], state["curvature"] = zeros(parameter), zeros(parameter)
            state["refreshes"] = torch.zeros((), dtype=torch.int64)
        return state

    def _correction(self, state: dict[str, Any], group: dict[str, Any]) -> float:
        """1 / (1 - β₂ⁿ) after n estimates if asked for, else 1."""
        count = int(state["refreshes"]) if self.correct_curvature else 0
        return float(1 / (1 - group["betas"][1] ** count)) if count else 1.0


class SophiaG(Sophia):
    """Sophia with the Gauss-Newton-Bartlett estimate: squared gradients of a loss on labels that the model draws itself.

    gamma: about 0.05 at 0.5M tokens an update, growing with the root of their inverse number (`unclipped_share` tells).
    refresh_every: k; None never refreshes (sign momentum). refresh_when: "after" update k, 2k, ... on the next batch (the
    code), or "before" update 1, k+1, ... on its own batch (the paper). curvature_rows: rows of a batch that are used,
    None for all. correct_curvature: divide h by 1 - β₂ⁿ after n estimates. maximize: ascend. clip: largest norm of the
    sampled gradient before it is squared in `refresh` (the code; None or 0: no clip). vocab_size: draw only ids below it,
    for tables with padding rows. A group may have its own lr, betas, gamma, eps, weight_decay and maximize. LabError:
    options out of range.
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
        maximize: bool = False,
        clip: float | None = 1.0,
        vocab_size: int | None = None,
    ) -> None:
        check_ranges("sophia", {"clip": clip or 0}, positive=("clip",))
        check_count("sophia", "vocab_size", vocab_size, none="all")
        self.clip, self.vocab_size = clip, vocab_size
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
            maximize=maximize,
        )

    def check_objective(self, objective: Objective | LossFunction) -> None:
        """LabError for an objective that has no labels to draw, unless curvature is never estimated."""
        if self.refresh_every is not None:
            require_labels(objective)

    @torch.no_grad()
    def update_curvature(self, terms: int) -> None:
        """Take the gradients now in `.grad`, of a mean over `terms` drawn labels, for an estimate: ĥ = terms · ĝ ∘ ĝ.

        For a loop of one's own: clip them before if you clip the others (`clip` is not used here), clear them afterwards.
        Under data parallelism `.grad` is the mean over all ranks already, and `terms` counts the labels of all.
        LabError unless terms >= 1 and every gradient is dense, real and finite.
        """
        check_count("sophia", "terms, the number of labels in the mean of the loss,", terms)
        parameters = self._parameters()
        self.check_gradients([({}, [p for p in parameters if p.grad is not None])])
        self.add_curvature(
            [None if p.grad is None else squared([p.grad.to(wide(p))], terms=terms)[0] for p in parameters]
        )

    def _estimate(self, sample: Sample, parameters: list[Tensor], generator: torch.Generator) -> list[Tensor]:
        require_labels(sample.objective)
        mean = [torch.zeros((), device=parameter.device) for parameter in parameters]
        for batch, share in sample.parts:
            loss = sample.sampled(batch, share, generator, self.vocab_size)
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
            mean = [a + b for a, b in zip(mean, filled(found, parameters), strict=True)]
        return squared(mean, terms=sample.terms, clip=self.clip)


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
        maximize: bool = False,
        noise: Noise = "normal",
    ) -> None:
        if noise not in ("normal", "rademacher"):
            raise unknown("noise", str(noise), ("normal", "rademacher"))
        self.noise: Noise = noise
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
            maximize=maximize,
        )

    def update_curvature(self, loss: Tensor, generator: torch.Generator | None = None) -> None:
        """Estimate from a loss that can be differentiated twice; see `hutchinson`. For a loop of one's own.

        The loss's graph is used up. Under data parallelism every rank must get the same h: average the estimates of
        `hutchinson` over the ranks and hand them to `add_curvature` instead.
        """
        trained = [parameter for parameter in self._parameters() if parameter.requires_grad]
        found = hutchinson(loss, trained, generator=generator, noise=self.noise)
        estimates = dict(zip(map(id, trained), self._descending(found, trained), strict=True))
        self.add_curvature([estimates.get(id(parameter)) for parameter in self._parameters()])

    def _descending(self, estimates: list[Tensor], parameters: list[Tensor]) -> list[Tensor]:
        """Estimates for what is descended: the negative ones where a group ascends."""
        ascends = {id(p) for group in self.param_groups if group["maximize"] for p in group["params"]}
        return [-e if id(p) in ascends else e for e, p in zip(estimates, parameters, strict=True)]

    def _estimate(self, sample: Sample, parameters: list[Tensor], generator: torch.Generator) -> list[Tensor]:
        directions = [drawn_direction(p, self.noise, generator) for p in parameters]
        mean = [torch.zeros((), device=parameter.device) for parameter in parameters]
        model = sample.model
        checkpointing, model.gradient_checkpointing = model.gradient_checkpointing, False
        try:
            # Products with the Hessian in bf16 are mostly rounding. Neither fused attention nor compiled or checkpointed
            # blocks have a second derivative.
            with (
                torch.autocast(model.device.type, enabled=False),
                sdpa_kernel(SDPBackend.MATH),
                torch.compiler.set_stance("force_eager"),
            ):
                for batch, share in sample.parts:
                    loss = sample.plain(batch, share)
                    products = hessian_product(loss, parameters, directions)
                    mean = [a + b for a, b in zip(mean, products, strict=True)]
        finally:
            model.gradient_checkpointing = checkpointing
        found = [u * product for u, product in zip(directions, mean, strict=True)]
        return self._descending(found, parameters)
