"""What is compared, and the model, data and schedule that all arms share, at every scale."""

from dataclasses import dataclass, field
from typing import Literal

from gpt2lab.base.errors import LabError
from gpt2lab.papers.meta_tokens.bottleneck import BottleneckSettings
from gpt2lab.papers.meta_tokens.levels import LEVELS
from gpt2lab.papers.meta_tokens.tasks import SHORTEST, TASKS, WORDS


@dataclass(frozen=True, kw_only=True)
class Arm:
    """How an arm differs from the plain model."""

    attention: Literal["none", "metas", "all"] = "none"
    """The second attention of every block."""
    inject: bool = False
    """Whether pre-training text holds metas at random places."""
    pauses: bool = True
    """Whether prompts of the tasks hold the pause."""
    matched: Literal["", "width", "depth"] = ""
    """A plain model with the parameters of one with a second attention, in its feed-forwards or in more blocks."""


ARMS: dict[str, Arm] = {
    "meta": Arm(attention="metas", inject=True),
    "plain": Arm(),
    "full": Arm(attention="all"),
    "injected": Arm(inject=True),
    "no_pause": Arm(pauses=False),
    "uninjected": Arm(attention="metas"),
    "full_injected": Arm(attention="all", inject=True),
    "wider": Arm(matched="width"),
    "deeper": Arm(matched="depth"),
}
"""What can be compared."""
_JUDGED = ("meta", "plain", "full", "injected")
GRID_ARMS = ("meta", "plain")
"""The arms of the length grid."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Model, data and schedule that all arms share."""

    arms: tuple[str, ...] = _JUDGED
    """Arms: meta (the paper's), plain (the pause is an ordinary token), full (a second full attention of as many weights)
    and injected (metas without meta-attention), with any of no_pause (plain, prompts without pauses), uninjected
    (meta-attention without injection), full_injected, wider and deeper (plain, as many parameters as meta)."""
    tasks: tuple[str, ...] = ("list-recall",)
    """Tasks of fine-tuning, which take turns: list-recall (judged), segment-counting, parity, copying."""
    words: int = 12
    """Different words in the prompts, of 500."""
    data: str = ""
    """Text of pre-training: a file, folder, hub:ID or built-in name; empty generates prompts without questions."""
    text_tokens: int = 4_000_000
    """Tokens of that text that are read at most."""
    vocab_size: int = 4000
    """Vocabulary size of the tokenizer of such a text; without one, words are tokens."""
    positions: Literal["rotary", "learned"] = "rotary"
    """Positions of the model; learned ones cannot be tested beyond those they were trained on."""
    d_model: int = 64
    """Width."""
    n_layers: int = 3
    """Blocks."""
    n_heads: int = 4
    """Attention heads."""
    init_std: float = 0.1
    """Standard deviation of the initial matrices, near 1/√d_model; GPT-2's is 0.02, at which narrow models hardly learn."""
    context: int = 64
    """Tokens in a row of pre-training, metas included."""
    batch_size: int = 32
    """Rows in an update."""
    accumulation: int = 1
    """Batches in an update."""
    pretrain_steps: int = 200
    """Updates of pre-training."""
    steps: int = 3600
    """Updates of fine-tuning."""
    ranges: tuple[tuple[int, int], ...] = ((24, 28), (24, 32))
    """Phases of the curriculum: least and most words of a prompt."""
    longer: tuple[float, ...] = (1.5, 2.0)
    """Tests at so many times the longest trained prompt, besides prompts of trained lengths."""
    grid: tuple[int, ...] = ()
    """Length grid: meta and plain are also fine-tuned on prompts of at most so many words each, ascending, and tested at
    all of these lengths; empty is none. The paper's are 128, 256 and 512."""
    fraction: float = 0.1
    """Share of a row of pre-training that is metas."""
    warmup: float = 0.05
    """Share of the updates in which the learning rate rises."""
    rates: tuple[float, ...] = (2e-3, 4e-3, 8e-3)
    """Learning rates that every arm tries, ascending; one rate serves pre-training and fine-tuning."""
    trial: float = 0.3
    """Share of the updates in which each rate is tried, over complete schedules."""
    weight_decay: float = 0.1
    """Of matrices and embeddings."""
    precision: Literal["float32", "bf16", "auto"] = "auto"
    """Arithmetic of the passes."""
    tested: int = 500
    """Test prompts of every task and length."""
    looked_at: int = 128
    """Test prompts whose attention and states are looked at."""
    bottleneck_examples: int = 400
    """Prompts that each bottleneck is trained on, and as many others that it is judged on."""
    bottleneck: BottleneckSettings = field(
        default_factory=lambda: BottleneckSettings(epochs=20, batch_size=20)
    )
    """How bottlenecks are trained."""

    def __post_init__(self) -> None:
        unknown = [arm for arm in self.arms if arm not in ARMS]
        missing = [arm for arm in _JUDGED if arm not in self.arms]
        if unknown or missing:
            raise LabError(
                f"arms must hold {', '.join(_JUDGED)} and be among {', '.join(ARMS)}; got {self.arms}"
            )
        if "list-recall" not in self.tasks or any(task not in TASKS for task in self.tasks):
            raise LabError(f"tasks must hold list-recall and be among {', '.join(TASKS)}; got {self.tasks}")
        if self.positions not in ("rotary", "learned"):
            raise LabError(f"positions must be rotary or learned, got {self.positions}")
        if not self.rates or self.rates[0] <= 0 or list(self.rates) != sorted(set(self.rates)):
            raise LabError(f"rates must ascend from above 0, got {self.rates}")
        if not 0 < self.trial <= 1 or not 0 <= self.warmup < 1:
            raise LabError(
                f"trial and warmup are shares of the updates, in (0, 1] and [0, 1), got {self.trial} and {self.warmup}"
            )
        if not self.ranges or min(low for low, _ in self.ranges) < SHORTEST:
            raise LabError(f"ranges: prompts have at least {SHORTEST} words, got {self.ranges}")
        if 2.0 not in self.longer or min(self.longer) <= 1:
            raise LabError(f"longer: lengths above 1 times the trained one, 2 among them, got {self.longer}")
        if list(self.grid) != sorted(set(self.grid)) or (self.grid and self.grid[0] <= SHORTEST):
            raise LabError(f"grid: lengths ascend from above {SHORTEST} words, got {self.grid}")
        if self.positions == "learned" and self.grid:
            raise LabError(
                "grid: learned positions cannot be tested beyond those they were trained on; leave it empty"
            )

    @property
    def longest(self) -> int:
        """Words of the longest trained prompt."""
        return max(high for _, high in self.ranges)

    @property
    def grid_ranges(self) -> dict[str, tuple[int, int]]:
        """Ranges of prompt lengths of the grid by name: w128, w256, each from above the one before."""
        lows = (SHORTEST, *(high + 1 for high in self.grid))
        return {f"w{high}": (low, high) for low, high in zip(lows, self.grid, strict=False)}

    @property
    def tests(self) -> dict[str, tuple[int, int]]:
        """Ranges of prompt lengths that are tested, by name: x1, x1_5, x2."""
        found, last = {"x1": (min(low for low, _ in self.ranges), self.longest)}, self.longest
        for times in sorted(self.longer):
            high = round(times * self.longest)
            found[f"x{times:g}".replace(".", "_")] = (last + 1, high)
            last = high
        return found


