"""The model, the two languages, and what every arm shares, at every scale."""

from dataclasses import dataclass
from typing import Literal

from gpt2lab.base.errors import LabError
from gpt2lab.base.settings import Model
from gpt2lab.papers.wechsel.initialisation import Method
from gpt2lab.text.skipgram import SkipgramOptions
from gpt2lab.text.text_vectors import TRAINING, Kind
from gpt2lab.text.word_vectors import CountOptions

CIPHER = "cipher"
"""The target language that is the source with its words replaced."""
SCARCE = "_scarce"
"""Ending of the arms that train on a tenth of the text."""
ARMS: dict[str, Method] = {
    "wechsel": "wechsel",
    "nearest": "nearest",
    "unaligned": "wechsel",
    "permuted": "permuted",
    "transinner": "transinner",
    "frozen": "frozen",
    "fullrand": "fullrand",
    "wechsel_scarce": "wechsel",
    "fullrand_scarce": "fullrand",
}
"""Method of each arm; `unaligned` mixes without a rotation."""

_COUNTING = CountOptions(window=4, least=16, weighting="harmonic", dimensions=50)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is moved from which language to which, and how every arm trains there."""

    data: str = "books:3200000"
    """Text in the source language: a file, folder, hub:ID or built-in name."""
    target: str = CIPHER
    """Text in the target language; `cipher` replaces the words of half of `data`."""
    dictionary: str = ""
    """File of pairs, source TAB target; the cipher has its own."""
    dictionary_words: int = 400
    """Most frequent words of the cipher that the dictionary holds; as many after them test the alignment."""
    plain: bool = True
    """Lower-case the text and keep a-z and '.,!? alone; the cipher needs it, other languages lose their accents by it."""
    model: Model = ""
    """MODEL of the source language; empty pre-trains one on `data`."""
    vocab_size: int = 1200
    """Ids of both tokenizers; with `model` those of the target's, 0 being as many as the model has."""
    source_vectors: str = ""
    """Word vectors of the source language, .bin or .vec; empty makes them from `data`."""
    target_vectors: str = ""
    """Word vectors of the target language; empty makes them from its training text."""
    vectors: Kind = "ppmi"
    """How vectors are made from text."""
    counting: CountOptions = _COUNTING
    """How ppmi counts."""
    skipgram: SkipgramOptions = TRAINING
    """How skipgram trains."""
    mode: Literal["auto", "ngrams", "frequency"] = "auto"
    """How tokens get their vectors."""
    k: int = 10
    """Source tokens that a token is mixed from."""
    tau: float = 0.1
    """Temperature of the weights."""
    arms: tuple[str, ...] = tuple(ARMS)
    """What is compared; the claims read wechsel, permuted, transinner, fullrand and the two scarce ones."""
    freeze: float = 0.1
    """Share of the updates in which the inner weights of `frozen` wait."""
    scarce: float = 0.1
    """Share of the training text that the scarce arms have."""
    d_model: int = 96
    """Width."""
    n_layers: int = 2
    """Blocks."""
    n_heads: int = 4
    """Attention heads."""
    context: int = 48
    """Tokens of a row."""
    batch_size: int = 24
    """Rows of a micro-batch."""
    accumulation: int = 1
    """Micro-batches of an update."""
    pretraining_steps: int = 1500
    """Updates of the source model."""
    pretraining_rate: float = 4e-3
    """Its peak learning rate."""
    steps: int = 480
    """Updates of every arm in the target language; a multiple of 4."""
    evaluations: int = 16
    """Evaluations while an arm trains, evenly spaced, a multiple of 4; one more before the first update."""
    windows: int = 400
    """Held-out windows that are evaluated, at most, for tuning and for judging."""
    rates: tuple[float, ...] = (2e-3, 4e-3, 8e-3, 1.6e-2)
    """Learning rates that every arm tries, ascending, and one more where these call for it."""
    warmup: float = 0.1
    """Share of the updates in which the learning rate rises; then it falls along a cosine to a tenth."""
    weight_decay: float = 0.1
    """Of matrices and embeddings."""
    precision: Literal["float32", "bf16", "auto"] = "auto"
    """Arithmetic of forward and backward pass."""

    def __post_init__(self) -> None:
        unknown = [arm for arm in self.arms if arm not in ARMS]
        needed = {"wechsel", "permuted", "transinner", "fullrand", "wechsel_scarce", "fullrand_scarce"}
        if unknown or not needed <= set(self.arms) or len(set(self.arms)) < len(self.arms):
            raise LabError(
                f"arms are each once of {', '.join(ARMS)}, with {', '.join(sorted(needed))} among them"
            )
        if self.target != CIPHER and not self.dictionary:
            raise LabError(
                f"dictionary: a target other than {CIPHER} needs a file of pairs, source TAB target"
            )
        if self.target == CIPHER and not self.plain:
            raise LabError("plain: the cipher replaces the words of plain text; leave it at true")
        if (
            self.steps < 4
            or self.steps % 4
            or self.evaluations < 4
            or self.evaluations % 4
            or self.steps % self.evaluations
        ):
            raise LabError(
                f"steps is a multiple of evaluations, and both are multiples of 4, got {self.steps} and {self.evaluations}"
            )
        if not self.rates or self.rates[0] <= 0 or list(self.rates) != sorted(set(self.rates)):
            raise LabError(f"rates must ascend from above 0, got {self.rates}")
        for name in ("freeze", "scarce", "warmup"):
            if not 0 < getattr(self, name) < 1:
                raise LabError(f"{name} is a share, in (0, 1), got {getattr(self, name)}")
        for name in (
            "windows",
            "dictionary_words",
            "pretraining_steps",
            "batch_size",
            "context",
            "accumulation",
        ):
            if getattr(self, name) < 1:
                raise LabError(f"{name} must be at least 1, got {getattr(self, name)}")


PRESETS: dict[str, Settings] = {
    "smoke": Settings(
        data="tinyworld:400", dictionary_words=40, vocab_size=320, d_model=16, n_heads=2, context=24, batch_size=4,
        counting=CountOptions(window=4, least=2, weighting="harmonic", dimensions=10), pretraining_steps=8, steps=8,
        evaluations=4, windows=12, rates=(4e-3,),
    ),
    "laptop": Settings(),
    "gpu": Settings(
        data="books", vocab_size=4000, counting=CountOptions(window=4, least=12, weighting="harmonic", dimensions=100),
        dictionary_words=2000, d_model=384, n_layers=6, n_heads=6, context=128, batch_size=64, pretraining_steps=3000,
        pretraining_rate=1e-3, steps=1600, evaluations=32, windows=800, rates=(5e-4, 1e-3, 2e-3),
    ),
    "paper": Settings(
        data="hub:oscar@unshuffled_deduplicated_en:train", target="hub:oscar@unshuffled_deduplicated_fr:train",
        dictionary="french.txt", plain=False, model="gpt2", vocab_size=0, source_vectors="cc.en.300.bin",
        target_vectors="cc.fr.300.bin", mode="ngrams", context=512, batch_size=16, accumulation=32, steps=250_000,
        evaluations=100, windows=4000, rates=(2.5e-4, 5e-4, 1e-3), weight_decay=0.01, precision="bf16",
    ),
}  # fmt: skip
