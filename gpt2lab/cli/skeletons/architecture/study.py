"""The study: a model with and without the method on generated stories, with the same data order and initialisation."""

from dataclasses import dataclass

import torch

from gpt2lab.model import Transformer
from gpt2lab.model.architecture import attach
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.runs.run import Run
from gpt2lab.studies.claim import Above, AtMost, Claim
from gpt2lab.text.batches import SequenceBatches
from gpt2lab.text.sources import documents
from gpt2lab.text.tokenizer import word_level
from gpt2lab.training import TrainSettings, adamw, next_token, train

from .architecture import ExampleArchitecture, Scaled


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What both arms share."""

    stories: int = 3000
    """Generated training stories; a tenth as many more are for validation."""
    d_model: int = 48
    """Width."""
    n_layers: int = 4
    """Blocks."""
    steps: int = 300
    """Updates of either arm."""
    rate: float = 3e-3
    """Peak learning rate of either arm."""
    start: float = 0.1
    """Where the scales begin."""


PRESETS = {"smoke": Settings(stories=100, d_model=16, n_layers=2, steps=20), "laptop": Settings()}

LEARNT = "loss.plain < loss.start - 0.3"  # else there is nothing to compare

CLAIMS = [
    Claim(
        "Scaled branches train at least as well as plain ones",
        name="A",
        fixed="2026-12-01",  # before the run
        measure="loss.method - loss.plain",
        quantity="final loss with scaled branches minus that with plain ones",
        holds_if=AtMost(0.02),
        needs=LEARNT,
        unit="nats per token",
        paper="section 4",
    ),
    Claim(
        "The scales grow while training",
        name="B",
        fixed="2026-12-01",  # before the run
        measure="growth",
        holds_if=Above(0.0),
        needs=LEARNT,
    ),
]


def arms(settings: Settings) -> list[str]:
    """Return what is compared; each arm is a unit of work that resumes on its own."""
    return ["method", "plain"]


def run_arm(settings: Settings, arm: str, run: Run) -> None:
    """Train one model and report its validation loss, in nats per token, and how far its scales have come."""
    texts = list(documents(f"tinyworld:{settings.stories + settings.stories // 10}"))
    tokenizer = word_level(texts)
    assert tokenizer.eos is not None
    rows = [[*tokenizer.encode(text), tokenizer.eos] for text in texts]
    batches = SequenceBatches(rows[: settings.stories], batch_size=16, seed=run.seed)
    held_out = SequenceBatches(rows[settings.stories :], batch_size=settings.stories // 10, shuffle=False)
    config = gpt2_config(
        vocab_size=tokenizer.vocab_size,
        d_model=settings.d_model,
        n_layers=settings.n_layers,
        n_heads=4,
        max_positions=256,
    )
    model = Transformer(config, generator=torch.Generator().manual_seed(run.seed)).to(run.device)
    if arm == "method":
        attach(model, ExampleArchitecture(start=settings.start))

    def evaluate() -> dict[str, float]:
        batch = {name: tensor.to(run.device) for name, tensor in held_out[0].items()}
        with torch.no_grad():
            return {"validation_loss": float(next_token(model, batch)[0])}

    loop = TrainSettings(steps=settings.steps, learning_rate=settings.rate, warmup=settings.steps // 10)
    run.result("start", evaluate()["validation_loss"])
    done = train(
        model,
        batches,
        settings=loop,
        optimizer=adamw(model, loop),
        evaluate=evaluate,
        log=run.log,
        checkpoints=run.checkpoints,
        resume=True,
        seed=run.seed,
        label=arm,
    )
    run.result("loss", done.validation["validation_loss"])
    scales = [part.scale.detach() for part in model.modules() if isinstance(part, Scaled)]
    if scales:
        run.result("growth", float(torch.cat(scales).mean()) - settings.start)


def run(settings: Settings, run: Run) -> None:
    """Put the arms of one seed together."""
    for arm, record in run.arms.items():
        run.result(f"loss.{arm}", record.results["loss"])
    run.result("loss.start", run.arms["plain"].results["start"])
    run.result("growth", run.arms["method"].results["growth"])
