"""Zeroing at the places of metas, in evaluation alone: without their positions, or without their embedding."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model import Backbone, Inner, Inputs, KeyValueCache, Wrapper
from gpt2lab.papers.meta_tokens.architecture import Marking
from gpt2lab.papers.meta_tokens.objective import token_of
from gpt2lab.papers.meta_tokens.places import EXTRA, is_meta

Zeroed = Literal["no_pos", "no_embed"]


@contextmanager
def zeroed(model: Backbone, what: Zeroed, *, token: int | None = None) -> Iterator[None]:
    """Let metas have no position (no_pos) or no embedding (no_embed) within this scope.

    no_pos: a learned position is left out; rotary queries and keys are turned by angle 0; other tokens keep their positions.
    no_embed: the embedding is 0. token: the meta-token's id; default that of the model's meta-attention. It works on
    models without meta-attention too. LabError for an unknown word, and no_pos of a model without positions.
    """
    if what not in ("no_pos", "no_embed"):
        raise LabError(f"zeroed: no_pos or no_embed, got {what!r}")
    if what == "no_pos" and model.config.positions == "none":
        raise LabError("no_pos: this model has no positions")
    place = 1 if len(model.wrappers) and isinstance(model.wrappers[0], Marking) else 0
    model.wrappers.insert(place, _Zeroing(what, token_of(model, token)))
    try:
        yield
    finally:
        del model.wrappers[place]


class _Zeroing(Wrapper):
    """Changes the inputs at metas; it stands just outside of what marks them."""

    def __init__(self, what: Zeroed, token: int) -> None:
        super().__init__()
        self.what, self.token = what, token

    def forward(self, model: Backbone, inner: Inner, inputs: Inputs) -> Tensor:
        """Return the states of the changed inputs."""
        marks = is_meta(model, inputs, self.token)
        if len(model.wrappers) and isinstance(model.wrappers[0], Marking):
            inputs = replace(inputs, token_inputs={**inputs.token_inputs, EXTRA: marks})
        if self.what == "no_embed":
            return inner(replace(inputs, embeddings=inputs.embeddings.masked_fill(marks[..., None], 0.0)))
        positions = _positions(inputs)
        if model.config.positions == "rotary":
            return inner(replace(inputs, positions=positions.masked_fill(marks, 0)))
        rows = model.position_embedding(positions + model.config.position_offset)  # [batch, time, d_model]
        changed = inputs.embeddings - rows * marks[..., None]  # the model adds them again
        return inner(replace(inputs, embeddings=changed, positions=positions))


def _positions(inputs: Inputs) -> Tensor:
    """Return the position of every token, [batch, time]: real tokens counted from 0, as the model counts them."""
    rows, time = inputs.embeddings.shape[:2]
    if inputs.positions is not None:
        return inputs.positions.expand(rows, -1)
    device, mask = inputs.embeddings.device, inputs.attention_mask
    real = torch.ones(rows, time, dtype=torch.long, device=device) if mask is None else mask.long()
    counted = torch.ones_like(real) if inputs.siblings else real.cumsum(1)
    if isinstance(inputs.cache, KeyValueCache) and inputs.cache.length:
        counted = counted + inputs.cache.attention[:, : inputs.cache.length].sum(1, keepdim=True)
    return (counted - 1).clamp_min(0)