PRESETS: dict[str, Settings] = {
    "smoke": Settings(
        arms=tuple(ARMS), words=8, d_model=16, n_layers=3, n_heads=2, context=32, batch_size=4, pretrain_steps=2,
        steps=4, rates=(2e-3,), trial=0.5, tested=12, looked_at=12, bottleneck_examples=12,
        grid=(32, 44),
        tasks=("list-recall", "parity"), bottleneck=BottleneckSettings(betas=(0.1, 1.0), size=4, epochs=1, batch_size=4),
    ),
    "laptop": Settings(),
    "gpu": Settings(
        arms=tuple(ARMS), tasks=tuple(TASKS), words=len(WORDS), d_model=256, n_layers=6, n_heads=8, init_std=0.06,
        context=256, batch_size=64, pretrain_steps=1000, steps=8000, ranges=(LEVELS["easy"], LEVELS["medium"]), tested=1000,
        rates=(5e-4, 1e-3, 2e-3), looked_at=256, grid=(64, 128, 256),
    ),
    "paper": Settings(
        arms=(*_JUDGED, "no_pause"), tasks=tuple(TASKS), words=len(WORDS), data="hub:allenai/c4@en:train",
        text_tokens=2_000_000_000, vocab_size=50_257, d_model=768, n_layers=12, n_heads=12, init_std=0.02, context=1024,
        batch_size=12, accumulation=40, pretrain_steps=200_000, steps=10_000,
        ranges=(LEVELS["easy"], LEVELS["medium"], LEVELS["hard"], LEVELS["extra-hard"]), rates=(3e-4, 6e-4, 1.2e-3),
        trial=0.02, warmup=0.01, precision="bf16", tested=10_000, looked_at=256, bottleneck_examples=50,
        bottleneck=BottleneckSettings(), grid=(128, 256, 512),
    ),
}  # fmt: skip
