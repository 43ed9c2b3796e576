"""Multi-head attention with grouped key/value heads, windows, rotary positions and a cache."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2lab.model.config import TransformerConfig
from gpt2lab.model.forward import Pass
from gpt2lab.model.rotary import rotate


class Attention(nn.Module):
    """softmax(scale · q kᵀ + mask) v (Vaswani et al. 2017, eq. 1), heads concatenated and projected.

    x [batch, time, d_model] → same. Queries, keys and values come from one matrix: rows of `qkv` are all queries,
    then all keys, then all values.
    """

    def __init__(self, config: TransformerConfig, index: int) -> None:
        super().__init__()
        layer = config.layer(index)
        self.n_heads, self.n_kv_heads, self.d_head = layer.n_heads, layer.n_kv_heads, layer.d_head
        self.window, self.index, self.name = layer.window, index, f"blocks.{index}.attn"
        self.scale = layer.attention_scale
        self.dropout = config.attention_dropout
        rows = (self.n_heads + 2 * self.n_kv_heads) * self.d_head
        self.qkv = nn.Linear(config.d_model, rows, bias=config.qkv_bias)
        self.out = nn.Linear(self.n_heads * self.d_head, config.d_model, bias=config.attention_out_bias)
        self._open_form = frozenset(f"{self.name}.hook_{kind}" for kind in ("attn_scores", "pattern"))

    def forward(self, x: Tensor, run: Pass) -> Tensor:
        """Mix values over the positions each query may see; x [batch, time, d_model] → same."""
        # [batch, time, heads + 2 kv_heads, d_head]
        heads = self._projected(x).unflatten(-1, (-1, self.d_head))
        q, k, v = heads.split([self.n_heads, self.n_kv_heads, self.n_kv_heads], dim=2)
        if run.tap is not None:
            q, k, v = (
                run.see(part, f"{self.name}.hook_{kind}") for part, kind in ((q, "q"), (k, "k"), (v, "v"))
            )
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # [batch, heads, time, d_head]
        if run.rotary is not None:
            q, k = rotate(q, *run.rotary), rotate(k, *run.rotary)
            if run.tap is not None:
                q = run.see(q.transpose(1, 2), f"{self.name}.hook_rot_q").transpose(1, 2)
                k = run.see(k.transpose(1, 2), f"{self.name}.hook_rot_k").transpose(1, 2)
        k, v = self._cached(k, v, run)
        z = self._attend(q, k, v, run).transpose(1, 2)  # [batch, time, heads, d_head]
        if run.tap is not None:
            z = run.see(z, f"{self.name}.hook_z")
            if run.tap.wants(f"{self.name}.hook_result"):
                return self._per_head(z, run)
        return self.out(z.flatten(2))

    def stored_together(self) -> dict[str, dict[str, int]]:
        """Name the rows of `qkv`; see `gpt2lab.model.matrices`."""
        q, kv = self.n_heads * self.d_head, self.n_kv_heads * self.d_head
        return {"qkv": {"q": q, "k": kv, "v": kv}}

    def _projected(self, x: Tensor) -> Tensor:
        """Queries, keys and values of all heads side by side."""
        return self.qkv(x)

    def _cached(self, k: Tensor, v: Tensor, run: Pass) -> tuple[Tensor, Tensor]:
        """Add keys and values to the cache, if there is one, and return all of it."""
        return (k, v) if run.cache is None else run.cache.write(self.index, run.slots, k, v)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, run: Pass) -> Tensor:
        """q [batch, heads, time, d_head], k and v [batch, kv_heads, keys, d_head] → like q."""
        mask = run.mask(self.window)
        if run.tap is not None and any(run.tap.wants(name) for name in self._open_form):
            return self._attend_in_open(q, k, v, mask, run)
        if self.n_kv_heads != self.n_heads:
            k, v = self._shared(k), self._shared(v)
        dropout = self.dropout if self.training else 0.0
        causal = mask is None and run.causal and q.shape[2] > 1
        kind = q.dtype
        if q.device.type == "cpu" and kind == torch.bfloat16 and q.shape[2] > 1:
            # The CPU's bf16 kernel is a third slower than its float32 one (benchmarks/training.py), and less exact.
            q, k, v = q.float(), k.float(), v.float()
        z = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal, scale=self.scale
        )
        return z.to(kind)

    def _attend_in_open(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, run: Pass) -> Tensor:
        """The same with scores and pattern as tensors; softmax in float32."""
        k, v = self._shared(k), self._shared(v)
        scores = (q @ k.transpose(-1, -2)) * self.scale  # [batch, heads, time, keys]
        if mask is None and run.causal:
            time, keys = scores.shape[-2:]
            mask = torch.ones(time, keys, dtype=torch.bool, device=q.device).tril(keys - time)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        scores = run.see(scores, f"{self.name}.hook_attn_scores")
        pattern = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(v.dtype)
        pattern = run.see(pattern, f"{self.name}.hook_pattern")
        return F.dropout(pattern, self.dropout, self.training) @ v

    def _shared(self, x: Tensor) -> Tensor:
        """Repeat each key/value head for the queries that share it."""
        groups = self.n_heads // max(self.n_kv_heads, 1)  # a layer may have lost all its heads
        return x if groups == 1 else x.repeat_interleave(groups, dim=1)

    def _per_head(self, z: Tensor, run: Pass) -> Tensor:
        """What each head adds to the residual stream, summed; z [batch, time, heads, d_head]."""
        shape = (self.n_heads, self.d_head)
        weight = self.out.weight.to(z.dtype).unflatten(1, shape)  # [d_model, heads, d_head]
        result = run.see(torch.einsum("bthk,dhk->bthd", z, weight), f"{self.name}.hook_result")
        total = result.sum(dim=2)
        return total if self.out.bias is None else total + self.out.bias
