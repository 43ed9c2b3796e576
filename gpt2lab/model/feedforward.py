"""The position-wise feed-forward part of a block."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2lab.model.config import TransformerConfig
from gpt2lab.model.forward import Pass

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_tanh": partial(F.gelu, approximate="tanh"),  # Hendrycks & Gimpel 2016, the tanh form: "gelu_new"
    "gelu": F.gelu,
    "silu": F.silu,
    "relu": F.relu,
}


class FeedForward(nn.Module):
    """down(activation(up x)), or down(activation(gate x) * up x) when gated (Shazeer 2020, eq. 6).

    x [batch, time, d_model] → same. Gated: rows of `up` are all gates, then all ups.
    """

    def __init__(self, config: TransformerConfig, index: int) -> None:
        super().__init__()
        d_mlp = config.layer(index).d_mlp
        self.gated, self.activation, self.name = config.gated, config.activation, f"blocks.{index}.mlp"
        linear = nn.Linear if d_mlp else _Empty
        self.up = linear(config.d_model, 2 * d_mlp if config.gated else d_mlp, bias=config.mlp_bias)
        self.down = linear(d_mlp, config.d_model, bias=config.mlp_bias)
        self.d_mlp = d_mlp

    def forward(self, x: Tensor, run: Pass) -> Tensor:
        """Transform each position by itself."""
        activation = ACTIVATIONS[self.activation]
        pre = self.up(x)  # [batch, time, d_mlp], twice that when gated
        if self.gated:
            gate, linear = pre.chunk(2, dim=-1)
            seen = run.see(gate, f"{self.name}.hook_pre")
            if seen is not gate:  # laid out as before, so that the kernel gives the same bits
                seen = torch.cat([seen, linear], dim=-1).chunk(2, dim=-1)[0]
            post = activation(seen) * linear
        else:
            post = activation(run.see(pre, f"{self.name}.hook_pre"))
        return self.down(run.see(post, f"{self.name}.hook_post"))

    def stored_together(self) -> dict[str, dict[str, int]]:
        """Name the rows of `up`; see `gpt2lab.model.matrices`."""
        return {"up": {"gate": self.d_mlp, "up": self.d_mlp}} if self.gated else {}


class _Empty(nn.Linear):
    """A linear map to or from no hidden units, of a block without a feed-forward: its weight has no numbers to draw."""

    def reset_parameters(self) -> None:
        """Set the bias, which is all there is, to 0."""
        if self.bias is not None:
            self.bias.detach().zero_()
