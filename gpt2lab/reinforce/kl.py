"""How far a policy is from its reference: estimates, what they cost in reward, and controllers of that cost."""

import math
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.reinforce.masked import masked_mean

KLMode = Literal["add", "replace-last"]
"""Whether a text's score is added to the last token's KL term, or stands there alone."""


def kl_k1(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Return log π(a) - log ref(a), whose mean over a ~ π is KL(π ‖ ref); of any shape (Schulman 2020, k1)."""
    return logprobs - reference


def kl_k2(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Return ½ (log π(a) - log ref(a))²: biased, of little variance, never negative (Schulman 2020, k2)."""
    return 0.5 * (logprobs - reference).square()


def kl_k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Return (r - 1) - log r for r = ref(a)/π(a): unbiased over a ~ π and never negative (Schulman 2020, k3)."""
    ratio = reference - logprobs
    return ratio.exp() - 1 - ratio


def text_kl(logprobs: Tensor, reference: Tensor, mask: Tensor) -> float:
    """Return the mean over texts of Σ_t log π(a_t) - log ref(a_t), nats a text; all [rows, steps]."""
    return float(torch.where(mask, kl_k1(logprobs, reference), 0.0).sum(1).mean())


def token_rewards(
    scores: Tensor,
    mask: Tensor,
    *,
    logprobs: Tensor | None = None,
    reference: Tensor | None = None,
    coefficient: float = 0.0,
    mode: KLMode = "add",
) -> Tensor:
    """Return r_t = -κ (log π(a_t) - log ref(a_t)), with the text's score at its last token; [rows, steps], 0 at padding.

    scores [rows], or [rows, steps] of rewards for each token; the others [rows, steps]. A row without tokens gets nothing.
    "replace-last": the last token has the score without the KL term. Ziegler et al. 2019, eq. 2.
    """
    rewards = torch.zeros(mask.shape, dtype=scores.dtype, device=scores.device)
    if coefficient:
        if logprobs is None or reference is None:
            raise LabError("a KL coefficient needs the log-probabilities of policy and reference")
        rewards = -coefficient * torch.where(mask, kl_k1(logprobs, reference), 0.0).detach().to(scores.dtype)
    last = mask & ~torch.nn.functional.pad(mask[:, 1:], (0, 1))
    if scores.dim() == 1:
        scores = torch.where(last, scores[:, None], 0.0)
    if mode == "replace-last":
        rewards = rewards.masked_fill(last, 0.0)
    return torch.where(mask, rewards + scores, 0.0)


class Controller(Protocol):
    """Sets the coefficient of the KL term from one iteration to the next."""

    coefficient: float
    """κ, the price of a nat."""

    def update(self, kl: float, rows: int) -> None:
        """Hear the mean KL of an iteration, nats a text, and of how many texts."""
        ...

    def state(self) -> dict[str, float]:
        """Return what a checkpoint must hold."""
        ...

    def restore(self, state: dict[str, float]) -> None:
        """Put back what `state` returned."""
        ...


@dataclass
class FixedKL:
    """The coefficient stays."""

    coefficient: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.coefficient < math.inf:
            raise LabError(f"the KL coefficient must be finite and not negative, got {self.coefficient}")

    def update(self, kl: float, rows: int) -> None:
        """Change nothing."""

    def state(self) -> dict[str, float]:
        """Return the coefficient."""
        return {"coefficient": self.coefficient}

    def restore(self, state: dict[str, float]) -> None:
        """Put the coefficient back."""
        self.coefficient = state["coefficient"]


@dataclass
class TargetKL(FixedKL):
    """A coefficient that moves towards a target KL; base of those below."""

    target: float = 6.0
    """Nats a text."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.target < math.inf:
            raise LabError(f"the target KL must be positive, got {self.target}")


@dataclass
class AdaptiveKL(TargetKL):
    """κ ← κ (1 + clip(KL/target - 1, ±0.2) · rows/horizon) (Ziegler et al. 2019, section 2.2)."""

    horizon: float = 10_000.0
    """Texts over which the coefficient changes by the error."""
    clip: float = 0.2
    """Largest error that counts."""

    def update(self, kl: float, rows: int) -> None:
        """Move the coefficient by the clipped error."""
        error = max(-self.clip, min(self.clip, kl / self.target - 1))
        self.coefficient = max(0.0, self.coefficient * (1 + error * rows / self.horizon))


@dataclass
class ProportionalKL(TargetKL):
    """κ ← κ (1 + gain (KL/target - 1)), the error unclipped; κ stays at least 0."""

    gain: float = 0.1
    """Change of the coefficient, as a share of it, for an error of the target's size."""

    def update(self, kl: float, rows: int) -> None:
        """Move the coefficient by the error."""
        self.coefficient = max(0.0, self.coefficient * (1 + self.gain * (kl / self.target - 1)))


@dataclass
class AdamKL(TargetKL):
    """Dual ascent: κ ← Adam's step on the gradient -(KL - target), so that κ grows while the KL is too large.

    With `ball`, κ is kept at least 0: KL below the target is not paid for. Adam of Kingma & Ba 2015, algorithm 1.
    """

    learning_rate: float = 1e-3
    """Size of a step of κ."""
    ball: bool = True
    """Keep κ from becoming negative."""
    _moments: dict[str, float] = field(default_factory=lambda: {"first": 0.0, "second": 0.0, "steps": 0.0})

    def update(self, kl: float, rows: int) -> None:
        """Make one step of Adam."""
        gradient, moments = self.target - kl, self._moments
        moments["steps"] += 1
        moments["first"] = 0.9 * moments["first"] + 0.1 * gradient
        moments["second"] = 0.999 * moments["second"] + 0.001 * gradient**2
        first = moments["first"] / (1 - 0.9 ** moments["steps"])
        second = moments["second"] / (1 - 0.999 ** moments["steps"])
        self.coefficient -= self.learning_rate * first / (math.sqrt(second) + 1e-8)
        if self.ball:
            self.coefficient = max(0.0, self.coefficient)

    def state(self) -> dict[str, float]:
        """Return the coefficient and Adam's moments."""
        return {**super().state(), **self._moments}

    def restore(self, state: dict[str, float]) -> None:
        """Put both back."""
        super().restore(state)
        self._moments = {name: state[name] for name in self._moments}


def kl_numbers(logprobs: Tensor, reference: Tensor, mask: Tensor) -> dict[str, float]:
    """Return KL estimates for the log: `kl` (k1, nats a text), `kl_k1` and `kl_k3` (nats a token)."""
    return {
        "kl": text_kl(logprobs, reference, mask),
        "kl_k1": float(masked_mean(kl_k1(logprobs, reference), mask)),
        "kl_k3": float(masked_mean(kl_k3(logprobs, reference), mask)),
    }
