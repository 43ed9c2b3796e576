"""Algorithms: what each token of an iteration's texts was worth, and the loss that makes the good ones likelier.

An algorithm is a frozen dataclass of options. It never sees a model: `credit` turns rewards into advantages once an
iteration, `loss` compares what the policy says now with what it said then, minibatch by minibatch.
"""

from collections.abc import MutableMapping
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.reinforce.advantages import (
    Estimate,
    discounted_returns,
    gae,
    group_advantages,
    leave_one_out,
    spread,
)
from gpt2lab.reinforce.kl import kl_k3
from gpt2lab.reinforce.losses import policy_loss, reinforce_loss, value_loss
from gpt2lab.reinforce.masked import Average, masked_mean, whiten
from gpt2lab.reinforce.rollouts import Rollouts

Memory = MutableMapping[str, float]
"""Numbers that live from one iteration to the next and are checkpointed."""
Baseline = Literal["none", "batch-mean", "moving-average", "leave-one-out", "greedy"]
"""What a return is compared with; "greedy" is the reward of the policy's greedy text (Rennie et al. 2017)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Experience:
    """The texts of an iteration and all that was known of them before the first update; [rows, steps] if not said."""

    rollouts: Rollouts
    rewards: Tensor
    """Of each token, the KL term included."""
    logprobs: Tensor
    """log π_old of each token under the distribution that ratios are of."""
    model_logprobs: Tensor
    """The same under the policy's own softmax, as the reference's are."""
    values: Tensor | None = None
    """V of the state before each token, if there is a critic."""
    reference: Tensor | None = None
    """log p of each token under the reference's own softmax, if there is one."""
    greedy: Tensor | None = None
    """Rewards of the greedy texts of the same prompts, [rows]."""
    advantages: Tensor | None = None
    returns: Tensor | None = None

    def select(self, rows: Tensor) -> "Experience":
        """Return a minibatch; rows [n] int64."""
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        here = rows.to(self.rewards.device)
        tensors = {name: x[here] for name, x in every.items() if isinstance(x, Tensor)}
        return replace(self, rollouts=self.rollouts.select(rows), **tensors)


@dataclass(frozen=True, kw_only=True, eq=False)
class Now:
    """What policy and critic say of a minibatch now, with gradients; [rows, steps]."""

    logprobs: Tensor
    """Under the distribution that ratios are of: the one that tokens are drawn from, or the model's own."""
    model_logprobs: Tensor
    """Under the model's own softmax, as the reference's are."""
    entropy: Tensor
    values: Tensor | None


class Algorithm(Protocol):
    """What the trainer asks of an algorithm."""

    reads_values: ClassVar[bool]
    """Whether it needs a critic."""

    @property
    def epochs(self) -> int:
        """How many times an iteration's texts are gone through."""
        ...

    @property
    def target_kl(self) -> float | None:
        """KL from the policy at the iteration's begin (nats a token) beyond 1.5 times which its updates end; None: never."""
        ...

    @property
    def reads_greedy(self) -> bool:
        """Whether it needs the reward of a greedy text for each prompt."""
        ...

    @property
    def reads_reference(self) -> bool:
        """Whether its loss needs a reference."""
        ...

    def credit(self, experience: Experience, memory: Memory) -> Estimate:
        """Return advantages and returns, [rows, steps]."""
        ...

    def loss(self, now: Now, then: Experience) -> tuple[Tensor, dict[str, float]]:
        """Return a minibatch's loss and numbers for the log; `then` has advantages and returns."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Options:
    """What all algorithms have."""

    reads_values: ClassVar[bool] = False

    epochs: int = 1
    """How many times an iteration's texts are gone through."""
    target_kl: float | None = None
    """Nats a token; beyond 1.5 times as many the updates of an iteration end. None: never."""
    entropy_weight: float = 0.0
    """How much a nat of entropy of the distribution that tokens are drawn from is worth."""

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise LabError(f"epochs must be at least 1, got {self.epochs}")
        if self.target_kl is not None and not self.target_kl > 0:
            raise LabError(f"target_kl must be positive, got {self.target_kl}; leave it out for no limit")

    @property
    def reads_greedy(self) -> bool:
        """No greedy texts are needed."""
        return False

    @property
    def reads_reference(self) -> bool:
        """The loss has no reference in it."""
        return False

    def _with_entropy(
        self, loss: Tensor, now: Now, then: Experience, numbers: dict[str, float]
    ) -> tuple[Tensor, dict[str, float]]:
        """Take weight · mean H over the policy's own tokens off a loss, and log H."""
        entropy = masked_mean(now.entropy, then.rollouts.update_mask)
        if self.entropy_weight:
            loss = loss - self.entropy_weight * entropy
        return loss, {**numbers, "entropy": float(entropy.detach())}


