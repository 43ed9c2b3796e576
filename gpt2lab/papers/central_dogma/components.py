"""Measure `pair-components`: where pairs lie in a model's states, along the two directions in which they differ most."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.measures.measurement import Measurement, Table
from gpt2lab.measures.prediction import encoder_for, pooled_states
from gpt2lab.model.task_heads import Pooling
from gpt2lab.papers.central_dogma.pairs import Fields, read_pairs
from gpt2lab.plots.figures import scatter
from gpt2lab.text.generators.sequence_pairs import Pair
from gpt2lab.text.sentence_encoder import SentenceEncoder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gpt2lab.text.language_model import LanguageModel

KEPT = 2
"""Components that are drawn."""


@dataclass(frozen=True)
class Components:
    """The directions of most variance of a set of vectors."""

    scores: Tensor
    """Where each vector lies along each of them, [vectors, 2] float64."""
    explained: Tensor
    """Share of the variance of each, [2]."""


def principal_components(vectors: Tensor) -> Components:
    """Return the first two principal components of vectors [vectors, d_model]: eigenvectors of their covariance.

    The sign of each is that which makes its largest weight positive. LabError for fewer than three vectors, or equal ones.
    """
    centred = vectors.double() - vectors.double().mean(0)
    _, sizes, directions = torch.linalg.svd(centred, full_matrices=False)  # centred = U · sizes · directions
    variance = sizes.square()
    if len(vectors) <= KEPT or vectors.shape[1] < KEPT or not float(variance.sum()) > 0:
        raise LabError(
            "pair-components: at least three pairs whose states differ are needed to draw them in a plane"
        )
    kept = directions[:KEPT]
    largest = kept.abs().argmax(1, keepdim=True)
    kept = kept * kept.gather(1, largest).sign()
    return Components(centred @ kept.T, variance[:KEPT] / variance.sum())  # PCA


def between(values: Tensor, labels: Sequence[int]) -> float:
    """Return the share of the variance of values [vectors, n] that lies between the means of the labels."""
    y = torch.tensor(labels)
    centred = values.double() - values.double().mean(0)
    parts = [centred[y == label] for label in sorted(set(labels))]
    of_means = sum(len(part) * float(part.mean(0).square().sum()) for part in parts)
    return of_means / float(centred.square().sum())


@dataclass(frozen=True, kw_only=True)
class PairComponents:
    """Principal components of the states that stand for pairs, by kind of pair."""

    data: tuple[str, ...] = ("dna-protein-typed:320:2",)
    """Pairs with labels 1 and 0: files (PAWS-X's tsv too), hub:ID or a built-in source of pairs."""
    first: str = "sentence1"
    """Field of the first text, the DNA."""
    second: str = "sentence2"
    """Field of the second text, the protein."""
    label: str = "label"
    """Field of the label."""
    type: str = "type"
    """Field of the kind of negative, if there is one."""
    separator: str = ""
    """Text between the two."""
    pooling: Pooling = "last"
    """State that stands for a pair; a judge of GPT-2 reads that of the last token."""
    limit: int | None = None
    """Read at most this many pairs."""
    batch_size: int = 32
    """Pairs in one pass; changes speed and memory, not the numbers."""

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure a model; LabError for pairs that do not fit, and for fewer than three that differ."""
        fields = Fields(first=self.first, second=self.second, label=self.label, type=self.type)
        pairs = read_pairs(self.data, fields, limit=self.limit)
        encoder = encoder_for(lm, separator=self.separator)
        rows = [encoder.text(pair.first, pair.second) for pair in pairs]
        if encoder.truncated:
            raise LabError(
                f"pair-components: {encoder.truncated} of {len(pairs)} pairs have more than the {encoder.limit} tokens that "
                "the model reads; take shorter pairs or a longer context"
            )
        how = SentenceEncoder(pooling=self.pooling, normalize=False)
        vectors = pooled_states(lm.model, rows, how, self.batch_size)
        found, labels = principal_components(vectors), [pair.label for pair in pairs]
        return Measurement(
            name="pair-components",
            numbers={
                "explained_1": float(found.explained[0]),
                "explained_2": float(found.explained[1]),
                "between_1": between(found.scores[:, :1], labels),
                "between_2": between(found.scores[:, 1:], labels),
                "between": between(vectors, labels),
            },
            units={
                "explained_1": "of the variance of the states",
                "explained_2": "of the variance of the states",
                "between_1": "of the first component's variance, between matches and others",
                "between_2": "of the second component's variance, between matches and others",
                "between": "of all variance, between matches and others",
            },
            tables={"types": _by_type(pairs, found)},
            arrays={"components": found.scores.numpy()},
            figures={"components": partial(components_figure, pairs, found)},
            about={"pairs": len(pairs), "pooling": self.pooling},
        )


def _by_type(pairs: Sequence[Pair], found: Components) -> Table:
    rows: Table = []
    for kind in dict.fromkeys(pair.type for pair in pairs):
        own = found.scores[torch.tensor([pair.type == kind for pair in pairs])]
        mean = own.mean(0).tolist()
        rows.append({"type": kind, "pairs": len(own), "first": mean[0], "second": mean[1]})
    return rows


def components_figure(pairs: Sequence[Pair], found: Components) -> "Figure":
    """Draw a dot for each pair in the colour of its kind, and the mean of each kind."""
    points = {}
    for kind in dict.fromkeys(pair.type for pair in pairs):
        own = found.scores[torch.tensor([pair.type == kind for pair in pairs])]
        points[kind.replace("_", " ")] = (own[:, 0].tolist(), own[:, 1].tolist())
    first, second = (
        f"component {i + 1} ({float(found.explained[i]):.0%} of the variance)" for i in range(KEPT)
    )
    return scatter(points, x_label=first, y_label=second)
