"""Text, models, decoders and lengths of the study, at every scale."""

from dataclasses import dataclass, field

from gpt2lab.base.errors import LabError
from gpt2lab.base.settings import Model


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
class Settings:
    """Text, models, decoders and lengths."""

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
    texts: int = 200
    """Held-out texts; the settings are chosen on the first half."""
    prefix: int = 32
    """Tokens of a prefix."""
    new: int = 64
    """Tokens of a continuation."""
    stop_at_eos: bool = False
    """Let texts end at an end token, with at most `new` tokens."""
    on_tokens: bool = True
    """Count n-grams on tokens instead of words."""
    top_k: tuple[int, ...] = (5, 10, 50)
    """Settings of top-k sampling."""
    top_p: tuple[float, ...] = (0.5, 0.7, 0.95)
    """Settings of nucleus sampling."""
    typical: tuple[float, ...] = (0.2, 0.95)
    """Settings of typical sampling."""
    k: tuple[int, ...] = (4, 5, 8, 10)
    """Candidates of contrastive search."""
    alpha: tuple[float, ...] = (0.3, 0.6, 0.8)
    """Weights of novelty, each with every k."""
    repeats: int = 1
    """Runs of each sampler (the paper: 3); results are means over them."""
    decode_batch: int = 100
    """Prefixes in one batch."""
    speed_model: Shape = field(default_factory=lambda: Shape(d_model=256, n_layers=6, n_heads=4, steps=0))
    """The untrained model on which both loops of contrastive search are timed, with 4096 ids."""
    speed_prompts: tuple[int, ...] = (64, 60, 51, 37)
    """Lengths of the prompts there."""
    speed_new: int = 256
    """New tokens there."""
    speed_rounds: int = 1
    """Repetitions of each loop."""
    given: Model = ""
    """MODEL, a pretrained generator; nothing is trained then."""
    given_scorers: tuple[Model, ...] = ()
    """MODELs, pretrained scorers; the claims use the first one."""
    given_isotropy: tuple[str, ...] = ()
    """Pretrained models whose isotropy is measured."""

    def __post_init__(self) -> None:
        if self.texts < 4:
            raise LabError(
                f"texts: half of them choose settings, half report; give at least 4, not {self.texts}"
            )
        if not self.given and self.prefix + self.new > self.context:
            raise LabError(
                f"context {self.context} is shorter than prefix and continuation, {self.prefix + self.new}"
            )
        if bool(self.given) != bool(self.given_scorers):
            raise LabError(
                "given and given_scorers belong together: a pretrained generator and who judges it"
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
        texts=8,
        prefix=8,
        new=16,
        top_k=(5,),
        top_p=(0.95,),
        typical=(0.95,),
        k=(5,),
        alpha=(0.3, 0.6),
        repeats=2,
        decode_batch=8,
        speed_model=Shape(d_model=16, n_layers=1, n_heads=2, steps=0),
        speed_prompts=(5, 3),
        speed_new=8,
    ),
    "laptop": Settings(),
    "gpu": Settings(
        data="webtext.test.jsonl",
        given="gpt2-large",
        given_scorers=("EleutherAI/gpt-neo-125m", "EleutherAI/gpt-neo-2.7B"),
        given_isotropy=("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"),
        texts=1000,
        prefix=40,
        new=200,
        stop_at_eos=True,
        on_tokens=False,
        top_k=(5, 10, 50),
        alpha=(0.6,),
        k=(4, 5),
        repeats=3,
        decode_batch=32,
        speed_rounds=5,
    ),
    "paper": Settings(
        data="webtext.test.jsonl",
        given="gpt2-large",
        given_scorers=("EleutherAI/gpt-neo-125m", "EleutherAI/gpt-neo-2.7B", "EleutherAI/pythia-12b"),
        given_isotropy=(
            "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl",
            "EleutherAI/gpt-neo-125m", "EleutherAI/gpt-neo-1.3B", "EleutherAI/gpt-neo-2.7B",
        ),
        texts=1000,
        prefix=40,
        new=200,
        stop_at_eos=True,
        on_tokens=False,
        top_k=(50,),
        top_p=(0.95,),
        typical=(0.95,),
        k=(5,),
        alpha=(0.6,),
        repeats=3,
        decode_batch=32,
        speed_rounds=5,
    ),
}  # fmt: skip
