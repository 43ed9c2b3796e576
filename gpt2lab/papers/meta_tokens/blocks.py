"""A block with a second attention between the first and the feed-forward."""

import torch
from torch import Tensor, nn

from gpt2lab.model import Block, Pass
from gpt2lab.model.norms import Norm
from gpt2lab.papers.meta_tokens.attention import SecondAttention


class MetaBlock(Block):
    """x + attention(norm x), then x + second(norm x), then x + feed-forward(norm x); x [batch, time, d_model].

    It takes over the modules of a plain block under their names. With a parallel residual the feed-forward reads the
    block's input, as before.
    """

    def __init__(self, block: Block, second: SecondAttention, norm: Norm | None) -> None:
        nn.Module.__init__(self)
        self.name, self.dropout = block.name, block.dropout
        self.parallel, self.post_norm = block.parallel, block.post_norm
        self.norm1, self.attention = block.norm1, block.attention
        if norm is not None:
            self.meta_norm = norm
        self.meta = second
        self.norm2, self.mlp = block.norm2, block.mlp

    def forward(self, x: Tensor, run: Pass) -> Tensor:
        """Add what this block has to say to the residual stream."""
        x = run.see(x, f"{self.name}.hook_resid_pre")
        added = run.see(self.attention(self.norm1(x, run), run), f"{self.name}.hook_attn_out")
        middle = x + self._dropped(added)
        if not self.parallel:
            middle = run.see(middle, f"{self.name}.hook_resid_mid")
        second = run.see(self.meta.added(middle, self.meta_norm, run), f"{self.name}.hook_meta_out")
        middle = run.see(middle + self._dropped(second), f"{self.name}.hook_resid_meta")  # eq. block
        added = self.mlp(self.norm2(x if self.parallel else middle, run), run)
        x = middle + self._dropped(run.see(added, f"{self.name}.hook_mlp_out"))
        return run.see(x, f"{self.name}.hook_resid_post")


class LiteralBlock(MetaBlock):
    """The order and the norm of the paper's appendix A: a norm after each attention, none at the feed-forward.

    x = LN(x + attention(x)), then LN(x + second(x)), then x + W₂ ReLU(W₁ x), where LN divides by σ + ε and not by
    √(σ² + ε). That the feed-forward is added to the stream is ours: the appendix does not write it.
    """

    def __init__(self, block: Block, second: SecondAttention) -> None:
        super().__init__(block, second, None)
        self.mlp.activation = "relu"

    def forward(self, x: Tensor, run: Pass) -> Tensor:
        """Add what this block has to say to the residual stream."""
        x = run.see(x, f"{self.name}.hook_resid_pre")
        added = run.see(self.attention(x, run), f"{self.name}.hook_attn_out")
        middle = run.see(x + self._dropped(added), f"{self.name}.hook_resid_mid")
        x = _literal(self.norm1, middle, run)
        second = run.see(self.meta.added(x, _as_it_is, run), f"{self.name}.hook_meta_out")
        middle = run.see(x + self._dropped(second), f"{self.name}.hook_resid_meta")
        x = _literal(self.norm2, middle, run)
        x = x + self._dropped(run.see(self.mlp(x, run), f"{self.name}.hook_mlp_out"))
        return run.see(x, f"{self.name}.hook_resid_post")


def _as_it_is(x: Tensor, run: Pass) -> Tensor:
    return x


def _literal(norm: Norm, x: Tensor, run: Pass) -> Tensor:
    """(x - μ) / (σ + ε), with the model's gain and bias."""
    centred = norm.centred(x)
    variance = centred.square().mean(-1, keepdim=True)
    # The smallest number keeps the gradient of the root finite where all entries are equal.
    scale = (variance + torch.finfo(x.dtype).tiny).sqrt() + norm.eps  # app. A: LayerNorm
    scale = run.see(scale, f"{norm.name}.hook_scale")
    return run.see(centred / scale * norm.weight + norm.bias, f"{norm.name}.hook_normalized")
