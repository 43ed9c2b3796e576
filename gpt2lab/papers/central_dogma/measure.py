"""Measure `translation-pairs`: a judge of pairs by kind of negative, beside a rule judge and shortcut baselines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.measures.classification_metrics import auroc, confusion
from gpt2lab.measures.labelled import confusion_plot
from gpt2lab.measures.measurement import Measurement
from gpt2lab.measures.prediction import encoder_for, head_outputs, head_probabilities
from gpt2lab.measures.statistics import binomial_test, wilson_interval
from gpt2lab.model.task_heads import Head, find_head
from gpt2lab.papers.central_dogma.pairs import Fields, audit, read_pairs, refuse_shared, require_sequences
from gpt2lab.papers.central_dogma.rules import translated
from gpt2lab.papers.central_dogma.shortcuts import shortcut_predictions
from gpt2lab.plots.figures import MUTED, PALETTE, empty_figure, style
from gpt2lab.text.generators.sequence_pairs import Pair

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gpt2lab.text.encoding import Encoder
    from gpt2lab.text.language_model import LanguageModel

Kind = Literal["translation", "texts"]
_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]
_CERTAIN = 0.05
ANY_FRAME = 0.8
"""Identity from which on the any-frame rule says match: a frame shift leaves ten of twelve residues in another frame."""


@dataclass(frozen=True)
class Judged:
    """What a judge says of pairs."""

    labels: _Ints
    """The truth, 0 or 1, [pairs]."""
    said: _Ints
    """The judgement, 0 or 1, [pairs]."""
    scores: _Floats
    """Probability of a match, [pairs]."""

    @property
    def right(self) -> int:
        """Pairs that are judged as labelled."""
        return int((self.labels == self.said).sum())

    def numbers(self) -> dict[str, float]:
        """Return accuracy with its Wilson interval, that of exchanged labels, F1 of matches, AUROC and the two-sided p."""
        n = len(self.labels)
        share = wilson_interval(self.right, n)
        hits = int(((self.labels == 1) & (self.said == 1)).sum())
        named = int(self.said.sum() + self.labels.sum())
        return {
            "accuracy": share.mean,
            "accuracy_low": share.low,
            "accuracy_high": share.high,
            "flipped_accuracy": 1 - share.mean,  # labels exchanged
            "p_value": binomial_test(self.right, n),
            "f1": 2 * hits / named if named else 0.0,
            "auroc": auroc(self.labels, self.scores),
            "said_match": float(self.said.mean()),
        }

    def polarity(self) -> str:
        """Tell which way the judge leans, by the two-sided test alone: exchanging labels never makes signal of chance."""
        if binomial_test(self.right, len(self.labels)) >= _CERTAIN:
            return "neither: accuracy and its complement are compatible with chance"
        return "as labelled" if 2 * self.right > len(self.labels) else "reversed: it calls matches different"


def by_type(judged: Judged, types: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for each type, matches first: pairs, accuracy with its Wilson interval and two-sided p.

    `against matches` is the mean of the accuracies on matches and on this kind of negative, `auroc` the probability that a
    match scores above it: both are 0.5 for a judge that says the same of everything.
    """
    kinds = np.array(types)
    match_rows = judged.labels == 1
    found = []
    for kind in sorted(set(types), key=lambda one: (-int(judged.labels[kinds == one].max()), one)):
        rows = kinds == kind
        right = int((judged.said == judged.labels)[rows].sum())
        share = wilson_interval(right, int(rows.sum()))
        row: dict[str, Any] = {
            "type": kind,
            "label": int(judged.labels[rows].max()),
            "pairs": int(rows.sum()),
            "accuracy": share.mean,
            "low": share.low,
            "high": share.high,
            "p": binomial_test(right, int(rows.sum())),
        }
        if not row["label"] and match_rows.any():
            both = rows | match_rows
            on_matches = float((judged.said == 1)[match_rows].mean())
            row |= {
                "against matches": (on_matches + share.mean) / 2,
                "auroc": auroc(judged.labels[both], judged.scores[both]),
            }
        found.append(row)
    return found


def judge(
    lm: "LanguageModel",
    pairs: Sequence[Pair],
    *,
    head: str | None = None,
    match: str = "1",
    separator: str = "",
    batch_size: int = 32,
    what: str = "pair",
) -> tuple[Judged, int]:
    """Let a model's two-class head judge pairs, and return how many had to be cut too.

    LabError for a head of other than two classes, one that does not know the class `match`, and a pair whose first text
    alone fills the context, so that nothing of the second would be read.
    """
    spec = find_head(lm.model, head, ("classification",))
    place = match_place(spec, match)
    encoder = encoder_for(lm, separator=separator)
    _require_room(encoder, pairs, what)
    rows = [encoder.text(pair.first, pair.second) for pair in pairs]
    outputs = torch.stack(head_outputs(lm.model, rows, (spec.name,), batch_size=batch_size)[spec.name])
    scores = head_probabilities(spec, outputs)[:, place].numpy()
    labels = np.array([pair.label for pair in pairs], dtype=np.int64)
    return Judged(labels, (outputs.argmax(1) == place).long().numpy(), scores), encoder.truncated


def match_place(spec: Head, match: str) -> int:
    """Return the number of the class of matches. LabError for a head of other than two classes, or without that class."""
    if spec.outputs != 2:
        raise LabError(f"head {spec.name} has {spec.outputs} classes; a judge of pairs has two")
    if match not in spec.label_names:
        raise LabError(
            f"head {spec.name} knows the classes {', '.join(spec.label_names)}; name the one of matches (match)"
        )
    return spec.label_names.index(match)


