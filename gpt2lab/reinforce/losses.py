"""Losses of policy-gradient methods, on tensors alone: [rows, steps], a row for each text, a step for each decision.

They serve any policy: a language model's tokens, or the turns of a dialogue that a classifier decides. mask is true at
the decisions that count; what stands elsewhere is never read. Without any the loss is 0.
"""

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.reinforce.kl import kl_k3
from gpt2lab.reinforce.masked import Average, masked_mean


def reinforce_loss(
    logprobs: Tensor, advantages: Tensor, mask: Tensor, *, average: Average = "tokens"
) -> Tensor:
    """Return -mean A_t log π(a_t), whose gradient is the policy gradient (Williams 1992, eq. 11).

    Advantages are constants: no gradient flows into them.
    """
    return -masked_mean(advantages.detach() * torch.where(mask, logprobs, 0.0), mask, average=average)


def policy_loss(
    logprobs: Tensor,
    old: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip: float = 0.2,
    clip_high: float | None = None,
    average: Average = "tokens",
) -> tuple[Tensor, dict[str, float]]:
    """Return -mean min(r A, clip(r, 1 - ε, 1 + ε) A) for r = π(a_t)/π_old(a_t) (Schulman et al. 2017, eq. 7).

    clip_high: another ε above 1 (Yu et al. 2025, DAPO). A decision that the policy has made impossible (log π = -inf,
    beyond a top-k say) has r = 0 and no gradient. Metrics: ratio (its mean), clip_fraction (shares of decisions whose
    ratio is outside of the interval), policy_kl (k3 of π_old to π, nats a decision, over those still possible).
    """
    if not 0.0 < clip < 1.0:
        raise LabError(f"clip must lie in (0, 1), got {clip}")
    high = clip if clip_high is None else clip_high
    difference = torch.where(mask, logprobs - old.detach(), 0.0)
    ratio = difference.exp()
    gain = advantages.detach()
    kept = torch.minimum(ratio * gain, ratio.clamp(1 - clip, 1 + high) * gain)
    loss = -masked_mean(kept, mask, average=average)
    with torch.no_grad():
        possible = mask & difference.isfinite()
        outside = (ratio < 1 - clip) | (ratio > 1 + high)
        numbers = {
            "ratio": masked_mean(ratio, mask),
            "clip_fraction": masked_mean(outside.to(ratio.dtype), mask),
            "policy_kl": masked_mean(kl_k3(-difference, torch.zeros_like(difference)), possible),
        }
    return loss, {name: float(number) for name, number in numbers.items()}


def value_loss(
    values: Tensor, returns: Tensor, mask: Tensor, *, old: Tensor | None = None, clip: float | None = None
) -> Tensor:
    """Return ½ mean (V - G)², or with `clip` c ½ mean max((V - G)², (clip(V, V_old ± c) - G)²).

    old: V as the texts were collected, which `clip` needs. Schulman et al. 2017, eq. 9; the clipped form is that of their
    published code (Engstrom et al. 2020, section 3).
    """
    error = torch.where(
        mask, values - returns.detach(), 0.0
    )  # before it is squared, whose gradient is 2 · error
    errors = error.square()
    if clip is not None:
        if old is None or clip <= 0:
            raise LabError(f"a clipped value loss needs the old values and a clip above 0, got {clip}")
        near = torch.clamp(values, old.detach() - clip, old.detach() + clip)
        errors = torch.maximum(errors, torch.where(mask, near - returns.detach(), 0.0).square())
    return 0.5 * masked_mean(errors, mask)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """Return 1 - Var(G - V) / Var(G): 1 for a perfect critic, 0 for one that says a constant; NaN if all G are equal."""
    truth, errors = returns[mask].double(), (returns - values)[mask].double()
    if len(truth) < 2 or not bool(truth.var() > 0):
        return float("nan")
    return float(1 - errors.var() / truth.var())
