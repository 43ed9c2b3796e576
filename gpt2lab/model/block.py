"""One block of the transformer: attention and a feed-forward, each added to the residual stream."""

from torch import Tensor, nn
from torch.nn import functional as F

from gpt2lab.model.attention import Attention
from gpt2lab.model.config import TransformerConfig
from gpt2lab.model.experts import MixtureOfExperts
from gpt2lab.model.feedforward import FeedForward
from gpt2lab.model.forward import Pass
from gpt2lab.model.norms import Norm


class Block(nn.Module):
    """x + attention(norm x), then x + feed-forward(norm x); x [batch, time, d_model].

    With a parallel residual both read the same x: x + attention(norm x) + feed-forward(norm' x) (Wang & Komatsuzaki 2021).
    With post-norm the norms come after the sums: x = norm(x + attention(x)), then norm(x + feed-forward(x)) (Vaswani et
    al. 2017, section 3.1).
    """

    def __init__(self, config: TransformerConfig, index: int) -> None:
        super().__init__()
        self.name, self.dropout = f"blocks.{index}", config.residual_dropout
        self.parallel, self.post_norm = config.parallel_residual, config.norm_placement == "post"
        self.norm1 = Norm(config, f"{self.name}.ln1")
        self.attention = Attention(config, index)
        self.norm2 = Norm(config, f"{self.name}.ln2")
        self.mlp = (MixtureOfExperts if config.layer(index).n_experts else FeedForward)(config, index)

    def forward(self, x: Tensor, run: Pass) -> Tensor:
        """Add what this block has to say to the residual stream."""
        if self.post_norm:
            return self._norm_last(x, run)
        if run.tap is None:
            middle = x + self._dropped(self.attention(self.norm1(x, run), run))
            return middle + self._dropped(self.mlp(self.norm2(x if self.parallel else middle, run), run))
        x = run.see(x, f"{self.name}.hook_resid_pre")
        middle = x + self._dropped(
            run.see(self.attention(self.norm1(x, run), run), f"{self.name}.hook_attn_out")
        )
        if not self.parallel:  # there, nothing reads the sum of the input and the attention alone
            x = middle = run.see(middle, f"{self.name}.hook_resid_mid")
        x = middle + self._dropped(run.see(self.mlp(self.norm2(x, run), run), f"{self.name}.hook_mlp_out"))
        return run.see(x, f"{self.name}.hook_resid_post")

    def _norm_last(self, x: Tensor, run: Pass) -> Tensor:
        x = run.see(x, f"{self.name}.hook_resid_pre")
        added = run.see(self.attention(x, run), f"{self.name}.hook_attn_out")
        x = self.norm1(run.see(x + self._dropped(added), f"{self.name}.hook_resid_mid"), run)
        added = run.see(self.mlp(x, run), f"{self.name}.hook_mlp_out")
        return self.norm2(run.see(x + self._dropped(added), f"{self.name}.hook_resid_post"), run)

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.training and self.dropout else x
