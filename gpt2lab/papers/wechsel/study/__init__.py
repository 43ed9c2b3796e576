"""A model of one language moved to another from several beginnings, each trained alike: losses against updates.

A model is trained on half of a text. The other half is another language: every word is replaced by an invented one, so that
its grammar is known to be the same and its words are all different; or it is real text with a dictionary. All arms of a seed
share the source model, the new tokenizer and the order of the batches, and each chooses its learning rate in as many trials.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from gpt2lab.actions.models import loaded
from gpt2lab.base.errors import LabError
from gpt2lab.measures.held_out import windows_loss
from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.papers.wechsel.freezing import FreezeInner
from gpt2lab.papers.wechsel.initialisation import MIXED, Initialised, wechsel_init
from gpt2lab.papers.wechsel.study import material as texts
from gpt2lab.papers.wechsel.study import pictures
from gpt2lab.papers.wechsel.study.claims import CLAIMS
from gpt2lab.papers.wechsel.study.material import Material
from gpt2lab.papers.wechsel.study.settings import ARMS, PRESETS, SCARCE, Settings
from gpt2lab.runs.trial import TUNING_SEED
from gpt2lab.studies.graph import UnitSpec
from gpt2lab.studies.race import FURTHER
from gpt2lab.studies.sweep import best_on_grid
from gpt2lab.text.batches import PackedBatches
from gpt2lab.text.language_model import LanguageModel, load
from gpt2lab.training import TrainSettings, train
from gpt2lab.training.loop import NotFinite

__all__ = [
    "CLAIMS",
    "PRESETS",
    "Settings",
    "adapt",
    "first_update_at",
    "pretrain",
    "run",
    "summarise",
    "tune",
    "units",
]

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run
    from gpt2lab.studies.study import Study

_SOURCE, _TUNING_SOURCE = "source_model", "tuning_source_model"
_INSPECTED = 60


def units(settings: Settings) -> list[UnitSpec]:
    """Return the languages, the source model of every seed and of the tuning seed, the tuning of every arm, the arms."""
    made = [
        UnitSpec(texts.UNIT, texts.prepare, shared=True),
        UnitSpec(_SOURCE, pretrain, needs=(texts.UNIT,)),
        UnitSpec(_TUNING_SOURCE, pretrain, needs=(texts.UNIT,), tuning=True),
    ]
    for arm in settings.arms:
        needs = (texts.UNIT, _TUNING_SOURCE)
        made.append(UnitSpec(_tuning(arm), partial(tune, arm=arm), needs=needs, tuning=True))
        made.append(UnitSpec(arm, partial(adapt, arm=arm), needs=(texts.UNIT, _SOURCE, _tuning(arm))))
    return made


def _tuning(arm: str) -> str:
    return f"tuning_{arm}"


def pretrain(settings: Settings, run: "Run") -> None:
    """Train the source model of a seed, or evaluate the one that is given, and keep it."""
    made = texts.material(settings, run.needed[texts.UNIT])
    if settings.model:
        lm = loaded(settings.model, run.device, None)
        if lm.model.context < settings.context:
            raise LabError(f"context {settings.context}: {settings.model} has {lm.model.context} positions")
    else:
        config = gpt2_config(
            vocab_size=made.source.vocab_size, d_model=settings.d_model, n_layers=settings.n_layers,
            n_heads=settings.n_heads, max_positions=settings.context, eos=made.source.eos, bos=made.source.eos,
        ).replace(embedding_dropout=0.0, attention_dropout=0.0, residual_dropout=0.0)  # fmt: skip
        model = Transformer(config, generator=torch.Generator().manual_seed(run.seed)).to(run.device)
        batches = made.batches("source_train", settings, run.seed)
        _train(
            settings,
            run,
            model,
            batches,
            settings.pretraining_rate,
            settings.pretraining_steps,
            "source model",
        )
        lm = LanguageModel(model, made.source)
        run.model(lm)
    windows = made.windows("source_valid", settings)
    run.result("loss", windows_loss(lm.model, windows).loss)
    run.result("unigram_loss", run.needed[texts.UNIT].results["unigram_loss.source"])


def begin(settings: Settings, run: "Run", arm: str, made: Material) -> Initialised:
    """Return the model of an arm before its first update."""
    name = _TUNING_SOURCE if run.seed == TUNING_SEED else _SOURCE
    source = loaded(settings.model, run.device, None) if settings.model else load(
        run.needed[name].folder / "model", device=run.device
    )  # fmt: skip
    spaces = (
        texts.spaces(settings, run.needed[texts.UNIT], aligned=arm != "unaligned")
        if ARMS[arm] in MIXED
        else None
    )
    return wechsel_init(
        source, made.target, spaces, method=ARMS[arm], k=settings.k, tau=settings.tau, seed=run.seed
    )


def tune(settings: Settings, run: "Run", *, arm: str) -> None:
    """Choose an arm's learning rate by the loss on the tuning text after a whole training."""
    run.chooses("learning rate", on=texts.TUNING)
    made = texts.material(settings, run.needed[texts.UNIT])
    windows = made.windows("tuning", settings)
    tried: list[dict[str, float]] = []

    def loss_of(rate: float) -> float:
        model = begin(settings, run, arm, made).lm.model
        try:
            _train_arm(settings, run, arm, model, made, rate, place=f"trial_{len(tried)}")
            loss = windows_loss(model, windows).loss
        except NotFinite:
            loss = math.inf
        tried.append({"learning_rate": rate, "loss": loss})
        run.share(len(tried) / (len(settings.rates) + FURTHER))
        return loss

    best, loss, at_edge = best_on_grid(settings.rates, loss_of, further=FURTHER)
    run.table(
        "sweep", tried, f"Loss on the tuning text after {settings.steps} updates, of every learning rate"
    )
    run.result("learning_rate", best)
    run.result("loss", loss)
    run.result("at_edge", at_edge)
    run.result("trials", len(tried))


