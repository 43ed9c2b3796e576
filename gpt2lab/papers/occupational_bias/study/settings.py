"""The world, the model that learns it, how it is asked, and the model that exists, at every scale."""

from dataclasses import dataclass
from typing import Literal

from gpt2lab.base.errors import LabError
from gpt2lab.papers.occupational_bias import world


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The world, the model that learns it, and how it is asked; and a pretrained model."""

    trained: bool = True
    """Train a model on a generated world; otherwise only the pretrained model is measured."""
    world_seed: int = 0
    """Seed of the world; the same for all seeds of a study, so that an interval over them says nothing of other worlds."""
    planted: int = 8
    """Jobs with an interaction of category and gender."""
    sentences: int = 60_000
    """Sentences about jobs; 30 % more are about other things."""
    d_model: int = 64
    """Width."""
    n_layers: int = 2
    """Blocks."""
    steps: int = 1500
    """Updates."""
    batch_size: int = 64
    """Sentences an update."""
    learning_rate: float = 1e-3
    """Peak of AdamW, then cosine to a tenth."""
    n: int = 7000
    """Completions of each prompt."""
    draws: int = 8
    """Draws of so many answers from the exact probabilities, over which the significant interactions are averaged."""
    top_k: int = 50
    """Sample from this many most probable tokens."""
    cold: float = 0.7
    """The second temperature, at which amplification must grow."""
    narrow: int = 5
    """The second top_k, at which amplification must grow."""
    sample_batch: int = 1000
    """Completions in one batch."""
    real: str = ""
    """A pretrained model that is measured with the paper's prompts where it is at hand; empty: none."""
    mode: Literal["sampled", "exact", "both"] = "exact"
    """How it is asked: see `gpt2lab measure occupational-bias`; the claims read the sampled answers where there are any."""
    names: bool = False
    """Ask it about first names too."""
    intersections: tuple[str, ...] = ()
    """Ask it about these alone, such as ethnicity; none: all."""
    names_n: int = 1000
    """Completions of each name."""

    def __post_init__(self) -> None:
        if min(self.n, self.names_n, self.sentences, self.steps, self.draws) < 1:
            raise LabError("n, names_n, sentences, steps and draws must be at least 1")
        if not 0 <= self.planted <= len(world.JOBS):
            raise LabError(f"planted must lie between 0 and {len(world.JOBS)} jobs, got {self.planted}")
        if not self.trained and not self.real:
            raise LabError("trained is off and real names no model: there is nothing to measure")


PRESETS = {
    "smoke": Settings(
        sentences=1500, d_model=32, n_layers=1, steps=100, batch_size=64, learning_rate=1e-2, n=60, draws=2
    ),
    "laptop": Settings(real="smollm2-135m"),
    "gpu": Settings(trained=False, real="gpt2", mode="both", n=1000),
    "paper": Settings(trained=False, real="gpt2", mode="both", names=True),
}
