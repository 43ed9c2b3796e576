"""The study: the method and plain training on generated stories, with the same data order and initialisation."""

from dataclasses import dataclass

import torch

from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.runs.run import Run
from gpt2lab.studies.claim import Above, AtMost, Claim
from gpt2lab.text.batches import SequenceBatches
from gpt2lab.text.sources import documents
from gpt2lab.text.tokenizer import word_level
from gpt2lab.training import TrainSettings, adamw, next_token, train

from .objective import ExampleObjective


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What both arms share, and the method's own."""

    stories: int = 3000
    """Generated training stories; a tenth as many more are for validation."""
    d_model: int = 64
    """Width of the model, of two blocks."""
    steps: int = 300
    """Updates of either arm."""
    weight: float = 1e-2
    """Weight of the penalty; the paper's 1e-4 is for runs a thousand times as long."""


PRESETS = {"smoke": Settings(stories=100, d_model=16, steps=20), "laptop": Settings()}

LEARNT = "loss.plain < loss.start - 0.3"  # else there is nothing to compare

CLAIMS = [
    Claim(
        "The penalty keeps the softmax's normaliser close to 1",
        name="A",
        fixed="2026-12-01",  # before the run
        measure="log_z.plain - log_z.method",
        quantity="mean |log Z| without the penalty minus that with it",
        holds_if=Above(0.0),
        needs=LEARNT,
        unit="mean |log Z| on validation text",
        paper="section 5",
    ),
    Claim(
        "This costs no loss",
        name="B",
        fixed="2026-12-01",  # before the run
        measure="loss.method - loss.plain",
        quantity="loss with the penalty minus that without it",
        holds_if=AtMost(0.01),
        needs=LEARNT,
        unit="nats per token",
        paper="section 5",
    ),
]


def arms(settings: Settings) -> list[str]:
    """Return what is compared; each arm is a unit of work that resumes on its own."""
    return ["method", "plain"]


def run_arm(settings: Settings, arm: str, run: Run) -> None:
    """Train one model with one objective; report validation loss (cross entropy, nats per token) and |log Z|."""
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
            loss = float(next_token(model, batch)[0])
            return {"validation_loss": loss, **ExampleObjective()(model, batch)[1]}

    loop = TrainSettings(steps=settings.steps, learning_rate=3e-3, warmup=settings.steps // 10)
    run.result("start", evaluate()["validation_loss"])
    done = train(
        model,
        batches,
        settings=loop,
        optimizer=adamw(model, loop),
        objective=ExampleObjective(weight=settings.weight if arm == "method" else 0.0),
        evaluate=evaluate,
        log=run.log,
        checkpoints=run.checkpoints,
        resume=True,
        seed=run.seed,
        label=arm,
    )
    run.result("loss", done.validation["validation_loss"])
    run.result("log_z", done.validation["log_z"])


def run(settings: Settings, run: Run) -> None:
    """Put the arms of one seed together."""
    for arm, record in run.arms.items():
        run.result(f"loss.{arm}", record.results["loss"])
        run.result(f"log_z.{arm}", record.results["log_z"])
    run.result("loss.start", run.arms["plain"].results["start"])
