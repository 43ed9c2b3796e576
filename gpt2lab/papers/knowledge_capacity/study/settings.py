"""What is trained at every scale: which shapes on which facts, how often each fact is seen, beside which junk."""

from dataclasses import dataclass
from typing import Literal

from gpt2lab.base.errors import LabError
from gpt2lab.papers.knowledge_capacity.facts import NAMES
from gpt2lab.papers.knowledge_capacity.models import SHAPES

Junk = Literal["none", "random", "repeated", "marked"]
JUNK: tuple[Junk, ...] = ("none", "random", "repeated", "marked")


@dataclass(frozen=True)
class Cell:
    """One model that is trained."""

    curve: str
    """What it is a point of: many, few, many_SHAPE, few_SHAPE, many_FACTS, or junk."""
    shape: str
    """One of `SHAPES`."""
    facts: str
    """Name of the source."""
    people: int
    """Of which it is told."""
    exposures: int
    """How often each is told."""
    batch_size: int
    """Rows of facts in an update."""
    junk: Junk = "none"
    """What else it reads."""

    @property
    def name(self) -> str:
        """Its name in results: `many.p750`, `junk.random`."""
        return f"junk.{self.junk}" if self.curve == "junk" else f"{self.curve}.p{self.people}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The models, the facts and the schedule."""

    facts: str = "biod-symbols"
    """Source of the facts: bios, bios-simple, bior, biod or biod-symbols."""
    n_layers: int = 2
    """Blocks."""
    n_heads: int = 2
    """Attention heads."""
    d_head: int = 16
    """Width of a head; the paper's is 64."""
    vocab_size: int = 1024
    """Ids of the tokenizer that is trained on the facts; biod-symbols has one of its own."""
    context: int = 32
    """Tokens in a row. biod-symbols: one text a row; else windows of texts."""
    people: tuple[int, ...] = (200, 400, 750, 1200)
    """How many people the curve of many exposures is measured with."""
    exposures: int = 1000
    """How often each fact is seen there."""
    batch_size: int = 64
    """Rows in an update."""
    few_people: tuple[int, ...] = (750, 1200)
    """How many people the curve of few exposures is measured with."""
    few_exposures: int = 100
    """How often each fact is seen there."""
    few_batch_size: int = 16
    """Rows in an update there."""
    shapes: tuple[str, ...] = ()
    """Other shapes that are trained with few exposures."""
    many_shapes: tuple[str, ...] = ()
    """Other shapes that are trained with many exposures."""
    other_facts: tuple[str, ...] = ()
    """Other sources that are trained on with many exposures."""
    shape_people: tuple[int, ...] = (750, 1200)
    """How many people other shapes and sources are trained with."""
    quantised: int = 750
    """At how many people of the curve of many exposures the weights are rounded afterwards."""
    junk_people: int = 100
    """People beside junk; 0 leaves the comparison out."""
    junk_exposures: int = 300
    """How often each of their facts is seen."""
    junk_batch_size: int = 8
    """Rows of theirs in an update."""
    junk_ratio: int = 7
    """Rows of junk for each of theirs."""
    repeated_people: int = 20
    """People of the junk that is always the same."""
    rates: tuple[float, ...] = (4e-3, 8e-3)
    """Learning rates that are tried, ascending, and one more where the best calls for it."""
    trial: float = 1.0
    """Share of the exposures of a trial, over a complete schedule."""
    weight_decay: float = 0.01
    """Of matrices and embeddings."""
    warmup: float = 0.05
    """Share of the updates in which the learning rate rises, at most 1,000 of them."""
    precision: str = "float32"
    """float32, bf16 or auto."""
    draws: int = 2
    """Wordings in which every person is asked for."""
    limit: int | None = None
    """Ask for at most this many people; none is all."""

    def __post_init__(self) -> None:
        for name in ("people", "few_people", "shape_people", "rates"):
            values: tuple[float, ...] = getattr(self, name)
            if not values or min(values) <= 0 or list(values) != sorted(set(values)):
                raise LabError(f"{name} must ascend from above 0, got {values}")
        if self.quantised not in self.people:
            raise LabError(f"quantised must be one of people {self.people}, got {self.quantised}")
        for facts in (self.facts, *self.other_facts):
            if facts not in NAMES:
                raise LabError(f"facts must be among {', '.join(NAMES)}, got {facts}")
        for shape in (*self.shapes, *self.many_shapes):
            if shape not in SHAPES or shape == "gpt2":
                raise LabError(f"shapes must be among {', '.join(SHAPES[1:])}, got {shape}")
        if not 0 < self.trial <= 1 or not 0 <= self.warmup < 1:
            raise LabError(
                f"trial and warmup are shares, in (0, 1] and [0, 1), got {self.trial} and {self.warmup}"
            )
        for name in (
            "exposures",
            "few_exposures",
            "batch_size",
            "few_batch_size",
            "junk_batch_size",
            "junk_ratio",
        ):
            if getattr(self, name) < 1:
                raise LabError(f"{name} must be at least 1, got {getattr(self, name)}")


