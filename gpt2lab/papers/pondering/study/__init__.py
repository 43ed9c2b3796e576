"""Pondering against plain models of equal size and tokens, of equal compute, of twice the size, and its own variants.

All arms of a seed read the same batches in the same order and are judged on the same windows; arms of one shape begin
with the same weights. Every plain arm has the embedding scale and the initialisation of the published runs too. Every arm
gets its best chance by the same rule: in every seed it tries the same learning rates over a share of its updates, and the
best of them trains the model that counts.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer, TransformerConfig, attach
from gpt2lab.model.checkpoints.families import CONSTRUCTORS
from gpt2lab.papers.pondering.analysis import likely_tokens, loss_by_steps, mean_loss, step_statistics
from gpt2lab.papers.pondering.architecture import Pondering
from gpt2lab.papers.pondering.compute import training_flops
from gpt2lab.papers.pondering.study import pictures
from gpt2lab.papers.pondering.study.claims import CLAIMS
from gpt2lab.papers.pondering.study.settings import ARMS, PRESETS, Settings
from gpt2lab.text.batches import ArrayTokens, PackedBatches
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.sources import documents
from gpt2lab.text.splits import TRAIN, PositionRule, by_position
from gpt2lab.text.tokenizer import Tokenizer, train_bpe
from gpt2lab.training import TrainSettings, train
from gpt2lab.training.loop import NotFinite

__all__ = ["ARMS", "CLAIMS", "PRESETS", "Settings", "arms", "run", "run_arm", "summarise"]

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run
    from gpt2lab.studies.study import Study

_BLOCK = 2000
"""Tokens; every twentieth block of the stream is for validation, of fewer blocks the last."""
_EVERY = 20


def arms(settings: Settings) -> list[str]:
    """Return what is compared, the slow ones first."""
    return list(settings.arms)


@dataclass(frozen=True)
class Material:
    """The text as tokens."""

    tokenizer: Tokenizer
    training: ArrayTokens
    validation: Tensor
    """Fixed windows, [windows, context + 1]."""
    tuning: Tensor
    """Other windows of the same blocks, at most as many, on which learning rates are chosen."""


@cache
def material(data: str, vocab_size: int, context: int, windows: int) -> Material:
    """Read the text, make its tokenizer, and split it by position: every twentieth block is for validation and tuning.

    LabError for too little text: `windows` for validation, and at least one more for tuning.
    """
    texts = list(documents(data))
    tokenizer = train_bpe(texts, vocab_size)
    assert tokenizer.eos is not None
    ids = torch.tensor([token for text in tokenizer.encode_batch(texts) for token in (*text, tokenizer.eos)])
    size = min(_BLOCK, max(len(ids) // 40, context + 1))
    blocks = list(ids.split(size))
    every = min(_EVERY, len(blocks))
    parts = by_position(blocks, PositionRule(every, every - 1))
    cut = [
        block[: len(block) // (context + 1) * (context + 1)].view(-1, context + 1) for block in parts["valid"]
    ]
    known = torch.cat(cut)
    if len(known) <= windows:
        raise LabError(
            f"data {data}: {len(known)} validation windows; {windows} are asked for, and at least one more for tuning; "
            "give more text"
        )
    spread = _spread(len(known), windows)
    rest = known[[place not in set(spread.tolist()) for place in range(len(known))]]
    training = torch.cat(parts[TRAIN])
    tuning = rest[_spread(len(rest), min(windows, len(rest)))]
    return Material(tokenizer, ArrayTokens(training.numpy()), known[spread], tuning)


def _spread(n: int, wanted: int) -> Tensor:
    """Return `wanted` places of n, evenly apart."""
    return torch.linspace(0, n - 1, wanted).long()


def configuration(settings: Settings, arm: str) -> TransformerConfig:
    """Return the shape of an arm's model: untied, without dropout."""
    times = ARMS[arm].blocks or settings.pondering_steps + 1
    return CONSTRUCTORS[settings.family](
        vocab_size=settings.vocab_size,
        d_model=settings.d_model,
        n_layers=settings.n_layers * times,
        n_heads=settings.n_heads,
        max_positions=settings.context,
        tied_head=False,
    )


