"""Which words of a text speak for a class: by leaving each out, or by gradient times input."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.measures.measurement import Measurement, Table
from gpt2lab.measures.prediction import encoder_for, head_outputs
from gpt2lab.measures.scoring import check_batch_size
from gpt2lab.model.evaluating import evaluating
from gpt2lab.model.finite import all_finite
from gpt2lab.model.task_heads import Head, find_head, read_out
from gpt2lab.plots.bars import signed_bars
from gpt2lab.text.encoding import Encoder, Side
from gpt2lab.text.labelled import label_index

if TYPE_CHECKING:
    from gpt2lab.text.language_model import LanguageModel

Method = Literal["occlusion", "gradient"]
_WORD = re.compile(r"\S+")
_DRAWN = 30  # words of a figure


@dataclass(frozen=True)
class Attribution:
    """What the words of a text do to a class."""

    label: str
    """The class."""
    score: float
    """Log-odds of the class for the whole text, in nats: log p - log(1 - p)."""
    words: tuple[str, ...]
    """The words, as they are between blanks."""
    values: tuple[float, ...]
    """Of each word; above 0 where it speaks for the class. Occlusion: by how much the score falls without the word.
    Gradient: Σ over its tokens of gradient · embedding. 0 for a word that was cut off."""


def attribute_words(
    lm: "LanguageModel",
    text: str,
    *,
    label: str | None = None,
    head: str | None = None,
    method: Method = "occlusion",
    batch_size: int = 32,
    truncate: Side = "right",
) -> Attribution:
    """Return what each word of a text does to the log-odds of a class, `label` or the one that is predicted.

    Of a multilabel head the log-odds are the output itself. LabError: no head for classes, no such class, no word, numbers
    that are not finite.
    """
    if method not in ("occlusion", "gradient"):
        raise unknown("method", method, ("occlusion", "gradient"))
    check_batch_size(batch_size)
    spec = find_head(lm.model, head, ("classification", "multilabel"))
    ranges = [match.span() for match in _WORD.finditer(text)]
    if not ranges:
        raise LabError("word-attribution: the text has no word")
    encoder = encoder_for(lm, truncate=truncate)
    whole = head_outputs(lm.model, [encoder.text(text)], (spec.name,))[spec.name][0]
    place = int(whole.argmax()) if label is None else label_index(label, spec.label_names, "word-attribution")
    if method == "occlusion":
        values = _occluded(lm, text, ranges, encoder, spec, place, batch_size)
    else:
        values = _gradients(lm, text, ranges, encoder, spec, place)
    return Attribution(
        spec.label_names[place],
        float(log_odds(spec, whole, place)),
        tuple(text[start:stop] for start, stop in ranges),
        tuple(values.tolist()),
    )


def log_odds(spec: Head, said: Tensor, place: int) -> Tensor:
    """Return log p - log(1 - p) of one class from a head's outputs [..., outputs], in float64; [...]."""
    wide = said.double()
    if spec.kind == "multilabel":
        return wide[..., place]
    others = [i for i in range(spec.outputs) if i != place]
    return wide[..., place] - wide[..., others].logsumexp(-1)


def _occluded(
    lm: "LanguageModel",
    text: str,
    ranges: Sequence[tuple[int, int]],
    encoder: Encoder,
    spec: Head,
    place: int,
    batch_size: int,
) -> Tensor:
    """Return log-odds of the text minus those of the text without each word and the blank before it, [words]."""
    ends = [0, *(stop for _, stop in ranges)]
    shorter = [
        (text[:before] + text[stop:]).strip() for before, (_, stop) in zip(ends[:-1], ranges, strict=True)
    ]
    rows = [encoder.text(one) for one in (text, *shorter)]
    said = torch.stack(head_outputs(lm.model, rows, (spec.name,), batch_size=batch_size)[spec.name])
    scores = log_odds(spec, said, place)
    return scores[0] - scores[1:]  # occlusion


def _gradients(
    lm: "LanguageModel",
    text: str,
    ranges: Sequence[tuple[int, int]],
    encoder: Encoder,
    spec: Head,
    place: int,
) -> Tensor:
    """Return Σ gradient · embedding over the tokens of each word, [words]."""
    row = encoder.pieces(text, ranges)
    tokens = torch.tensor([row.ids], device=lm.model.device)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    with evaluating(lm.model):
        with torch.no_grad():
            embeddings = lm.model.embed(tokens)
        embeddings.requires_grad_(True)
        with torch.enable_grad():
            said = read_out(lm.model, (spec.name,), embeddings=embeddings, attention_mask=mask)[spec.name]
            (gradient,) = torch.autograd.grad(log_odds(spec, said[0], place), embeddings)
    shares = (gradient.double() * embeddings.detach().double()).sum(-1)[0].cpu()  # gradient · input
    if not all_finite(shares):
        raise LabError("word-attribution: a gradient is NaN or infinite; look at the model's weights")
    return torch.stack([shares[places].sum() for places in row.places])


@dataclass(frozen=True, kw_only=True)
class WordAttribution:
    """Which words of one text speak for a class of a head, and which against it."""

    text: str
    """The text."""
    label: str | None = None
    """The class; none is the one that is predicted."""
    head: str | None = None
    """Name of the head, if the model has several."""
    method: Method = "occlusion"
    """occlusion: leave each word out; gradient: gradient times input, one pass for the whole text."""
    truncate: Side = "right"
    """Side on which a text longer than the context is truncated."""
    batch_size: int = 32
    """Shortened texts in one forward pass; changes speed and memory, not the numbers."""

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure; LabError as `attribute_words`."""
        found = attribute_words(
            lm,
            self.text,
            label=self.label,
            head=self.head,
            method=self.method,
            batch_size=self.batch_size,
            truncate=self.truncate,
        )
        probability = float(torch.tensor(found.score, dtype=torch.float64).sigmoid())
        table: Table = [
            {"place": place, "word": word, "nats": value}
            for place, (word, value) in enumerate(zip(found.words, found.values, strict=True), start=1)
        ]
        strongest = sorted(table, key=lambda row: -abs(row["nats"]))[:_DRAWN]
        shown = sorted(strongest, key=lambda row: row["place"])
        return Measurement(
            name="word-attribution",
            numbers={
                "probability": probability,
                "log_odds": found.score,
                "largest": max(found.values),
                "smallest": min(found.values),
            },
            units={"log_odds": "nats", "largest": "nats", "smallest": "nats"},
            tables={"words": table},
            figures={
                "words": partial(
                    signed_bars,
                    [(str(row["word"]), float(row["nats"])) for row in shown],
                    label=f"nats for class {found.label}",
                )
            },
            about={"label": found.label, "method": self.method, "words": len(table)},
        )
