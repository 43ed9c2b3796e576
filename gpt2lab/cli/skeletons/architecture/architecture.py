"""The method: LayerScale (Touvron et al. 2021, equation 4)."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from gpt2lab.base.errors import LabError
from gpt2lab.model import Backbone


class Scaled(nn.Module):
    """diag(λ) · linear(x): a linear layer whose outputs have learned scales."""

    def __init__(self, linear: nn.Linear, start: float) -> None:
        super().__init__()
        self.linear = linear
        size, like = linear.out_features, linear.weight
        self.scale = nn.Parameter(torch.full((size,), start, device=like.device, dtype=like.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] → [..., out]."""
        return cast(Tensor, self.linear(x)) * self.scale


@dataclass(frozen=True, kw_only=True)
class ExampleArchitecture:
    """Scale what attention and feed-forward add to the residual stream, channel by channel."""

    start: float = 0.1
    """Where every scale begins."""

    def attach(self, model: Backbone, *, generator: torch.Generator | None = None) -> None:
        """Change the model in place; nothing is drawn. LabError if a block does not end in linear layers."""
        parts = dict(model.blocks.named_modules())
        ends = [f"{i}.{part}" for i in range(len(model.blocks)) for part in ("attention.out", "mlp.down")]
        for name in ends:
            if not isinstance(parts.get(name), nn.Linear):
                raise LabError(
                    f"this architecture scales linear layers, and blocks.{name} of this model is none"
                )
        for name in ends:
            model.blocks.set_submodule(name, Scaled(cast(nn.Linear, parts[name]), self.start))
