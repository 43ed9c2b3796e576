"""The study: a small model of generated stories, reduced by the method and at random."""

from dataclasses import dataclass

import torch

from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.runs.run import Run
from gpt2lab.studies.claim import Above, AtMost, Claim
from gpt2lab.text.batches import SequenceBatches
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.sources import documents
from gpt2lab.text.tokenizer import word_level
from gpt2lab.training import TrainSettings, adamw, next_token, train

from .transform import ExampleTransform


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The model, and how much of it goes."""

    stories: int = 3000
    """Generated training stories; a tenth as many more are for validation."""
    d_model: int = 64
    """Width of the model, of two blocks."""
    steps: int = 400
    """Updates."""
    keep: float = 0.5
    """Share of the rank that stays."""


PRESETS = {"smoke": Settings(stories=100, d_model=16, steps=20), "laptop": Settings()}

LEARNT = "loss.dense < loss.start - 0.3"  # else there is nothing to lose

CLAIMS = [
    Claim(
        "What is removed matters less than as much at random",
        name="A",
        fixed="2026-12-01",  # before the run
        measure="loss.random - loss.method",
        quantity="loss after removal at random minus that after removal by the method",
        holds_if=Above(0.0),
        needs=LEARNT,
        unit="nats per token",
        paper="section 3",
    ),
    Claim(
        "Half of the rank of the last block can go without harm",
        name="B",
        fixed="2026-12-01",  # before the run
        measure="loss.method - loss.dense",
        quantity="loss after the method minus that of the whole model",
        holds_if=AtMost(0.01),
        holds_in_part_if=AtMost(0.05),
        needs=LEARNT,
        unit="nats per token",
        paper="section 5",
    ),
]


def run(settings: Settings, run: Run) -> None:
    """Train a model, reduce it twice; report the validation loss of each, in nats per token."""
    texts = list(documents(f"tinyworld:{settings.stories + settings.stories // 10}"))
    tokenizer = word_level(texts)
    assert tokenizer.eos is not None
    rows = [[*tokenizer.encode(text), tokenizer.eos] for text in texts]
    batches = SequenceBatches(rows[: settings.stories], batch_size=16, seed=run.seed)
    held_out = SequenceBatches(rows[settings.stories :], batch_size=settings.stories // 10, shuffle=False)
    config = gpt2_config(
        vocab_size=tokenizer.vocab_size, d_model=settings.d_model, n_layers=2, n_heads=4, max_positions=256
    )
    model = Transformer(config, generator=torch.Generator().manual_seed(run.seed)).to(run.device)

    def loss(of: Transformer) -> float:
        batch = {name: tensor.to(run.device) for name, tensor in held_out[0].items()}
        with torch.no_grad():
            return float(next_token(of, batch)[0])

    loop = TrainSettings(steps=settings.steps, learning_rate=3e-3, warmup=settings.steps // 10)
    run.result("loss.start", loss(model))
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
    lm = LanguageModel(model.eval(), tokenizer)
    run.result("loss.dense", loss(lm.model))
    run.result("loss.method", loss(ExampleTransform(keep=settings.keep)(lm).model))
    random = ExampleTransform(keep=settings.keep, choose="random", seed=run.seed)
    run.result("loss.random", loss(random(lm).model))
