"""What `train` learns besides language: classes, numbers, labels of words, or vectors. The settings `task.*`."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.model import Transformer
from gpt2lab.model.task_heads import Head, Kind, Pooling, heads
from gpt2lab.text.encoding import Side
from gpt2lab.text.labelled import Example, Target, label_names, read_examples
from gpt2lab.text.labelled_batches import Align

TaskKind = Literal[
    "language", "classification", "multilabel", "regression", "tokens", "contrastive", "simcse"
]
_SUPERVISED = ("classification", "multilabel", "regression", "tokens")


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """What a head is trained for, and from which fields of the data."""

    kind: TaskKind = "language"
    """language models the text itself; the others train a head on labelled rows (jsonl, csv, parquet, hub:ID)."""
    label: tuple[str, ...] = ()
    """Field of the answer; several for regression on several numbers, or multilabel in columns of 0 and 1."""
    pair: str | None = None
    """Field of a second text; for contrastive that of the text that matches."""
    others: Mapping[str, str] = field(default_factory=dict)
    """Further heads on the same texts, `task.others.FIELD=KIND`."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Factor of a head's loss, `task.weights.FIELD=2`; 1 for those not named."""
    valid: tuple[str, ...] = ()
    """Labelled rows for validation; none keeps valid_fraction of the data, of each class alike."""
    pooling: Literal["auto", "last", "mean", "first", "pooler"] = "auto"
    """State that stands for a text; auto: the last token's, of bidirectional models the first's, of vectors the mean."""
    dropout: float = 0.0
    """Dropout of the head."""
    language_head: bool = False
    """Keep a language head that has weights of its own beside the new head."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: every class counts alike, however rare."""
    smoothing: float = 0.0
    """Label smoothing."""
    language: float = 0.0
    """Factor of the language-modelling loss on the same texts, added to the heads' losses."""
    align: Align = "first"
    """Which token of a word carries its label."""
    truncate: Side = "right"
    """Side from which texts longer than the context are cut; how many were is noted."""
    separator: str = ""
    """Stands between the texts of a pair, where the tokenizer puts nothing there."""
    projection: int = 0
    """Width of a linear map on the vector (contrastive, simcse); 0 for none."""
    negatives: str | None = None
    """Field with a list of texts that do not match (contrastive)."""
    group: str | None = None
    """Field that names what a row is about; rows of one group are no negatives of each other (contrastive)."""
    temperature: float = 0.05
    """Divides the similarities (contrastive, simcse)."""
    symmetric: bool = False
    """Also find the query of each matching text (contrastive)."""
    query_prefix: str = ""
    """Stands before queries (e5: "query: ")."""
    passage_prefix: str = ""
    """Stands before matching and other texts (e5: "passage: ")."""

    def __post_init__(self) -> None:
        if self.kind in _SUPERVISED and not self.label:
            raise LabError(f"task.label: {self.kind} needs the field of the answer")
        if self.kind not in _SUPERVISED and (self.label or self.others):
            raise LabError(
                f"task.label: {self.kind} reads no labels; choose task.kind=classification, regression, …"
            )
        if self.kind == "contrastive" and self.pair is None:
            raise LabError(
                "task.pair: contrastive needs the field of the text that matches, or choose task.kind=simcse"
            )
        for name, kind in self.others.items():
            if kind not in _SUPERVISED:
                raise LabError(f"task.others.{name}: {unknown('kind of head', kind, _SUPERVISED)}")
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
        return self.kind in ("contrastive", "simcse")

    @property
    def targets(self) -> list[Target]:
        """What each supervised head learns; empty for the other kinds."""
        if self.kind not in _SUPERVISED:
            return []
        name = head_name(self.label[0]) if len(self.label) == 1 else "label"
        further = [Target(head_name(one), cast(Kind, kind), (one,)) for one, kind in self.others.items()]
        return [Target(name, cast(Kind, self.kind), self.label), *further]

    def weight(self, head: str) -> float:
        """Return the factor of a head's loss."""
        return next((value for name, value in self.weights.items() if head_name(name) == head), 1.0)

    def read(self, data: Sequence[str], field: str) -> list[Example]:
        """Read labelled rows as examples; `field` holds the text (tokens: the words)."""
        return read_examples(
            data,
            field=field,
            targets=self.targets,
            pair=self.pair,
            negatives=self.negatives,
            group=self.group,
        )

    def heads(self, model: Transformer, examples: Iterable[Example]) -> list[Head]:
        """Return the heads to train: those that the model has by name, else new ones for the labels in `examples`.

        LabError for a single class.
        """
        known = heads(model)
        if self.contrastive:
            pooling = "mean" if self.pooling == "auto" else self.pooling
            new = Head(
                name="embedding",
                kind="embedding",
                outputs=self.projection,
                pooling=pooling,
                dropout=self.dropout,
                language_head=self.language_head,
            )
            return [known.get(new.name, new)]
        rows = list(examples)
        return [
            known.get(target.name) or self._head(model, target, label_names(rows, target))
            for target in self.targets
        ]

    def _head(self, model: Transformer, target: Target, labels: tuple[str, ...]) -> Head:
        """Return one head in the form that Hugging Face's classes have, as far as the settings allow."""
        config = model.config
        pooling: Pooling = "last" if config.causal else "pooler" if config.pooler else "first"
        dense: Literal["none", "tanh", "relu"] = "none"
        if self.pooling != "auto":
            pooling = self.pooling
        elif pooling == "first" and target.kind != "tokens":
            dense = "relu" if config.family == "distilbert" else "tanh"
        return Head(
            name=target.name,
            kind=target.kind,
            outputs=len(labels) or len(target.fields),
            labels=labels,
            pooling=pooling,
            dense=dense,
            bias=target.kind == "tokens" or not config.causal,
            dropout=self.dropout,
            language_head=self.language_head or bool(self.language),
        )


def head_name(field: str) -> str:
    """Return the name of the head for a field of the data: letters, digits and underscores."""
    name = re.sub(r"\W", "_", field)
    return name if name.isidentifier() else f"label_{name}"
