"""Which languages are learnt, and the model, data and schedule that all of them share, at every scale."""

from dataclasses import dataclass
from typing import Literal

from gpt2lab.base.errors import LabError
from gpt2lab.papers.impossible_languages.languages import NAMES, language

FEW = (
    *("shuffle_control", "shuffle_local3", "shuffle_local10", "shuffle_even_odd"),
    *("shuffle_deterministic21", "shuffle_nondeterministic"),
    *("reverse_control", "reverse_partial", "reverse_full"),
    *("hop_control", "hop_tokens4", "hop_words4"),
)
"""The languages of the reduced study; the claims read all of them."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is trained on what."""

    languages: tuple[str, ...] = FEW
    """Languages; the twelve of the usual study, and any others."""
    data: str = "books"
    """Text of the shuffle and reverse families: a file, folder, hub:ID or built-in name."""
    shortest: int = 2
    """Tokens of a sentence of text, at least."""
    longest: int = 60
    """Tokens of a sentence of text, at most; the paper keeps up to 350."""
    sentences: int = 30_000
    """Sentences of text that are trained on, at most."""
    test: int = 1000
    """Sentences that are judged, of text and of the hop family."""
    tuning: int = 500
    """Sentences on which learning rates are chosen."""
    hop_data: str = ""
    """Annotated training sentences of the hop family (CoNLL-U, JSON); empty: the generator's."""
    hop_sentences: int = 24_000
    """Sentences of the generator that the hop family is trained on, half of them in the past."""
    examples: int = 100
    """Examples of the interchange interventions, at most."""
    vocab_size: int = 2000
    """Vocabulary of the tokenizer of the text."""
    hop_vocab_size: int = 700
    """Vocabulary of the tokenizer of the hop family: small, so that rarer words are several tokens."""
    positions: Literal["learned", "none"] = "learned"
    """none: no positional encoding at all, the paper's second architecture."""
    scale_by_layer: bool = True
    """Divide the scores of block l by l + 1 too, as in the authors' runs (scale_attn_by_inverse_layer_idx)."""
    d_model: int = 96
    """Width."""
    n_layers: int = 3
    """Blocks."""
    n_heads: int = 4
    """Attention heads."""
    context: int = 128
    """Tokens of a training row."""
    batch_size: int = 12
    """Rows in a micro-batch."""
    accumulation: int = 1
    """Micro-batches in an update."""
    steps: int = 450
    """Updates of a model of text."""
    hop_steps: int = 1500
    """Updates of a model of the hop family."""
    checkpoints: int = 4
    """Evaluations while training, evenly spaced; the last one is at the end."""
    keep_checkpoints: bool = False
    """Keep the weights at every evaluation too: RUN@UPDATES then names a model, RUN being that of a language."""
    warmup: float = 0.1
    """Share of the updates in which the learning rate rises; then it falls linearly to 0."""
    weight_decay: float = 0.1
    """Of matrices and embeddings."""
    rates: tuple[float, ...] = (2e-3, 4e-3, 8e-3)
    """Learning rates that every language tries, ascending, and one more where these call for it."""
    trial: float = 0.3
    """Share of the updates of each trial, over a complete schedule of its own."""
    precision: Literal["float32", "bf16", "auto"] = "auto"
    """Arithmetic of forward and backward pass."""

    def __post_init__(self) -> None:
        missing = [name for name in FEW if name not in self.languages]
        if missing or len(set(self.languages)) != len(self.languages):
            raise LabError(
                f"languages must hold each of {', '.join(FEW)} once; missing are {', '.join(missing) or 'none'}"
            )
        for name in self.languages:
            if language(name).name != name:
                raise LabError(f"languages: write {language(name).name}, not {name}")
        for name in (
            "test",
            "tuning",
            "sentences",
            "hop_sentences",
            "examples",
            "steps",
            "hop_steps",
            "checkpoints",
        ):
            if getattr(self, name) < 1:
                raise LabError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.checkpoints > min(self.steps, self.hop_steps):
            raise LabError(
                f"checkpoints: {self.checkpoints} evaluations do not fit into {self.steps} updates"
            )
        if not 2 <= self.shortest <= self.longest < self.context:
            raise LabError(
                f"sentences have from shortest ≥ 2 to longest < context tokens, got {self.shortest}, {self.longest} and "
                f"{self.context}"
            )
        if not self.rates or self.rates[0] <= 0 or list(self.rates) != sorted(set(self.rates)):
            raise LabError(f"rates must ascend from above 0, got {self.rates}")
        if not 0 < self.trial <= 1 or not 0 <= self.warmup < 1:
            raise LabError(
                f"trial and warmup are shares, in (0, 1] and [0, 1), got {self.trial} and {self.warmup}"
            )

    def updates(self, name: str) -> int:
        """Return how many updates a language gets."""
        return self.hop_steps if language(name).family == "hop" else self.steps


PRESETS: dict[str, Settings] = {
    "smoke": Settings(
        data="tinyworld:60", sentences=300, test=24, tuning=12, hop_sentences=700, examples=8, vocab_size=280,
        hop_vocab_size=420, d_model=16, n_layers=2, n_heads=2, context=64, longest=60, batch_size=4, steps=4, hop_steps=4,
        checkpoints=2, rates=(2e-3, 4e-3), trial=0.5,
    ),
    "laptop": Settings(),
    "gpu": Settings(
        languages=NAMES, sentences=60_000, test=2000, hop_sentences=60_000, vocab_size=4000, d_model=256, n_layers=6,
        n_heads=8, batch_size=64, steps=1500, hop_steps=2000, checkpoints=10, rates=(5e-4, 1e-3, 2e-3),
        examples=400,
    ),
    "paper": Settings(
        languages=NAMES, data="babylm_100M", longest=350, sentences=10_000_000, test=10_000, tuning=10_000,
        hop_sentences=8_430_000, vocab_size=50_257, hop_vocab_size=50_257, d_model=768, n_layers=12, n_heads=12,
        context=1024, batch_size=16, accumulation=32, steps=3000, hop_steps=3000, checkpoints=30,
        rates=(3e-4, 6e-4, 1.2e-3), precision="bf16", examples=1000,
    ),
}  # fmt: skip