def adapt(settings: Settings, run: "Run", *, arm: str) -> None:
    """Begin as an arm does, train in the target language at the rate that its tuning chose, and keep the losses."""
    run.judges("loss", on=texts.JUDGED)
    made, chosen = texts.material(settings, run.needed[texts.UNIT]), run.needed[_tuning(arm)].results
    begun = begin(settings, run, arm, made)
    model, windows = begun.lm.model, made.windows("valid", settings)
    if begun.mixed is not None:
        words = [id for id in range(made.target.vocab_size) if id not in made.target.special_ids]
        few = words[-_INSPECTED * max(1, len(words) // 1000) :: max(1, len(words) // 1000)]
        run.table("tokens", begun.rows(few), "Of which source tokens some tokens are mixed before training")
        run.result("tokens_found", begun.found_share)
    seconds = _train_arm(
        settings, run, arm, model, made, chosen["learning_rate"],
        evaluate=lambda: {"validation_loss": windows_loss(model, windows).loss},
    )  # fmt: skip
    curve = [
        {"update": int(step), "loss": float(value)}
        for step, value in zip(*run.record.series("validation_loss"), strict=True)
    ]
    run.table("curve", curve, "Validation loss while training")
    by_update = {row["update"]: row["loss"] for row in curve}
    final = windows_loss(model, windows, n_bytes=made.bytes_of("valid", settings))
    run.result("start", by_update[0])
    run.result("quarter", by_update[settings.steps // 4])
    run.result("loss", final.loss)
    run.result("perplexity", math.exp(final.loss))
    run.result("bits_per_byte", final.bits_per_byte)
    run.result("seconds", seconds)
    for key in ("learning_rate", "at_edge"):
        run.result(key, chosen[key])
    run.model(begun.lm)


def _train_arm(
    settings: Settings,
    run: "Run",
    arm: str,
    model: Transformer,
    made: Material,
    rate: float,
    *,
    place: str = "model",
    evaluate: Callable[[], Mapping[str, float]] | None = None,
) -> float:
    """Train an arm's model in place; return the seconds it took."""
    share = settings.scarce if arm.endswith(SCARCE) else 1.0
    batches = made.batches("train", settings, run.seed, share=share)
    frozen = round(settings.freeze * settings.steps) if arm == "frozen" else 0
    return _train(
        settings,
        run,
        model,
        batches,
        rate,
        settings.steps,
        arm,
        place=place,
        evaluate=evaluate,
        frozen=frozen,
    )


def _train(
    settings: Settings,
    run: "Run",
    model: Transformer,
    batches: PackedBatches,
    rate: float,
    steps: int,
    label: str,
    *,
    place: str = "model",
    evaluate: Callable[[], Mapping[str, float]] | None = None,
    frozen: int = 0,
) -> float:
    done = train(
        model,
        batches,
        settings=TrainSettings(
            steps=steps,
            learning_rate=rate,
            warmup=math.ceil(settings.warmup * steps),
            weight_decay=settings.weight_decay,
            accumulation=settings.accumulation,
            precision=settings.precision,
            evaluate_every=steps // settings.evaluations if evaluate is not None else 0,
            evaluate_start=evaluate is not None,
            log_every=max(1, steps // 50),
        ),
        evaluate=evaluate,
        callbacks=[FreezeInner(frozen)] if frozen else [],
        log=run.log if evaluate is not None else None,
        checkpoints=run.checkpoints / place,
        resume=True,
        seed=run.seed,
        label=f"{label} lr {rate:.2g}",
    )
    return done.seconds


def run(settings: Settings, run: "Run") -> None:
    """Put the arms of one seed together: losses, gaps, and when each reaches the loss of random embeddings."""
    languages = run.arms[texts.UNIT].results
    for key, value in languages.items():
        if key.startswith(("alignment.", "words.", "vocabulary.", "tokens.")):
            run.result(key, value)
    run.result("unigram_loss", languages["unigram_loss.target"])
    for key in ("loss", "unigram_loss"):
        run.result(f"source.{key}", run.arms[_SOURCE].results[key])
    results = {arm: run.arms[arm].results for arm in settings.arms}
    for arm, found in results.items():
        for key, value in found.items():
            run.result(f"{arm}.{key}", value)
    losses = {arm: found["loss"] for arm, found in results.items()}
    run.result("quarter_gap", min(losses["transinner"], losses["fullrand"]) - results["wechsel"]["quarter"])
    for arm in settings.arms:
        if arm != "wechsel" and not arm.endswith(SCARCE):
            run.result(f"over.{arm}", losses[arm] - losses["wechsel"])
    run.result("scarce_gain", losses["fullrand_scarce"] - losses["wechsel_scarce"])
    rows = []
    for arm in settings.arms:
        reached = first_update_at(run.arms[arm].tables["curve"], losses["transinner"])
        if reached is not None:
            run.result(f"{arm}.updates_to_transinner", reached)
        rows.append(
            {
                "arm": arm,
                "before training": results[arm]["start"],
                "a quarter": results[arm]["quarter"],
                "loss": losses[arm],
                "bits per byte": results[arm]["bits_per_byte"],
                "updates to transinner's loss": reached,
                "times fewer": settings.steps / reached if reached else None,
                "learning rate": results[arm]["learning_rate"],
                "seconds": results[arm]["seconds"],
            }
        )
    run.table(
        "arms", rows, "Every arm: losses in nats per token of the target language; updates by interpolation"
    )


def first_update_at(curve: Sequence[Any], loss: float) -> float | None:
    """Return after how many updates a curve of (update, loss) reaches a loss, by linear interpolation; None: never."""
    before: tuple[float, float] | None = None
    for row in curve:
        here = float(row["update"]), float(row["loss"])
        if here[1] <= loss:
            if before is None or here[1] == before[1]:
                return here[0]
            return before[0] + (here[0] - before[0]) * (before[1] - loss) / (before[1] - here[1])
        before = here
    return None


def summarise(settings: Settings, study: "Study") -> None:
    """Add the figures over all seeds."""
    pictures.add(settings, study)
