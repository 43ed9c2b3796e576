"""A small model on generated stories: pruned by magnitude and at random, and retrained against training on as long."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from gpt2lab import LanguageModel, Transformer
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.runs.run import Run
from gpt2lab.studies.claim import AtLeast, AtMost, Claim
from gpt2lab.text.batches import SequenceBatches
from gpt2lab.text.sources import documents
from gpt2lab.text.tokenizer import word_level
from gpt2lab.training import TrainSettings, next_token, parameter_groups, train

from .measure import Sparsity
from .optimizer import MaskedAdamW
from .transform import MagnitudePrune


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all models of a seed share."""

    stories: int = 3000
    """Generated training stories; a tenth as many more are for validation."""
    d_model: int = 64
    """Width."""
    n_layers: int = 2
    """Blocks."""
    share: float = 0.5
    """Share of the weights that is pruned."""
    retrain_steps: int = 150
    """Updates after pruning; the model that was not pruned gets as many more."""
    train: TrainSettings = field(
        default_factory=lambda: TrainSettings(steps=400, learning_rate=3e-3, warmup=40)
    )
    """How the dense model is trained; retraining has a tenth of its learning rate."""


PRESETS = {
    "smoke": Settings(
        stories=100,
        d_model=24,
        retrain_steps=5,
        train=TrainSettings(steps=30, learning_rate=1e-2, warmup=3),
    ),
    "laptop": Settings(),
}

LEARNT = "loss.dense < loss.start - 0.3"

CLAIMS = [
    Claim(
        "Removing the smallest weights costs less than removing as many at random",
        name="A",
        measure="loss.random - loss.pruned",
        holds_if=AtLeast(0.0),
        needs=LEARNT,
        unit="nats per token",
        paper="section 3",
    ),
    Claim(
        "Half of the weights, retrained, are as good as all of them trained as long",
        name="B",
        measure="loss.retrained - loss.continued",
        holds_if=AtMost(0.02),
        needs=LEARNT,
        unit="nats per token",
        paper="a ninth to a thirteenth of the weights without loss of accuracy (abstract)",
    ),
]


def run(settings: Settings, run: Run) -> None:
    """Train, prune, retrain; report the validation loss of every model, in nats per token."""
    texts = list(documents(f"tinyworld:{settings.stories + settings.stories // 10}"))
    tokenizer = word_level(texts)
    rows = [[*tokenizer.encode(text), tokenizer.eos or 0] for text in texts]
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

    def loss(of: Transformer) -> float:
        batch = {name: tensor.to(run.device) for name, tensor in held_out[0].items()}
        with torch.no_grad():
            return float(next_token(of, batch)[0])

    def trained(of: Transformer, loop: TrainSettings, label: str) -> Transformer:
        optimizer = MaskedAdamW(parameter_groups(of, loop.weight_decay), lr=loop.learning_rate)
        _train(of, batches, loop, optimizer, lambda: {"validation_loss": loss(of)}, run, label)
        return of

    run.result("loss.start", loss(model))
    dense = LanguageModel(trained(model, settings.train, "dense").eval(), tokenizer)
    pruned = MagnitudePrune(share=settings.share)(dense)
    random = MagnitudePrune(share=settings.share, choose="random", seed=run.seed)(dense)
    run.result("loss.dense", loss(dense.model))
    run.result("loss.pruned", loss(pruned.model))
    run.result("loss.random", loss(random.model))
    again = TrainSettings(
        steps=settings.retrain_steps, learning_rate=settings.train.learning_rate / 10, warmup=0
    )
    run.result("loss.continued", loss(trained(copy.deepcopy(dense.model), again, "continued")))
    run.result("loss.retrained", loss(trained(pruned.model, again, "retrained")))
    run.result("sparsity", Sparsity()(pruned)["sparsity"])


def _train(
    model: Transformer,
    batches: SequenceBatches,
    loop: TrainSettings,
    optimizer: MaskedAdamW,
    evaluate: Callable[[], dict[str, float]],
    run: Run,
    label: str,
) -> None:
    """Train with checkpoints of its own, so that a study that was stopped goes on where it was."""
    train(
        model,
        batches,
        settings=loop,
        optimizer=optimizer,
        evaluate=evaluate,
        log=run.log,
        checkpoints=run.checkpoints / label,
        resume=True,
        seed=run.seed,
        label=label,
    )
