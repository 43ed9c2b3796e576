"""Sampling from the model's distribution, whole or cut."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.decode import processors
from gpt2lab.decode.loop import Draws, StepDecoder


@dataclass(frozen=True, kw_only=True)
class Sampling(StepDecoder):
    """x_t ~ p(· | x_<t) after the processors below, in their order; by default the model's own distribution.

    Each row draws from a generator of its own by inverting the cumulative distribution, so that its text depends
    neither on the batch it is in nor on its neighbours.
    """

    temperature: float = 1.0
    """Divides the logits: below 1 sharper, above 1 flatter."""
    top_k: int | None = None
    """Draw among the k most probable tokens only."""
    top_p: float = 1.0
    """Draw among the fewest most probable tokens that hold this much of the mass (nucleus); 1 is all."""
    min_p: float = 0.0
    """Draw among tokens at least this share as probable as the most probable one; 0 is all."""
    typical: float = 1.0
    """Draw among the tokens whose surprise is nearest the entropy, up to this much of the mass; 1 is all."""
    repetition_penalty: float = 1.0
    """Makes tokens that already occurred less likely if above 1."""

    def __post_init__(self) -> None:
        if not 0.0 < self.temperature < float("inf"):
            raise LabError(
                f"sampling: temperature must be positive, got {self.temperature}; the greedy decoder is its limit 0"
            )
        if self.top_k is not None and self.top_k < 1:
            raise LabError(
                f"sampling: top_k must be at least 1, got {self.top_k}; leave it out to keep all tokens"
            )
        for name in ("top_p", "typical"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise LabError(
                    f"sampling: {name} must lie in (0, 1], got {getattr(self, name)}; 1 keeps all tokens"
                )
        if not 0.0 <= self.min_p <= 1.0:
            raise LabError(f"sampling: min_p must lie in [0, 1], got {self.min_p}; 0 keeps all tokens")
        processors.check_penalty("sampling", self.repetition_penalty)

    @property
    def needs_prompt_tokens(self) -> bool:
        """A repetition penalty counts the prompt's tokens."""
        return self.repetition_penalty != 1.0

    def process(self, logits: Tensor, tokens: Tensor, real: Tensor) -> Tensor:
        """Apply the processors that are asked for."""
        if self.repetition_penalty != 1.0:
            logits = processors.repetition_penalty(logits, tokens, real, self.repetition_penalty)
        if self.temperature != 1.0:
            logits = processors.temperature(logits, self.temperature)
        if self.top_k is not None:
            logits = processors.top_k(logits, self.top_k)
        if self.top_p < 1.0:
            logits = processors.top_p(logits, self.top_p)
        if self.min_p > 0.0:
            logits = processors.min_p(logits, self.min_p)
        if self.typical < 1.0:
            logits = processors.typical(logits, self.typical)
        return logits

    def pick(self, logits: Tensor, draws: Draws) -> Tensor:
        """Return the first token at which the cumulative distribution exceeds a uniform number."""
        return invert(logits, draws.uniform())


def invert(logits: Tensor, uniform: Tensor) -> Tensor:
    """Return min {v : p_0 + … + p_v > uniform · Σ p}, [batch] int64, for p = softmax(logits).

    logits [batch, vocab] float32, uniform [batch, 1] float64 in [0, 1). Summed in float64, so that the order of 50,000
    small numbers does not matter. LabError if a row is NaN or has no possible token.
    """
    cumulative = logits.softmax(-1).cumsum(-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    if not bool(total.isfinite().all()):
        raise LabError("the model's logits give no distribution (NaN, or no token is possible)")
    return torch.searchsorted(cumulative, uniform * total, right=True)[:, 0].clamp_max(logits.shape[1] - 1)
