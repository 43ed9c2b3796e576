"""How a policy is trained, whatever the algorithm, and what came of it."""

from dataclasses import dataclass, field
from typing import Literal

from gpt2lab.base.errors import LabError
from gpt2lab.reinforce.kl import KLMode


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """How `train_policy` collects texts and updates the policy; the algorithm has options of its own."""

    iterations: int = 50
    """Times that texts are written, scored and learnt from."""
    prompts: int = 16
    """Prompts of an iteration."""
    samples: int = 4
    """Texts for each prompt."""
    minibatch: int = 32
    """Texts of an update."""
    max_new_tokens: int = 32
    """Most tokens of a text."""
    min_new_tokens: int = 0
    """No text ends before it has so many."""
    generation_batch: int = 64
    """Texts written at a time; changes memory, not the texts."""
    learning_rate: float = 1e-5
    """Of the policy, AdamW."""
    critic_learning_rate: float | None = None
    """Of the critics; None is that of the policy."""
    schedule: Literal["constant", "linear"] = "constant"
    """How the learning rate goes on: linear comes down to 0 behind the last iteration."""
    weight_decay: float = 0.0
    """Decoupled decay of matrices; biases and norms are not decayed."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates of the first and second moment."""
    eps: float = 1e-5
    """AdamW's term in the denominator."""
    clip: float = 1.0
    """Largest norm of the gradient of policy and critic together; 0 leaves it as it is."""
    ratio: Literal["sampling", "model"] = "sampling"
    """Which probabilities a policy gradient is of: those that tokens are drawn with (top-k, temperature), or the softmax."""
    kl_mode: KLMode = "add"
    """Whether a score is added to the KL term of the last token or stands there alone."""
    score_clip: float = 0.0
    """Largest size of a score; 0 leaves scores as they are."""
    critic_warmup: int = 0
    """First iterations of each critic, in which it alone learns: the policy's loss waits."""
    target_weight: float = 0.0
    """Weight of the cross entropy of reference texts for the same prompts, mean over a minibatch's tokens."""
    checkpoint_every: int = 0
    """Iterations between checkpoints; 0 writes one only at the end."""
    keep_last: int = 2
    """Checkpoints kept."""

    def __post_init__(self) -> None:
        counts = ("prompts", "samples", "minibatch", "max_new_tokens", "generation_batch", "keep_last")
        for name, number, least in (
            *((name, getattr(self, name), 1) for name in counts),
            ("iterations", self.iterations, 0),
            ("critic_warmup", self.critic_warmup, 0),
            ("checkpoint_every", self.checkpoint_every, 0),
        ):
            if number < least:
                raise LabError(f"{name} must be at least {least}, got {number}")
        for name in ("learning_rate", "weight_decay", "eps", "clip", "score_clip", "target_weight"):
            if not getattr(self, name) >= 0:  # also refuses NaN
                raise LabError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.rows % self.minibatch:
            raise LabError(
                f"{self.rows} texts ({self.prompts} prompts, {self.samples} samples each) are not divisible by minibatch "
                f"{self.minibatch}"
            )

    @property
    def rows(self) -> int:
        """Texts of an iteration."""
        return self.prompts * self.samples


@dataclass
class PolicyResult:
    """What `train_policy` did."""

    iterations: int = 0
    """Iterations made, those before a resume included."""
    rewards: list[float] = field(default_factory=list)
    """Mean reward of each iteration's texts, those before a resume included."""
    numbers: dict[str, float] = field(default_factory=dict)
    """All numbers of the last iteration."""

    @property
    def reward(self) -> float:
        """Mean reward of the last tenth of the iterations (at least 1)."""
        tail = self.rewards[-max(1, len(self.rewards) // 10) :]
        return sum(tail) / len(tail) if tail else float("nan")
