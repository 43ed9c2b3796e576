"""The notes, the network, the ladder of label budgets and the schedules of the study, at every scale."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from gpt2lab.base.errors import LabError
from gpt2lab.base.settings import Model
from gpt2lab.papers.er_triage.training import SHORTEST, FineTuning
from gpt2lab.text.generators.clinical_notes import LEVELS
from gpt2lab.text.labelled_splits import By

CONTROL = {"align": 0.0, "causes": 60}
"""The world of the negative control."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What both strategies share."""

    data: tuple[str, ...] = ()
    """Your own notes (csv, jsonl, parquet); none: generated ones, a world for each seed."""
    field: str = "text"
    """Field of the text in your notes."""
    label: str = "label"
    """Field of the label in your notes, 0, 1 or empty."""
    positive: str | None = None
    """The label that counts as 1, if yours are other than 0 and 1."""
    id: str | None = None
    """Field of the id in your notes."""
    date: str | None = None
    """Field of the day in your notes."""
    split_by: By = "hash"
    """Which of your notes are judged: by the hash of the text or of the id, or the latest by date."""
    without_contacts: bool = False
    """Replace addresses, dates, long numbers and titled names in your notes before anything reads them."""
    start: Model | None = None
    """A MODEL that is fine-tuned too, as a third strategy `given`: is a pre-training on other text enough?"""
    level: str = "medium"
    """Of the generated notes: easy, medium or hard."""
    unlabelled: int = 16_000
    """Generated notes for pre-training."""
    pool: int = 16_000
    """Generated notes with labels, from which subsets are taken; of your own notes all that are left."""
    test: int = 1500
    """Notes that are judged; of your own at most a fifth of those with labels."""
    budgets: tuple[int, ...] = (15, 30, 60, 120, 250, 500, 1000, 2000)
    """Labelled notes of the ladder."""
    long: int = 16_000
    """Labelled notes of the fully supervised model of claims C and E, 16 times one of the budgets."""
    control_budgets: tuple[int, ...] = (60, 250, 1000)
    """Labelled notes of the negative control; empty: no control."""
    targets: tuple[float, ...] = (0.80, 0.90, 0.93, 0.95, 0.97)
    """AUCs of the table of factors."""
    tokenizer: Literal["words", "bpe"] = "words"
    """A token for each word of the notes, or a byte-level BPE trained on them."""
    vocab_size: int = 4000
    """Most tokens."""
    d_model: int = 96
    """Width."""
    n_layers: int = 2
    """Blocks."""
    n_heads: int = 4
    """Attention heads."""
    context: int = 32
    """Tokens of a note that are read; longer ones are cut on the right."""
    pretraining_steps: int = 1200
    """Updates of the pre-training."""
    pretraining_batch: int = 64
    """Notes in an update of the pre-training."""
    pretraining_rate: float = 2e-3
    """Its learning rate, which is not tuned."""
    rates: tuple[float, ...] = (5e-4, 1e-3, 2e-3)
    """Learning rates of fine-tuning that are tried for every strategy alike, ascending; two more follow."""
    further: int = 2
    """Learning rates tried beyond these, each where the best so far calls for it."""
    tuning_budgets: tuple[int, ...] = (60, 250, 1000)
    """Labelled notes of the trials; the mean AUC over them chooses."""
    fine_tuning: FineTuning = dataclasses.field(default_factory=FineTuning)
    """How every strategy learns from labels."""
    evaluate_every: int = 25
    """Updates between evaluations of the fully supervised model of claim E."""

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise LabError(f"level must be one of {', '.join(LEVELS)}, got {self.level}")
        for name in ("budgets", "tuning_budgets", "control_budgets"):
            values = getattr(self, name)
            if list(values) != sorted(set(values)) or (values and values[0] < 1):
                raise LabError(f"{name} must ascend from 1 or more, got {values}")
        if len(self.budgets) < 2 or not self.tuning_budgets:
            raise LabError("a ladder needs two budgets or more, and trials one")
        if self.long % 16 or self.long // 16 not in self.budgets:
            raise LabError(f"long must be 16 times one of the budgets {self.budgets}, got {self.long}")
        if not self.data and max(self.long, self.budgets[-1], *self.tuning_budgets) > self.pool:
            raise LabError(
                f"a budget of {max(self.long, self.budgets[-1])} labels, and a pool of {self.pool}"
            )
        if not self.rates or self.rates[0] <= 0 or list(self.rates) != sorted(set(self.rates)):
            raise LabError(f"rates must ascend from above 0, got {self.rates}")
        if self.context < SHORTEST:
            raise LabError(f"context must be at least {SHORTEST} tokens, got {self.context}")
        if self.split_by == "date" and self.data and self.date is None:
            raise LabError("split_by date: name the field of the day (date)")

    @property
    def strategies(self) -> tuple[str, ...]:
        """The strategies that are trained."""
        return ("scratch", "pretrained", *(("given",) if self.start is not None else ()))

    @property
    def base(self) -> int:
        """The budget of which `long` is 16 times."""
        return self.long // 16


_PAPER: dict[str, Any] = {
    "level": "hard",
    "test": 5000,
    "budgets": (15, 30, 60, 120, 250, 500, 1000, 2000, 5000, 10_000),
    "long": 160_000,
    "unlabelled": 151_930,
    "pool": 161_930,
    "tokenizer": "bpe",
}
PRESETS: dict[str, Settings] = {
    "smoke": Settings(
        unlabelled=200, pool=160, test=90, budgets=(4, 8), long=128, control_budgets=(8,), d_model=16, n_layers=1,
        n_heads=2, pretraining_steps=6, rates=(1e-3,), further=0, tuning_budgets=(8,), evaluate_every=2,
        fine_tuning=FineTuning(least_steps=4, most_steps=6),
    ),
    "laptop": Settings(),
    "gpu": Settings(
        **_PAPER, vocab_size=4000, d_model=384, n_layers=6, n_heads=6, context=128, pretraining_steps=6000,
        pretraining_rate=1e-3, rates=(1e-4, 2e-4, 4e-4), fine_tuning=FineTuning(most_steps=20_000),
    ),
    "paper": Settings(
        **_PAPER, vocab_size=50_257, d_model=768, n_layers=12, n_heads=12, context=512, pretraining_steps=24_000,
        pretraining_rate=2.5e-4, rates=(2e-5, 5e-5, 1.25e-4), fine_tuning=FineTuning(most_steps=20_000),
    ),
}  # fmt: skip
