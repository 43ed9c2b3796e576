"""Critics: a number for the state before each token, from the policy's own states or from a network of its own."""

import copy

import torch
from torch import Tensor, nn

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.model.architecture import drawn
from gpt2lab.reinforce.rollouts import Continuations


class ValueHead(nn.Module):
    """V = w · h + b, or with a hidden layer w · relu(W h + c) + b, of last states h; it begins as 0 everywhere."""

    def __init__(self, d_model: int, *, hidden: int = 0) -> None:
        super().__init__()
        if hidden < 0:
            raise LabError(f"a value head's hidden layer must not have a negative width, got {hidden}")
        self.hidden = nn.Linear(d_model, hidden) if hidden else None
        self.output = nn.Linear(hidden or d_model, 1)

    def forward(self, states: Tensor) -> Tensor:
        """Return V of each state, at least float32; [..., d_model] → [...]."""
        x = states if self.hidden is None else self.hidden(states).relu()
        value = self.output(x)[..., 0]
        return value.to(torch.promote_types(value.dtype, torch.float32))


class Critic(nn.Module):
    """V of the state before each new token.

    `beside` reads the policy's states, so that the value loss trains the policy's network too; `apart` has a network of
    its own, which begins as a copy of the policy's.
    """

    def __init__(self, head: ValueHead, trunk: Transformer | None = None) -> None:
        super().__init__()
        self.head, self.trunk = head, trunk

    @staticmethod
    def beside(model: Transformer, *, hidden: int = 0, generator: torch.Generator | None = None) -> "Critic":
        """Return a critic that shares the policy's network; hidden: width of the head's hidden layer, 0 for none."""
        return Critic(_head(model, hidden, generator))

    @staticmethod
    def apart(model: Transformer, *, hidden: int = 0, generator: torch.Generator | None = None) -> "Critic":
        """Return a critic with a network of its own, all of which trains."""
        trunk = copy.deepcopy(model).eval().requires_grad_(True)
        return Critic(_head(model, hidden, generator), trunk)

    def forward(self, batch: Continuations, states: Tensor) -> Tensor:
        """Return V [rows, steps]; states [rows, steps, d_model]: the policy's, as `score_tokens` returns them."""
        if self.trunk is not None:
            hidden = self.trunk.hidden(batch.tokens, attention_mask=batch.attention_mask)
            states = hidden[:, batch.start - 1 : -1]
        values: Tensor = self.head(states)
        return torch.where(batch.mask, values, 0.0)


def _head(model: Transformer, hidden: int, generator: torch.Generator | None) -> ValueHead:
    with torch.random.fork_rng(devices=[]):  # torch's own initialisation draws from the global generator
        head = drawn(ValueHead(model.config.d_model, hidden=hidden), model, generator)
    with torch.no_grad():
        head.output.weight.zero_()  # V = 0: the first advantages are the returns
    return head
