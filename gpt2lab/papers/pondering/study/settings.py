"""What is compared, and the model, data and schedule that all arms share, at every scale."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gpt2lab.base.errors import LabError


@dataclass(frozen=True, kw_only=True)
class Arm:
    """How an arm differs from the plain model of equal size."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """Of `Pondering`; steps None stands for those of the settings."""
    blocks: int = 1
    """Times as many blocks; 0: as many passes as pondering makes."""
    longer: bool = False
    """As many more updates as it takes for the compute of pondering."""


ARMS: dict[str, Arm] = {
    "ponder": Arm(options={"steps": None}),
    "vanilla": Arm(),
    "vanilla_long": Arm(longer=True),
    "vanilla_double": Arm(blocks=2),
    "vanilla_deep": Arm(blocks=0),
    "loop": Arm(options={"steps": None, "feedback": "loop"}),
    "hidden": Arm(options={"steps": None, "feedback": "hidden"}),
    "hidden_linear": Arm(options={"steps": None, "feedback": "hidden_linear"}),
    "pause": Arm(options={"steps": None, "feedback": "pause"}),
    "detached": Arm(options={"steps": None, "detach": True}),
    "ponder_one": Arm(options={"steps": 1}),
    "ponder_random": Arm(options={"steps": None, "random_steps": 10}),
}
"""What can be compared; plain arms take no steps."""

_LAPTOP = ("ponder", "vanilla", "hidden", "vanilla_deep")
_FEW = (*_LAPTOP, "vanilla_long", "loop")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Model, data and schedule that all arms share."""

    arms: tuple[str, ...] = _LAPTOP
    """Arms: ponder, vanilla and vanilla_deep (as many times the blocks as pondering passes), with any of vanilla_long
    (equal compute by more updates), vanilla_double (twice the blocks), loop, hidden, hidden_linear, pause, detached,
    ponder_one, ponder_random."""
    data: str = "books"
    """Text: a file, folder, hub:ID or built-in name."""
    validation_book: str = "The Man Who Was Thursday"
    """Title of the book that is judged. Of data other than `books`, every twentieth block of tokens is held out, and these
    blocks are both judged and, in other windows, tuned on."""
    tuning_book: str = "The Wisdom of Father Brown"
    """Title of the book on which settings are chosen."""
    vocab_size: int = 1024
    """Vocabulary size of the tokenizer, trained on the training text."""
    family: str = "gpt_neox"
    """gpt2, gpt_neox (Pythia, as in Table 2) or llama. In gpt2 the embedding scale of the published runs drowns the learned
    positions: in a short training no arm learns to use the context."""
    d_model: int = 128
    """Width."""
    n_layers: int = 1
    """Blocks."""
    n_heads: int = 4
    """Attention heads."""
    context: int = 96
    """Tokens in a row."""
    batch_size: int = 16
    """Rows in an update."""
    accumulation: int = 1
    """Batches in an update."""
    steps: int = 1800
    """Updates."""
    warmup: float = 0.05
    """Share of the updates in which the learning rate rises."""
    rates: tuple[float, ...] = (2e-3, 4e-3, 8e-3, 1.6e-2)
    """Learning rates that are tried, ascending: by arms with passes each without and with `multiply_by_steps`; by others as
    many again half a step higher, so that every arm makes the same number of trials."""
    trial: float = 0.12
    """Share of an arm's updates in which each setting is tried, over a complete schedule."""
    weight_decay: float = 0.01
    """Of matrices and embeddings."""
    precision: str = "auto"
    """float32, bf16 or auto."""
    pondering_steps: int = 3
    """Extra passes."""
    top_k: int | None = None
    """Tokens in the mixture; none is all."""
    draw: str = "layers"
    """Initialisation of the residual projections: layers, or passes, where depth counts the repeated passes."""
    checkpoint_passes: bool = False
    """Recompute the earlier passes in the backward pass."""
    windows: int = 384
    """Validation windows, always the same."""
    swept: int = 5
    """Largest number of steps at which the trained model is evaluated."""

    def __post_init__(self) -> None:
        unknown = [arm for arm in self.arms if arm not in ARMS]
        missing = [arm for arm in ("ponder", "vanilla", "vanilla_deep") if arm not in self.arms]
        if unknown or missing:
            raise LabError(
                f"arms must hold ponder, vanilla and vanilla_deep and be among {', '.join(ARMS)}; got {self.arms}"
            )
        if self.family not in ("gpt2", "gpt_neox", "llama"):
            raise LabError(f"family must be gpt2, gpt_neox or llama, got {self.family}")
        if self.pondering_steps < 1 or self.swept < self.pondering_steps:
            raise LabError("pondering_steps must be at least 1, and swept no less than that")
        if not self.rates or self.rates[0] <= 0 or list(self.rates) != sorted(set(self.rates)):
            raise LabError(f"rates must ascend from above 0, got {self.rates}")
        if not 0 < self.trial <= 1 or not 0 <= self.warmup < 1:
            raise LabError(
                f"trial and warmup are shares of the updates, in (0, 1] and [0, 1), got {self.trial} and {self.warmup}"
            )


PRESETS: dict[str, Settings] = {
    "smoke": Settings(
        arms=(*_FEW, "vanilla_double", "hidden_linear", "pause", "ponder_one", "ponder_random", "detached"),
        data="tinyworld:150", vocab_size=280, d_model=16, n_heads=2, context=24, batch_size=8, steps=6,
        rates=(2e-3,), trial=0.3, pondering_steps=2, windows=16, swept=3,
    ),
    "laptop": Settings(),
    "gpu": Settings(
        arms=tuple(ARMS), data="docstrings:8000000", vocab_size=2048, d_model=160, n_layers=4, n_heads=4,
        context=128, batch_size=64, steps=3000, warmup=0.02, rates=(1e-3, 2e-3, 4e-3),
        windows=768, swept=10,
    ),
    "paper": Settings(
        arms=(*_FEW, "vanilla_double", "hidden_linear", "pause", "ponder_one", "ponder_random"),
        data="hub:JeanKaddour/minipile", vocab_size=50_304, d_model=512, n_layers=6, n_heads=8,
        context=2048, batch_size=8, accumulation=16, steps=5700, warmup=0.01, rates=(5e-4, 1e-3, 2e-3),
        precision="bf16", top_k=100, draw="passes", checkpoint_passes=True, windows=384, swept=10,
    ),
}  # fmt: skip
