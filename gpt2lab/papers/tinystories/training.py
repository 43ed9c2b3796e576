"""Training a story model: one story a row, AdamW, graded along the way.

The recipe of the reduced study is the paper's where the paper says (GPT-Neo blocks, betas 0.9 and 0.95, weight
decay 0.1, one-story context) and the lab's where it does not (steps, batch, learning rates).
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import atomic_write
from gpt2lab.measures.held_out import scores_loss
from gpt2lab.measures.scoring import Row, score_rows
from gpt2lab.model import Transformer
from gpt2lab.papers.tinystories.grader import TinyWorldGrades, grade_tinyworld, sample_stories
from gpt2lab.papers.tinystories.models import story_config
from gpt2lab.text.batches import SequenceBatches
from gpt2lab.text.generators.stories import Variant, documents, vocabulary
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import Tokenizer, word_level
from gpt2lab.training import TrainSettings, train

REACHED = 0.9
"""Share at which a model counts as having learnt grammar, or consistency."""


GRADED = ("grammar", "consistency", "plot", "stops", "binding")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one story model is made."""

    d_model: int
    n_layers: int
    n_heads: int
    learning_rate: float
    steps: int
    batch_size: int
    init_std: float
    warmup: int = 30
    weight_decay: float = 0.1
    evaluate_every: int = 0
    samples: int = 64
    temperature: float = 0.7
    checkpoint_every: int = 0


@dataclass(frozen=True)
class TinyWorldCorpus:
    """Stories of TinyWorld for one seed: training and held-out texts that share no story, one tokenizer."""

    variant: Variant
    train: list[str]
    held_out: list[str]
    tokenizer: Tokenizer

    @property
    def eos(self) -> int:
        """Id of the end-of-text token."""
        assert self.tokenizer.eos is not None
        return self.tokenizer.eos

    def encode(self, stories: Sequence[str]) -> list[list[int]]:
        """Return the ids of each story between two end-of-text tokens."""
        return [[self.eos, *ids, self.eos] for ids in self.tokenizer.encode_batch(stories)]


def tinyworld_corpus(
    seed: int, *, variant: Variant, train_stories: int, held_out_stories: int
) -> TinyWorldCorpus:
    """Make the stories of a seed; held-out stories that happen to be training stories are left out."""
    training = documents(2 * seed, train_stories, variant=variant)
    known = set(training)
    held_out = [s for s in documents(2 * seed + 1, held_out_stories, variant=variant) if s not in known]
    # every word of the world, in the order of the alphabet: no id depends on the seed
    tokenizer = word_level([" ".join(vocabulary(variant))], punctuation=False, unk=None)
    return TinyWorldCorpus(variant, training, held_out, tokenizer)


@dataclass
class Trained:
    """A trained story model and what was seen of it on the way."""

    lm: LanguageModel
    grades: TinyWorldGrades
    """At the end."""
    texts: list[str]
    """The stories that were graded last."""
    held_out_loss: float
    """Nats per token of held-out stories, the end of the story included."""
    bits_per_byte: float
    history: list[dict[str, float]] = field(default_factory=list)
    """A row for every evaluation: step, loss, grammar, consistency, plot, stops, binding."""
    tokens_per_second: float = math.nan

    def first_step(self, name: str) -> float:
        """Return the first step at which a grade reached `REACHED`, inf if it never did."""
        return min((row["step"] for row in self.history if row[name] >= REACHED), default=math.inf)


def train_story_model(
    corpus: TinyWorldCorpus,
    recipe: Recipe,
    *,
    seed: int,
    log: Callable[..., None] | None = None,
    checkpoints: Path | None = None,
    device: str = "cpu",
    label: str = "train",
) -> Trained:
    """Train on a corpus and grade samples at every evaluation.

    `seed` decides initialisation and the order of the data: models of one seed see the same batches, and those of
    one shape begin with the same weights. A run that was stopped goes on from `checkpoints`.
    """
    lm = LanguageModel(_new_model(corpus, recipe, seed).to(device), corpus.tokenizer)
    batches = SequenceBatches(
        corpus.encode(corpus.train), batch_size=recipe.batch_size, seed=seed, attention_mask=False
    )
    checkpoints = checkpoints if recipe.checkpoint_every else None
    progress = _Progress(lm, corpus, recipe, seed, log, checkpoints)
    result = train(
        lm.model,
        batches,
        settings=TrainSettings(
            steps=recipe.steps,
            learning_rate=recipe.learning_rate,
            schedule="linear",
            final_fraction=0.0,
            warmup=min(recipe.warmup, recipe.steps),
            weight_decay=recipe.weight_decay,
            evaluate_every=recipe.evaluate_every,
            checkpoint_every=recipe.checkpoint_every,
        ),
        evaluate=progress.evaluate,
        log=progress.log,
        checkpoints=checkpoints,
        resume=checkpoints is not None,
        seed=seed,
        label=label,
    )
    if progress.grades is None:  # resumed after its last step
        progress.evaluate()
    assert progress.grades is not None
    loss = progress.history[-1]["loss"]
    return Trained(
        lm, progress.grades, progress.texts, loss, loss * progress.nats_to_bits, progress.history,
        result.tokens_per_second,
    )  # fmt: skip


