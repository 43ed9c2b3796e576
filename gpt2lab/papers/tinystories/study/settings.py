"""The grid, the binding models, and the models for real stories, at every scale."""

from dataclasses import dataclass, field

from gpt2lab.base.settings import ModelTokenizer


@dataclass(frozen=True, kw_only=True)
class RealSettings:
    """Models and vocabulary for real stories."""

    widths: tuple[int, ...] = (32, 64)
    """Width of each graded model."""
    depths: tuple[int, ...] = (2, 2)
    """Depth of each graded model."""
    n_heads: int = 4
    """Attention heads of every model."""
    reference_width: int = 160
    """Width of the reference model, which needs four times the parameters of the largest graded one."""
    reference_depth: int = 4
    """Depth of the reference model."""
    reference_share: float = 0.4
    """Share of the training stories kept for the reference model alone."""
    tokenizer: ModelTokenizer = ""
    """MODEL whose tokenizer is used; empty trains a byte-level BPE on the training stories."""
    bpe_size: int = 3000
    """Vocabulary size of a BPE trained here."""
    vocabulary: int = 2000
    """Ids that are kept, <unk> included; the paper keeps 10,000."""
    context: int = 256
    """Tokens in a training row."""
    batch_size: int = 8
    """Rows in a micro-batch."""
    accumulation: int = 1
    """Micro-batches in an update."""
    steps: int = 400
    """Updates of every model."""
    epochs: float = 0.0
    """Epochs over the training text; above 0 it determines the number of steps."""
    learning_rate: float = 3e-3
    """Peak of the graded models."""
    reference_learning_rate: float = 1e-3
    """Peak of the reference model."""
    schedule: str = "linear"
    """Linear to 0, or constant as in the paper."""
    valid_fraction: float = 0.1
    """Share of stories held out, by the hash of their text."""
    samples: int = 32
    """Stories sampled from each graded model."""
    temperature: float = 0.7
    """Of sampling."""
    max_new_tokens: int = 220
    """Longest sampled story."""
    checkpoint_every: int = 0
    """Updates between checkpoints; 0: none."""


SMOKE = RealSettings(
    widths=(8,), depths=(1,), reference_width=32, reference_depth=2, bpe_size=300, vocabulary=280, context=32,
    batch_size=2, steps=6, samples=4, max_new_tokens=20,
)  # fmt: skip
GPU = RealSettings(
    widths=(64, 128), depths=(8, 8), reference_width=512, reference_depth=8, bpe_size=12_000, vocabulary=10_000,
    context=512, batch_size=64, steps=8000, learning_rate=1e-3, reference_learning_rate=5e-4, samples=128,
    checkpoint_every=1000,
)  # fmt: skip
PAPER = RealSettings(
    widths=(64, 128, 256, 512, 768, 1024, 1024), depths=(8, 8, 8, 8, 4, 1, 2), n_heads=16, reference_width=2048,
    reference_depth=8, reference_share=0.5, tokenizer="gpt2", vocabulary=10_000, context=512, batch_size=80,
    accumulation=16, epochs=20, learning_rate=5e-4, reference_learning_rate=3e-4, schedule="constant", samples=440,
    temperature=1.0, checkpoint_every=1000,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The models, and what they are trained on."""

    nested_widths: tuple[int, ...] = (8, 16, 32, 64, 128)
    """Widths of the models of nested stories, whose grammar is hard."""
    nested_depths: tuple[int, ...] = (1, 2)
    """Depths of these."""
    widths: tuple[int, ...] = (16, 32, 64, 128)
    """Widths of the grid of standard stories."""
    depths: tuple[int, ...] = (2,)
    """Depths of the grid."""
    repeated_stories: int = 400
    """Training stories of the control that is to learn them by heart: the last model of the grid, with as many updates."""
    n_heads: int = 4
    """Attention heads of every model (the paper has 16 at widths from 64)."""
    steps: int = 1200
    """Updates of a grid model."""
    batch_size: int = 16
    """Stories in an update."""
    learning_rate: float = 3e-3
    """Peak for the grid, reached after 30 updates; then linearly to 0."""
    wide: int = 128
    """Width from which on the learning rate is `wide_learning_rate`."""
    wide_learning_rate: float = 1e-3
    """Peak of the wide models."""
    init_std: float = 0.02
    """Standard deviation of the grid's initial weights, as in the paper's models."""
    train_stories: int = 12_000
    """Training stories, one in a row."""
    held_out_stories: int = 200
    """Stories for losses, calibration and originality."""
    evaluate_every: int = 400
    """Updates between two evaluations of a model of the grid, each with fresh samples; others are evaluated at the end."""
    samples: int = 64
    """Stories sampled at an evaluation."""
    temperature: float = 0.7
    """Of sampling."""
    binding_widths: tuple[int, ...] = (88, 64)
    """Widths of the binding models, chosen for equal parameters at `binding_depths`."""
    binding_depths: tuple[int, ...] = (1, 2)
    """Depths of the binding models: the first is compared with the second."""
    binding_learning_rates: tuple[float, ...] = (1.5e-3, 3e-3)
    """Learning rates that every depth tries once, with the tuning seed, over all updates; the lowest held-out loss wins."""
    binding_steps: int = 3000
    """Updates of a binding model."""
    binding_samples: int = 128
    """Stories sampled from a binding model."""
    binding_init_std: float = 0.1
    """Standard deviation of the initial weights of binding models; with 0.02 none of this size copies within the steps."""
    circuits: tuple[str, ...] = ("d128_l2", "d64_l2")
    """Grid models whose heads and neurons the report shows."""
    checkpoint_every: int = 0
    """Updates between checkpoints; 0: none, a stopped model is trained again from the start."""
    data: str = ""
    """Real stories in place of TinyWorld: a file with separator lines, or any source."""
    real: RealSettings = field(default_factory=RealSettings)
    """The models and the vocabulary for real stories."""


PRESETS: dict[str, Settings] = {
    "smoke": Settings(
        nested_widths=(8,), nested_depths=(1,), widths=(8, 16), depths=(1,), steps=40, train_stories=400,
        repeated_stories=40, held_out_stories=24, evaluate_every=20, samples=6, binding_widths=(20, 16), binding_steps=10,
        binding_samples=6, circuits=("d16_l1",), real=SMOKE,
    ),
    "laptop": Settings(),
    "gpu": Settings(
        nested_widths=(8, 16, 32, 64, 128, 256), nested_depths=(1, 2, 4), widths=(16, 32, 64, 128, 256), depths=(1, 2, 4, 8),
        steps=6000, batch_size=64, train_stories=200_000, repeated_stories=4_000, evaluate_every=500, samples=256,
        binding_learning_rates=(1e-3, 3e-3, 6e-3), binding_steps=6000, binding_samples=256, checkpoint_every=1000, real=GPU,
    ),
    "paper": Settings(data="hub:roneneldan/TinyStories:train", checkpoint_every=1000, real=PAPER),
}  # fmt: skip
