"""The verb `train`: settings in, a run with a language model out. Pre-trains a new model or fine-tunes a given one."""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack, cast

import torch
from torch.optim import Optimizer

from gpt2lab import decode
from gpt2lab.actions.models import find_model, model_outline, named, pick_device
from gpt2lab.actions.parts import (
    attach_once,
    build_architecture,
    check_optimizer,
    chosen_objective,
    named_optimizer,
    with_room,
)
from gpt2lab.actions.record import note_weights
from gpt2lab.actions.train_arguments import TrainOptions
from gpt2lab.actions.train_data import (
    MaskedValidation,
    Validation,
    kept_tokenizer,
    masked,
    new_tokenizer,
    report_validation,
    tokens,
    validation_of,
)
from gpt2lab.actions.train_rows import train_rows
from gpt2lab.actions.train_rules import refuse_no_data, refuse_unused, unused
from gpt2lab.actions.train_settings import TrainingSettings, command_of
from gpt2lab.actions.train_task import train_task
from gpt2lab.base.errors import LabError
from gpt2lab.base.settings import build, from_plain, options, update
from gpt2lab.model import Transformer, TransformerConfig, Wrapper, attach
from gpt2lab.model.adapters import Lora, adapters, count_trainable
from gpt2lab.model.checkpoints.families import CONSTRUCTORS
from gpt2lab.model.memory import check_batch
from gpt2lab.model.quantization import QuantizationOptions, Quantized, refuse_full_training
from gpt2lab.runs.lineage import about
from gpt2lab.runs.report.write import write_report
from gpt2lab.runs.run import Run
from gpt2lab.runs.store import Row
from gpt2lab.text.batches import PackedBatches
from gpt2lab.text.chats import holds_chats
from gpt2lab.text.language_model import LanguageModel, save_adapter
from gpt2lab.text.language_model import load as load_folder
from gpt2lab.text.shards import Shards
from gpt2lab.training import TrainResult, TrainSettings, default_objective
from gpt2lab.training import train as train_loop
from gpt2lab.training.objectives import Objective
from gpt2lab.training.owned_modules import save_modules
from gpt2lab.training.routing import balance_is_of_the_batch
from gpt2lab.training.rows import ReadsRows

_SAMPLE_TOKENS = 80
LONGEST = 512
"""Context of a fine-tuning at most, unless told: longer rows cost memory that a laptop does not have."""
UPDATE_TOKENS = 4096
"""Tokens of a fine-tuning's micro-batch on text, unless told: as many as a new model's 32 rows of 128."""


def train(
    data: "str | Sequence[str]" = (),
    *,
    name: str = "train",
    model: "str | Path | None" = None,
    **settings: Unpack[TrainOptions],
) -> Run:
    """Train a new model on `data`, or go on with a given `model`, and return the finished run with the model in it.

    settings: those of `TrainingSettings`, text or typed; those of the loop go without their prefix too, so that steps=300
    is train.steps=300, and nested ones as **{"lora.rank": 8}. A run shorter than ten warm-ups warms up for a tenth of its
    steps unless told; a given model is trained at a rate and a context of its own. name: of the run.
    LabError for settings or data that do not fit, and for a setting that this training would ignore.
    """
    given = {"data": data, "model": None if model is None else str(named(model))}
    return train_model(
        training_settings({**{key: value for key, value in given.items() if value}, **settings}), name=name
    )


