"""What is compared: pre-training mixtures, fine-tuning tasks, and the model and sizes that all arms share."""

from collections.abc import Mapping
from dataclasses import dataclass

from gpt2lab.base.errors import LabError

ParallelPercent = int


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What a model is pre-trained on."""

    text: float = 2.0
    """Weight of sentences that are told twice in other words, in three languages."""
    genes: float = 1.0
    """Weight of documents of DNA and proteins."""
    parallel: ParallelPercent = 0
    """Per cent of the latter in which DNA is directly followed by its protein."""


CORPORA: Mapping[str, Corpus] = {
    "mixed": Corpus(),
    "text": Corpus(text=3.0, genes=0.0),
    "parallel": Corpus(parallel=50),
}
"""The paper's premise, a corpus without biology, and one that pairs genes with their proteins."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A judge of pairs: what it was pre-trained on and which pairs it is fine-tuned on."""

    corpus: str = ""
    """Of `CORPORA`; empty is none: random weights."""
    task: str = "paraphrases"
    """Source of the pairs."""
    third: int = 1
    """The source's third number: languages, or residues."""
    codons: bool = False
    """Codons and bytes as tokens, and a separator between the two texts; else the joint BPE, and none."""


ARMS: Mapping[str, Arm] = {
    "english": Arm(corpus="mixed"),
    "multilingual": Arm(corpus="mixed", third=3),
    "text_only": Arm(corpus="text"),
    "parallel": Arm(corpus="parallel"),
    "scratch": Arm(),
    "supervised": Arm(corpus="mixed", task="dna-protein", third=12),
    "control": Arm(task="dna-protein", third=12, codons=True),
}
"""What can be compared."""

_LAPTOP = ("english", "multilingual", "text_only", "control")
SEPARATOR = "|"
"""Between the two texts of the control."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Model, data and schedules that all arms share."""

    arms: tuple[str, ...] = _LAPTOP
    """Judges: english, multilingual, text_only and control, with any of parallel, scratch, supervised."""
    vocab_size: int = 700
    """Vocabulary size of the joint BPE, trained once on all languages, DNA and proteins."""
    split_words: bool = True
    """Words are learnt apart; false is the paper's tokenizer, whose tokens reach beyond blanks."""
    d_model: int = 64
    """Width."""
    n_layers: int = 2
    """Blocks."""
    n_heads: int = 4
    """Attention heads."""
    context: int = 64
    """Tokens that a model reads."""
    init_std: float = 0.1
    """Standard deviation of initial matrices. GPT-2's 0.02 suits its width of 768: at 64 even the control learns nothing."""
    documents: int = 40_000
    """Documents of a corpus."""
    pretraining_steps: int = 1500
    """Updates of the pre-training."""
    pretraining_rate: float = 4e-3
    """Its peak learning rate, the same for every corpus; then cosine to a tenth."""
    residues: int = 12
    """Residues of every protein."""
    pairs: int = 20_000
    """Pairs that a judge is fine-tuned on."""
    steps: int = 3500
    """Updates of the fine-tuning."""
    rates: tuple[float, ...] = (5e-4, 1e-3, 2e-3)
    """Learning rates that every arm tries on the tuning seed, ascending; one more is tried where the best calls for it."""
    trial: float = 0.4
    """Share of the updates in which each rate is tried."""
    batch_size: int = 32
    """Pairs, or rows of the corpus, in an update."""
    tuning_pairs: int = 400
    """Pairs of an arm's own task on which its rate and its weights are chosen."""
    test_pairs: int = 600
    """Pairs of each test set; of the typed one the next multiple of sixteen."""
    precision: str = "auto"
    """float32, bf16 or auto."""

    def __post_init__(self) -> None:
        unknown = [arm for arm in self.arms if arm not in ARMS]
        missing = [arm for arm in ("english", "multilingual", "text_only", "control") if arm not in self.arms]
        if unknown or missing:
            raise LabError(
                "arms must hold english, multilingual, text_only and control and be among "
                f"{', '.join(ARMS)}; got {', '.join(self.arms)}"
            )
        if not self.rates or self.rates[0] <= 0 or list(self.rates) != sorted(set(self.rates)):
            raise LabError(f"rates must ascend from above 0, got {list(self.rates)}")
        if not 0 < self.trial <= 1:
            raise LabError(f"trial is a share of the updates, in (0, 1], got {self.trial}")
        if self.test_pairs < 40 or self.residues < 3:
            raise LabError("test_pairs must be at least 40 and residues at least 3")
        if self.context < 4 * self.residues:
            raise LabError(
                f"context {self.context}: the DNA of {self.residues} residues may fill it; give 4 tokens a residue"
            )

    @property
    def corpora(self) -> tuple[str, ...]:
        """The corpora that the arms need."""
        return tuple(dict.fromkeys(ARMS[arm].corpus for arm in self.arms if ARMS[arm].corpus))


PRESETS: dict[str, Settings] = {
    "smoke": Settings(
        arms=tuple(ARMS), vocab_size=420, d_model=16, n_layers=1, n_heads=2, documents=400, pretraining_steps=4,
        pairs=80, steps=4, rates=(1e-3,), trial=0.5, batch_size=8, tuning_pairs=16, test_pairs=48,
    ),
    "laptop": Settings(),
    "gpu": Settings(
        arms=tuple(ARMS), vocab_size=4000, split_words=False, d_model=256, n_layers=6, n_heads=8, context=96, init_std=0.06,
        documents=400_000, pretraining_steps=10_000, pretraining_rate=1e-3, pairs=50_000, steps=6000,
        rates=(1e-4, 3e-4, 1e-3), trial=0.25, batch_size=64, test_pairs=2000, tuning_pairs=1000,
    ),
    "paper": Settings(
        arms=tuple(ARMS), vocab_size=90_000, split_words=False, d_model=768, n_layers=12, n_heads=12, context=256,
        init_std=0.02, documents=3_000_000, pretraining_steps=100_000, pretraining_rate=6e-4, residues=50,
        pairs=49_401, steps=9880,
        rates=(1e-5, 3e-5, 1e-4), trial=0.25, batch_size=20, test_pairs=2000, tuning_pairs=2000,
    ),
}  # fmt: skip
