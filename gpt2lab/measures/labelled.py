"""The measures of heads: `classification` (also multilabel), `regression` and `token-classification`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.measures import classification_curves as curves
from gpt2lab.measures import classification_metrics as metrics
from gpt2lab.measures.measurement import Measurement, Table
from gpt2lab.measures.prediction import encoder_for, head_outputs, head_probabilities, word_labels
from gpt2lab.measures.tfidf import class_probabilities, label_probabilities
from gpt2lab.model.task_heads import Head, find_head
from gpt2lab.plots.figures import MUTED, PALETTE, empty_figure, style
from gpt2lab.plots.heatmaps import heatmap
from gpt2lab.text.encoding import Encoder, Side
from gpt2lab.text.labelled import Example, Target, label_index, read_examples
from gpt2lab.text.labelled_batches import encoded, label_tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gpt2lab.text.language_model import LanguageModel

_LISTED = 50
"""Classes up to which the confusion table is listed and drawn."""
Unseen = Literal["refuse", "wrong"]


def truths(examples: Sequence[Example], head: Head, unseen: Unseen = "refuse") -> Tensor:
    """Return the answers of all examples: class numbers [n] (-100: none) or numbers [n, outputs] (NaN: none).

    A label that the head does not know is a LabError, or with unseen="wrong" the class number `outputs`, which no
    prediction has.
    """
    found = []
    for example in examples:
        value = example.values[head.name]
        if unseen == "wrong" and head.kind == "classification" and isinstance(value, str):
            known = value in head.label_names
            number = label_index(value, head.label_names, example.where) if known else head.outputs
            found.append(torch.tensor(number))
        else:
            found.append(label_tensor(value, head, example.where))
    return torch.stack(found)


def head_numbers(head: Head, truth: Tensor, said: Tensor) -> dict[str, float]:
    """Return the metrics of a classification, multilabel or regression head on examples that have answers.

    truth as `truths` gives it, said [n, outputs]. Of several regressed numbers each has its own, NAME.mse and so on.
    """
    answers, shares = truth.numpy(), head_probabilities(head, said).numpy()
    if head.kind == "classification":
        return _class_numbers(answers, shares)
    if head.kind == "multilabel":
        return metrics.multilabel_metrics(answers, shares)
    if head.outputs == 1:
        return metrics.regression_metrics(answers[:, 0], shares[:, 0])
    found: dict[str, float] = {}
    for place, name in enumerate(head.label_names):
        own = metrics.regression_metrics(answers[:, place], shares[:, place])
        found |= {f"{name}.{key}": value for key, value in own.items()}
    return found


def _class_numbers(answers: NDArray[np.int64], shares: NDArray[np.float64]) -> dict[str, float]:
    """Metrics where some labels may be unknown to the head: those rows are wrong whatever it says."""
    known = answers < shares.shape[1]
    if not known.any():
        return {"accuracy": 0.0}
    found = metrics.classification_metrics(answers[known], shares[known])
    return {**found, "accuracy": found["accuracy"] * float(known.mean())}


@dataclass(frozen=True, kw_only=True)
class _Labelled:
    """What the measures of heads have in common."""

    data: tuple[str, ...] = ()
    """Labelled rows: files (jsonl, csv, parquet), folders or hub:ID."""
    field: str = "text"
    """Field of the text; for labels of tokens that of the words."""
    pair: str | None = None
    """Field of the second text, for pairs."""
    label: tuple[str, ...] = ()
    """Field of the answer, several for several numbers; none is the name of the head."""
    head: str | None = None
    """Name of the head, if the model has several."""
    batch_size: int = 32
    """Texts in one forward pass; changes speed and memory, not the numbers."""
    truncate: Side = "right"
    """Side on which texts longer than the context are truncated."""
    separator: str = ""
    """Text between the texts of a pair, if the tokenizer puts nothing there."""
    resamples: int = 1000
    """Bootstrap resamples for the 95 % intervals."""
    limit: int | None = None
    """Read at most this many rows."""

    def _read(
        self, lm: "LanguageModel", kinds: tuple[str, ...], name: str
    ) -> tuple[Head, list[Example], Encoder]:
        if not self.data:
            raise LabError(f"measure {name}: no data; give labelled rows with --data FILE")
        head = find_head(lm.model, self.head, kinds)
        target = Target(head.name, head.kind, self.label or (head.name,))
        examples = read_examples(self.data, field=self.field, pair=self.pair, targets=[target])
        if self.limit is not None:
            examples = examples[: self.limit]
        answered = [example for example in examples if _answered(example.values[head.name])]
        if not answered:
            raise LabError(f"measure {name}: no row of the data has a label in {', '.join(target.fields)}")
        return head, answered, encoder_for(lm, truncate=self.truncate, separator=self.separator)

    def _about(self, head: Head, examples: Sequence[Example], encoder: Encoder) -> dict[str, Any]:
        return {
            "data": list(self.data),
            "head": head.name,
            "examples": len(examples),
            "truncated": encoder.truncated,
            "intervals": f"95 %, {self.resamples} bootstrap resamples",
        }


def _answered(value: object) -> bool:
    if isinstance(value, tuple) and value and all(isinstance(item, float) for item in value):
        return any(item == item for item in value)
    return value is not None


def _interval_table(intervals: Mapping[str, Any]) -> Table:
    return [{"metric": name, "value": i.mean, "low": i.low, "high": i.high} for name, i in intervals.items()]


def _finite(numbers: Mapping[str, float]) -> dict[str, float]:
    """Leave out what the data do not determine (AUROC with one class); `about` names it."""
    return {name: value for name, value in numbers.items() if value == value}


@dataclass(frozen=True, kw_only=True)
class Classification(_Labelled):
    """How well a head tells the class of a text, or which of several labels it has."""

    unseen: Unseen = "refuse"
    """An unseen label is an error (refuse), or counts as a wrong prediction (wrong)."""
    baseline: tuple[str, ...] = ()
    """Training rows, of the same fields: TF-IDF with logistic regression learns them and is measured beside the head."""

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure; LabError for data without labels, an unknown label, or a model without such a head."""
        head, examples, encoder = self._read(lm, ("classification", "multilabel"), "classification")
        truth = truths(examples, head, self.unseen)
        said = torch.stack(
            head_outputs(lm.model, encoded(examples, encoder), (head.name,), batch_size=self.batch_size)[
                head.name
            ]
        )
        numbers = head_numbers(head, truth, said)
        intervals = metrics.resampled(
            len(examples),
            lambda items: head_numbers(head, truth[items], said[items]),
            resamples=self.resamples,
        )
        about = self._about(head, examples, encoder)
        tables: dict[str, Table] = {"intervals": _interval_table(intervals)}
        figures: dict[str, Any] = {}
        if head.kind == "classification":
            answers, predicted = truth.numpy(), said.argmax(1).numpy()
            known = answers < head.outputs
            counts = metrics.confusion(answers[known], predicted[known], head.outputs)
            tables["classes"] = _class_table(head, counts)
            shares = counts.sum(1) / max(counts.sum(), 1)
            about |= {"unseen": int((~known).sum()), "majority": float(shares.max())}
            shares_said = head_probabilities(head, said).numpy()
            tables["calibration"] = curves.reliability(predicted == answers, shares_said.max(1))
            figures["calibration"] = partial(_calibration_plot, tables["calibration"])
            if head.outputs == 2 and len(np.unique(answers[known])) == 2:
                points = curves.roc_curve(answers[known], shares_said[known, 1])
                figures["roc"] = partial(curves.roc_figure, {head.label_names[1]: points[:2]})
            if head.outputs <= _LISTED:
                tables["confusion"] = _confusion_table(head, counts)
                figures["confusion"] = confusion_plot(counts, head.label_names)
        about["undetermined"] = [name for name in numbers if name not in _finite(numbers)]
        if self.baseline:
            plain = _finite(head_numbers(head, truth, self._baseline(head, examples)))
            tables["baseline"] = [
                {"metric": name, "model": numbers[name], "tf-idf": value} for name, value in plain.items()
            ]
            numbers |= {f"baseline_{name}": value for name, value in plain.items()}
            about["baseline"] = list(self.baseline)
        return Measurement(
            name="classification",
            numbers=_finite(numbers),
            units={"cross_entropy": "nats/text"} if "cross_entropy" in numbers else {},
            tables=tables,
            figures=figures,
            about=about,
        )

    def _baseline(self, head: Head, examples: Sequence[Example]) -> Tensor:
        """Return what TF-IDF and logistic regression say of the examples, as the head's outputs, [n, outputs]."""
        target = Target(head.name, head.kind, self.label or (head.name,))
        rows = read_examples(self.baseline, field=self.field, pair=self.pair, targets=[target])
        rows = [row for row in rows if _answered(row.values[head.name])]
        texts, asked = ([_both(one) for one in side] for side in (rows, examples))
        answers = truths(rows, head) if rows else torch.zeros(0, dtype=torch.int64)
        if head.kind == "multilabel":
            shares = label_probabilities(texts, answers.double().numpy(), asked)
            return torch.logit(torch.from_numpy(shares), eps=1e-12)
        shares = class_probabilities(texts, answers.numpy(), asked, head.outputs)
        return torch.from_numpy(shares).clamp_min(1e-12).log()