def cells(settings: Settings) -> list[Cell]:
    """Return every model that is trained, the longest trainings first."""
    many = (settings.exposures, settings.batch_size)
    few = (settings.few_exposures, settings.few_batch_size)
    made = [Cell("many", "gpt2", settings.facts, n, *many) for n in settings.people]
    made += [Cell("few", "gpt2", settings.facts, n, *few) for n in settings.few_people]
    for n in settings.shape_people:
        made += [Cell(f"many_{word(s)}", s, settings.facts, n, *many) for s in settings.many_shapes]
        made += [Cell(f"few_{word(s)}", s, settings.facts, n, *few) for s in settings.shapes]
        made += [Cell(f"many_{word(facts)}", "gpt2", facts, n, *many) for facts in settings.other_facts]
    if settings.junk_people:
        beside = (settings.junk_people, settings.junk_exposures, settings.junk_batch_size)
        made += [Cell("junk", "gpt2", settings.facts, *beside, junk=kind) for kind in JUNK]
    return sorted(made, key=lambda cell: -cell.people * cell.exposures)


def curves(settings: Settings) -> dict[str, list[Cell]]:
    """Return the points of every curve, by the number of people; junk is no curve."""
    found = dict[str, list[Cell]]()
    for cell in cells(settings):
        if cell.curve != "junk":
            found.setdefault(cell.curve, []).append(cell)
    return {name: sorted(of, key=lambda cell: cell.people) for name, of in found.items()}


def word(name: str) -> str:
    """Return a name as a word of a result's name."""
    return name.replace("-", "_")


PRESETS: dict[str, Settings] = {
    "smoke": Settings(
        n_heads=2, d_head=4, people=(8, 20), exposures=10, batch_size=4, few_people=(8, 20), few_exposures=4,
        few_batch_size=4, shapes=("gpt2-no-mlp", "gpt2-gated"), shape_people=(8, 20), quantised=20,
        many_shapes=("gpt2-experts",), junk_people=8, junk_exposures=4, junk_batch_size=2, junk_ratio=3,
        repeated_people=3, rates=(4e-3, 8e-3), draws=1,
    ),
    "laptop": Settings(),
    "gpu": Settings(
        facts="bios", n_layers=2, n_heads=1, d_head=64, vocab_size=1024, context=512, people=(2500, 4500, 8000),
        batch_size=24, few_people=(2000, 3500, 5000), few_batch_size=6, shape_people=(4500,), quantised=4500,
        shapes=("llama-tied", "llama-plain", "mistral-tied", "gpt2-gated", "gpt2-quarter", "gpt2-no-mlp", "gpt2-experts"),
        many_shapes=("llama-tied", "mistral-tied", "gpt2-quarter", "gpt2-no-mlp", "gpt2-experts"),
        other_facts=("bios-simple", "bior", "biod"), junk_people=1000, junk_exposures=100, junk_batch_size=2,
        repeated_people=50, rates=(1e-3, 2e-3), trial=0.25, precision="auto", limit=2000,
    ),
    "paper": Settings(
        facts="bios", n_layers=2, n_heads=4, d_head=64, vocab_size=4096, context=512,
        people=(20_000, 50_000, 100_000), batch_size=96, few_people=(20_000, 50_000, 100_000), few_batch_size=24,
        shapes=tuple(s for s in SHAPES if s != "gpt2"), many_shapes=tuple(s for s in SHAPES if s != "gpt2"),
        other_facts=("bios-simple", "bior", "biod"), shape_people=(20_000, 50_000, 100_000), quantised=50_000,
        junk_people=50_000, junk_exposures=100, junk_batch_size=24, repeated_people=1000,
        rates=(5e-4, 1e-3), precision="bf16", limit=5000,
    ),
}  # fmt: skip
