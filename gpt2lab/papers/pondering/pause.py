"""Pause tokens: the same extra computation along the sequence instead of in depth (after Goyal et al. 2024).

Every token is followed by `steps` copies of one learned embedding, and its prediction is read at the last of them.
Pauses stand at the position of their token, so that the model's positions last as long as without them; later tokens
see the pauses of earlier ones. (The placement of the paper's own baseline is not established.)
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from gpt2lab.base.errors import LabError
from gpt2lab.model import Backbone, Cache, CacheGroup, Inner, Inputs, NewCache, Wrapper
from gpt2lab.papers.pondering.compute import training_flops


class Pause(Wrapper):
    """The learned pause, and the pass over tokens with pauses between them."""

    def __init__(self, width: int, *, steps: int, random_steps: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, width))
        self.steps, self.random_steps, self.scale = steps, random_steps, scale

    def forward(self, model: Backbone, inner: Inner, inputs: Inputs) -> Tensor:
        """Return the states at the last pause of every token, [batch, time, d_model]."""
        if inputs.order is not None:
            raise LabError(
                "pondering: feedback=pause knows causal attention only, not a mask of another kind"
            )
        steps = self.steps if inputs.cache is not None else drawn_steps(self, model)
        each, (rows, time, width) = steps + 1, inputs.embeddings.shape
        cache = inputs.cache
        if cache is not None and not (isinstance(cache, PauseCache) and cache.each == each):
            raise LabError("this cache was made for another model; make it with model.new_cache(...)")
        pauses = self.weight.to(inputs.embeddings.dtype).expand(rows, time, steps, width)
        x = self.scale * torch.cat([inputs.embeddings[:, :, None], pauses], dim=2)
        order = None
        if inputs.siblings:
            start = 0 if cache is None else cache.length * each

            def order(query: Tensor, key: Tensor, valid: Tensor | None) -> Tensor:
                return (key <= query) & ((key < start) | (key // each == query // each))

        def widened(known: Tensor | None) -> Tensor | None:
            return None if known is None else known.repeat_interleave(each, dim=1)

        tokens = inputs.tokens
        if tokens is not None:
            tokens = torch.cat(
                [tokens[..., None], -torch.ones_like(tokens)[..., None].expand(-1, -1, steps)], -1
            )
        hidden = inner(
            replace(
                inputs,
                embeddings=x.flatten(1, 2),
                tokens=None if tokens is None else tokens.flatten(1),
                attention_mask=widened(inputs.attention_mask),
                positions=widened(_positions(inputs)),
                token_types=widened(inputs.token_types),
                token_inputs={
                    name: x.repeat_interleave(each, dim=1) for name, x in inputs.token_inputs.items()
                },
                cache=None if cache is None else cache.parts[0],
                siblings=False,
                order=order,
            )
        )
        return hidden[:, steps::each]

    def new_cache(self, inner: NewCache, *, batch: int, length: int) -> Cache:
        """Return a cache with slots for the pauses too."""
        each = self.steps + 1
        return PauseCache(inner(batch=batch, length=length * each), each)

    def training_flops(self, model: Backbone, time_steps: int, inner: float) -> float:
        """Return what a token costs, see `compute.training_flops`."""
        return training_flops(model, time_steps)


class PauseCache(CacheGroup):
    """A cache in which every token of the text has `each` slots."""

    def __init__(self, part: Cache, each: int) -> None:
        super().__init__([part])
        self.each = each

    @property
    def capacity(self) -> int:
        """Slots for tokens of the text."""
        return self.parts[0].capacity // self.each

    @property
    def length(self) -> int:
        """Tokens of the text that it holds."""
        return self.parts[0].length // self.each

    @property
    def attention(self) -> Tensor:
        """[batch, capacity], True where a real token of the text is held."""
        return self.parts[0].attention[:, :: self.each]

    def keep(self, start: int, chosen: Tensor) -> None:
        """As for one cache, a token with its pauses."""
        _keep_slots(self.parts, start * self.each, chosen * self.each, self.each)

    def rewind(self, length: int) -> None:
        """As for one cache."""
        self.parts[0].rewind(length * self.each)

    def select(self, rows: Tensor) -> "PauseCache":
        """As for one cache."""
        return PauseCache(self.parts[0].select(rows), self.each)


def drawn_steps(wrapper: "Wrapper", model: Backbone) -> int:
    """Return the number of steps of a pass: in training with random steps one of 1 … random_steps, all alike.

    It comes from the global generator, as dropout does, which the training loop seeds for every micro-batch.
    """
    most, steps = int(wrapper.random_steps), int(wrapper.steps)  # type: ignore[arg-type]  # numbers, not modules
    return int(torch.randint(1, most + 1, (), device="cpu")) if most and model.training else steps


def _positions(inputs: Inputs) -> Tensor:
    """Return the positions of the tokens themselves, [batch or 1, time]."""
    if inputs.positions is not None:
        return inputs.positions
    cache, time, device = inputs.cache, inputs.embeddings.shape[1], inputs.embeddings.device
    if inputs.attention_mask is not None:
        counted = inputs.attention_mask.long().cumsum(1)
    else:
        counted = torch.arange(1, time + 1, device=device)[None]
    if inputs.siblings:
        counted = torch.ones_like(counted)
    if cache is not None and cache.length:
        counted = counted + cache.attention[:, : cache.length].sum(1, keepdim=True)
    return (counted - 1).clamp_min(0)


def _keep_slots(parts: Sequence[Cache], start: int, chosen: Tensor, count: int) -> None:
    """Of the slots from `start` on keep `count` from start + chosen[r] on of row r, moved to `start`."""
    for part in parts:
        if isinstance(part, CacheGroup):
            _keep_slots(part.parts, start + part.ahead, chosen, count)
            continue
        rows = torch.arange(part.batch, device=chosen.device)
        for tensor in part.tensors.values():
            for slot in range(start, start + count):  # ascending: no slot is overwritten before it is read
                tensor[:, :, slot] = tensor[rows, :, slot + chosen]
        for side in part.sides.values():
            side.keep(start, chosen, count)
        part.rewind(start + count)
