"""Two estimates of the diagonal of the Hessian of a loss (Liu et al. 2023, section 2.3, algorithms 1 and 2).

Both are unbiased: Hutchinson's for the Hessian itself, the Gauss-Newton-Bartlett estimate for its Gauss-Newton part,
which for cross entropy is the Fisher information and never negative.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.training.grouped import whole, wide
from gpt2lab.training.sampled_labels import sampled_label_loss

__all__ = ["gauss_newton_bartlett", "hutchinson", "sampled_label_loss"]

Noise = Literal["normal", "rademacher"]


def gauss_newton_bartlett(
    loss: Tensor, parameters: Sequence[Tensor], *, terms: int, clip: float | None = None
) -> list[Tensor]:
    """Return B ĝ ∘ ĝ for every parameter (algorithm 2, line 5): an estimate of the Gauss-Newton diagonal.

    loss: a mean over `terms` labels that were drawn from the model (B). clip: largest norm of the whole ĝ before it is
    squared, as in the authors' code. Zeros for a parameter that is frozen or that the loss does not depend on. LabError
    unless terms >= 1.
    """
    if terms < 1:
        raise LabError(f"gauss_newton_bartlett: terms counts the labels of the mean, at least 1, got {terms}")
    _require_graph("gauss_newton_bartlett", loss)
    found = _gradients(loss, parameters)
    return squared(filled(found, parameters), terms=terms, clip=clip)


def squared(gradients: Sequence[Tensor], *, terms: int, clip: float | None = None) -> list[Tensor]:
    """Return terms · ĝ ∘ ĝ, the whole ĝ first brought to a norm of at most `clip`."""
    factor = _clip_factor(gradients, clip)
    return [(factor * gradient).square_().mul_(terms) for gradient in gradients]  # algorithm 2, line 5


def hutchinson(
    loss: Tensor,
    parameters: Sequence[Tensor],
    *,
    generator: torch.Generator | None = None,
    noise: Noise = "normal",
) -> list[Tensor]:
    """Return u ∘ (H u) for every parameter (algorithm 1), with one draw of u: its mean is the Hessian's diagonal.

    noise: u standard normal as in the paper, or of ±1, which has less variance. The loss must be twice differentiable:
    compute it under `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`, the fused attention kernels are not. Its graph is
    used up. Zeros for a frozen parameter. LabError if it cannot be differentiated twice.
    """
    if noise not in ("normal", "rademacher"):
        raise unknown("noise", str(noise), ("normal", "rademacher"))
    directions = [drawn_direction(parameter, noise, generator) for parameter in parameters]
    products = hessian_product(loss, parameters, directions)
    # algorithm 1
    return [direction * product for direction, product in zip(directions, products, strict=True)]


def hessian_product(loss: Tensor, parameters: Sequence[Tensor], directions: Sequence[Tensor]) -> list[Tensor]:
    """Return H u for the directions u, one tensor a parameter; errors as for `hutchinson`."""
    _require_graph("hutchinson", loss)
    try:
        gradients = _gradients(loss, parameters, create_graph=True)
        along = [
            (gradient * direction).sum()
            for gradient, direction in zip(gradients, directions, strict=True)
            if gradient is not None and gradient.requires_grad
        ]
        products = _gradients(torch.stack(along).sum(), parameters) if along else []
    except (RuntimeError, LabError) as error:
        raise LabError(
            f"hutchinson: the loss cannot be differentiated twice ({str(error).splitlines()[0]}); compute it under "
            "torch.nn.attention.sdpa_kernel(SDPBackend.MATH), with logits and cross_entropy in plain form"
        ) from error
    if not along:
        raise LabError(
            "hutchinson: the gradient does not depend on the parameters; the loss has no curvature"
        )
    return filled(products, parameters)


def filled(gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> list[Tensor]:
    """Return gradients in float32 or wider, zeros where the loss does not depend on a parameter."""
    return [
        torch.zeros_like(parameter, dtype=wide(parameter))
        if gradient is None
        else gradient.to(wide(parameter))
        for parameter, gradient in zip(parameters, gradients, strict=True)
    ]


def drawn_direction(parameter: Tensor, noise: Noise, generator: torch.Generator | None) -> Tensor:
    """Draw u of a parameter's shape."""
    drawn = torch.empty_like(parameter).normal_(generator=generator)
    return drawn if noise == "normal" else torch.where(drawn < 0, -1.0, 1.0).to(drawn.dtype)


def _clip_factor(tensors: Sequence[Tensor], limit: float | None) -> Tensor | float:
    """Factor that brings the norm of all tensors together to at most `limit`; as torch's clip_grad_norm_."""
    if not limit:
        return 1.0
    norm = torch.linalg.vector_norm(
        torch.stack([whole(torch.linalg.vector_norm(tensor)) for tensor in tensors])
    )
    return (limit / (norm + 1e-6)).clamp(max=1.0)


def _require_graph(what: str, loss: Tensor) -> None:
    if not loss.requires_grad:
        raise LabError(
            f"{what}: the loss has no graph; compute it with gradients enabled, from parameters that are trained"
        )


def _gradients(
    loss: Tensor, parameters: Sequence[Tensor], *, create_graph: bool = False
) -> list[Tensor | None]:
    """Gradients of a scalar; None for parameters that are frozen or that it does not depend on."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    found = torch.autograd.grad(loss, trained, create_graph=create_graph, allow_unused=True)
    by_id = dict(zip(map(id, trained), found, strict=True))
    return [by_id.get(id(parameter)) for parameter in parameters]
