"""Text, models, decoders and lengths of the study, at every scale."""

from dataclasses import dataclass, field

from gpt2lab.base.errors import LabError


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One model and how long it is trained."""

    d_model: int
    """Width."""
    n_layers: int
    """Blocks."""
    n_heads: int
    """Attention heads."""
    steps: int
    """Updates."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Texts that are continued, and the decoders' settings that are tried on the tuning texts."""

    texts: int
    """Judged texts."""
    tuning_texts: int
    """Texts on which the settings are chosen."""
    prefix: int = 32
    """Tokens of a prefix."""
    new: int = 64
    """Tokens of a continuation."""
    skip: int = 0
    """Characters passed over at a text's beginning; the prefix opens the next paragraph."""
    stop_at_eos: bool = False
    """Let texts end at an end token, with at most `new` tokens."""
    on_tokens: bool = True
    """Count n-grams on tokens instead of words."""
    k: tuple[int, ...] = (4, 5, 8)
    """Candidates of contrastive search; each is a family."""
    alpha: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    """Its weights of novelty, ascending."""
    top_k: tuple[int, ...] = (3, 5, 8, 12, 20, 40)
    """Settings of top-k sampling, ascending."""
    top_p: tuple[float, ...] = (0.2, 0.35, 0.5, 0.65, 0.8, 0.95)
    """Settings of nucleus sampling."""
    temperature: tuple[float, ...] = (0.3, 0.45, 0.6, 0.75, 0.9, 1.0)
    """Settings of sampling from the whole distribution."""
    typical: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.7, 0.95)
    """Settings of typical sampling."""
    offsets: tuple[float, ...] = (-6.0, 0.0, 6.0)
    """The settings that are judged are those with people's diversity on the tuning texts plus these, in points."""
    batch: int = 100
    """Prefixes in one batch."""

    def __post_init__(self) -> None:
        for name, least in (("texts", 2), ("tuning_texts", 2), ("prefix", 1), ("new", 4)):
            if getattr(self, name) < least:
                raise LabError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("alpha", "top_k", "top_p", "temperature", "typical"):
            values = getattr(self, name)
            if len(values) == 1 or list(values) != sorted(set(values)):
                raise LabError(
                    f"{name}: settings ascend, and a line takes two or more (or none), got {values}"
                )
        if not self.k or not self.alpha:
            raise LabError("k and alpha: contrastive search needs settings")
        if not (self.top_k or self.top_p or self.temperature or self.typical):
            raise LabError("top_k, top_p, temperature, typical: at least one sampler needs settings")
        if len(self.offsets) < 2:
            raise LabError(f"offsets: a line takes two settings or more, got {self.offsets}")


