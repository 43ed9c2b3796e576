"""The verb `train`: settings in, a run with a language model out. Pre-trains a new model or fine-tunes a given one."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch.optim import Optimizer

from gpt2lab import decode
from gpt2lab.actions.adapting import attach_adapter, keep_adapter, round_base
from gpt2lab.actions.command import command_of
from gpt2lab.actions.models import find_model, pick_device
from gpt2lab.actions.optimizer_options import named_optimizer
from gpt2lab.actions.parts import attach_once, build_architecture, chosen_objective, with_room
from gpt2lab.actions.same_data import kept_tokenizer, note_data
from gpt2lab.actions.task import TaskSettings
from gpt2lab.actions.train_options import unused
from gpt2lab.actions.train_task import train_task
from gpt2lab.actions.validation import MaskedValidation, Validation, masked, report_validation
from gpt2lab.base.errors import LabError
from gpt2lab.base.files import sweep
from gpt2lab.base.settings import Model, from_plain
from gpt2lab.model import Transformer, TransformerConfig, Wrapper, attach
from gpt2lab.model.adapters import Lora
from gpt2lab.model.checkpoints.families import CONSTRUCTORS
from gpt2lab.model.limits import SIZES
from gpt2lab.model.memory import check_batch
from gpt2lab.model.quantization import QuantizationOptions, refuse_full_training
from gpt2lab.runs.lineage import about
from gpt2lab.runs.report.write import write_report
from gpt2lab.runs.run import Run
from gpt2lab.runs.store import Row
from gpt2lab.text import shards as token_shards
from gpt2lab.text import sources
from gpt2lab.text.batches import PackedBatches
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.language_model import load as load_folder
from gpt2lab.text.shards import Shards
from gpt2lab.text.tokenizer import MASK, PAD, Tokenizer, byte_level, for_masking, train_bpe, word_level
from gpt2lab.text.tokenizer_files import load_tokenizer
from gpt2lab.training import TrainResult, TrainSettings, default_objective, train
from gpt2lab.training.contrastive import SimCSE
from gpt2lab.training.objectives import refuse_parts

_SAMPLE_TOKENS = 80


_MOST = {
    **{name: SIZES[name][1] for name in ("d_model", "n_layers", "n_heads", "vocab_size")},
    "context": SIZES["max_positions"][1],
    "batch_size": 2**20,
    "evaluation_tokens": 2**40,
}  # what a mistyped number would otherwise ask for, before any file is read


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What `gpt2lab train` trains, on what, and how."""

    data: tuple[str, ...] = ()
    """Files, folders, globs, `hub:ID`, or built-in names such as `docstrings`."""
    field: str = "text"
    """Field that holds the text in jsonl, csv, parquet and hub rows."""
    valid_fraction: float = 0.05
    """Share of the documents kept for validation, chosen by the hash of their text."""
    model: Model | None = None
    """MODEL to go on from: a folder, a hub id or a run; none begins a new model of the shape below."""
    family: Literal[
        "gpt2", "gpt_neo", "gpt_neox", "llama", "mistral", "mixtral", "qwen2", "bert", "roberta", "distilbert"
    ] = "gpt2"
    """Family of a new model; the last three learn to fill in hidden tokens."""
    d_model: int = 128
    """Width of a new model."""
    n_layers: int = 3
    """Blocks of a new model."""
    n_heads: int = 4
    """Attention heads of a new model."""
    experts: int = 0
    """Experts in each block of a new model; 0 is one plain feed-forward, or 8 experts in a mixtral."""
    experts_per_token: int = 2
    """Experts that each token is sent to."""
    balance: float = 0.01
    """Weight of the loss that spreads tokens evenly over experts."""
    context: int = 128
    """Tokens that a training row has; also the positions of a new model. With --model: its own positions, at most 512."""
    tokenizer: str = "auto"
    """Of a new model: auto trains a byte-level BPE on the data; bytes, words, or that of a MODEL."""
    vocab_size: int = 8192
    """Ids of a tokenizer that is made from the data."""
    batch_size: int = 32
    """Rows of a micro-batch. Text with --model: as many as make 4,096 tokens."""
    train: TrainSettings = dataclasses.field(
        default_factory=lambda: TrainSettings(
            steps=300,
            learning_rate=5e-3,
            final_fraction=0.0,
            warmup=30,
            evaluate_every=100,
            evaluate_start=True,
            checkpoint_every=100,
        )
    )
    """The loop."""
    optimizer: str = "adamw"
    """Name of the optimizer; `gpt2lab papers optimizer` lists those of the papers."""
    objective: str | None = None
    """What is minimised on text, such as simctg; none is the next token, or hidden ones in a model that fills in."""
    objective_options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Options of the objective, `objective_options.NAME=VALUE`."""
    optimizer_options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Further arguments of the optimizer, `optimizer_options.NAME=VALUE`; adamw takes those of the loop."""
    lora: Lora | None = None
    """Train low-rank adapters beside a given, frozen model: `lora.rank=8`; the run keeps them as PEFT does."""
    quantize: QuantizationOptions | None = None
    """Round a given model's matrices first and train adapters beside them (QLoRA): `quantize.bits=4`, `lora.rank=8`."""
    task: TaskSettings = dataclasses.field(default_factory=TaskSettings)
    """What is learnt besides language: `task.kind=classification`, `task.label=FIELD`."""
    architecture: str | None = None
    """Part to attach to the model, new or given, such as soft-prompt; `gpt2lab papers architecture` lists the papers'."""
    architecture_options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Options of the architecture, `architecture_options.NAME=VALUE`."""
    evaluation_tokens: int = 65_536
    """Validation tokens that an evaluation reads, always the same."""
    samples: int = 3
    """Texts written at the end, each from the beginning of a validation row."""
    seed: int = 0
    """Where every stream of randomness starts: initialisation, order of the data, dropout, samples."""
    device: str | None = None
    """cpu, cuda, ...; none is the GPU if there is one, else the CPU."""

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            if getattr(self, name) < 1:
                raise LabError(f"{name} must be at least 1, got {getattr(self, name)}")
            if getattr(self, name) > most:
                raise LabError(f"{name} must be at most {most:,}, got {getattr(self, name):,}")
        if self.experts < 0 or (self.experts and not 1 <= self.experts_per_token <= self.experts):
            raise LabError(
                f"experts_per_token must lie between 1 and experts {self.experts}, got {self.experts_per_token}"
            )
        if self.experts and self.model is not None:
            raise LabError(f"experts {self.experts}: only a new model gets experts, {self.model} is as it is")
        if self.samples < 0:
            raise LabError(f"samples must not be negative, got {self.samples}")
        if self.lora is not None and self.model is None:
            raise LabError(
                "lora: adapters stand beside a model that has learnt something; give one with --model"
            )
        if self.quantize is not None and self.lora is None:
            raise LabError(
                "quantize: rounded weights cannot be trained; train an adapter beside them, --set lora.rank=8"
            )
        if self.objective is not None and self.task.kind != "language":
            raise LabError(f"objective {self.objective}: task.kind={self.task.kind} has its own")
        objective = chosen_objective(self.objective, self.objective_options)
        refuse_parts(SimCSE() if self.task.contrastive else objective, self.train.accumulation)
        if self.architecture is not None:
            build_architecture(self.architecture, self.architecture_options)
        elif self.architecture_options:
            raise LabError("architecture_options: name the architecture that has them")


def train_model(
    settings: TrainingSettings, *, name: str = "train", home: Path | str | None = None, command: str = ""
) -> Run:
    """Train as the settings say and return the finished run, its model in `run.folder / "model"`.

    The tokenizer, the model in Hugging Face's layout, checkpoints, metrics, samples and a report are in the run's
    folder. LabError for data, a model or settings that do not fit; KeyboardInterrupt, with the command that goes on,
    after Ctrl-C.
    """
    if not settings.data:
        raise LabError(
            "data: nothing to train on; give files, folders, hub:ID or a built-in name such as docstrings"
        )
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
            if settings.task.kind == "language":
                _train_language(run, settings, lm, again=again)
            else:
                train_task(run, settings, lm, partial(_optimizer, settings), again=again)
        except KeyboardInterrupt as stop:
            how_far = str(stop) or "stopped outside of the updates"
            raise KeyboardInterrupt(f"{how_far}; go on with: gpt2lab resume {run.id}") from None
    write_report(run.id, home=run.store.home)
    return run


def _train_language(run: Run, settings: TrainingSettings, lm: LanguageModel, *, again: bool) -> None:
    """Train on the text itself, and save the model with results and samples."""
    for wrapper in cast("list[Wrapper]", list(lm.model.wrappers)):
        wrapper.require_steps(lm.model, settings.train.steps)
    if run.device == "cpu":
        tokens = settings.batch_size * settings.context
        check_batch(lm.config, tokens, kept=not settings.train.gradient_checkpointing)
    shards = _tokens(run, settings, lm)
    batches = PackedBatches(
        shards, batch_size=settings.batch_size, context=settings.context, seed=settings.seed
    )
    validation = _validation(lm, shards, settings)
    done = train(
        lm.model,
        batches if lm.config.causal else masked(batches, lm, settings.seed),
        settings=settings.train,
        objective=chosen_objective(
            settings.objective, settings.objective_options, default_objective(lm.config)
        ),
        optimizer=_optimizer(settings, lm.model),
        evaluate=validation,
        log=run.log,
        checkpoints=run.checkpoints,
        resume=again,
        seed=settings.seed,
        label=run.id,
    )
    changed = settings.quantize is not None or settings.architecture is not None
    if settings.lora is not None and settings.model is not None and not changed:
        keep_adapter(run, lm, settings.lora, settings.model)
    else:
        run.model(lm)
    _report(run, settings, lm, shards, batches, done)


def _validation(
    lm: LanguageModel, shards: Shards, settings: TrainingSettings
) -> Validation | MaskedValidation:
    """Return what measures the model while it trains."""
    sizes = {"context": settings.context, "tokens": settings.evaluation_tokens, "rows": settings.batch_size}
    return (
        Validation(lm.model, shards, **sizes) if lm.config.causal else MaskedValidation(lm, shards, **sizes)
    )


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
        round_base(lm, settings.quantize)
        if settings.lora is not None:
            attach_adapter(run, lm, settings.lora, seed=settings.seed)
        refuse_full_training(lm.model)
        return lm
    tokenizer = kept_tokenizer(run, partial(_new_tokenizer, settings), again=again)
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
        **({"family": "mixtral"} if settings.family in ("llama", "mistral") else {}),
    }


def _new_tokenizer(settings: TrainingSettings) -> Tokenizer:
    """Make the tokenizer that the settings ask for, from the data if they say so."""
    documents: Iterable[str] = sources.documents(settings.data, field=settings.field)
    size = sources.text_bytes(settings.data)
    if settings.task.kind == "tokens":
        documents = [example.text for example in settings.task.read(settings.data, settings.field)]
        size = None  # the list tells it
    fills_in = not _config(settings).causal
    special = (PAD, MASK) if fills_in else ()
    match settings.tokenizer:
        case "auto":
            tokenizer = train_bpe(documents, settings.vocab_size, special=special, text_bytes=size)
        case "words":
            tokenizer = word_level(
                documents, vocab_size=settings.vocab_size, special=special, text_bytes=size
            )
        case "bytes":
            tokenizer = byte_level()
        case given:
            tokenizer = load_tokenizer(find_model(given))
    return for_masking(tokenizer) if fills_in else tokenizer


def _tokens(run: Run, settings: TrainingSettings, lm: LanguageModel) -> Shards:
    """Return the data as tokens, encoded once for all runs on the same data; refuse data that have changed."""
    assert lm.tokenizer is not None
    key = token_shards.key(
        settings.data, lm.tokenizer, valid_fraction=settings.valid_fraction, field=settings.field
    )
    note_data(run, key)
    tokens = run.store.home / "tokens"
    sweep(tokens)
    return token_shards.build(
        settings.data,
        lm.tokenizer,
        tokens / key[:16],
        valid_fraction=settings.valid_fraction,
        field=settings.field,
    )


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
    updates = settings.train.steps * settings.train.accumulation
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
    validation = _validation(lm, shards, settings)
    if isinstance(validation, MaskedValidation):
        told, caption = validation.samples(settings.samples), "Validation text with hidden tokens ⟶ filled in"
    else:
        told = _samples(lm, validation, settings)
        caption = "Beginnings of validation text, and how the model goes on after ⟶"
    if told:
        run.text("samples", "\n\n* * *\n\n".join(told), caption=caption)


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
