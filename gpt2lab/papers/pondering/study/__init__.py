"""Pondering against plain models of equal size and tokens, of equal compute, of twice the size, and its own variants.

All arms of a seed read the same batches in the same order and are judged on the same windows; arms of one shape begin
with the same weights. Every plain arm has the embedding scale and the initialisation of the published runs too. Every arm
gets its best chance by the same rule: it makes the same number of short trials, once, with the tuning seed and on a text of
their own; the best setting then trains the models that count.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from gpt2lab.model import Transformer, TransformerConfig, attach
from gpt2lab.model.checkpoints.families import CONSTRUCTORS
from gpt2lab.papers.pondering.analysis import likely_tokens, loss_by_steps, mean_loss, step_statistics
from gpt2lab.papers.pondering.architecture import Pondering
from gpt2lab.papers.pondering.compute import training_flops
from gpt2lab.papers.pondering.study import material as texts
from gpt2lab.papers.pondering.study import pictures
from gpt2lab.papers.pondering.study.claims import CLAIMS
from gpt2lab.papers.pondering.study.material import Material
from gpt2lab.papers.pondering.study.settings import ARMS, PRESETS, Settings
from gpt2lab.studies.graph import UnitSpec
from gpt2lab.text.batches import PackedBatches
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.training import TrainSettings, train
from gpt2lab.training.loop import NotFinite

__all__ = [
    "ARMS",
    "CLAIMS",
    "PRESETS",
    "Settings",
    "Trial",
    "run",
    "summarise",
    "train_arm",
    "trials",
    "tune",
    "units",
]

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run
    from gpt2lab.studies.study import Study

_POINTS = 20
"""Evaluations while training."""


@dataclass(frozen=True)
class Trial:
    """What an arm chooses: a learning rate, and whether the first input is multiplied by the number of steps."""

    rate: float
    multiply: bool = False


def units(settings: Settings) -> list[UnitSpec]:
    """Return the text, the tuning of every arm, and the arms, the slow ones first."""
    return [
        UnitSpec(texts.UNIT, texts.prepare, shared=True),
        *(
            UnitSpec(_tuning(arm), partial(tune, arm=arm), needs=(texts.UNIT,), tuning=True)
            for arm in settings.arms
        ),
        *(
            UnitSpec(arm, partial(train_arm, arm=arm), needs=(texts.UNIT, _tuning(arm)))
            for arm in settings.arms
        ),
    ]


def _tuning(arm: str) -> str:
    return f"tuning_{arm}"


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


def options(settings: Settings, arm: str, *, multiply: bool = False) -> Pondering:
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
        shared |= {"multiply_by_steps": multiply, "checkpoint_passes": settings.checkpoint_passes}
    return Pondering(steps=settings.pondering_steps if steps is None else steps, **shared, **own)


def model_of(settings: Settings, arm: str, seed: int, *, multiply: bool = False) -> Transformer:
    """Return an arm's model with the initial weights of a seed."""
    model = Transformer(configuration(settings, arm), generator=torch.Generator().manual_seed(seed))
    chosen = options(settings, arm, multiply=multiply)
    return attach(model, chosen, generator=torch.Generator().manual_seed(seed))


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


def trials(settings: Settings, arm: str) -> list[Trial]:
    """Return what an arm tries, twice as many settings as there are rates, whatever the arm."""
    rates = settings.rates
    if ARMS[arm].options and ARMS[arm].options.get("feedback") != "pause":
        return [Trial(rate, multiply) for multiply in (False, True) for rate in rates]
    ratio = rates[1] / rates[0] if len(rates) > 1 else 2.0
    return [Trial(rate * half) for rate in rates for half in (1.0, math.sqrt(ratio))]


def tune(settings: Settings, run: "Run", *, arm: str) -> None:
    """Choose an arm's setting in short trials by the loss on the tuning windows."""
    run.chooses("learning rate and scale of the first input", on=texts.TUNING)
    text = texts.prepared(run.needed[texts.UNIT])
    steps = max(1, round(settings.trial * updates(settings, arm)))
    tried = list[dict[str, Any]]()
    for index, trial in enumerate(trials(settings, arm)):
        model = model_of(settings, arm, run.seed, multiply=trial.multiply).to(run.device)
        try:
            _train(settings, arm, run, text, model, trial.rate, steps, name=f"trial_{index}")
            loss = mean_loss(model, text.tuning)
        except NotFinite:
            loss = math.inf
        tried.append({"learning_rate": trial.rate, "multiply_by_steps": trial.multiply, "loss": loss})
        run.share((index + 1) / len(trials(settings, arm)))
    best = min(tried, key=lambda row: row["loss"])
    rates = [row["learning_rate"] for row in tried]
    run.table("sweep", tried, f"Loss on the tuning windows after {steps} updates, of everything tried")
    run.result("learning_rate", best["learning_rate"])
    run.result("multiply_by_steps", best["multiply_by_steps"])
    run.result("at_edge", best["learning_rate"] in (min(rates), max(rates)))
    run.result("trials", len(tried))
    run.result("flops", len(tried) * steps * _flops_of_update(settings, arm))


