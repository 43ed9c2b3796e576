"""The method: epsilon sampling (Hewitt et al. 2022, section 4.1)."""

from dataclasses import dataclass

from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.decode.loop import Draws, StepDecoder
from gpt2lab.decode.sampling import invert


@dataclass(frozen=True, kw_only=True)
class ExampleDecoder(StepDecoder):
    """x_t ~ p(· | x_<t) among the tokens with p >= epsilon; the likeliest token always stays."""

    epsilon: float = 0.02
    """Least probability of a token that may be drawn; 0 draws from the model's own distribution."""

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon < 1:
            raise LabError(f"epsilon must lie in [0, 1), got {self.epsilon}")

    def process(self, logits: Tensor, tokens: Tensor, real: Tensor) -> Tensor:
        """Make improbable tokens impossible; logits [batch, vocab]."""
        allowed = logits.softmax(-1) >= self.epsilon
        allowed |= logits == logits.amax(-1, keepdim=True)
        return logits.masked_fill(~allowed, float("-inf"))

    def pick(self, logits: Tensor, draws: Draws) -> Tensor:
        """Draw from what is left."""
        return invert(logits, draws.uniform())
