"""The unembedding as a set of directions in the residual stream, and what the model would say at any point of it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model.evaluating import unseen
from gpt2lab.model.forward import Seen
from gpt2lab.model.norms import Norm

if TYPE_CHECKING:
    from gpt2lab.model.transformer import Transformer

UNSEEN = Seen(tap=None)


@dataclass(frozen=True)
class Unembedding:
    """A linear map from states to logits."""

    weight: Tensor
    """[vocab, d_model], float32 or wider."""
    bias: Tensor
    """[vocab]."""


def processed_unembed(model: "Transformer", *, fold: bool = True, centre: bool = True) -> Unembedding:
    """Return the head with the final norm's gain and bias folded in, and the mean over the vocabulary removed.

    fold: x / scale · weightᵀ + bias are then the logits of a residual x, scale being `ln_final.hook_scale`; with a
    LayerNorm the mean over d_model is removed from the weights too, so that x need not be centred.
    centre: logits change by the same number for every token of a position, probabilities not at all.
    W_U of Baroni et al. 2025 and Li and Gao 2025, transposed. LabError for post-norm models and heads with a transform.
    """
    require_prenorm(model, "an unembedding of the residual stream")
    wide = torch.promote_types(model.dtype, torch.float32)
    weight = model.head.weight.detach().to(wide)
    bias = weight.new_zeros(len(weight)) if model.head.bias is None else model.head.bias.detach().to(wide)
    norm = model.final_norm
    if fold and norm.kind == "layernorm":
        bias = bias + weight @ norm.bias.detach().to(wide)
    if fold and norm.kind != "none":
        weight = weight * norm.weight.detach().to(wide)
    if fold and norm.kind == "layernorm":
        weight = weight - weight.mean(1, keepdim=True)
    if centre:
        weight, bias = weight - weight.mean(0), bias - bias.mean()
    return Unembedding(weight, bias)


def logit_lens(
    model: "Transformer", x: Tensor, *, norm: Literal["own", "cached"] = "own", scale: Tensor | None = None
) -> Tensor:
    """Return the logits that the model would give if x were its last state; [..., d_model] → [..., vocab].

    norm="own" puts x through the final norm by itself (nostalgebraist 2020), which makes small vectors as large as big
    ones. norm="cached" divides by `scale` [..., 1] instead, the `ln_final.hook_scale` of the whole residual: then the
    lens is linear but for its bias. LabError for a scale that is missing or given in vain, and without a head.
    """
    if x.shape[-1] != model.config.d_model:
        raise LabError(f"logit lens: states are [..., {model.config.d_model}], got {list(x.shape)}")
    if norm == "own":
        if scale is not None:
            raise LabError('logit lens: a scale is for norm="cached"; norm="own" finds its own')
        with unseen(model):
            return model.unembed(model.final_norm(x, UNSEEN))
    if norm != "cached":
        raise LabError(f'logit lens: norm is "own" or "cached", got {norm!r}')
    if scale is None:
        raise LabError('logit lens: norm="cached" needs scale, the ln_final.hook_scale of the whole residual')
    head = processed_unembed(model, centre=False)
    return x.to(head.weight.dtype) / scale @ head.weight.T + head.bias


def as_read(model: "Transformer", vectors: Tensor, head: Unembedding) -> Tensor:
    """Return the part of residual vectors [..., d_model] that can reach the logits: without their mean where it cannot.

    A LayerNorm removes the mean. So does a head into which a LayerNorm was folded (W C, C = I - 11ᵀ / d_model): without a
    norm of its own the model is the same function, and its vectors are read alike.
    """
    blind = model.final_norm.kind == "none" and _mean_share(head.weight) < _UNREAD
    return vectors - vectors.mean(-1, keepdim=True) if blind else model.final_norm.centred(vectors)


_UNREAD = 1e-3
"""Of a head with a folded LayerNorm 1e-8 (float32) to 1e-4 (16 bits); of any other about 1 / sqrt(d_model)."""


def _mean_share(weight: Tensor) -> float:
    """Root mean square, over tokens, of the cosine of a token's direction [vocab, d_model] with (1, ..., 1)."""
    along = weight.sum(1) / weight.shape[1] ** 0.5
    return float((along.square().mean() / weight.square().sum(1).mean().clamp_min(1e-30)).sqrt())


def normalise(model: "Transformer", x: Tensor) -> Tensor:
    """Divide states by the final norm's scale of their own, without gain and bias; [..., d_model] → same.

    Means are left in: the folded weights of `processed_unembed` do not see them.
    """
    return x / final_scale(model, x)


def final_scale(model: "Transformer", x: Tensor) -> Tensor:
    """Return what the final norm divides x [..., d_model] by, [..., 1]; ones for a model without norms."""
    return model.final_norm.scale(x).to(x.dtype)


def require_prenorm(model: "Transformer", what: str) -> None:
    """Refuse models whose logits are not a linear map of a normalised sum. LabError, beginning with `what`."""
    config = model.config
    if config.norm_placement == "post":
        raise LabError(
            f"{what} needs a pre-norm model: in this {config.family} every sum is normalised on the way, so the last state "
            'is no sum of what its parts wrote (logit_lens with norm="own" still reads single states)'
        )
    if config.head != "linear":
        raise LabError(f"{what} needs a linear head; the head of this {config.family} is {config.head!r}")
    if not isinstance(model.final_norm, Norm):
        raise LabError(
            f"{what} needs a final norm of the core, this model has a {type(model.final_norm).__name__}"
        )
