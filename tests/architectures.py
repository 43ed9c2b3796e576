"""Small architectures of every kind, which the tests attach: blocks, norms, masks, and the whole forward pass."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2lab.model import (
    Architecture,
    Backbone,
    Cache,
    CacheGroup,
    Inner,
    Inputs,
    NewCache,
    Pass,
    Wrapper,
    drawn,
    under,
)
from gpt2lab.model.soft_prompt import SoftPrompt


@dataclass(frozen=True, kw_only=True)
class MarkedAttention:
    """A further attention before some blocks, in which marked positions see marked ones, with a cache of its own.

    A position is marked if the first entry of its embedding is positive.
    """

    layers: tuple[int, ...] = (0, 2)
    """Blocks that get one."""

    def attach(self, model: Backbone, *, generator: torch.Generator | None = None) -> None:
        for index in self.layers:
            marked = Marked(model.config.d_model, f"blocks.{index}.marked")
            model.blocks[index] = MarkedFirst(drawn(marked, model, generator, std=0.3), model.blocks[index])
        model.wrappers.append(Marking(self.layers))


class Marking(Wrapper):
    """Tells the blocks which positions are marked."""

    def __init__(self, layers: Sequence[int]) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, model: Backbone, inner: Inner, inputs: Inputs) -> Tensor:
        marks = inputs.embeddings[..., 0] > 0
        if inputs.attention_mask is not None:
            marks = marks & inputs.attention_mask.bool()
        return inner(replace(inputs, notes={**inputs.notes, "marks": marks}))

    def activation_names(self, names: list[str]) -> list[str]:
        return [*names, *(f"blocks.{index}.marked.hook_z" for index in self.layers)]


class MarkedFirst(nn.Module):
    """A block with the further attention before it."""

    def __init__(self, marked: "Marked", block: nn.Module) -> None:
        super().__init__()
        self.marked, self.block = marked, block

    def forward(self, x: Tensor, run: Pass) -> Tensor:
        return self.block(x + self.marked(x, run), run)


class Marked(nn.Module):
    """Attention with one head among marked positions; 0 at all others."""

    def __init__(self, width: int, name: str) -> None:
        super().__init__()
        self.qkv, self.name = nn.Linear(width, 3 * width, bias=False), name

    def forward(self, x: Tensor, run: Pass) -> Tensor:
        marks = run.notes["marks"][:, None, :, None]  # [batch, 1, time, 1]
        q, k, v = (part[:, None] for part in self.qkv(x).chunk(3, dim=-1))  # [batch, 1, time, width]
        seen = marks
        if run.cache is not None:
            k, v = run.cache.write(self.name, run.slots, k, v)
            seen = run.cache.store(f"{self.name}.marks", run.slots, marks)
        mask = run.mask(None)  # padding, prefixes and siblings are in it; None stands for plainly causal
        if mask is None:
            places = torch.arange(run.slots.start, run.slots.stop)[:, None]
            mask = torch.arange(run.slots.stop) <= places
        mask = (mask & seen.transpose(-1, -2)) | ~marks  # [batch, 1, time, keys]
        z = F.scaled_dot_product_attention(q, k, v, attn_mask=mask) * marks
        return run.see(z[:, 0], f"{self.name}.hook_z")


class Announcing(Wrapper):
    """Nothing but names of activations: those that are there now, and those that are no more."""

    def __init__(self, there: Sequence[str], gone: Sequence[str]) -> None:
        super().__init__()
        self.there, self.gone = there, gone

    def activation_names(self, names: list[str]) -> list[str]:
        return [*(name for name in names if name not in self.gone), *self.there]


@dataclass(frozen=True, kw_only=True)
class FixedNorms:
    """The norm before every attention is a scale that was measured once and is saved with the model."""

    scale: float = 0.7
    """What it multiplies with."""

    def attach(self, model: Backbone, *, generator: torch.Generator | None = None) -> None:
        for block in model.blocks:
            block.norm1 = Fixed(self.scale).to(model.device, model.dtype)
        inside = [
            f"blocks.{index}.ln1.hook_{kind}"
            for index in range(len(model.blocks))
            for kind in ("scale", "normalized")
        ]
        model.wrappers.append(Announcing((), inside))


class Fixed(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale))

    def forward(self, x: Tensor, run: Pass) -> Tensor:
        return x * self.scale


@dataclass(frozen=True, kw_only=True)
class PrefixLM:
    """The first real tokens of a row see each other in both directions (Raffel et al. 2020, figure 4)."""

    prefix: int = 4
    """How many."""

    def attach(self, model: Backbone, *, generator: torch.Generator | None = None) -> None:
        model.wrappers.append(Both(self.prefix))


class Both(Wrapper):
    def __init__(self, prefix: int) -> None:
        super().__init__()
        self.prefix = prefix

    def forward(self, model: Backbone, inner: Inner, inputs: Inputs) -> Tensor:
        def order(query: Tensor, key: Tensor, valid: Tensor | None) -> Tensor:
            place = (
                key if valid is None else (valid.long().cumsum(1) - 1)[:, None, :]
            )  # [batch or 1, 1, keys]
            return (key <= query) | ((place < self.prefix) & (place >= 0))

        return inner(replace(inputs, order=order))


@dataclass(frozen=True, kw_only=True)
class Again:
    """Every pass runs `steps` times more, each time with the expected embedding of the next token added."""

    steps: int = 2
    """How often."""
    project: bool = False
    """The expected embedding goes through a learned map."""

    def attach(self, model: Backbone, *, generator: torch.Generator | None = None) -> None:
        model.wrappers.append(drawn(Repeated(self, model.config.d_model), model, generator, std=0.2))


class Repeated(Wrapper):
    def __init__(self, options: Again, width: int) -> None:
        super().__init__()
        self.steps = options.steps
        self.map = nn.Linear(width, width, bias=False) if options.project else nn.Identity()

    def forward(self, model: Backbone, inner: Inner, inputs: Inputs) -> Tensor:
        *early, last = inputs.caches(self.steps + 1)
        for step, cache in enumerate(early):
            with under(model, f"again.{step}"):
                logits = model.unembed(inner(replace(inputs, cache=cache)))
            expected = logits.softmax(-1) @ model.embedding.weight
            inputs = replace(inputs, embeddings=inputs.embeddings + self.map(expected))
        return inner(replace(inputs, cache=last))

    def new_cache(self, inner: NewCache, *, batch: int, length: int) -> Cache:
        return CacheGroup([inner(batch=batch, length=length) for _ in range(self.steps + 1)])

    def activation_names(self, names: list[str]) -> list[str]:
        return [f"again.{step}:{name}" for step in range(self.steps) for name in names] + names


CLASSES = [MarkedAttention, FixedNorms, PrefixLM, Again]

EXAMPLES: dict[str, list[Architecture]] = {
    "block": [MarkedAttention()],
    "norm": [FixedNorms()],
    "mask": [PrefixLM(prefix=2)],
    "pass": [Again(project=True)],
    "pass in prompt": [Again(), SoftPrompt(length=3)],
    "prompt in pass": [SoftPrompt(length=3, freeze=False), Again()],
    "all": [
        MarkedAttention(),
        FixedNorms(),
        PrefixLM(prefix=5),
        SoftPrompt(length=3, freeze=False),
        Again(steps=1),
    ],
}
