"""The second attention of a block: among meta-tokens (dense or gathered), or among all tokens (the control).

    P[i, j] = 0 if i and j are both metas, else -inf;   MetaAttention(Q, K, V) = softmax(Q Kᵀ / √d + M + P) V

M is the causal mask. A query that is no meta has no admissible key, and its output is exactly 0: both back ends let such
rows see everything and multiply them by 0, so that no softmax is over nothing and gradients stay clean.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2lab.model import Pass, TransformerConfig
from gpt2lab.model.attention import Attention
from gpt2lab.model.rotary import rotate
from gpt2lab.papers.meta_tokens.held import held_metas
from gpt2lab.papers.meta_tokens.places import NOTE, Gathered, Places

Normed = Callable[[Tensor, Pass], Tensor]
"""The norm in front, or nothing: x [..., d_model] → same."""


class SecondAttention(Attention):
    """A second causal attention with heads like the block's first, without biases and windows; over all tokens.

    x [batch, time, d_model] → same. As many weights as meta-attention has: the control arm.
    """

    def __init__(self, config: TransformerConfig, index: int) -> None:
        super().__init__(config.replace(qkv_bias=False, attention_out_bias=False, windows=None), index)
        self.name = f"blocks.{index}.meta"
        self._open_form = frozenset(f"{self.name}.hook_{kind}" for kind in ("attn_scores", "pattern"))

    def added(self, x: Tensor, norm: Normed, run: Pass) -> Tensor:
        """Return what is added to the residual stream x [batch, time, d_model]."""
        added: Tensor = self(norm(x, run), run)
        return added

    def _cached(self, k: Tensor, v: Tensor, run: Pass) -> tuple[Tensor, Tensor]:
        return (k, v) if run.cache is None else run.cache.write(("second", self.index), run.slots, k, v)


class DenseMetaAttention(SecondAttention):
    """Meta-attention over all positions, by a mask: the textbook form, which costs what a full attention costs."""

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, run: Pass) -> Tensor:
        places: Places = run.notes[NOTE]
        marks = places.marks[:, None, :, None]  # [batch, 1, time, 1]
        keys = marks
        if run.cache is not None:
            keys = run.cache.store(("second marks", self.index), run.slots, marks)
        mask = run.mask(None)  # M, and padding
        if mask is None:
            slots = torch.arange(run.slots.stop, device=q.device)
            mask = slots <= slots[run.slots][:, None]
        allowed = mask & keys.transpose(-1, -2)  # eq. M + P, [batch, 1, time, keys]
        mixed = _mixed(self, q, k, v, allowed | ~marks, run)
        return mixed * marks  # a query that is no meta: exactly 0

    def _attend_in_open(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, run: Pass) -> Tensor:
        assert mask is not None
        marks = run.notes[NOTE].marks[:, None, :, None]
        scores = ((q @ self._shared(k).transpose(-1, -2)) * self.scale).masked_fill(
            ~(mask & marks), -torch.inf
        )
        return _in_open(self, scores, v, ~marks, run)


class GatheredMetaAttention(SecondAttention):
    """The same over the metas alone, moved together: norm, projections and scores are computed for no other position."""

    def added(self, x: Tensor, norm: Normed, run: Pass) -> Tensor:
        """Return what is added to the residual stream, [batch, time, d_model]: 0 at positions that are no metas."""
        places: Places = run.notes[NOTE]
        metas = places.gathered(run)
        if not metas.index.shape[1]:
            return torch.zeros_like(x)
        if run.tap is None:
            return metas.scatter(self._of_metas(norm(metas.gather(x), run), metas, run), x.shape[1])
        return self._of_metas(metas.gather(norm(x, run)), metas, run, time=x.shape[1])

    def _of_metas(self, x: Tensor, metas: Gathered, run: Pass, time: int | None = None) -> Tensor:
        """x [batch, metas, d_model] → same; with `time`, which a tap needs, [batch, time, d_model]."""
        heads = self._projected(x).unflatten(
            -1, (-1, self.d_head)
        )  # [batch, metas, heads + 2 kv_heads, d_head]
        q, k, v = heads.split([self.n_heads, self.n_kv_heads, self.n_kv_heads], dim=2)
        q, k, v = (self._seen(part, kind, metas, run, time) for part, kind in ((q, "q"), (k, "k"), (v, "v")))
        if run.rotary is not None:
            # The tables are [batch or 1, 1, time, width]; alternatives for one place have one position, time 1.
            shape = (len(x), run.notes[NOTE].marks.shape[1], -1)
            turns = [metas.gather(table[:, 0].expand(shape))[:, None] for table in run.rotary]
            q, k = (rotate(part.transpose(1, 2), turns[0], turns[1]).transpose(1, 2) for part in (q, k))
            q, k = (self._seen(part, kind, metas, run, time) for part, kind in ((q, "rot_q"), (k, "rot_k")))
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # [batch, heads, metas, d_head]
        slots = metas.slots
        if run.cache is not None:
            k, v, slots = held_metas(run.cache, self.index).append(run.slots.start, k, v, slots)
        allowed = metas.allowed(run, slots)
        if run.tap is not None and any(run.tap.wants(name) for name in self._open_form):
            z = self._shown(q, k, v, allowed, slots, metas, run)
        else:
            z = _mixed(self, q, k, v, allowed, run)
        z = z.transpose(1, 2)  # [batch, metas, heads, d_head]
        if time is None:
            return self.out(z.flatten(2))
        z = run.see(metas.scatter(z, time), f"{self.name}.hook_z")
        if run.tap is not None and run.tap.wants(f"{self.name}.hook_result"):
            return self._per_head(z, run)
        return self.out(z.flatten(2))

    def _seen(self, x: Tensor, kind: str, metas: Gathered, run: Pass, time: int | None) -> Tensor:
        """Show a tensor [batch, metas, heads, d_head] to the open tap, 0 at positions that are no metas."""
        name = f"{self.name}.hook_{kind}"
        if run.tap is None or time is None or not run.tap.wants(name):
            return x
        return metas.gather(run.see(metas.scatter(x, time), name))

    def _shown(
        self, q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, slots: Tensor, metas: Gathered, run: Pass
    ) -> Tensor:
        """Attention with scores and pattern laid out over all queries and slots, as the dense form has them."""
        batch, time = len(q), run.notes[NOTE].marks.shape[1]
        shape, there = (batch, self.n_heads, q.shape[2], run.slots.stop), (slots >= 0)[:, None, None, :]
        columns = slots.clamp_min(0)[:, None, None, :].expand(-1, self.n_heads, q.shape[2], -1)
        scores = ((q @ self._shared(k).transpose(-1, -2)) * self.scale).masked_fill(
            ~(allowed & there), -torch.inf
        )
        # amax: several absent keys share slot 0 with a key that may be there.
        wide = scores.new_full(shape, -torch.inf).scatter_reduce(3, columns, scores, "amax")
        full = metas.scatter(wide.transpose(1, 2), time, -torch.inf).transpose(
            1, 2
        )  # [batch, heads, time, slots]
        values = v.new_zeros(*v.shape[:2], run.slots.stop, v.shape[3])
        index = slots.clamp_min(0)[:, None, :, None].expand(-1, v.shape[1], -1, v.shape[3])
        values = values.scatter_add(2, index, torch.where((slots >= 0)[:, None, :, None], v, 0.0))
        nobody = ~run.notes[NOTE].marks[:, None, :, None]
        z = _in_open(self, full, values, nobody, run)
        return metas.gather(z.transpose(1, 2)).transpose(1, 2)


def _mixed(attention: Attention, q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, run: Pass) -> Tensor:
    """softmax(q kᵀ / √d, where allowed) v by the block's own attention."""
    masked = dataclasses.replace(run, mask=lambda window: allowed, causal=False)
    return Attention._attend(attention, q, k, v, masked)  # eq. MetaAttention


def _in_open(attention: Attention, scores: Tensor, v: Tensor, nobody: Tensor, run: Pass) -> Tensor:
    """The same from scores [batch, heads, time, keys] that a tap may read and replace; rows of `nobody` mix nothing."""
    scores = run.see(scores, f"{attention.name}.hook_attn_scores")
    safe = scores.masked_fill(nobody, 0.0)
    pattern = safe.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(v.dtype)
    pattern = run.see(pattern.masked_fill(nobody, 0.0), f"{attention.name}.hook_pattern")
    return F.dropout(pattern, attention.dropout, attention.training) @ attention._shared(v)
