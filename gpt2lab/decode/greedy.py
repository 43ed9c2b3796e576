"""Greedy decoding: always the most probable token."""

from dataclasses import dataclass

from torch import Tensor

from gpt2lab.decode.loop import Draws, StepDecoder
from gpt2lab.decode.processors import check_penalty, repetition_penalty


@dataclass(frozen=True, kw_only=True)
class Greedy(StepDecoder):
    """x_t = argmax_v p(v | x_<t); of equally probable tokens the one with the lowest id."""

    repetition_penalty: float = 1.0
    """Above 1: lowers the probability of tokens that already occurred; see `processors.repetition_penalty`."""

    def __post_init__(self) -> None:
        check_penalty("greedy", self.repetition_penalty)

    @property
    def draws(self) -> bool:
        """Nothing is drawn."""
        return False

    @property
    def needs_prompt_tokens(self) -> bool:
        """A repetition penalty counts the prompt's tokens."""
        return self.repetition_penalty != 1.0

    def process(self, logits: Tensor, tokens: Tensor, real: Tensor) -> Tensor:
        """Apply the repetition penalty, if any."""
        if self.repetition_penalty == 1.0:
            return logits
        return repetition_penalty(logits, tokens, real, self.repetition_penalty)

    def pick(self, logits: Tensor, draws: Draws) -> Tensor:
        """Take the largest logit; nothing is drawn."""
        return logits.argmax(-1)
