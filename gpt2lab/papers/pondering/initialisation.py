"""The weights that the published runs begin with."""

import torch
from torch import nn

from gpt2lab.base.errors import LabError
from gpt2lab.model import Backbone


@torch.no_grad()
def draw_small(model: Backbone, generator: torch.Generator | None = None, *, passes: int = 1) -> None:
    """Draw all weights anew: normal, cut at 3 sigma, std sqrt(2 / (5 d_model)); biases 0, gains 1 (published code).

    The two projections into the residual stream get that std divided by sqrt(2 n_layers · passes): passes is 1 in the
    published GPT-2 and LLaMA files, and steps + 1 in the GPT-NeoX file, the one that the Pythia runs used.
    LabError for a model that has been trained.
    """
    if bool((model.final_norm.weight != 1).any()):
        raise LabError(
            "pondering: this model has been trained, and drawing its weights anew would throw that away; leave draw=keep"
        )
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    std = (2 / (5 * model.config.d_model)) ** 0.5
    residual = std / (2 * max(model.config.n_layers, 1) * passes) ** 0.5
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            continue
        own = residual if name.endswith(("attention.out.weight", "mlp.down.weight")) else std
        drawn = torch.empty(parameter.shape)  # on the CPU in float32: the same weights on every device
        nn.init.trunc_normal_(drawn, 0.0, own, -3 * own, 3 * own, generator=generator)
        parameter.copy_(drawn)
