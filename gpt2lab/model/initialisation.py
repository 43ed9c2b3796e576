"""The weights that training begins with."""

import torch
from torch import nn

from gpt2lab.model.config import TransformerConfig


@torch.no_grad()
def draw_parameters(
    model: nn.Module, config: TransformerConfig, generator: torch.Generator | None = None
) -> None:
    """Draw all weights of a model anew, in the order of `named_parameters`; generator None is seed 0.

    N(0, init_std) for matrices and embeddings, zero biases, unit gains; with pre-norm, N(0, init_std / sqrt(2 n_layers)) for
    the two projections into the residual stream (Radford et al. 2019, section 2.3).
    """
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    residual_std = config.init_std
    if config.norm_placement == "pre":
        residual_std /= (2 * max(config.n_layers, 1)) ** 0.5
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:
            residual = name.endswith(("attention.out.weight", "mlp.down.weight"))
            std = residual_std if residual else config.init_std
            # Drawn on the CPU in float32, so that weights depend on neither device nor dtype.
            drawn = torch.empty(parameter.shape).normal_(0.0, std, generator=generator)
            parameter.copy_(drawn)
        else:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)  # gains of norms; biases
