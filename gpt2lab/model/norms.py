"""Normalisations of the residual stream."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2lab.model.config import TransformerConfig
from gpt2lab.model.forward import Seen


class Norm(nn.Module):
    """LayerNorm (Ba et al. 2016, eq. 4), RMSNorm (Zhang & Sennrich 2019, eq. 4) or nothing, over the last axis.

    x [..., d_model] → same. `hook_scale` [..., 1] is sqrt(variance + eps) (RMSNorm: root mean square), and
    `hook_normalized` is what the next map receives, after gain and bias.
    """

    def __init__(self, config: TransformerConfig, name: str, *, absent: bool = False) -> None:
        super().__init__()
        self.kind, self.eps, self.name = "none" if absent else config.norm, config.norm_eps, name
        self.d_model = config.d_model
        if self.kind != "none":
            self.weight = nn.Parameter(torch.ones(config.d_model))
        if self.kind == "layernorm":
            self.bias = nn.Parameter(torch.zeros(config.d_model))

    def forward(self, x: Tensor, run: Seen) -> Tensor:
        """Normalise x [..., d_model]."""
        if run.tap is not None and run.tap.wants(f"{self.name}.hook_scale"):
            return run.see(self._scaled(x, run), f"{self.name}.hook_normalized")
        if self.kind == "layernorm":
            y = F.layer_norm(x, (self.d_model,), self.weight, self.bias, self.eps)
        elif self.kind == "rmsnorm":
            y = F.rms_norm(x, (self.d_model,), self.weight, self.eps)
        else:
            y = x
        return y if run.tap is None else run.see(y, f"{self.name}.hook_normalized")

    def scale(self, x: Tensor) -> Tensor:
        """Return what x [..., d_model] is divided by, [..., 1], float32 or wider; ones where there is no norm."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        if self.kind == "none":
            return torch.ones_like(x[..., :1])
        return (self.centred(x).square().mean(-1, keepdim=True) + self.eps).sqrt()

    def centred(self, x: Tensor) -> Tensor:
        """Return x [..., d_model] without its mean, which a LayerNorm alone takes away."""
        return x - x.mean(-1, keepdim=True) if self.kind == "layernorm" else x

    def _scaled(self, x: Tensor, run: Seen) -> Tensor:
        """The same in open form, so that the scale can be read, replaced and differentiated."""
        if self.kind == "none":
            return x
        scale = run.see(self.scale(x).to(x.dtype), f"{self.name}.hook_scale")
        y = self.centred(x) / scale * self.weight
        return y + self.bias if self.kind == "layernorm" else y