def _calibration_plot(table: Table) -> "Figure":
    return curves.reliability_figure(
        {"texts": table},
        x_label="probability of the predicted class",
        y_label="share of predictions that are right",
    )


def _both(example: Example) -> str:
    return example.text if example.pair is None else f"{example.text} {example.pair}"


def _class_table(head: Head, counts: NDArray[np.int64]) -> Table:
    each = metrics.per_class(counts)
    return [
        {
            "class": name,
            **{key: float(values[i]) for key, values in each.items() if key != "support"},
            "texts": int(each["support"][i]),
        }
        for i, name in enumerate(head.label_names)
    ]


def _confusion_table(head: Head, counts: NDArray[np.int64]) -> Table:
    return [
        {
            "true class": name,
            **{f"predicted {other}": int(counts[i, j]) for j, other in enumerate(head.label_names)},
        }
        for i, name in enumerate(head.label_names)
    ]


def confusion_plot(counts: NDArray[np.int64], names: Sequence[str]) -> Any:
    """Return a function that draws a confusion table [classes, classes]: rows true, columns predicted, shares of the row."""
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    cells = [[str(count) for count in row] for row in counts.tolist()] if len(names) <= 12 else None
    return partial(
        heatmap, shares.tolist(), rows=names, columns=names, x_label="predicted", y_label="true",
        label="share of the true class", limits=(0.0, 1.0), cells=cells, numbers=False,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Regression(_Labelled):
    """How near the numbers that a head tells of a text are to the true ones."""

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure; LabError for data without numbers, or a model without such a head."""
        head, examples, encoder = self._read(lm, ("regression",), "regression")
        truth = truths(examples, head)
        said = torch.stack(
            head_outputs(lm.model, encoded(examples, encoder), (head.name,), batch_size=self.batch_size)[
                head.name
            ]
        )
        numbers = head_numbers(head, truth, said)

        def some(items: NDArray[np.int64]) -> dict[str, float]:
            there = ~truth[items].isnan().all(0)
            return head_numbers(head, truth[items], said[items]) if bool(there.all()) else {}

        intervals = metrics.resampled(len(examples), some, resamples=self.resamples)
        about = self._about(head, examples, encoder)
        about["undetermined"] = [name for name in numbers if name not in _finite(numbers)]
        return Measurement(
            name="regression",
            numbers=_finite(numbers),
            tables={"intervals": _interval_table(intervals)},
            figures={}
            if head.outputs > 1
            else {"scatter": partial(_scatter, truth[:, 0].numpy(), said[:, 0].numpy())},
            about=about,
        )


@style()
def _scatter(truth: NDArray[np.float32], said: NDArray[np.float32]) -> "Figure":
    figure, axes = empty_figure(4.0, 4.0)
    axes.plot(truth, said, "o", markersize=3, alpha=0.5, color=PALETTE[0])
    axes.axline((float(np.nanmean(truth)), float(np.nanmean(truth))), slope=1, color=MUTED, linewidth=1)
    axes.set_xlabel("true")
    axes.set_ylabel("predicted")
    return figure


@dataclass(frozen=True, kw_only=True)
class TokenClassification(_Labelled):
    """How well a head labels words, a list or text that is split at blanks: spans in the BIO scheme, and single words."""

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure; a word that was cut off counts as outside. LabError as for the other measures of heads."""
        head, examples, encoder = self._read(lm, ("tokens",), "token-classification")
        for example in examples:
            for label in example.values[head.name] or ():
                label_index(str(label), head.label_names, example.where)
        rows = encoded(examples, encoder)
        said = head_outputs(lm.model, rows, (head.name,), batch_size=self.batch_size)[head.name]
        predicted = [word_labels(head, row, one) for row, one in zip(rows, said, strict=True)]
        truth = [[str(label) for label in example.values[head.name] or ()] for example in examples]
        counted = _Tags(truth, predicted)
        intervals = metrics.resampled(len(examples), counted.numbers, resamples=self.resamples)
        whole = np.arange(len(examples))
        classes: Table = [
            {"class": name, **_one_class(row), "spans": row[2]} for name, row in counted.counts(whole).items()
        ]
        about = self._about(head, examples, encoder)
        about |= {
            "words": sum(map(len, truth)),
            "words_cut_off": sum(not p for row in rows for p in row.places),
        }
        return Measurement(
            name="token-classification",
            numbers=counted.numbers(whole),
            tables={"intervals": _interval_table(intervals), "classes": classes},
            about=about,
        )


class _Tags:
    """Counts of right, predicted and true spans of every text, so that resampling texts is a sum."""

    def __init__(self, truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> None:
        each = [metrics.span_counts([a], [b]) for a, b in zip(truth, predicted, strict=True)]
        self.classes = sorted({name for counts in each for name in counts})
        spans = [[counts.get(name, (0, 0, 0)) for name in self.classes] for counts in each]
        self.spans = np.array(spans, dtype=np.int64).reshape(len(each), len(self.classes), 3)
        self.right = np.array([sum(map(str.__eq__, a, b)) for a, b in zip(truth, predicted, strict=True)])
        self.words = np.array([len(row) for row in truth])

    def counts(self, items: NDArray[np.int64]) -> dict[str, tuple[int, int, int]]:
        """(right, predicted, true) spans of each class over some texts."""
        sums = self.spans[items].sum(0)
        return {name: (int(r), int(t), int(y)) for name, (r, t, y) in zip(self.classes, sums, strict=True)}

    def numbers(self, items: NDArray[np.int64]) -> dict[str, float]:
        """Span F1, precision, recall, the mean of classes' F1, and the accuracy over words."""
        words = int(self.words[items].sum())
        accuracy = float(self.right[items].sum()) / words if words else 0.0
        return {**metrics.span_metrics(self.counts(items)), "word_accuracy": accuracy}


def tag_numbers(truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return span F1, precision and recall, their mean F1 over classes, and the accuracy over words."""
    return _Tags(truth, predicted).numbers(np.arange(len(truth)))


def _one_class(counts: tuple[int, int, int]) -> dict[str, float]:
    found = metrics.span_metrics({"": counts})
    return {key.removeprefix("span_"): value for key, value in found.items() if key != "macro_span_f1"}
