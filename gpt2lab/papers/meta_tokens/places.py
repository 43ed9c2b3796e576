"""Where the meta-tokens of a pass stand: as a mask over positions, and as an index by which they are gathered."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2lab.model import Backbone, Inputs, Pass

NOTE = "meta_places"
"""Under which the blocks find them."""
EXTRA = "meta_positions"
"""Name of the extra input that says which positions are metas, in place of the token."""


def is_meta(model: Backbone, inputs: Inputs, token: int) -> Tensor:
    """Return which positions are real meta-tokens, bool [batch, time].

    By `meta_positions`, if given; else by the token; where embeddings were given without tokens, by the embedding.
    """
    if EXTRA in inputs.token_inputs:
        marks = inputs.token_inputs[EXTRA].bool()
    elif inputs.tokens is not None:
        marks = inputs.tokens == token
    else:
        row = model.embed(torch.tensor([[token]], device=inputs.embeddings.device))  # [1, 1, d_model]
        marks = (inputs.embeddings == row.to(inputs.embeddings.dtype)).all(-1)
    return marks if inputs.attention_mask is None else marks & inputs.attention_mask.bool()


@dataclass(frozen=True)
class Gathered:
    """The metas of a pass, moved together: in each row those there are, then others that count for nothing."""

    index: Tensor
    """[batch, metas], places in the pass."""
    real: Tensor
    """[batch, metas], False where a row has fewer metas."""
    slots: Tensor
    """[batch, metas], slots in the text; -1 where a row has fewer."""

    def gather(self, x: Tensor) -> Tensor:
        """x [batch, time, ...] → [batch, metas, ...]."""
        rows = torch.arange(len(x), device=x.device)[:, None]
        return x[rows, self.index]

    def scatter(self, x: Tensor, time: int, fill: float = 0.0) -> Tensor:
        """x [batch, metas, ...] → [batch, time, ...], `fill` at positions that are no metas."""
        shape = (*self.index.shape, *[1] * (x.dim() - 2))
        whole = x.new_full((len(x), time, *x.shape[2:]), fill)
        kept = torch.where(self.real.view(shape), x, fill)
        return whole.scatter(1, self.index.view(shape).expand_as(x), kept)

    def allowed(self, run: Pass, keys: Tensor) -> Tensor:
        """Return which metas each may look at, [batch, 1, metas, keys]; keys [batch, keys] are slots, -1 for none.

        What counts for nothing looks at everything, so that no row of the softmax is empty.
        """
        there = (keys >= 0)[:, None, :]  # [batch, 1, keys]
        mask = run.mask(None)
        if mask is None:
            seen = keys[:, None, :] <= self.slots[:, :, None]
        else:
            whole = mask[:, 0].expand(len(keys), -1, -1)  # [batch, time, slots]
            by_query = whole.gather(1, self.index[:, :, None].expand(-1, -1, whole.shape[2]))
            seen = by_query.gather(2, keys.clamp_min(0)[:, None, :].expand(-1, self.index.shape[1], -1))
        return ((seen & there) | ~self.real[:, :, None])[:, None]


class Places:
    """The metas of a pass, found once for all blocks."""

    def __init__(self, marks: Tensor) -> None:
        self.marks = marks
        """Which positions are metas, bool [batch, time]."""
        self._known: Gathered | None = None

    def gathered(self, run: Pass) -> Gathered:
        """Return the same as an index, of at least one column while a tap is open, which is shown empty rows too."""
        if self._known is None:
            most = int(self.marks.sum(1).max()) if self.marks.numel() else 0
            if run.tap is not None:
                most = max(most, min(1, self.marks.shape[1]))
            index = torch.sort((~self.marks).to(torch.int8), dim=1, stable=True).indices[:, :most]
            real = self.marks.gather(1, index)
            self._known = Gathered(index, real, torch.where(real, index + run.slots.start, -1))
        return self._known
