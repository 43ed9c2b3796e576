"""The study: the same small model measured before and after it was trained on generated stories."""

from dataclasses import dataclass

import torch

from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.runs.run import Run
from gpt2lab.studies.claim import Below, Between, Claim
from gpt2lab.text.batches import SequenceBatches
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.sources import documents
from gpt2lab.text.tokenizer import word_level
from gpt2lab.training import TrainSettings, adamw, train

from .measure import ExampleMeasure


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The model, and the text it is measured on."""

    stories: int = 3000
    """Generated training stories."""
    held_out: int = 300
    """Generated stories that the measure reads."""
    d_model: int = 64
    """Width of the model, of two blocks."""
    steps: int = 400
    """Updates."""
    window: int = 64
    """Tokens of context."""


PRESETS = {
    "smoke": Settings(stories=100, held_out=20, d_model=16, steps=20, window=32),
    "laptop": Settings(),
}

CLAIMS = [
    Claim(
        "Training makes late tokens easier than early ones",
        name="A",
        fixed="2026-12-01",  # before the run
        measure="score.trained",
        quantity="loss of late tokens minus that of early ones, after training",
        holds_if=Below(0.0),
        needs="early.trained < early.start - 0.3",  # else it has learnt nothing
        unit="nats per token",
        paper="definition of the in-context learning score",
    ),
    Claim(
        "A model that has learnt nothing has a score near zero",
        name="B",
        fixed="2026-12-01",  # before the run
        measure="score.start",
        quantity="the same before training",
        holds_if=Between(-0.1, 0.1),
        unit="nats per token",
        kind="instrument",  # a check: it says whether the measure works, and nothing of the paper
    ),
]


def run(settings: Settings, run: Run) -> None:
    """Measure, train, measure again."""
    texts = list(documents(f"tinyworld:{settings.stories}:0"))
    tokenizer = word_level([*texts, *documents(f"tinyworld:{settings.held_out}:1")])
    assert tokenizer.eos is not None
    rows = [[*tokenizer.encode(text), tokenizer.eos] for text in texts]
    batches = SequenceBatches(rows, batch_size=16, seed=run.seed)
    config = gpt2_config(
        vocab_size=tokenizer.vocab_size, d_model=settings.d_model, n_layers=2, n_heads=4, max_positions=256
    )
    model = Transformer(config, generator=torch.Generator().manual_seed(run.seed)).to(run.device)
    held_out = (f"tinyworld:{settings.held_out}:1",)
    measure = ExampleMeasure(data=held_out, window=settings.window)

    def report(when: str) -> None:
        measured = measure(LanguageModel(model, tokenizer))
        for name, value in measured.numbers.items():
            run.result(f"{name}.{when}", value)
        run.table(when, measured.tables["positions"], caption=f"Loss by position, {when}, in nats per token")

    loop = TrainSettings(steps=settings.steps, learning_rate=3e-3, warmup=settings.steps // 10)
    report("start")
    train(
        model,
        batches,
        settings=loop,
        optimizer=adamw(model, loop),
        log=run.log,
        checkpoints=run.checkpoints,
        resume=True,
        seed=run.seed,
    )
    report("trained")
