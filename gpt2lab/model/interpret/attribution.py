"""What each part of the residual contributes to a logit: by projection, and by leaving it out."""

from typing import TYPE_CHECKING

from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model.interpret.lens import normalise, processed_unembed

if TYPE_CHECKING:
    from gpt2lab.model.transformer import Transformer


def dla(
    model: "Transformer",
    parts: Tensor,
    targets: Tensor,
    *,
    scale: Tensor,
    against: Tensor | None = None,
    centre: bool = True,
) -> Tensor:
    """Return the direct logit attribution of parts of a residual, <part / scale, W_U[target]>; [parts, ...].

    parts [parts, ..., d_model]; targets [...] int64, and `against` alike for a difference of two logits; scale [..., 1]
    is that of the whole residual (`Decomposition.scale`), so that attributions add up: their sum and the
    unembedding's bias make the logit, with `centre` less its mean over the vocabulary. Baroni et al. 2025, section on
    direct logit attribution.
    """
    direction = target_direction(model, targets, against, centre=centre)
    return (parts.to(direction.dtype) / scale * direction).sum(-1)


def direct_effect(
    model: "Transformer",
    parts: Tensor,
    total: Tensor,
    targets: Tensor,
    *,
    against: Tensor | None = None,
    centre: bool = True,
) -> Tensor:
    """Return by how much the logit falls when a part is left out and the norm is taken anew; [parts, ...].

    logit(r) - logit(r - part) for parts [parts, ..., d_model] of the residual r = total [..., d_model]; targets and
    `against` as for `dla`, with which it coincides in a model without norms. Baroni et al. 2025.
    """
    direction = target_direction(model, targets, against, centre=centre)
    total, parts = total.to(direction.dtype), parts.to(direction.dtype)
    whole = (normalise(model, total) * direction).sum(-1)
    return whole - (normalise(model, total - parts) * direction).sum(-1)


def nmae(direct: Tensor, effect: Tensor, dim: int | tuple[int, ...] | None = None) -> Tensor:
    """Return 100 · mean |direct - effect| / (mean |effect| + 1e-10) over `dim`, in percent (Baroni et al. 2025)."""
    if direct.shape != effect.shape:
        raise LabError(f"nmae: attributions are {list(direct.shape)}, effects {list(effect.shape)}")
    axes = tuple(range(direct.dim())) if dim is None else dim
    return 100 * (direct - effect).abs().mean(axes) / (effect.abs().mean(axes) + 1e-10)


def target_direction(
    model: "Transformer", targets: Tensor, against: Tensor | None = None, *, centre: bool = True
) -> Tensor:
    """Return the direction of the normalised residual that raises a logit (over another); [...] → [..., d_model].

    LabError for ids outside the vocabulary.
    """
    for ids in (targets, *([] if against is None else [against])):
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < model.config.vocab_size:
            raise LabError(
                f"targets run from {int(ids.min())} to {int(ids.max())}, the vocabulary has {model.config.vocab_size}"
            )
    weight = processed_unembed(model, centre=centre).weight
    chosen = weight[targets]
    return chosen if against is None else chosen - weight[against]


def logit_bias(model: "Transformer", targets: Tensor, against: Tensor | None = None) -> Tensor:
    """Return what the unembedding's bias adds to a logit (or to the difference of two); [...] like targets."""
    bias = processed_unembed(model).bias
    return bias[targets] if against is None else bias[targets] - bias[against]
