"""The settings of `train`: what a training is told, and the command that repeats it."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

from gpt2lab.actions.parts import build_architecture, chosen_objective
from gpt2lab.actions.train_rules import SUPERVISED, VECTORS
from gpt2lab.base.errors import LabError, unknown
from gpt2lab.base.settings import Model, as_arguments
from gpt2lab.base.wording import quoted
from gpt2lab.model.adapters import Lora
from gpt2lab.model.limits import SIZES
from gpt2lab.model.quantization import QuantizationOptions
from gpt2lab.model.task_heads import Kind
from gpt2lab.text.encoding import Side
from gpt2lab.text.labelled import Target
from gpt2lab.text.labelled_batches import Align
from gpt2lab.training import TrainSettings
from gpt2lab.training.contrastive import SimCSE
from gpt2lab.training.objectives import refuse_parts
from gpt2lab.training.routing import OF_THE_BATCH
from gpt2lab.training.rows import ReadsRows

TaskKind = Literal[
    "language", "classification", "multilabel", "regression", "tokens", "contrastive", "simcse"
]

_MOST = {
    **{name: SIZES[name][1] for name in ("d_model", "n_layers", "n_heads", "vocab_size")},
    "context": SIZES["max_positions"][1],
    "batch_size": 2**20,
    "evaluation_tokens": 2**40,
}  # what a mistyped number would otherwise ask for, before any file is read


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """What a head is trained for, and from which fields of the data."""

    kind: TaskKind = "language"
    """language: language modelling of the text; the others train a head on labelled rows (jsonl, csv, parquet, hub:ID)."""
    label: tuple[str, ...] = ()
    """Field of the answer; several for regression on several numbers, or multilabel in columns of 0 and 1."""
    pair: str | None = None
    """Field of a second text; for contrastive that of the matching text."""
    others: Mapping[str, str] = field(default_factory=dict)
    """Further heads on the same texts, `task.others.FIELD=KIND`."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Factor of a head's loss, `task.weights.FIELD=2`; 1 for those not named."""
    valid: tuple[str, ...] = ()
    """Labelled rows for validation; none means valid_fraction of each class of the data."""
    pooling: Literal["auto", "last", "mean", "first", "pooler"] = "auto"
    """State that represents a text; auto: the last token's, for bidirectional models the first's, for vectors the mean."""
    dropout: float = 0.0
    """Dropout of the head."""
    language_head: bool = False
    """Keep a language head with separate weights beside the new head."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: every class has the same weight, also a rare one."""
    smoothing: float = 0.0
    """Label smoothing."""
    language: float = 0.0
    """Factor of the language-modelling loss on the same texts, added to the heads' losses."""
    align: Align = "first"
    """Which token of a word has its label."""
    truncate: Side = "right"
    """Side on which texts longer than the context are truncated; the results report how many were."""
    separator: str = ""
    """Text between the texts of a pair, if the tokenizer puts nothing there."""
    projection: int = 0
    """Width of a linear map on the vector (contrastive, simcse); 0 for none."""
    negatives: str | None = None
    """Field with a list of texts that do not match (contrastive)."""
    group: str | None = None
    """Field of a row's group; rows of one group are not negatives of each other (contrastive)."""
    temperature: float = 0.05
    """Divides the similarities (contrastive, simcse)."""
    symmetric: bool = False
    """Also rank the queries for each matching text (contrastive)."""
    query_prefix: str = ""
    """Prefix of queries (e5: "query: ")."""
    passage_prefix: str = ""
    """Prefix of matching and other texts (e5: "passage: ")."""

    def __post_init__(self) -> None:
        if self.kind in SUPERVISED and not self.label:
            raise LabError(f"task.label: {self.kind} needs the field of the answer")
        if self.kind not in SUPERVISED and (self.label or self.others):
            raise LabError(
                f"task.label: {self.kind} reads no labels; choose task.kind=classification, regression, …"
            )
        if self.kind == "contrastive" and self.pair is None:
            raise LabError(
                "task.pair: contrastive needs the field of the text that matches, or choose task.kind=simcse"
            )
        for name, kind in self.others.items():
            if kind not in SUPERVISED:
                raise LabError(f"task.others.{name}: {unknown('kind of head', kind, SUPERVISED)}")
        if not self.temperature > 0:
            raise LabError(f"task.temperature must be above 0, got {self.temperature}")
        names = [target.name for target in self.targets]
        if len(set(names)) != len(names):
            raise LabError(f"task: two heads of the name {next(n for n in names if names.count(n) > 1)}")
        for name in self.weights:
            if head_name(name) not in names:
                raise LabError(f"task.weights: {unknown('head', name, names)}")

    @property
    def contrastive(self) -> bool:
        """Whether vectors are learnt."""
        return self.kind in VECTORS

    @property
    def targets(self) -> list[Target]:
        """What each supervised head learns; empty for the other kinds."""
        if self.kind not in SUPERVISED:
            return []
        name = head_name(self.label[0]) if len(self.label) == 1 else "label"
        further = [Target(head_name(one), cast(Kind, kind), (one,)) for one, kind in self.others.items()]
        return [Target(name, cast(Kind, self.kind), self.label), *further]

    def weight(self, head: str) -> float:
        """Return the factor of a head's loss."""
        return next((value for name, value in self.weights.items() if head_name(name) == head), 1.0)


