"""Cross entropy of a linear head in chunks: the logits of all positions are never held at once."""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2lab.base.errors import LabError

IGNORE = -100
"""Target of positions that carry no loss."""

Reduction = Literal["mean", "sum", "none"]
"""Mean over targets, their sum, or each by itself."""

_CHUNK_ELEMENTS = {"cpu": 1 << 21, "cuda": 1 << 27}
"""Logits held at a time. CPU: 8 MiB stay in the caches."""

_CHUNK_ROWS = 192
"""But at least so many rows: with fewer, reading the table for each chunk costs more than the arithmetic."""


def is_labelled(labels: Tensor) -> Tensor:
    """Return where labels are there, bool of the same shape: not NaN, or not -100."""
    return ~labels.isnan() if labels.is_floating_point() else labels != IGNORE


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return -log softmax(hidden · weightᵀ + bias)[target] in nats, float32 or wider.

    hidden [..., d_model], weight [vocab, d_model], targets [...] int64; a target of -100 carries no loss and no
    gradient. "mean" divides by the number of other targets (0 if there are none); "none" gives the shape of targets.
    The gradient is worked out in the same chunks, so memory is that of one chunk plus the gradients themselves.
    Once differentiable. LabError: targets outside the vocabulary or of another shape; in the backward pass, create_graph.
    """
    if hidden.shape[:-1] != targets.shape:
        raise LabError(f"targets are {list(targets.shape)}, the states {list(hidden.shape[:-1])}")
    flat_hidden, flat_targets = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    if flat_targets.numel():
        low, high = int(flat_targets.min()), int(flat_targets.max())
        if (low < 0 and low != IGNORE) or high >= weight.shape[0]:
            raise LabError(
                f"targets run from {low} to {high}, the vocabulary has {weight.shape[0]} (-100 is ignored)"
            )
    losses: Tensor = _LinearCrossEntropy.apply(flat_hidden, weight, bias, flat_targets, reduction)
    return losses.view(targets.shape) if reduction == "none" else losses


def next_tokens(tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """Return the target of every place but the last, [batch, time - 1]: the next token, -100 unless both are real."""
    if attention_mask is None:
        return tokens[:, 1:]
    real = attention_mask.bool()
    return torch.where(real[:, 1:] & real[:, :-1], tokens[:, 1:], IGNORE)


def _compute_dtype(hidden: Tensor) -> torch.dtype:
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, reduction: str
    ) -> Tensor:
        dtype = _compute_dtype(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            h, w = hidden.to(dtype), weight.to(dtype)
            b = bias.to(dtype) if bias is not None else None
            count = (targets != IGNORE).sum()
            # Mean and sum scale every row's gradient alike, so it is worked out while the logits are at hand;
            # "none" has to wait for the gradient of each row and computes the logits again in backward.
            now = reduction != "none" and any(ctx.needs_input_grad[:3])
            wide = torch.promote_types(dtype, torch.float32)
            scale = torch.ones((), device=hidden.device, dtype=wide)
            if reduction == "mean":
                scale = scale / count.clamp_min(1)
            scales = scale.expand(len(targets)) if now else None
            losses, gradients = _in_chunks(h, w, b, targets, scales, trained=ctx.needs_input_grad[1])
        ctx.reduction, ctx.dtype = reduction, dtype
        ctx.kinds = (hidden.dtype, weight.dtype, bias.dtype if bias is not None else None)
        ctx.save_for_backward(*(gradients if now else (h, w, b, targets)))
        if reduction == "none":
            return losses
        return losses.sum() * scale if reduction == "mean" else losses.sum()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        # torch's own once_differentiable lets a second derivative pass, as zero, where `upstream` is a constant.
        if torch.is_grad_enabled():
            raise LabError(
                "linear_cross_entropy has no second derivative, which create_graph=True asks for; use the plain form, "
                "gpt2lab.model.adapters.plain_loss or F.cross_entropy of the logits"
            )
        if ctx.reduction == "none":
            h, w, b, targets = ctx.saved_tensors
            gradients = _in_chunks(h, w, b, targets, upstream, trained=ctx.needs_input_grad[1])[1]
        else:
            d_hidden, d_weight, d_bias = (g * upstream if g is not None else None for g in ctx.saved_tensors)
            gradients = d_hidden, d_weight, d_bias
        return (
            *(g.to(kind) if g is not None else None for g, kind in zip(gradients, ctx.kinds, strict=True)),
            None,
            None,
        )


def _in_chunks(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    scales: Tensor | None,
    *,
    trained: bool = True,
) -> tuple[Tensor, tuple[Tensor | None, Tensor | None, Tensor | None]]:
    """Losses [rows], and with `scales` [rows] the gradients of Σ scale·loss for hidden, bias and, if it is trained, weight.

    d loss / d logits = softmax(logits) - onehot(target).
    """
    wide = torch.promote_types(hidden.dtype, torch.float32)
    rows = max(_CHUNK_ROWS, _CHUNK_ELEMENTS.get(hidden.device.type, 1 << 24) // weight.shape[0])
    losses = torch.empty(len(targets), dtype=wide, device=hidden.device)
    d_hidden = torch.empty_like(hidden) if scales is not None else None
    d_weight = None
    if scales is not None and trained:
        d_weight = torch.zeros(weight.shape, dtype=wide, device=weight.device)
    d_bias = (
        torch.zeros(len(bias), dtype=wide, device=bias.device)
        if scales is not None and bias is not None
        else None
    )
    for start in range(0, len(targets), rows):
        part = slice(start, start + rows)
        h, target = hidden[part], targets[part]
        kept = target != IGNORE
        index = target.clamp_min(0)[:, None]
        log_probs = F.linear(h, weight, bias).to(wide).log_softmax(-1)  # [rows, vocab]
        losses[part] = -log_probs.gather(-1, index).squeeze(-1) * kept
        if scales is None:
            continue
        assert d_hidden is not None
        scale = (scales[part] * kept)[:, None].to(wide)
        gradient = log_probs.exp_().mul_(scale)
        gradient.scatter_add_(-1, index, -scale)
        small = gradient.to(hidden.dtype)
        torch.mm(small, weight, out=d_hidden[part])
        if d_weight is not None and d_weight.dtype == small.dtype:
            d_weight.addmm_(small.T, h)
        elif d_weight is not None:
            d_weight += small.T @ h  # float32 sum: bf16 sums of many chunks lose small terms
        if d_bias is not None:
            d_bias += gradient.sum(0)
    return losses, (d_hidden, d_weight, d_bias)