@dataclass(frozen=True, kw_only=True)
class PPO(_Options):
    """Clipped policy gradient with a critic and generalised advantage estimation (Schulman et al. 2017, eq. 9)."""

    reads_values: ClassVar[bool] = True

    epochs: int = 4
    """How many times an iteration's texts are gone through."""
    gamma: float = 1.0
    """Discount a token."""
    lam: float = 0.95
    """λ of the advantage estimate: 1 trusts returns, 0 the critic."""
    clip: float = 0.2
    """ε: how far a token's probability ratio may go from 1 before the gain stops."""
    value_clip: float | None = 0.2
    """How far V may move in an iteration before its loss stops falling; None for the plain squared error."""
    value_weight: float = 0.5
    """Factor of the critic's loss."""
    whiten: bool = True
    """Advantages are centred and divided by their standard deviation, over the tokens that the policy learns from."""
    floor: float = 1e-8
    """Added to that standard deviation; 0.3 keeps rare 0/1 rewards from becoming noise."""

    def credit(self, experience: Experience, memory: Memory) -> Estimate:
        """Return advantages by GAE, whitened if asked for, and the returns that the critic learns."""
        made = experience.rollouts
        if experience.values is None:
            raise LabError("ppo needs a critic")
        found = gae(experience.rewards, experience.values, made.mask, gamma=self.gamma, lam=self.lam)
        if not self.whiten:
            return found
        return found._replace(advantages=whiten(found.advantages, made.update_mask, floor=self.floor))

    def loss(self, now: Now, then: Experience) -> tuple[Tensor, dict[str, float]]:
        """Return the policy's loss, the critic's, and what the entropy is worth."""
        made = then.rollouts
        assert (
            then.advantages is not None and then.returns is not None and now.values is not None
        )  # one condition
        policy, numbers = policy_loss(
            now.logprobs, then.logprobs, then.advantages, made.update_mask, clip=self.clip
        )
        value = value_loss(now.values, then.returns, made.value_mask, old=then.values, clip=self.value_clip)
        numbers |= {"policy_loss": float(policy.detach()), "value_loss": float(value.detach())}
        return self._with_entropy(policy + self.value_weight * value, now, then, numbers)


@dataclass(frozen=True, kw_only=True)
class Reinforce(_Options):
    """-mean (G_t - b) log π(a_t) with a baseline b that no critic is needed for (Williams 1992)."""

    gamma: float = 1.0
    """Discount a token."""
    baseline: Baseline = "batch-mean"
    """b: nothing, the mean return of the iteration, of earlier ones, of the prompt's other samples, or the greedy text's."""
    decay: float = 0.9
    """Of the moving average, an iteration."""
    whiten: bool = False
    """Divide advantages by their standard deviation, and centre them."""

    @property
    def reads_greedy(self) -> bool:
        """The greedy text is the baseline."""
        return self.baseline == "greedy"

    def credit(self, experience: Experience, memory: Memory) -> Estimate:
        """Return G_t - b at each token."""
        made = experience.rollouts
        returns = discounted_returns(experience.rewards, made.mask, gamma=self.gamma)
        whole = returns[:, 0] if returns.shape[1] else returns.new_zeros(len(returns))
        advantages = torch.where(made.mask, returns - self._baseline(experience, whole, memory)[:, None], 0.0)
        if self.whiten:
            advantages = whiten(advantages, made.update_mask)
        return Estimate(advantages, returns)

    def _baseline(self, experience: Experience, whole: Tensor, memory: Memory) -> Tensor:
        """b of each text, [rows]; whole: the return of each text, [rows]."""
        match self.baseline:
            case "none":
                return torch.zeros_like(whole)
            case "batch-mean":
                return whole.mean().expand_as(whole)
            case "leave-one-out":
                return whole - leave_one_out(whole, experience.rollouts.groups)
            case "greedy":
                assert experience.greedy is not None
                return experience.greedy.to(whole.dtype)
            case "moving-average":
                return torch.full_like(whole, _earlier(memory, float(whole.mean()), self.decay))

    def loss(self, now: Now, then: Experience) -> tuple[Tensor, dict[str, float]]:
        """Return -mean A log π over the policy's own tokens, less what the entropy is worth."""
        assert then.advantages is not None
        mask = then.rollouts.update_mask
        loss = reinforce_loss(now.logprobs, then.advantages, mask)
        numbers = {"policy_loss": float(loss.detach()), "policy_kl": _moved(now, then)}
        return self._with_entropy(loss, now, then, numbers)


