"""Two tests of what a model knows of markers: how surprising one is in its place, and how it compares with its absence."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.measures.scoring import Row, score_rows
from gpt2lab.model import Transformer


@dataclass(frozen=True)
class Surprisals:
    """What a model finds surprising at the first marker of each sentence, in bits, float64 [sentences]."""

    marker: npt.NDArray[np.float64]
    """Of the marker, given what stands before it (test 1)."""
    without: npt.NDArray[np.float64]
    """Of the token that follows it, in its place: the marker is missing."""
    other: npt.NDArray[np.float64]
    """Of the likeliest other marker in its place."""

    @property
    def difference(self) -> npt.NDArray[np.float64]:
        """By how much the missing marker is more surprising than the marker (test 2)."""
        return self.without - self.marker  # test 2

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether the marker is likelier than every other one."""
        return self.marker < self.other


def marker_surprisals(
    model: Transformer,
    sentences: Sequence[Sequence[int]],
    markers: Collection[int],
    eos: int,
    *,
    batch_size: int = 32,
) -> Surprisals:
    """Return both surprisals at the first marker of each sentence, with the end token behind every sentence.

    Both are read after the same prefix, so no token behind that place matters. LabError for no sentence, one without a
    marker or with nothing before it, a prefix longer than the model's positions, ids outside the vocabulary, NaN logits.
    """
    if not sentences:
        raise LabError("marker surprisal: no sentence; the test set is empty")
    rows = []
    for ids in sentences:
        ended = [*ids, eos]
        place = first_marker(ids, markers)
        follower = ended[place + 1]
        others = [marker for marker in markers if marker != ids[place]]
        rows += [_row(ended[:place], token) for token in (ids[place], follower, *others)]
    scores = score_rows(model, rows, batch_size=batch_size, label="marker surprisal")
    losses = np.array([float(score.losses[0]) for score in scores]).reshape(len(sentences), -1)
    bits = losses / math.log(2)  # S = -log2 p
    return Surprisals(bits[:, 0], bits[:, 1], bits[:, 2:].min(1, initial=math.inf))


def first_marker(ids: Sequence[int], markers: Collection[int]) -> int:
    """Return the place of the first marker. LabError if there is none, or nothing before it."""
    place = next((i for i, token in enumerate(ids) if token in markers), 0)
    if not place:
        where = "begins with its marker" if ids and ids[0] in markers else "holds no marker"
        raise LabError(f"marker surprisal: a sentence of {len(ids)} tokens {where}")
    return place


def _row(prefix: Sequence[int], token: int) -> Row:
    return Row(torch.tensor([*prefix, token], dtype=torch.int64), 1)
