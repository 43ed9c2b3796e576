"""The model, the text and how norms are taken out, at every scale."""

from dataclasses import dataclass, field

from gpt2lab.base.errors import LabError
from gpt2lab.base.settings import Model
from gpt2lab.papers.layernorm_removal.schedule import RECIPES, Schedule, require_length
from gpt2lab.training import TrainSettings

WAYS = ("control", "sequential", "no_penalty", "at_once")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The model, the text, and how norms are taken out; the same text and order for every way."""

    model: Model | None = None
    """MODEL, a pre-trained GPT-2 (paper scale); none pre-trains a small one on the generated language."""
    data: tuple[str, ...] = ()
    """Text for a given model; the generated language needs none."""
    held_out_every: int = 2000
    """One document in this many of a given model's text is for validation; 2,000 is the paper's 0.05 %."""
    d_model: int = 96
    """Width of the small model."""
    n_layers: int = 8
    """Blocks of the small model."""
    n_heads: int = 4
    """Heads of the small model."""
    context: int = 64
    """Tokens of a row."""
    batch_size: int = 16
    """Rows of a micro-batch."""
    train_tokens: int = 1_000_000
    """Tokens to train on."""
    valid_tokens: int = 40_000
    """Tokens of validation."""
    pretraining: TrainSettings = field(
        default_factory=lambda: TrainSettings(
            steps=1500,
            learning_rate=3e-3,
            final_fraction=0.1,
            warmup=50,
            weight_decay=0.01,
            betas=(0.9, 0.999),
        )
    )
    """How the small model is pre-trained."""
    removal: TrainSettings = field(
        default_factory=lambda: TrainSettings(
            steps=150,
            learning_rate=6e-4,
            final_fraction=0.5,
            warmup=10,
            weight_decay=0.01,
            betas=(0.9, 0.999),
        )
    )
    """How every way goes on."""
    schedule: Schedule = field(default_factory=lambda: Schedule(start=10, mlp_gap=3, qk_gap=3, v_gap=4))
    """When each norm path is frozen; `at_once` freezes all at its start."""
    penalty: float = 0.1
    """Weight of the auxiliary loss."""
    momentum: float = 0.9
    """Weight of the old value in the running means."""
    samples: int = 256
    """Validation rows on which heads are attributed."""
    prompts: int = 128
    """Pairs of prompts that differ in a name, for patching; for a given model an even number, each with its partner."""
    prompt_file: str | None = None
    """CSV with the columns prompt, answer_io, answer_s for a given model, partners alternating; none: English prompts."""
    neurons: int = 3
    """Confidence neurons that are ablated: the pre-trained model's, by the ratio of norm and variance of cosines."""

    def __post_init__(self) -> None:
        for name in ("samples", "prompts", "neurons", "batch_size", "context", "held_out_every"):
            if getattr(self, name) < 1:
                raise LabError(f"layernorm-removal: {name} must be at least 1, got {getattr(self, name)}")
        if (self.model is None) != (not self.data):
            raise LabError(
                "layernorm-removal: give model and data together, or neither for the generated language"
            )
        if self.model is None:
            require_length(self.schedule.steps_of(self.n_layers), self.removal.steps)


def _of_size(name: str, model: str) -> Settings:
    """The authors' settings for one size."""
    recipe = RECIPES[name]
    return Settings(
        model=model,
        data=("hub:Skylion007/openwebtext",),
        context=1024,
        batch_size=recipe.batch_size,
        train_tokens=recipe.steps * recipe.batch_size * recipe.accumulation * 1024,
        valid_tokens=4_000_000,
        removal=TrainSettings(
            steps=recipe.steps, laid_out=recipe.laid_out, learning_rate=recipe.learning_rate,
            final_fraction=recipe.final_fraction, warmup=recipe.warmup, weight_decay=0.01, betas=(0.9, 0.999),
            accumulation=recipe.accumulation, precision="bf16", gradient_checkpointing=name in ("large", "xl"),
            checkpoint_every=50,
        ),
        schedule=recipe.schedule,
        penalty=recipe.penalty,
        momentum=recipe.momentum,
        samples=1000,
        prompts=480,
    )  # fmt: skip


PRESETS: dict[str, Settings] = {
    "smoke": Settings(
        d_model=16, n_layers=2, n_heads=2, context=16, batch_size=8, train_tokens=6000, valid_tokens=1200,
        pretraining=TrainSettings(steps=12, learning_rate=3e-3, warmup=2),
        removal=TrainSettings(steps=12, learning_rate=1e-3, warmup=2),
        schedule=Schedule(start=2, mlp_gap=1, qk_gap=1, v_gap=1), samples=8, prompts=4,
    ),
    "laptop": Settings(),
    "gpu": Settings(
        d_model=384, n_layers=8, n_heads=6, context=256, batch_size=64, train_tokens=30_000_000, valid_tokens=400_000,
        pretraining=TrainSettings(
            steps=4000, learning_rate=1e-3, warmup=200, weight_decay=0.01, betas=(0.9, 0.999), checkpoint_every=500
        ),
        removal=TrainSettings(
            steps=400, learning_rate=6e-4, final_fraction=0.5, warmup=25, weight_decay=0.01, betas=(0.9, 0.999)
        ),
        schedule=Schedule(start=20, mlp_gap=3, qk_gap=3, v_gap=4), samples=1000, prompts=480,
    ),
    "paper": _of_size("small", "openai-community/gpt2"),
}  # fmt: skip
