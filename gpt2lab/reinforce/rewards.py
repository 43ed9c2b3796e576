"""Rewards are functions: texts in, numbers out. Whatever else they return is refused, with the text it was for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError, brief, shown
from gpt2lab.decode.generate import Generation
from gpt2lab.reinforce.rollouts import Rollouts

Reward = Callable[[Sequence[Generation]], Sequence[float] | Sequence[Sequence[float]] | Tensor]
"""Called with all texts of an iteration: a number for each, or for each a number for every token.

It sees the whole batch, so that a reward may depend on the other texts (diversity); prompt, text, tokens and why each
ended are fields of a `Generation`.
"""


def scored(reward: Reward, texts: Sequence[Generation], batch: Rollouts) -> Tensor:
    """Return the reward's numbers: [rows], or [rows, steps] of a reward for each token; float32 on the batch's device.

    LabError: the function fails, gives another number of numbers, or one that is not finite (with the text).
    """
    try:
        returned = reward(texts)
    except LabError:
        raise
    except Exception as error:
        raise LabError(f"the reward function failed: {type(error).__name__}: {brief(error)}") from error
    table = _table(returned, batch)
    bad = (~table.isfinite()).reshape(len(table), -1).any(1)
    if bool(bad.any()):
        row = int(bad.int().argmax())
        number = table[row].reshape(-1)[~table[row].reshape(-1).isfinite()][0]
        raise LabError(
            f"the reward of text {row} is {float(number)}, of {shown(texts[row].text)}; a reward must be a finite number"
        )
    return table.to(batch.tokens.device)


def _table(returned: object, batch: Rollouts) -> Tensor:
    """Numbers as a tensor [rows] or [rows, steps], float32 on the CPU."""
    rows, steps = batch.mask.shape
    lengths = batch.mask.sum(1).tolist()
    if isinstance(returned, Tensor):
        table = returned.detach().to("cpu", torch.float32)
        if table.shape not in ((rows,), (rows, steps)):
            raise LabError(
                f"the reward function returned {list(table.shape)} numbers; [{rows}] or [{rows}, {steps}] are needed"
            )
        return table if table.dim() == 1 else torch.where(batch.mask.cpu(), table, 0.0)
    if not isinstance(returned, Sequence) or isinstance(returned, str) or len(returned) != rows:
        count = len(returned) if isinstance(returned, Sequence) else type(returned).__name__
        raise LabError(f"the reward function returned {count} numbers for {rows} texts")
    try:
        if all(isinstance(item, Sequence) and not isinstance(item, str) for item in returned):
            if [len(item) for item in returned] != lengths:
                raise LabError("a reward for each token needs as many numbers as the text has tokens")
            table = torch.zeros(rows, steps)
            for row, item in enumerate(returned):
                table[row, : len(item)] = torch.tensor([float(number) for number in item])
            return table
        return torch.tensor([float(item) for item in returned], dtype=torch.float32)
    except (TypeError, ValueError) as error:
        if isinstance(error, LabError):
            raise
        raise LabError(f"the reward function returned what is no number: {brief(error)}") from None


def of_text(function: Callable[[str], float]) -> Reward:
    """Return the reward that asks `function` of every text by itself, without its prompt."""
    return lambda texts: [function(one.text) for one in texts]


@dataclass
class WeightedRewards:
    """Σ weight · reward of several rewards for whole texts; the mean of each is logged as reward.NAME."""

    rewards: Mapping[str, tuple[float, Callable[[Sequence[Generation]], Sequence[float] | Tensor]]]
    """Name → weight and function."""
    means: dict[str, float] = field(default_factory=dict)
    """The mean of each reward, unweighted, over the texts of the latest call."""

    def __call__(self, texts: Sequence[Generation]) -> Tensor:
        """Return the sums, [rows]."""
        if not self.rewards:
            raise LabError("a weighted sum needs at least one reward")
        total = torch.zeros(len(texts))
        for name, (weight, reward) in self.rewards.items():
            own = torch.as_tensor(reward(texts), dtype=torch.float32).cpu()
            if own.shape != (len(texts),):
                raise LabError(f"reward {name} returned {list(own.shape)} numbers for {len(texts)} texts")
            self.means[f"reward.{name}"] = float(own.mean())
            total = total + weight * own
        return total
