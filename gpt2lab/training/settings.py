"""What a training run is asked to do, and what it did."""

from dataclasses import dataclass, field
from typing import Literal

from gpt2lab.base.errors import LabError
from gpt2lab.training.callbacks import EarlyStopping, Watched
from gpt2lab.training.gradients import PrivateGradient
from gpt2lab.training.ramps import Ramp

_MOST_PARTS = 100_000  # micro-batches of an update


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How `train` updates a model; the data and the model are arguments of their own."""

    steps: int = 1000
    """Number of optimizer updates."""
    learning_rate: float = 1e-3
    """Peak, reached after `warmup` updates. `gpt2lab train --model` chooses it by the model's width."""
    schedule: Literal["cosine", "linear", "constant", "warmup-stable-decay"] = "cosine"
    """Learning rate after the warm-up."""
    warmup: int = 0
    """Updates over which the learning rate rises linearly from 0."""
    final_fraction: float = 0.1
    """Share of the peak at the last update (cosine, linear, warmup-stable-decay)."""
    laid_out: int = 0
    """Updates of the learning-rate schedule if the run ends earlier; 0 means `steps`."""
    decay_fraction: float = 0.2
    """Share of the updates in which warmup-stable-decay decays, linearly."""
    weight_decay: float = 0.1
    """Decoupled decay of matrices and embeddings; biases and norms are not decayed."""
    weight_decay_schedule: Ramp | None = None
    """Factor on the weight decay over the run: `weight_decay_schedule.end=10` raises it tenfold; none means constant."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates of the first and second moment."""
    eps: float = 1e-8
    """AdamW's term in the denominator."""
    clip: float = 1.0
    """Largest norm of the whole gradient; 0 means no clipping."""
    privacy: PrivateGradient | None = None
    """Clip each row's gradient and add noise (DP-SGD): `privacy.clip_norm=1`, `privacy.noise=1`; none means off."""
    accumulation: int = 1
    """Micro-batches of an update, equal to one large batch; objectives with negatives in the batch refuse it."""
    precision: Literal["float32", "bf16", "auto"] = "auto"
    """Arithmetic of the forward and backward pass; auto is bf16 on GPUs that have it, else float32."""
    gradient_checkpointing: bool = False
    """Recompute each block in the backward pass: less memory, about a third more time."""
    compile: bool = False
    """Compile the blocks with torch.compile (needs a C++ compiler; worthwhile on GPUs and in long runs)."""
    evaluate_every: int = 0
    """Updates between evaluations; 0 evaluates only at the end."""
    evaluate_start: bool = False
    """Evaluate before the first update too, for comparison with later evaluations."""
    checkpoint_every: int = 0
    """Updates between checkpoints; 0 writes one only at the end, on Ctrl-C, SIGTERM and SIGHUP."""
    keep_last: int = 2
    """Checkpoints kept, besides the best."""
    keep: Literal["last", "best"] = "last"
    """Final weights of a run: the last, or those of the best evaluation by `best.number`."""
    best: Watched = field(default_factory=Watched)
    """What makes an evaluation the best: `best.number=accuracy`, `best.mode=max`."""
    early_stopping: EarlyStopping | None = None
    """End the run when evaluations stop improving: `early_stopping.patience=3`; none means all updates."""
    log_every: int = 10
    """Updates between two logged rows of numbers."""

    def __post_init__(self) -> None:
        for name, least in (
            ("steps", 0),
            ("warmup", 0),
            ("accumulation", 1),
            ("keep_last", 1),
            ("log_every", 1),
        ):
            if getattr(self, name) < least:
                raise LabError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.accumulation > _MOST_PARTS:
            raise LabError(f"accumulation must be at most {_MOST_PARTS:,}, got {self.accumulation:,}")
        for name in ("learning_rate", "weight_decay", "eps", "clip", "evaluate_every", "checkpoint_every"):
            if not getattr(self, name) >= 0:  # also refuses NaN
                raise LabError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("final_fraction", "decay_fraction"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise LabError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.laid_out and self.laid_out < self.steps:
            raise LabError(f"laid_out {self.laid_out} is shorter than the run of {self.steps} steps")
        if self.warmup > self.steps:
            raise LabError(f"warmup {self.warmup} is longer than the run of {self.steps} steps")
        if self.keep == "best" or self.early_stopping is not None:
            asked = "keep best" if self.keep == "best" else "early_stopping"
            if not self.evaluate_every:
                raise LabError(f"{asked}: needs evaluations while the model trains; give evaluate_every")
            if 0 < self.steps <= self.evaluate_every:
                raise LabError(
                    f"{asked}: the only evaluation is after the last of {self.steps} updates; make evaluate_every "
                    f"{self.evaluate_every} smaller than that"
                )
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise LabError(f"betas must lie in [0, 1), got {self.betas}")


@dataclass
class TrainResult:
    """What a run of `train` did."""

    steps: int = 0
    """Updates made, those before a resume included."""
    losses: list[float] = field(default_factory=list)
    """Training loss of the updates, in nats per target: all of this process's, and before a resume the last tenth."""
    validation: dict[str, float] = field(default_factory=dict)
    """What `evaluate` returned last, or for the weights that are kept."""
    kept: int | None = None
    """Updates made when the weights that are kept were those of the model; None is the last."""
    stopped: str = ""
    """Why the run ended before its last update, as a sentence; empty if it did not."""
    tokens: int = 0
    """Targets trained on, those before a resume included."""
    seconds: float = 0.0
    """Time in updates, those before a resume included (evaluation and checkpoints excluded)."""

    @property
    def loss(self) -> float:
        """Mean training loss of the last tenth of the updates (at least 1)."""
        tail = self.losses[-max(1, self.steps // 10) :]
        return sum(tail) / len(tail) if tail else float("nan")

    @property
    def tokens_per_second(self) -> float:
        """Targets per second of training."""
        return self.tokens / self.seconds if self.seconds else float("nan")