def _new_model(corpus: TinyWorldCorpus, recipe: Recipe, seed: int) -> Transformer:
    longest = max(len(ids) for ids in corpus.encode([*corpus.train[:2000], *corpus.held_out]))
    config = story_config(
        recipe.d_model,
        recipe.n_layers,
        vocab_size=corpus.tokenizer.vocab_size,
        n_heads=recipe.n_heads,
        # a multiple of 32, so that a seed with a longer story does not change the shape
        max_positions=32 * math.ceil((longest + 8) / 32),
        init_std=recipe.init_std,
        eos=corpus.eos,
        bos=corpus.eos,
    )
    return Transformer(config, generator=torch.Generator().manual_seed(seed))


class _Progress:
    """Evaluates a model while it trains, and keeps what it saw."""

    def __init__(
        self,
        lm: LanguageModel,
        corpus: TinyWorldCorpus,
        recipe: Recipe,
        seed: int,
        log: Callable[..., None] | None,
        checkpoints: Path | None,
    ) -> None:
        self.lm, self.corpus, self.recipe, self.seed, self.passed_on = lm, corpus, recipe, seed, log
        self.kept = checkpoints / "history.json" if checkpoints is not None else None
        there = self.kept is not None and self.kept.is_file()
        self.history: list[dict[str, float]] = (
            json.loads(self.kept.read_text()) if there and self.kept else []
        )
        self.texts: list[str] = []
        self.grades: TinyWorldGrades | None = None
        ids = corpus.encode(corpus.held_out)
        self.rows = [Row(torch.tensor(row), len(row) - 1) for row in ids]
        tokens, n_bytes = sum(len(row) - 1 for row in ids), sum(len(s.encode()) for s in corpus.held_out)
        self.nats_to_bits = tokens / n_bytes / math.log(2)  # nats per token → bits per byte

    def evaluate(self) -> dict[str, float]:
        """Return held-out loss and grades of fresh samples, always drawn with the same numbers."""
        scores = score_rows(self.lm.model, self.rows, batch_size=32, label="held-out")
        loss = scores_loss(scores).loss
        drawn = sample_stories(
            self.lm,
            self.recipe.samples,
            temperature=self.recipe.temperature,
            seed=self.seed,
            max_new_tokens=self.lm.config.max_positions - 1,
        )
        self.texts = [story.text for story in drawn]
        stopped = [story.finished == "eos" for story in drawn]
        self.grades = grade_tinyworld(self.texts, variant=self.corpus.variant, stopped=stopped)
        numbers = {name: getattr(self.grades, name) for name in GRADED}
        return {
            "validation_loss": loss,
            **{name: value for name, value in numbers.items() if not math.isnan(value)},
        }

    def log(self, step: int, **numbers: float) -> None:
        """Keep the numbers of an evaluation, on the disk too if there is a folder, and pass every row on."""
        if "validation_loss" in numbers:
            graded = {name: numbers.get(name, math.nan) for name in GRADED}
            self.history = [row for row in self.history if row["step"] < step]
            self.history.append({"step": step, "loss": numbers["validation_loss"], **graded})
            if self.kept is not None:
                atomic_write(self.kept, json.dumps(self.history))
        if self.passed_on is not None:
            self.passed_on(step, **numbers)


def check_equal(parameters: Sequence[int], *, within: float = 0.2) -> None:
    """LabError unless the largest of some parameter counts is at most `within` above the smallest."""
    if max(parameters) > (1 + within) * min(parameters):
        raise LabError(
            f"models to be compared at equal parameters have {', '.join(f'{n:,}' for n in parameters)}; "
            f"they must agree within {within:.0%}"
        )