# About 20 minutes of a core: 3,000 tokens by contrastive search take 140 s, by sampling 35 s, and are judged in 30 s. On
# tuning passages alpha 0.4 gave a diversity of 52 % over 64 tokens, so the settings begin there.
# People's diversity in these books is 97 % over 64 tokens, too near 100 for settings on both sides, and 93 % over 128.
_LAPTOP_REAL = Decoding(
    texts=24,
    tuning_texts=10,
    new=128,
    skip=1500,
    k=(5,),
    alpha=(0.4, 0.55, 0.7, 0.85),
    top_k=(5, 15, 50, 200),
    top_p=(0.6, 0.8, 0.9, 0.97),
    temperature=(),
    typical=(),
    offsets=(-5.0, 3.0),
    batch=24,
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Text, models, decoders and lengths."""

    trained: bool = True
    """Train models on `data` and let them write; otherwise only the pretrained model does."""
    data: str = "docstrings:4000000"
    """Text: a file, a folder, hub:ID or a built-in source; tinyworld:20000 are generated stories."""
    vocab_size: int = 2048
    """Vocabulary size of the byte-level BPE trained on it."""
    generator: Shape = field(default_factory=lambda: Shape(d_model=128, n_layers=4, n_heads=4, steps=800))
    """The model that writes."""
    scorer: Shape = field(default_factory=lambda: Shape(d_model=160, n_layers=5, n_heads=5, steps=800))
    """The model that judges coherence and embeds texts for MAUVE."""
    small: Shape = field(default_factory=lambda: Shape(d_model=64, n_layers=2, n_heads=2, steps=600))
    """A third size, for isotropy."""
    learning_rate: float = 3e-3
    """Peak of all three, reached in a tenth of the updates; then by a cosine to a tenth."""
    batch_size: int = 16
    """Rows of an update."""
    context: int = 96
    """Tokens of a row, and positions."""
    decoding: Decoding = field(default_factory=lambda: Decoding(texts=200, tuning_texts=100))
    """What the trained models write."""
    speed_model: Shape = field(default_factory=lambda: Shape(d_model=256, n_layers=6, n_heads=4, steps=0))
    """The untrained model on which both loops of contrastive search are timed, with 4096 ids."""
    speed_prompts: tuple[int, ...] = (64, 60, 51, 37)
    """Lengths of the prompts there."""
    speed_new: int = 256
    """New tokens there."""
    speed_rounds: int = 1
    """Repetitions of each loop."""
    real: str = ""
    """A pretrained model that writes, where it is at hand; empty: none."""
    real_scorer: str = ""
    """A model that judges its coherence; empty: itself."""
    real_data: str = "books"
    """Text for it. Chapters of one book are all tuning texts or all judged ones."""
    real_decoding: Decoding = field(default_factory=lambda: _LAPTOP_REAL)
    """What it writes."""
    isotropy_texts: int = 28
    """Judged texts whose isotropy under the pretrained model is measured."""
    isotropy_tokens: int = 256
    """Tokens of each at most."""
    real_isotropy: tuple[str, ...] = ()
    """Further pretrained models whose isotropy is measured on the same texts."""

    def __post_init__(self) -> None:
        if self.trained and self.decoding.prefix + self.decoding.new > self.context:
            raise LabError(
                f"context {self.context} is shorter than prefix and continuation, "
                f"{self.decoding.prefix + self.decoding.new}"
            )
        if not self.trained and not self.real:
            raise LabError("trained is off and real names no model: nobody writes")


_GPT2_LARGE = Decoding(
    texts=750,
    tuning_texts=250,
    prefix=40,
    new=200,
    stop_at_eos=True,
    on_tokens=False,
    k=(4, 5),
    alpha=(0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
    top_k=(5, 10, 20, 50, 100, 200),
    top_p=(0.7, 0.8, 0.85, 0.9, 0.95, 1.0),
    temperature=(0.6, 0.7, 0.8, 0.9, 0.95, 1.0),
    typical=(0.1, 0.2, 0.5, 0.7, 0.9, 0.95),
    offsets=(-4.0, 4.0),
    batch=32,
)

PRESETS: dict[str, Settings] = {
    "smoke": Settings(
        data="tinyworld:400",
        vocab_size=300,
        generator=Shape(d_model=16, n_layers=1, n_heads=2, steps=20),
        scorer=Shape(d_model=16, n_layers=2, n_heads=2, steps=20),
        small=Shape(d_model=8, n_layers=1, n_heads=2, steps=20),
        batch_size=4,
        context=40,
        decoding=Decoding(
            texts=8, tuning_texts=8, prefix=8, new=16, k=(5,), alpha=(0.2, 0.6), top_k=(3, 20),
            top_p=(), temperature=(), typical=(), offsets=(-2.0, 2.0), batch=8,
        ),
        speed_model=Shape(d_model=16, n_layers=1, n_heads=2, steps=0),
        speed_prompts=(5, 3),
        speed_new=8,
    ),
    "laptop": Settings(real="smollm2-135m"),
    "gpu": Settings(
        trained=False,
        real="gpt2-large",
        real_scorer="EleutherAI/gpt-neo-2.7B",
        real_data="webtext.test.jsonl",
        real_decoding=_GPT2_LARGE,
        isotropy_texts=750,
        real_isotropy=("gpt2", "gpt2-medium", "gpt2-xl"),
        speed_rounds=5,
    ),
    "paper": Settings(
        trained=False,
        real="gpt2-large",
        real_scorer="EleutherAI/pythia-12b",
        real_data="webtext.test.jsonl",
        real_decoding=_GPT2_LARGE,
        isotropy_texts=750,
        real_isotropy=(
            "gpt2", "gpt2-medium", "gpt2-xl",
            "EleutherAI/gpt-neo-125m", "EleutherAI/gpt-neo-1.3B", "EleutherAI/gpt-neo-2.7B",
        ),
        speed_rounds=5,
    ),
}  # fmt: skip
