"""From rewards to advantages: returns, generalised advantage estimation, baselines without a critic.

Tensors are [rows, steps], a row for each text and a step for each new token. mask is true at the tokens of the text,
which are the first of each row; whatever stands behind them is never read and gets 0.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError


class Estimate(NamedTuple):
    """What each token was worth."""

    advantages: Tensor
    """A_t [rows, steps]."""
    returns: Tensor
    """What a critic should have said, [rows, steps]."""


def discounted_returns(rewards: Tensor, mask: Tensor, *, gamma: float = 1.0) -> Tensor:
    """Return G_t = Σ_{u ≥ t} γ^{u-t} r_u, [rows, steps] (Sutton & Barto 2018, eq. 3.8)."""
    return gae(rewards, torch.zeros_like(rewards), mask, gamma=gamma, lam=1.0).advantages


def gae(rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float = 1.0, lam: float = 0.95) -> Estimate:
    """Return A_t = δ_t + γλ A_{t+1} with δ_t = r_t + γ V_{t+1} - V_t, and the returns A_t + V_t.

    values: V of the state before each token. Behind the last token both V and A are 0. No gradient flows through it.
    Schulman et al. 2016, eq. 16. LabError for gamma or lam outside of [0, 1].
    """
    for name, number in (("gamma", gamma), ("lam", lam)):
        if not 0.0 <= number <= 1.0:
            raise LabError(f"{name} must lie in [0, 1], got {number}")
    rewards, values = (torch.where(mask, x.detach(), 0.0) for x in (rewards, values))
    advantages = torch.zeros_like(values)
    after = next_value = values.new_zeros(len(values))
    for step in reversed(range(values.shape[1])):
        delta = rewards[:, step] + gamma * next_value - values[:, step]  # eq. 12
        after = torch.where(mask[:, step], delta + gamma * lam * after, 0.0)  # eq. 16
        advantages[:, step], next_value = after, values[:, step]
    return Estimate(advantages, advantages + values)


def spread(scores: Tensor, mask: Tensor) -> Tensor:
    """Return a number for each row at all of its tokens: [rows] → [rows, steps], 0 outside of the mask."""
    return torch.where(mask, scores[:, None], 0.0)


def leave_one_out(scores: Tensor, groups: Tensor) -> Tensor:
    """Return R_i - mean of the others of its group, [rows]; they add up to 0 in each group.

    scores [rows], groups [rows] int64: rows of one number are samples of one prompt. Kool et al. 2019, eq. 8;
    Ahmadian et al. 2024 (RLOO), eq. 6. LabError for a group of one.
    """
    mean, count = _group_mean(scores, groups)
    _refuse_alone(count, "leave-one-out")
    return (scores - mean) * count / (count - 1)


def group_advantages(scores: Tensor, groups: Tensor, *, scale: bool = True, floor: float = 1e-4) -> Tensor:
    """Return (R_i - mean) / (std + floor) within each group, [rows]; std² is the unbiased variance.

    scores and groups as of `leave_one_out`. scale=False only takes the mean off (Liu et al. 2025). Shao et al. 2024
    (GRPO), section 4.1.2. LabError for a group of one.
    """
    mean, count = _group_mean(scores, groups)
    _refuse_alone(count, "the mean of a group")
    centred = scores - mean
    if not scale:
        return centred
    variance = _group_mean(centred.square(), groups)[0] * count / (count - 1)
    return centred / (variance.sqrt() + floor)


def _group_mean(scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of each row's group and how many rows it has, both [rows]."""
    if scores.shape != groups.shape or scores.dim() != 1:
        raise LabError(
            f"scores and groups are one number for each text, got {list(scores.shape)} and {list(groups.shape)}"
        )
    same = (groups[:, None] == groups).to(scores.dtype)  # [rows, rows]
    count = same.sum(1)
    return same @ scores / count, count


def _refuse_alone(count: Tensor, what: str) -> None:
    if bool((count < 2).any()):
        raise LabError(f"{what} needs at least 2 samples of every prompt; raise samples")