def train_arm(settings: Settings, run: "Run", *, arm: str) -> None:
    """Train an arm's model with the setting that its tuning chose, and report."""
    run.judges("losses", on=texts.VALIDATION)
    text = texts.prepared(run.needed[texts.UNIT])
    chosen = run.needed[_tuning(arm)].results
    count = updates(settings, arm)
    model = model_of(settings, arm, run.seed, multiply=bool(chosen["multiply_by_steps"])).to(run.device)
    run.result("start", mean_loss(model, text.validation))
    seconds = _train(settings, arm, run, text, model, chosen["learning_rate"], count, log=run.log)
    run.result("loss", mean_loss(model, text.validation))
    for name in ("learning_rate", "multiply_by_steps", "at_edge"):
        run.result(name, chosen[name])
    run.result("parameters", model.count_parameters()["total"])
    run.result("updates", count)
    run.result("flops", count * _flops_of_update(settings, arm))
    run.result("seconds_per_update", seconds)
    points = run.record.series("validation_loss")
    run.table(
        "curve",
        [{"update": step, "loss": loss} for step, loss in zip(*points, strict=True)],
        "Validation loss on a quarter of the windows, while training",
    )
    if arm in ("ponder", "ponder_random"):
        _look_inside(settings, run, text, model)


def _flops_of_update(settings: Settings, arm: str) -> float:
    return settings.accumulation * settings.batch_size * settings.context * flops_of(settings, arm)


def _train(
    settings: Settings,
    arm: str,
    run: "Run",
    text: Material,
    model: Transformer,
    rate: float,
    steps: int,
    *,
    name: str = "model",
    log: Callable[..., None] | None = None,
) -> float:
    """Train one model over a complete schedule of so many updates; return seconds an update."""
    batches = PackedBatches(
        text.training, batch_size=settings.batch_size, context=settings.context, seed=run.seed
    )
    part = text.validation[::4]
    done = train(
        model,
        batches,
        settings=TrainSettings(
            steps=steps,
            learning_rate=rate,
            warmup=math.ceil(settings.warmup * steps),
            weight_decay=settings.weight_decay,
            accumulation=settings.accumulation,
            precision=settings.precision,  # type: ignore[arg-type]  # checked by TrainSettings
            evaluate_every=max(1, steps // _POINTS) if log else 0,
            log_every=max(1, steps // 50),
        ),
        evaluate=(lambda: {"validation_loss": mean_loss(model, part)}) if log else None,
        log=log,
        checkpoints=run.checkpoints / name,
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
    others = min(loss for steps, loss in losses.items() if steps != trained)
    run.result("sweep.trained_minus_others", losses[trained] - others)
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
    records = {arm: run.arms[arm] for arm in settings.arms}
    for arm, record in records.items():
        for name, value in record.results.items():
            run.result(f"{arm}.{name}", value)
    run.result("unigram_loss", run.arms[texts.UNIT].results["unigram_loss"])
    run.result("gain", run.results["vanilla.loss"] - run.results["ponder.loss"])
    run.result("control", run.results["vanilla.loss"] - run.results["vanilla_deep.loss"])
    for arm in [arm for arm in records if arm != "ponder"]:
        run.result(f"over.{arm}", run.results[f"{arm}.loss"] - run.results["ponder.loss"])
    curves = [records[arm].tables["curve"] for arm in ("ponder", "vanilla")]
    run.result("tokens_saved", tokens_saved(*curves))
    rows: list[dict[str, Any]] = [
        {
            "arm": arm,
            "loss": record.results["loss"],
            "learning rate": record.results["learning_rate"],
            "first input times steps": bool(record.results["multiply_by_steps"]),
            "parameters": int(record.results["parameters"]),
            "updates": int(record.results["updates"]),
            "training, GFLOP": record.results["flops"] / 1e9,
            "compute of vanilla's": record.results["flops"] / run.results["vanilla.flops"],
            "tuning, GFLOP": run.arms[_tuning(arm)].results["flops"] / 1e9,
            "seconds an update": record.results["seconds_per_update"],
        }
        for arm, record in records.items()
    ]
    rows.sort(key=lambda row: float(row["loss"]))
    run.table("arms", rows, "Every arm: loss in nats per token, and its cost")


def tokens_saved(ours: Sequence[Mapping[str, Any]], plain: Sequence[Mapping[str, Any]]) -> float:
    """Return which share of the tokens `ours` saves to get to the last loss of `plain`; both are curves of one schedule.

    If it never gets there, the share that `plain` saves to get to the last loss of `ours`, negative: so no value is
    cut off, and equal curves give 0. Between two points of a curve the loss is taken as linear.
    """
    if float(ours[-1]["loss"]) <= float(plain[-1]["loss"]):
        return 1 - _share(ours, float(plain[-1]["loss"]))
    return _share(plain, float(ours[-1]["loss"])) - 1


def _share(curve: Sequence[Mapping[str, Any]], target: float) -> float:
    """Return after which share of its updates a curve that ends at most at `target` first gets there."""
    points = [(float(row["update"]), float(row["loss"])) for row in curve]
    first = next(index for index, (_, loss) in enumerate(points) if loss <= target)
    update, loss = points[first]
    if first:
        before, higher = points[first - 1]
        update = before + (higher - target) / (higher - loss) * (update - before)
    return update / points[-1][0]


def summarise(settings: Settings, study: "Study") -> None:
    """Add the figures over all seeds."""
    pictures.add(settings, study)