def _earlier(memory: Memory, mean: float, decay: float) -> float:
    """Return the average of earlier iterations (0 before the first), in which this one's mean then takes part.

    Without this iteration's own texts the baseline does not depend on what it is taken off.
    """
    weight, total = memory.get("baseline.weight", 0.0), memory.get("baseline.sum", 0.0)
    memory["baseline.weight"], memory["baseline.sum"] = decay * weight + 1, decay * total + mean
    return total / weight if weight else 0.0


def _moved(now: Now, then: Experience) -> float:
    """KL of the policy at the iteration's begin to that of now, estimated by k3, nats a token."""
    with torch.no_grad():
        return float(masked_mean(kl_k3(then.logprobs, now.logprobs), then.rollouts.update_mask))


@dataclass(frozen=True, kw_only=True)
class RLOO(_Options):
    """A whole text is one action: -mean (R - mean R of the prompt's other samples) log π (Ahmadian et al. 2024, eq. 6)."""

    whiten: bool = False
    """Divide advantages by their standard deviation, and centre them."""

    def credit(self, experience: Experience, memory: Memory) -> Estimate:
        """Return one advantage for each text, at all of its tokens."""
        made = experience.rollouts
        whole = torch.where(made.mask, experience.rewards, 0.0).sum(1)
        advantages = spread(leave_one_out(whole, made.groups), made.mask)
        return Estimate(
            whiten(advantages, made.update_mask) if self.whiten else advantages, spread(whole, made.mask)
        )

    def loss(self, now: Now, then: Experience) -> tuple[Tensor, dict[str, float]]:
        """Return -mean over texts of A Σ_t log π, less what the entropy is worth."""
        assert then.advantages is not None
        mask = then.rollouts.update_mask
        terms = torch.where(mask, then.advantages * now.logprobs, 0.0).sum(1)
        loss = -terms.mean()
        numbers = {"policy_loss": float(loss.detach()), "policy_kl": _moved(now, then)}
        return self._with_entropy(loss, now, then, numbers)


@dataclass(frozen=True, kw_only=True)
class GRPO(_Options):
    """PPO's clipped loss with rewards standardised among a prompt's samples, and k3 to the reference in the loss.

    Shao et al. 2024, eq. 3 and 4. average="tokens" and scale=False are the corrections of Yu et al. 2025 (DAPO) and Liu
    et al. 2025.
    """

    clip: float = 0.2
    """ε of the ratio."""
    clip_high: float | None = None
    """Another ε above 1."""
    scale: bool = True
    """Divide by the standard deviation of the prompt's rewards."""
    average: Average = "texts"
    """Whether every text counts the same, or every token."""
    kl_weight: float = 0.0
    """β of the k3 term; needs a reference."""

    @property
    def reads_reference(self) -> bool:
        """The k3 term needs it."""
        return self.kl_weight != 0

    def credit(self, experience: Experience, memory: Memory) -> Estimate:
        """Return one advantage for each text, at all of its tokens."""
        made = experience.rollouts
        whole = torch.where(made.mask, experience.rewards, 0.0).sum(1)
        advantages = group_advantages(whole, made.groups, scale=self.scale)
        return Estimate(spread(advantages, made.mask), spread(whole, made.mask))

    def loss(self, now: Now, then: Experience) -> tuple[Tensor, dict[str, float]]:
        """Return the clipped loss and the k3 term, less what the entropy is worth."""
        assert then.advantages is not None
        mask = then.rollouts.update_mask
        loss, numbers = policy_loss(
            now.logprobs,
            then.logprobs,
            then.advantages,
            mask,
            clip=self.clip,
            clip_high=self.clip_high,
            average=self.average,
        )
        numbers["policy_loss"] = float(loss.detach())
        if self.kl_weight:
            assert then.reference is not None
            away = kl_k3(torch.where(mask, now.model_logprobs, 0.0), torch.where(mask, then.reference, 0.0))
            loss = loss + self.kl_weight * masked_mean(away, mask, average=self.average)
        return self._with_entropy(loss, now, then, numbers)