def head_name(field: str) -> str:
    """Return the name of the head for a field of the data: letters, digits and underscores."""
    name = re.sub(r"\W", "_", field)
    return name if name.isidentifier() else f"label_{name}"


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What `gpt2lab train` trains, on what, and how."""

    data: tuple[str, ...] = ()
    """Files, folders, globs, `hub:ID`, or a built-in name: `books`, `docstrings`, `tinyworld`."""
    field: str = "text"
    """Field of the text in jsonl, csv, parquet and hub rows."""
    valid_fraction: float = 0.05
    """Share of the documents kept for validation, chosen by the hash of their text."""
    model: Model | None = None
    """MODEL to continue from: a folder, a fetched model, a run or a hub id; none makes a new model of the shape below."""
    family: Literal[
        "gpt2", "gpt_neo", "gpt_neox", "llama", "mistral", "mixtral", "qwen2", "bert", "roberta", "distilbert"
    ] = "gpt2"
    """Family of a new model; the last three are trained on masked tokens."""
    d_model: int = 128
    """Width of a new model."""
    n_layers: int = 3
    """Blocks of a new model."""
    n_heads: int = 4
    """Attention heads of a new model."""
    experts: int = 0
    """Experts in each block of a new model; 0 is one plain feed-forward, or 8 experts in a mixtral."""
    experts_per_token: int = 2
    """Experts to which each token is routed."""
    balance: float = 0.01
    """Weight of the loss that spreads tokens evenly over experts."""
    expert_capacity: float | None = None
    """In training, most tokens of a batch that an expert takes, as a multiple of its even share; none means no limit."""
    context: int = 128
    """Tokens of a training row; also the positions of a new model. With --model: its own positions, at most 512."""
    tokenizer: str = "auto"
    """Of a new model: auto trains a byte-level BPE on the data, unsplit one whose tokens reach beyond words; bytes, words,
    codons, or that of a MODEL."""
    vocab_size: int = 8192
    """Vocabulary size of a tokenizer trained on the data."""
    batch_size: int = 32
    """Rows of a micro-batch. Text with --model: as many as give 4,096 tokens."""
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
    """Loss: simctg, dpo (pairs of answers), ...; none is the next token, or masked tokens for a bidirectional model."""
    objective_options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Options of the objective, `objective_options.NAME=VALUE`."""
    optimizer_options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Further arguments of the optimizer, `optimizer_options.NAME=VALUE`; adamw uses those of the loop."""
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
    """Validation tokens of an evaluation, always the same."""
    samples: int = 3
    """Texts generated at the end, each from the beginning of a validation row."""
    seed: int = 0
    """Seed of every random stream: initialisation, order of the data, dropout, samples."""
    device: str | None = None
    """cpu, cuda, ...; none means the GPU if there is one, else the CPU."""

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
        if isinstance(objective, ReadsRows) and self.model is None:
            raise LabError(
                f"objective {self.objective}: starts from a model that writes text already; give one with --model"
            )
        objective = SimCSE() if self.task.contrastive else objective
        limited = OF_THE_BATCH if self.expert_capacity is not None else ""
        refuse_parts(objective.indivisible or limited, self.train.accumulation)
        if self.train.privacy is not None and objective.indivisible:
            raise LabError(f"privacy: this training has no loss for each row: {objective.indivisible}")
        if self.architecture is not None:
            build_architecture(self.architecture, self.architecture_options)
        elif self.architecture_options:
            raise LabError("architecture_options: name the architecture that has them")


def command_of(settings: TrainingSettings, name: str) -> str:
    """Return the command line that repeats a training: the data, and every setting that is not the usual one."""
    words = ["gpt2lab train --data", *map(quoted, settings.data), *as_arguments(settings, without=("data",))]
    return " ".join([*words, f"--name {name}"] if name != "train" else words)