def options(settings: Settings, arm: str) -> Pondering:
    """Return an arm's architecture; a plain one has the embedding scale and the initialisation, and takes no steps."""
    own = dict(ARMS[arm].options)
    steps = own.pop("steps", 0)
    feedback = own.get("feedback", "embedding")
    shared: dict[str, Any] = {
        "scale_embeddings": True,
        "draw": settings.draw if own or steps != 0 else "layers",
    }
    if feedback == "embedding":
        shared["top_k"] = settings.top_k
    if feedback != "pause":
        shared |= {
            "multiply_by_steps": settings.multiply_by_steps,
            "checkpoint_passes": settings.checkpoint_passes,
        }
    return Pondering(steps=settings.pondering_steps if steps is None else steps, **shared, **own)


def model_of(settings: Settings, arm: str, seed: int) -> Transformer:
    """Return an arm's model with the initial weights of a seed."""
    model = Transformer(configuration(settings, arm), generator=torch.Generator().manual_seed(seed))
    return attach(model, options(settings, arm), generator=torch.Generator().manual_seed(seed))


def flops_of(settings: Settings, arm: str) -> float:
    """Return what training on one token costs in an arm, in floating-point operations."""
    with torch.device("meta"):
        model = Transformer(configuration(settings, arm))
        attach(model, options(settings, arm))
    return training_flops(model, settings.context)


def updates(settings: Settings, arm: str) -> int:
    """Return an arm's number of updates."""
    if not ARMS[arm].longer:
        return settings.steps
    return round(settings.steps * flops_of(settings, "ponder") / flops_of(settings, arm))


def run_arm(settings: Settings, arm: str, run: "Run") -> None:
    """Choose an arm's learning rate in short trials, train it over the whole schedule, and report."""
    from gpt2lab.studies.sweep import best_on_grid

    text = material(settings.data, settings.vocab_size, settings.context, settings.windows)
    count, tried = updates(settings, arm), list[dict[str, float]]()

    def trial(rate: float) -> float:
        model = model_of(settings, arm, run.seed).to(run.device)
        try:
            _train(settings, arm, run, text, model, rate, max(1, round(settings.trial * count)))
            loss = mean_loss(model, text.tuning)
        except NotFinite:
            loss = math.inf
        tried.append({"learning_rate": rate, "loss": loss})
        return loss

    run.chooses("learning rate", on="tuning windows")
    run.judges("losses", on="validation windows")
    rate, _, at_edge = best_on_grid(settings.rates, trial, widen=1 if len(settings.rates) > 1 else 0)
    model = model_of(settings, arm, run.seed).to(run.device)
    run.result("start", mean_loss(model, text.validation))
    seconds = _train(settings, arm, run, text, model, rate, count, log=run.log)
    run.table(
        "sweep",
        tried,
        f"Loss on the tuning windows after {settings.trial:.0%} of the updates, at every rate tried",
    )
    run.result("loss", mean_loss(model, text.validation))
    run.result("learning_rate", rate)
    run.result("at_edge", at_edge and len(settings.rates) > 1)
    tokens = count * settings.accumulation * settings.batch_size * settings.context
    run.result("parameters", model.count_parameters()["total"])
    run.result("updates", count)
    run.result("flops", tokens * flops_of(settings, arm))
    run.result("seconds_per_update", seconds)
    points = run.record.series("validation_loss")
    run.table(
        "curve",
        [{"update": step, "loss": loss} for step, loss in zip(*points, strict=True)],
        "Validation loss on an eighth of the windows, while training",
    )
    if arm in ("ponder", "ponder_random"):
        _look_inside(settings, run, text, model)