def training_settings(given: Mapping[str, object]) -> TrainingSettings:
    """Return the settings of a training: those given, text or typed, and what suits it for the others.

    Those of the loop go without their prefix too: steps=300 is train.steps=300. LabError: an unknown name, a value that
    does not fit, a setting that this training would ignore, a model or a part that is not there.
    """
    loop = {option.name for option in options(TrainSettings)}
    given = {f"train.{name}" if name in loop else name: value for name, value in given.items()}
    if given.get("objective") is None and _are_chats(given):
        given = {**given, "objective": "answers"}
    made = build(TrainingSettings, {"train.warmup": 0, **given}, "train")
    if made.train.steps < 1:
        raise LabError(f"train: steps must be at least 1, got {made.train.steps}")
    names = set(_flat(given))
    refuse_unused(made, sorted(names))
    check_optimizer(made.optimizer, made.train, made.optimizer_options)  # before hours of encoding
    outline = None if made.model is None else model_outline(made.model)
    reason = balance_is_of_the_batch(_config(made) if outline is None else outline.config)
    if made.train.privacy is not None and reason:
        raise LabError(f"privacy: this training has no loss for each row: {reason}")
    usual: dict[str, object] = {"train.warmup": min(TrainingSettings().train.warmup, made.train.steps // 10)}
    if outline is not None:
        usual |= _fine_tuning(made, outline, made.context if "context" in names else None)
    return update(made, {name: value for name, value in usual.items() if name not in names}, "train")


def _are_chats(given: Mapping[str, object]) -> bool:
    """Tell whether a given model is to learn language from rows of chats. LabError for settings that do not fit."""
    plain = {name: value for name, value in given.items() if name.partition(".")[0] != "objective_options"}
    made = build(TrainingSettings, {"train.warmup": 0, **plain}, "train")
    language = made.model is not None and made.task.kind == "language"
    return language and bool(made.data) and holds_chats(made.data)


def _fine_tuning(settings: TrainingSettings, model: Transformer, context: int | None) -> dict[str, object]:
    """Return what suits a given model: its own context, rows of it, and a learning rate by its width."""
    if settings.architecture is not None:
        added = build_architecture(settings.architecture, settings.architecture_options)
        attach_once(model, added, generator=torch.Generator())
    if settings.lora is not None:
        attach(model, settings.lora)
    frozen = not all(parameter.requires_grad for parameter in model.parameters())
    if context is not None:
        refuse_long(settings, model)
    context = context or min(model.context, LONGEST)
    rows = {"batch_size": max(1, UPDATE_TOKENS // context)} if settings.task.kind == "language" else {}
    rate = learning_rate(model.config.d_model, frozen=frozen)
    return {"train.learning_rate": rate, "context": context, **rows}


def learning_rate(d_model: int, *, frozen: bool) -> float:
    """Return the peak learning rate of a fine-tuning: 5e-4 (128 / d_model)², at least 2e-5 and at most 5e-4.

    `frozen`: only what was added is trained (an adapter, a soft prompt), which takes ten times as much.
    """
    full = min(max(5e-4 * (128 / d_model) ** 2, 2e-5), 5e-4)
    return float(f"{full * (10 if frozen else 1):.2g}")


def _flat(given: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all settings in a mapping; of a settings object those that are not the usual ones."""
    for name, value in given.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            usual = {option.name: option.default for option in options(type(value))}
            changed = {
                o.name: o.default for o in options(type(value), default=value) if o.default != usual[o.name]
            }
            yield from _flat(changed, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def train_model(
    settings: TrainingSettings, *, name: str = "train", home: Path | str | None = None, command: str = ""
) -> Run:
    """Train as the settings say and return the finished run, its model in `run.folder / "model"`.

    The tokenizer, the model in Hugging Face's layout, checkpoints, metrics, samples and a report are in the run's
    folder. LabError for data, a model or settings that do not fit; KeyboardInterrupt, with the command that goes on,
    after Ctrl-C.
    """
    refuse_no_data(settings)
    device = str(pick_device(settings.device))
    run = Run.start(
        "train",
        name,
        home=home,
        settings=settings,
        unused=unused(settings),
        device=device,
        seed=settings.seed,
        origin=about(settings.model, find_model(settings.model))["origin"] if settings.model else None,
        command=command or command_of(settings, name),
    )
    note_weights(run, settings.model)
    return _train(run, settings, again=False)


def resume_training(row: Row, *, home: Path | str | None = None, take_over: bool = False) -> Run:
    """Go on with a training run from its last checkpoint; it ends with the weights of one that was never stopped.

    take_over: even if another process seems to run it. LabError if it has finished already or its data have changed.
    """
    if row.status == "finished":
        raise LabError(f"{row.id}: this run has finished; its model is in {row.folder(home) / 'model'}")
    settings = from_plain(TrainingSettings, json.loads(row.settings), row.id)
    run = Run.reopen(row, home, str(pick_device(settings.device)), take_over=take_over)
    return _train(run, settings, again=True)


def _train(run: Run, settings: TrainingSettings, *, again: bool) -> Run:
    """Do the work of a run, new or reopened, and write its report."""
    with run:
        try:
            lm = _language_model(run, settings, again)
            objective = chosen_objective(
                settings.objective, settings.objective_options, default_objective(lm.config)
            )
            if isinstance(objective, ReadsRows):
                train_rows(run, settings, lm, objective, partial(_optimizer, settings), again=again)
                _keep(run, settings, lm, objective)
            elif settings.task.kind == "language":
                _train_language(run, settings, lm, objective, again=again)
            else:
                train_task(run, settings, lm, partial(_optimizer, settings), again=again)
        except KeyboardInterrupt as stop:
            how_far = str(stop) or "stopped outside of the updates"
            raise KeyboardInterrupt(f"{how_far}; go on with: gpt2lab resume {run.id}") from None
    write_report(run.id, home=run.store.home)
    return run


def _train_language(
    run: Run, settings: TrainingSettings, lm: LanguageModel, objective: Objective, *, again: bool
) -> None:
    """Train on the text itself, and save the model with results and samples."""
    for wrapper in cast("list[Wrapper]", list(lm.model.wrappers)):
        wrapper.require_steps(lm.model, settings.train.steps)
    if run.device == "cpu":
        size = settings.batch_size * settings.context
        check_batch(lm.config, size, kept=not settings.train.gradient_checkpointing)
    shards = tokens(run, settings, lm)
    batches = PackedBatches(
        shards, batch_size=settings.batch_size, context=settings.context, seed=settings.seed
    )
    validation = validation_of(lm, shards, settings)
    done = train_loop(
        lm.model,
        batches if lm.config.causal else masked(batches, lm, settings.seed),
        settings=settings.train,
        objective=objective,
        optimizer=_optimizer(settings, lm.model),
        evaluate=validation,
        log=run.log,
        checkpoints=run.checkpoints,
        resume=again,
        seed=settings.seed,
        label=run.id,
    )
    _keep(run, settings, lm, objective)
    _report(run, settings, lm, shards, batches, done)


def _keep(run: Run, settings: TrainingSettings, lm: LanguageModel, objective: Objective) -> None:
    """Save the model in the run's folder, or of one that is frozen but for an adapter the adapter alone.

    Modules that the objective has trained lie beside it, in `objective`.
    """
    save_modules(run.folder / "objective", objective.modules())
    changed = settings.quantize is not None or settings.architecture is not None
    if settings.lora is not None and settings.model is not None and not changed:
        _keep_adapter(run, lm, settings.lora, settings.model)
    else:
        run.model(lm)


def _language_model(run: Run, settings: TrainingSettings, again: bool) -> LanguageModel:
    """Return the model to train with its tokenizer: a given one, or a new one."""
    device, generator = torch.device(run.device), torch.Generator().manual_seed(settings.seed)
    added = settings.architecture and build_architecture(settings.architecture, settings.architecture_options)
    if settings.model is not None:
        lm = load_folder(find_model(settings.model), device=device, dtype=torch.float32)
        if lm.tokenizer is None:
            raise LabError(f"{settings.model}: holds no tokenizer, so no text can be encoded for it")
        if added:
            attach_once(lm.model, added, generator=generator)
        refuse_long(settings, lm.model)
        _round_base(lm, settings.quantize)
        if settings.lora is not None:
            _attach_adapter(run, lm, settings.lora, seed=settings.seed)
        refuse_full_training(lm.model)
        return lm
    tokenizer = kept_tokenizer(
        run, partial(new_tokenizer, settings, fills_in=not _config(settings).causal), again=again
    )
    config = _config(settings, tokenizer.vocab_size, tokenizer.pad)
    model = Transformer(with_room(config, added) if added else config, generator=generator).to(device)
    return LanguageModel(attach(model, added, generator=generator) if added else model, tokenizer)


def refuse_long(settings: TrainingSettings, model: Transformer) -> None:
    """LabError if training rows are longer than a given model, with all that is attached, has positions."""
    if settings.context > model.context:
        raise LabError(f"context {settings.context}: {settings.model} has {model.context} positions")


def _config(settings: TrainingSettings, vocab_size: int = 1, pad: int | None = None) -> TransformerConfig:
    """Return the configuration of a new model; a family whose positions count from its padding's id is told that id."""
    return CONSTRUCTORS[settings.family](
        vocab_size=vocab_size,
        d_model=settings.d_model,
        n_layers=settings.n_layers,
        n_heads=settings.n_heads,
        max_positions=settings.context,
        **({} if pad is None else {"pad": pad}),
        **_experts(settings),
    )


def _experts(settings: TrainingSettings) -> dict[str, Any]:
    """Return the fields of a new model with experts; a llama or mistral with experts is a mixtral."""
    experts = settings.experts or (8 if settings.family == "mixtral" else 0)
    if not experts:
        return {}
    return {
        "n_experts": experts,
        "experts_per_token": settings.experts_per_token,
        "balance_weight": settings.balance,
        "expert_capacity": settings.expert_capacity,
        **({"family": "mixtral"} if settings.family in ("llama", "mistral") else {}),
    }


def _optimizer(settings: TrainingSettings, model: Transformer) -> Optimizer:
    return named_optimizer(settings.optimizer, model, settings.train, settings.optimizer_options)


def _report(
    run: Run,
    settings: TrainingSettings,
    lm: LanguageModel,
    shards: Shards,
    batches: PackedBatches,
    done: TrainResult,
) -> None:
    """Write results and samples."""
    updates = done.steps * settings.train.accumulation
    report_validation(run, done)
    if done.losses:
        run.result("loss", done.loss)
        run.result("tokens_per_second", done.tokens_per_second)
    perplexity = math.exp(min(done.validation.get("validation_loss", math.nan), 700.0))
    run.result("perplexity" if lm.config.causal else "masked_perplexity", perplexity)
    run.result("tokens", updates * batches.tokens_per_batch)
    run.result("epochs", batches.epoch(updates))
    for name, value in lm.model.count_parameters().items():
        run.result(f"parameters.{name}", value)
    run.note(str(shards))
    validation = validation_of(lm, shards, settings)
    if isinstance(validation, MaskedValidation):
        samples = validation.samples(settings.samples)
        caption = "Validation text with hidden tokens ⟶ filled in"
    else:
        samples = _samples(lm, validation, settings)
        caption = "Beginnings of validation text, and how the model goes on after ⟶"
    if samples:
        run.text("samples", "\n\n* * *\n\n".join(samples), caption=caption)


def _samples(lm: LanguageModel, validation: Validation, settings: TrainingSettings) -> list[str]:
    """Return beginnings of validation windows, each with the model's continuation."""
    length = max(1, min(16, settings.context // 2))
    prompts = validation.beginnings(settings.samples, length)
    if not prompts:
        return []
    room = min(_SAMPLE_TOKENS, lm.model.context - length)
    texts = decode.generate(
        lm,
        prompts,
        decoder="sampling",
        max_new_tokens=max(room, 1),
        seed=settings.seed,
        temperature=0.7,
        top_p=0.9,
    )
    return [f"{text.prompt} ⟶{text.text}" for text in texts]


def _round_base(lm: LanguageModel, options: QuantizationOptions | None) -> None:
    """Round the model's matrices, if asked to, before an adapter is attached (Dettmers et al. 2023)."""
    if options is not None:
        attach(lm.model, Quantized(**options.options()))


def _attach_adapter(run: Run, lm: LanguageModel, lora: Lora, *, seed: int) -> None:
    """Attach an adapter to the model, drawn from `seed`, and note and print how much of the model trains."""
    attach(lm.model, lora, generator=torch.Generator().manual_seed(seed))
    count = count_trainable(lm.model)
    run.note(f"lora: {count}")
    run.result("parameters.trainable", count.trainable)


def _keep_adapter(run: Run, lm: LanguageModel, lora: Lora, model: str) -> None:
    """Save the adapter below the run's folder as PEFT does; it names `model`, the one that was given, as its base.

    A second adapter has no base that PEFT could open: the whole model is saved then, both adapters with it.
    """
    if len(adapters(lm.model)) > 1:
        run.model(lm)
        return
    place = find_model(model)
    base = str(place.resolve()) if isinstance(place, Path) else model
    save_adapter(lm, run.folder / "model", base=base, name=lora.name)
    run.note(f"model: an adapter for {base}; one ordinary model: gpt2lab apply merge-lora {run.id} --out DIR")
