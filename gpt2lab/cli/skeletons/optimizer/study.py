"""The study: three optimizers on generated stories, with the same data order, initialisation and number of updates."""

from dataclasses import dataclass

import torch
from torch.optim import SGD, Optimizer

from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.runs.run import Run
from gpt2lab.studies.claim import Above, AtMost, Claim
from gpt2lab.text.batches import SequenceBatches
from gpt2lab.text.sources import documents
from gpt2lab.text.tokenizer import word_level
from gpt2lab.training import TrainSettings, adamw, next_token, parameter_groups, train

from .optimizer import ExampleOptimizer


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all arms share, and the learning rate of each. Find the rates by the same small sweep for every arm."""

    stories: int = 3000
    """Generated training stories; a tenth as many more are for validation."""
    d_model: int = 64
    """Width of the model, of two blocks."""
    steps: int = 300
    """Updates of every arm."""
    rate: float = 1e-3
    """Peak learning rate of the method."""
    sgd_rate: float = 0.3
    """Peak learning rate of plain SGD."""
    adamw_rate: float = 3e-3
    """Peak learning rate of AdamW."""


PRESETS = {"smoke": Settings(stories=100, d_model=16, steps=20), "laptop": Settings()}

LEARNT = "loss.adamw < loss.start - 0.3"  # else there is nothing to compare

CLAIMS = [
    Claim(
        "The sign of the gradient trains faster than the gradient itself",
        name="A",
        fixed="2026-12-01",  # before the run
        measure="loss.sgd - loss.method",
        quantity="final loss of gradient descent minus that of the method",
        holds_if=Above(0.0),
        needs=LEARNT,
        unit="nats per token",
        paper="section 3",
    ),
    Claim(
        "It is about as good as Adam",
        name="B",
        fixed="2026-12-01",  # before the run
        measure="loss.method - loss.adamw",
        quantity="final loss of the method minus that of AdamW",
        holds_if=AtMost(0.05),
        needs=LEARNT,
        unit="nats per token",
        paper="section 5",
    ),
]


def arms(settings: Settings) -> list[str]:
    """Return what is compared; each arm is a unit of work that resumes on its own."""
    return ["method", "sgd", "adamw"]


def run_arm(settings: Settings, arm: str, run: Run) -> None:
    """Train one model with one optimizer and report its validation loss, in nats per token."""
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

    def evaluate() -> dict[str, float]:
        batch = {name: tensor.to(run.device) for name, tensor in held_out[0].items()}
        with torch.no_grad():
            return {"validation_loss": float(next_token(model, batch)[0])}

    rates = {"method": settings.rate, "sgd": settings.sgd_rate, "adamw": settings.adamw_rate}
    loop = TrainSettings(steps=settings.steps, learning_rate=rates[arm], warmup=settings.steps // 10)
    run.result("start", evaluate()["validation_loss"])
    done = train(
        model,
        batches,
        settings=loop,
        optimizer=_optimizer(arm, model, loop),
        evaluate=evaluate,
        log=run.log,
        checkpoints=run.checkpoints,
        resume=True,
        seed=run.seed,
        label=arm,
    )
    run.result("loss", done.validation["validation_loss"])


def _optimizer(arm: str, model: Transformer, loop: TrainSettings) -> Optimizer:
    if arm == "method":
        groups = parameter_groups(model, loop.weight_decay)
        return ExampleOptimizer(groups, lr=loop.learning_rate)
    return SGD(model.parameters(), lr=loop.learning_rate) if arm == "sgd" else adamw(model, loop)


def run(settings: Settings, run: Run) -> None:
    """Put the arms of one seed together."""
    for arm, record in run.arms.items():
        run.result(f"loss.{arm}", record.results["loss"])
    run.result("loss.start", run.arms["adamw"].results["start"])
