"""The last residual as a sum of what embeddings, heads, biases and feed-forwards wrote into it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model.evaluating import evaluating
from gpt2lab.model.interpret.lens import final_scale, require_prenorm
from gpt2lab.model.layer_kinds import LinearMap

if TYPE_CHECKING:
    from gpt2lab.model.transformer import Transformer

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
_ROUGH = 0.1  # bfloat16 and float16: rounding of the running sum, some hundredths of it in deep models


@dataclass(frozen=True)
class Decomposition:
    """The parts of a residual."""

    names: tuple[str, ...]
    """`embed`, `positions`, then layer by layer `L0H0` …, `L0 bias` (of the attention's output) and `L0 MLP`."""
    values: Tensor
    """[parts, batch, time, d_model]."""
    total: Tensor
    """The residual before the final norm, [batch, time, d_model]."""
    scale: Tensor
    """What the final norm divides it by, [batch, time, 1]."""

    def __getitem__(self, name: str) -> Tensor:
        """Return one part, [batch, time, d_model]; LabError if there is none of that name."""
        if name not in self.names:
            raise LabError(f"decomposition: no part {name}; there are {', '.join(self.names[:4])}, …")
        return self.values[self.names.index(name)]


@torch.no_grad()
def decompose(
    model: "Transformer",
    tokens: Tensor,
    *,
    attention_mask: Tensor | None = None,
    pos: int | slice | None = None,
) -> Decomposition:
    """Split the last residual of `tokens` [batch, time] into its parts; `pos` keeps only some positions.

    Dropout is off meanwhile. With per-layer head counts there are as many parts as heads. LabError for a post-norm
    model, and where an architecture makes the residual something else than the sum of its parts.
    """
    require_prenorm(model, "a decomposition of the residual")
    names = list(_reads(model))
    last = f"blocks.{model.config.n_layers - 1}.hook_resid_post"
    reads = names + ([last] if model.config.n_layers else [])
    with evaluating(model), model.tap(read=reads, pos=pos) as tap:
        model.hidden(tokens, attention_mask=attention_mask)
    labels, values = zip(*_parts(model, {name: tap[name] for name in names}), strict=True)
    stacked = torch.stack(values)
    total = tap[last] if model.config.n_layers else stacked.sum(0)
    _check_sum(stacked, total)
    return Decomposition(labels, stacked, total, final_scale(model, total))


def _reads(model: "Transformer") -> Iterator[str]:
    known = set(model.activation_names())
    if "ln_embed.hook_normalized" in known:  # a norm over the embeddings: their sum is one part
        yield "ln_embed.hook_normalized"
    else:
        yield from (
            name for name in ("hook_embed", "hook_token_type_embed", "hook_pos_embed") if name in known
        )
    for i in range(model.config.n_layers):
        if model.config.layer(i).n_heads:
            yield f"blocks.{i}.attn.hook_result"
        yield f"blocks.{i}.hook_mlp_out"


def _parts(model: "Transformer", read: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    labels = {
        "hook_embed": "embed",
        "hook_token_type_embed": "token types",
        "hook_pos_embed": "positions",
        "ln_embed.hook_normalized": "embed",
    }
    for name, value in read.items():
        if name in labels:
            yield labels[name], value
            continue
        layer = name.split(".")[1]
        if name.endswith("hook_result"):
            for head, written in enumerate(value.unbind(2)):
                yield f"L{layer}H{head}", written
        else:
            out = model.get_submodule(f"blocks.{layer}.attention.out")
            if isinstance(out, LinearMap) and out.bias is not None:
                yield f"L{layer} bias", out.bias.detach().expand_as(value)
            yield f"L{layer} MLP", value


def _check_sum(parts: Tensor, total: Tensor) -> None:
    error, size = (parts.sum(0) - total).abs(), total.abs()
    if total.numel() and error.max() > _TOLERANCE.get(total.dtype, _ROUGH) * size.max():
        raise LabError(
            "a decomposition of the residual: the parts do not add up to it, so something attached to this model writes "
            "into the stream besides its heads and feed-forwards"
        )
