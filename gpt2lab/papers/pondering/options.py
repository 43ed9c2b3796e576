"""The options of pondering, which need no torch."""

from dataclasses import dataclass, fields
from typing import Literal

from gpt2lab.base.errors import LabError

Feedback = Literal["embedding", "hidden", "hidden_linear", "loop", "pause"]


@dataclass(frozen=True, kw_only=True)
class PonderingOptions:
    """How often the stack runs, and what every pass hands to the next."""

    steps: int = 3
    """Extra passes before every prediction; 0 is the plain model."""
    top_k: int | None = None
    """Likeliest tokens that the expected embedding is a mean of; none is all of them. 100 suits 10,000 tokens or more."""
    temperature: float = 1.0
    """Of the softmax that is fed back; the last pass's logits stay as they are."""
    scale_embeddings: bool = False
    """Multiply the input embeddings and the table of the mixture by sqrt(d_model), as all published runs do."""
    multiply_by_steps: bool = False
    """The first input is E_0 times the number of steps, as in the published runs from 410M on."""
    feedback: Feedback = "embedding"
    """embedding: the paper. hidden, hidden_linear: the last state, or a learned map of it, is added instead. loop: the
    last state is the next input. pause: no further pass; `steps` learned tokens follow every token."""
    accumulate: bool = True
    """E_i = E_{i-1} + what is fed back; otherwise E_0 + what is fed back, which is another model than the paper's."""
    detach: bool = False
    """No gradient flows through what is fed back; the paper's flows through all passes."""
    random_steps: int = 0
    """In training draw the steps of every batch from 1 up to this number; 0 always takes `steps`."""
    checkpoint_passes: bool = False
    """Keep only the inputs of the earlier passes and compute these again in the backward pass, unless a tap is open."""
    draw: Literal["keep", "layers", "passes"] = "keep"
    """Draw a new model's weights anew as the published runs do; passes: depth counts the repeated passes too."""

    def __post_init__(self) -> None:
        for name in ("steps", "random_steps"):
            if not is_count(getattr(self, name), 0):
                raise LabError(
                    f"pondering: {name} must be a whole number of at least 0, got {getattr(self, name)!r}"
                )
        if self.top_k is not None and not is_count(self.top_k, 1):
            raise LabError(f"pondering: top_k must be at least 1, or none for all tokens, got {self.top_k!r}")
        if not isinstance(self.temperature, int | float) or not 0 < self.temperature < float("inf"):
            raise LabError(f"pondering: temperature must be above 0 and finite, got {self.temperature!r}")
        for field in fields(self):
            if isinstance(field.default, bool) and not isinstance(getattr(self, field.name), bool):
                raise LabError(
                    f"pondering: {field.name} is either True or False, got {getattr(self, field.name)!r}"
                )
        if self.feedback not in Feedback.__args__ or self.draw not in ("keep", "layers", "passes"):  # type: ignore[attr-defined]  # Literal's
            raise LabError(
                f"pondering: feedback is one of {', '.join(Feedback.__args__)} and draw one of keep, layers, passes; "  # type: ignore[attr-defined]  # Literal's
                f"got {self.feedback!r} and {self.draw!r}"
            )
        fixed = {"top_k": None, "temperature": 1.0}
        if self.feedback in ("loop", "pause"):
            fixed |= {"accumulate": True}
        if self.feedback == "pause":
            fixed |= {"detach": False, "checkpoint_passes": False, "multiply_by_steps": False}
        for name, value in fixed.items() if self.feedback != "embedding" else ():
            if getattr(self, name) != value:
                raise LabError(f"pondering: feedback={self.feedback} has no {name}; leave it out")


def is_count(value: object, least: int) -> bool:
    """Return whether a value is a whole number of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