def _require_room(encoder: "Encoder", pairs: Sequence[Pair], what: str) -> None:
    for number, ids in enumerate(encoder.tokenizer.encode_batch([pair.first for pair in pairs]), start=1):
        if len(ids) >= encoder.limit:
            raise LabError(
                f"{what} {number}: the first text has {len(ids)} tokens of the {encoder.limit} that the model reads, which "
                "leaves none for the second; take shorter pairs or a longer context"
            )


@dataclass(frozen=True, kw_only=True)
class TranslationPairs:
    """How well a fine-tuned judge of pairs tells matching DNA and proteins from others, by kind of negative."""

    data: tuple[str, ...] = ("dna-protein-typed:960:1",)
    """Pairs with labels 1 and 0: files (PAWS-X's tsv too), hub:ID or a built-in source of pairs."""
    first: str = "sentence1"
    """Field of the first text, the DNA."""
    second: str = "sentence2"
    """Field of the second text, the protein."""
    label: str = "label"
    """Field of the label."""
    type: str = "type"
    """Field of the kind of negative, if there is one."""
    kind: Kind = "translation"
    """translation: DNA and proteins, with the rule judge and the audit. texts: any pairs, without them."""
    head: str | None = None
    """Name of the head, if the model has several."""
    match: str = "1"
    """The head's class that means match."""
    separator: str = ""
    """Text between the two; the paper's tokenizer puts nothing there."""
    trained_on: tuple[str, ...] = ()
    """Pairs that the judge was fine-tuned on, with the same fields: a pair that occurs there too is refused."""
    baselines: bool = True
    """Learn shortcut baselines on the judged pairs, by five folds."""
    batch_size: int = 32
    """Pairs in one pass; changes speed and memory, not the numbers."""
    limit: int | None = None
    """Read at most this many pairs."""

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure; LabError for letters outside the alphabets, unknown labels, pairs that were trained on or do not fit."""
        fields = Fields(first=self.first, second=self.second, label=self.label, type=self.type)
        pairs = read_pairs(self.data, fields, limit=self.limit)
        if self.kind == "translation":
            require_sequences(pairs)
        if self.trained_on:
            refuse_shared(pairs, read_pairs(self.trained_on, fields))
        judged, cut = judge(
            lm, pairs, head=self.head, match=self.match, separator=self.separator, batch_size=self.batch_size
        )
        return measurement(judged, pairs, kind=self.kind, baselines=self.baselines, about={"cut": cut})


def measurement(
    judged: Judged,
    pairs: Sequence[Pair],
    *,
    kind: Kind = "translation",
    baselines: bool = True,
    about: Mapping[str, Any] | None = None,
) -> Measurement:
    """Put the judgements of pairs beside those of rules and shortcuts."""
    numbers = judged.numbers()
    others = rule_predictions(pairs) if kind == "translation" else {}
    both = set(judged.labels.tolist()) == {0, 1}
    if baselines and both:
        others |= {f"shortcut.{name}": said for name, said in shortcut_predictions(pairs).items()}
    numbers |= {name: float((said == judged.labels).mean()) for name, said in others.items()}
    types = [pair.type for pair in pairs]
    rows = by_type(judged, types)
    for row in rows:
        here = np.array(types) == row["type"]
        row |= {name: float((said == judged.labels)[here].mean()) for name, said in others.items()}
    counts = confusion(judged.labels, judged.said, 2)
    names = ("other", "match")
    tables: dict[str, list[dict[str, Any]]] = {
        "types": rows,
        "confusion": [
            {"true": name, **{f"judged {other}": int(counts[i, j]) for j, other in enumerate(names)}}
            for i, name in enumerate(names)
        ],
    }
    if kind == "translation" and both:
        found = audit(pairs)
        tables["audit"] = found.table()
        about = {
            **(about or {}),
            "repeated": found.repeated,
            "contradictory": found.contradictory,
            "proteins with both labels": found.both_labels,
        }
    return Measurement(
        name="translation-pairs",
        numbers={name: value for name, value in numbers.items() if value == value},
        tables=tables,
        figures={"types": partial(types_figure, rows), "confusion": confusion_plot(counts, names)},
        about={
            "pairs": len(pairs),
            "polarity": judged.polarity(),
            "intervals": "95 %, Wilson; p two-sided, exact binomial against one half",
            **(about or {}),
        },
    )


def rule_predictions(pairs: Sequence[Pair]) -> dict[str, _Ints]:
    """Return what the frame-0 rule (the translation is the protein) and the any-frame rule say of each pair, 0 or 1."""
    found = [translated(pair.first, pair.second) for pair in pairs]
    return {
        "rule.frame0": np.array([one.exact for one in found], dtype=np.int64),
        "rule.any_frame": np.array([one.any_frame >= ANY_FRAME for one in found], dtype=np.int64),
    }


def types_figure(rows: Sequence[Mapping[str, Any]]) -> "Figure":
    """Draw the accuracy of each type with its interval, and chance."""
    with style():
        figure, axes = empty_figure(6.4, 1.2 + 0.34 * len(rows))
        for place, row in enumerate(rows):
            axes.plot([row["low"], row["high"]], [place, place], color=PALETTE[0], linewidth=2)
            axes.plot([row["accuracy"]], [place], "o", color=PALETTE[0])
        axes.axvline(0.5, color=MUTED, linestyle="--", linewidth=1)
        axes.set_yticks(range(len(rows)), [str(row["type"]).replace("_", " ") for row in rows])
        axes.set_xlim(0, 1)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("share judged as labelled")
        return figure