def _train(
    settings: Settings,
    arm: str,
    run: "Run",
    text: Material,
    model: Transformer,
    rate: float,
    steps: int,
    *,
    log: Callable[..., None] | None = None,
) -> float:
    """Train one model over a complete schedule of so many updates; return seconds an update."""
    batches = PackedBatches(
        text.training, batch_size=settings.batch_size, context=settings.context, seed=run.seed
    )
    part = text.validation[::8]
    done = train(
        model,
        batches,
        settings=TrainSettings(
            steps=steps,
            learning_rate=rate,
            warmup=math.ceil(0.02 * steps),
            weight_decay=settings.weight_decay,
            accumulation=settings.accumulation,
            precision=settings.precision,  # type: ignore[arg-type]  # checked by TrainSettings
            evaluate_every=max(1, steps // 10) if log else 0,
            log_every=max(1, steps // 50),
        ),
        evaluate=(lambda: {"validation_loss": mean_loss(model, part)}) if log else None,
        log=log,
        checkpoints=run.checkpoints / (f"rate_{rate:g}" if log else f"trial_{rate:g}"),
        resume=True,
        seed=run.seed,
        label=f"{arm} lr {rate:.2g}",
    )
    return done.seconds / done.steps if done.steps else math.nan


def _look_inside(settings: Settings, run: "Run", text: Material, model: Transformer) -> None:
    """Try the trained model with other numbers of steps, see what each pass does, and keep it."""
    losses = loss_by_steps(model, text.validation, range(settings.swept + 1))
    for steps, loss in losses.items():
        run.result(f"sweep.s{steps}", loss)
    trained = settings.pondering_steps
    run.result("sweep.trained_minus_best", losses[trained] - min(losses.values()))
    run.result("sweep.none_minus_trained", losses[0] - losses[trained])
    run.table("passes", step_statistics(model, text.validation[:64]), "What every pass does, 64 windows")
    spell = text.tokenizer.token
    run.table(
        "tokens",
        likely_tokens(model, text.validation[0, :24].tolist(), spell),
        "Likeliest next tokens after every pass, one text",
    )
    run.model(LanguageModel(model, text.tokenizer))


def run(settings: Settings, run: "Run") -> None:
    """Put the arms of one seed together."""
    for arm, record in run.arms.items():
        for name, value in record.results.items():
            run.result(f"{arm}.{name}", value)
    ponder = run.results["ponder.loss"]
    run.result("gain", run.results["vanilla.loss"] - ponder)
    variants = [arm for arm in ("loop", "hidden", "hidden_linear", "pause") if arm in run.arms]
    for arm in [arm for arm in run.arms if arm != "ponder"]:
        run.result(f"over.{arm}", run.results[f"{arm}.loss"] - ponder)
    if variants:
        run.result("over_variants", min(run.results[f"over.{arm}"] for arm in variants))
    target = float(run.arms["vanilla"].tables["curve"][-1]["loss"])
    run.result("token_share", token_share(run.arms["ponder"].tables["curve"], target, settings.steps))
    rows: list[dict[str, Any]] = [
        {
            "arm": arm,
            "loss": record.results["loss"],
            "learning rate": record.results["learning_rate"],
            "parameters": int(record.results["parameters"]),
            "updates": int(record.results["updates"]),
            "training, GFLOP": record.results["flops"] / 1e9,
            "compute of vanilla's": record.results["flops"] / run.results["vanilla.flops"],
            "seconds an update": record.results["seconds_per_update"],
        }
        for arm, record in run.arms.items()
    ]
    rows.sort(key=lambda row: float(row["loss"]))
    run.table("arms", rows, "Every arm: loss in nats per token, and its cost")


def token_share(curve: Sequence[Mapping[str, Any]], target: float, steps: int) -> float:
    """Return after which share of `steps` updates a loss of `target` is reached; 1 if it never is."""
    reached = [float(row["update"]) for row in curve if float(row["loss"]) <= target]
    return min(reached) / steps if reached else 1.0


def summarise(settings: Settings, study: "Study") -> None:
    """Add the figures over all seeds."""
    pictures.add(settings, study)
