"""Meta-attention: after the causal attention of every block a second one, in which meta-tokens see meta-tokens alone.

    x = x + Attention(LN₁ x);   x = x + MetaAttention(LN₂ x);   x = x + MLP(LN₃ x)

With zero-initialised output projections, the default, a model computes at first exactly what it did without.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model import Backbone, Block, ExtraInput, Inner, Inputs, Wrapper, drawn
from gpt2lab.model.feedforward import FeedForward
from gpt2lab.model.norms import Norm
from gpt2lab.papers.meta_tokens.attention import (
    DenseMetaAttention,
    GatheredMetaAttention,
    SecondAttention,
)
from gpt2lab.papers.meta_tokens.blocks import LiteralBlock, MetaBlock
from gpt2lab.papers.meta_tokens.places import EXTRA, NOTE, Places, is_meta


@dataclass(frozen=True, kw_only=True)
class MetaAttention:
    """A second attention in every block, in which meta-tokens see meta-tokens alone, each itself and those before it."""

    token: int | None = None
    """Id of the meta-token; `gpt2lab apply add-meta-token` gives a model one. Not read with among=all."""
    among: Literal["metas", "all"] = "metas"
    """metas: the paper's. all: a second full causal attention of as many weights, a control."""
    backend: Literal["gathered", "dense"] = "gathered"
    """gathered: computed for the metas alone. dense: for all positions, by a mask. Outputs and gradients are equal."""
    draw: Literal["zero", "model"] = "zero"
    """Output projections: zero, so that nothing changes at first, or drawn like the model's residual projections."""
    literal_appendix: bool = False
    """Norms after both attentions, divided by σ + ε, and ReLU, as the paper's appendix lists them; for new models."""

    def __post_init__(self) -> None:
        if self.among == "all" and self.backend == "dense":
            raise LabError(
                "meta-attention: among=all has no back ends, because nothing is masked but the future"
            )

    def attach(self, model: Backbone, *, generator: torch.Generator | None = None) -> None:
        """Put a second attention into every block.

        LabError without a token, or with one outside the vocabulary; for a model that reads in both directions, has norms
        after the sums, layers without heads, or a second attention already; literal_appendix for another model than
        LayerNorm before one plain feed-forward.
        """
        self._check(model)
        config = model.config
        kind: type[SecondAttention] = SecondAttention
        if self.among == "metas":
            kind = DenseMetaAttention if self.backend == "dense" else GatheredMetaAttention
        generator = generator if generator is not None else torch.Generator("cpu").manual_seed(0)
        for index, block in enumerate(model.blocks):
            assert isinstance(block, Block)
            second = drawn(kind(config, index), model, generator)
            with torch.no_grad():
                second.out.weight.mul_(0.0 if self.draw == "zero" else 1 / math.sqrt(2 * config.n_layers))
            if self.literal_appendix:
                model.blocks[index] = LiteralBlock(block, second)
            else:
                norm = drawn(Norm(config, f"blocks.{index}.ln_meta"), model, generator)
                model.blocks[index] = MetaBlock(block, second, norm)
        # The innermost wrapper: it sees the rows as the blocks do, with what others put into them.
        model.wrappers.insert(0, Marking(self))

    def _check(self, model: Backbone) -> None:
        config = model.config
        config.require_causal("meta-attention")
        if self.among == "metas" and self.token is None:
            raise LabError(
                "meta-attention: which token is the meta-token? Give its id as token; "
                "`gpt2lab apply add-meta-token MODEL --out DIR` adds one to a model and its tokenizer"
            )
        if self.token is not None and not 0 <= self.token < config.vocab_size:
            raise LabError(
                f"meta-attention: token {self.token} is outside the vocabulary of {config.vocab_size}"
            )
        if config.norm_placement == "post":
            raise LabError("meta-attention needs a model whose norms stand before attention and feed-forward")
        if any(isinstance(block, MetaBlock) for block in model.blocks):
            raise LabError("meta-attention: this model has a second attention already")
        other = [type(block).__name__ for block in model.blocks if not isinstance(block, Block)]
        if other:
            raise LabError(f"meta-attention: another architecture has put {other[0]} in the place of a block")
        if any(not config.layer(index).n_heads for index in range(config.n_layers)):
            raise LabError(
                "meta-attention: a layer of this model has no heads, and its second attention has as many"
            )
        if self.literal_appendix and not _as_in_appendix(model):
            raise LabError(
                "meta-attention: literal_appendix needs LayerNorms and plain feed-forwards one after the other, as in GPT-2"
            )


def _as_in_appendix(model: Backbone) -> bool:
    config = model.config
    plain = all(isinstance(block.mlp, FeedForward) and not block.mlp.gated for block in model.blocks)
    return plain and config.norm == "layernorm" and not config.parallel_residual


class Marking(Wrapper):
    """Tells the blocks which positions are metas."""

    def __init__(self, options: MetaAttention) -> None:
        super().__init__()
        self.options = options
        if options.among == "metas":
            self.reads = (ExtraInput(name=EXTRA, by_token=True, required=False),)

    def forward(self, model: Backbone, inner: Inner, inputs: Inputs) -> Tensor:
        """Find the metas, and go on."""
        if self.options.among == "all":
            return inner(inputs)
        assert self.options.token is not None
        places = Places(is_meta(model, inputs, self.options.token))
        return inner(replace(inputs, notes={**inputs.notes, NOTE: places}))

    def training_flops(self, model: Backbone, time_steps: int, inner: float) -> float:
        """Return the operations of training on one token.

        `inner` has 6 for every weight. Scores and mixing of a second attention over all positions come to it; those of
        gathered metas, and the projections that other tokens do not need, are a matter of the text and left as they are.
        """
        if self.options.among == "metas" and self.options.backend == "gathered":
            return inner
        layers = [model.config.layer(index) for index in range(model.config.n_layers)]
        return inner + sum(6.0 * layer.n_heads * layer.d_head * time_steps for layer in layers)

    def activation_names(self, names: list[str]) -> list[str]:
        """Return all names of activations: `blocks.{i}.meta.hook_*`, `.hook_meta_out`, `.hook_resid_meta`, `.ln_meta.*`."""
        heads = [name.rpartition(".attn.")[2] for name in names if name.startswith("blocks.0.attn.")]
        norm = [name.rpartition(".ln1.")[2] for name in names if name.startswith("blocks.0.ln1.")]
        found: list[str] = []
        for name in names:
            found.append(name)
            block, _, last = name.rpartition(".hook_")
            if last == ("attn_out" if f"{block}.hook_resid_mid" not in names else "resid_mid"):
                if not self.options.literal_appendix:
                    found += [f"{block}.ln_meta.{kind}" for kind in norm]
                found += [f"{block}.meta.{kind}" for kind in heads]
                found += [f"{block}.hook_meta_out", f"{block}.hook_resid_meta"]
        return found


def marking(model: Backbone) -> Marking | None:
    """Return what finds a model's metas, None without meta-attention."""
    found = [one for one in model.wrappers if isinstance(one, Marking)]
    return found[0] if found else None


def meta_token(model: Backbone) -> int | None:
    """Return the id of the meta-token that a model's meta-attention looks for, None without one."""
    found = marking(model)
    return None if found is None else found.options.token
