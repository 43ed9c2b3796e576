"""Mixture of experts: a router sends each token to a few of many feed-forwards (Shazeer et al. 2017)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2lab.model.config import TransformerConfig
from gpt2lab.model.feedforward import ACTIVATIONS
from gpt2lab.model.forward import Pass
from gpt2lab.model.layer_kinds import count_weights


class MixtureOfExperts(nn.Module):
    """Σ over the k likeliest experts e of p_e · feed-forward_e(x), p = softmax(router x) (Fedus et al. 2021, eq. 1, 2).

    x [batch, time, d_model] → same. With `normalise_expert_weights` the k weights are divided by their sum (Jiang et
    al. 2024, section 2.1). A token whose expert is full is dropped, but only
    in training and only with an `expert_capacity`. The router works in float32 or wider
    (Fedus et al. 2021, section 2.4). Gated: rows of `up` are, expert by expert, all gates, then all ups.
    """

    def __init__(self, config: TransformerConfig, index: int) -> None:
        super().__init__()
        layer = config.layer(index)
        self.n_experts, self.k = layer.n_experts, config.experts_per_token
        self.normalise, self.capacity = config.normalise_expert_weights, config.expert_capacity
        self.gated, self.activation, self.name = config.gated, config.activation, f"blocks.{index}.mlp"
        self.router = nn.Linear(config.d_model, self.n_experts, bias=False)
        inner = 2 * layer.d_mlp if config.gated else layer.d_mlp
        self.up = ExpertLinear(self.n_experts, config.d_model, inner, bias=config.mlp_bias)
        self.down = ExpertLinear(self.n_experts, layer.d_mlp, config.d_model, bias=config.mlp_bias)
        self.d_mlp = layer.d_mlp

    def forward(self, x: Tensor, run: Pass) -> Tensor:
        """Transform each position by its experts: tokens sorted by expert, one matrix product for each expert."""
        weights, chosen = self._route(x, run)
        if self.training and self.capacity is not None:
            weights = weights * self._within(chosen, self.capacity)
        if torch.compiler.is_exporting():
            return self._by_all(x, weights, chosen)
        order = chosen.flatten().argsort(stable=True)  # [slots], a slot being one (token, expert) pair
        places = order.argsort()  # where each slot stands in that order
        counts: list[int] = torch.bincount(chosen.flatten(), minlength=self.n_experts).tolist()
        tokens = x.flatten(0, 1)
        rows: Tensor = _Rows.apply(tokens, order // self.k, places.view(-1, self.k))
        pre = self.up(rows, counts)  # [slots, d_mlp], twice that when gated
        gate, linear = pre.chunk(2, dim=-1) if self.gated else (pre, None)
        post = ACTIVATIONS[self.activation](self._see(gate, "hook_pre", run, chosen, order, places))
        post = post * linear if linear is not None else post
        out = self.down(self._see(post, "hook_post", run, chosen, order, places), counts)
        each: Tensor = _Rows.apply(out, places, order[:, None])
        mixed = (each.view(*chosen.shape, out.shape[-1]) * weights[..., None]).sum(-2)
        return mixed.to(out.dtype)

    def idle_parameters(self) -> int:
        """Count the weights that a token does not meet."""
        weights = count_weights(self.up) + count_weights(self.down)
        return weights * (self.n_experts - self.k) // self.n_experts

    def stored_together(self) -> dict[str, dict[str, int]]:
        """Name the rows of `up` in each expert; see `gpt2lab.model.matrices`."""
        return {"up": {"gate": self.d_mlp, "up": self.d_mlp}} if self.gated else {}

    def _route(self, x: Tensor, run: Pass) -> tuple[Tensor, Tensor]:
        """Weights and numbers of the experts of each token, both [batch, time, k], the likeliest first."""
        wide = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(x.to(wide), self.router.weight.to(wide))
        probabilities = run.see(logits, f"{self.name}.hook_router_logits").softmax(-1)
        chosen = run.see(probabilities.topk(self.k, dim=-1).indices, f"{self.name}.hook_expert_indices")
        weights = probabilities.gather(-1, chosen)
        if self.normalise:
            weights = weights / weights.sum(-1, keepdim=True)
        return run.see(weights, f"{self.name}.hook_expert_weights"), chosen

    def _within(self, chosen: Tensor, factor: float) -> Tensor:
        """Tell which choices find room, [batch, time, k]: 1 of those that do, 0 of those that are dropped.

        An expert takes k · ⌊factor · ⌈tokens / experts⌉⌋: first the tokens whose first choice it is, in their order, then
        those whose second it is (Hwang et al. 2023; a capacity as in Fedus et al. 2021, eq. 3). A dropped token keeps its
        residual stream.
        """
        slots = chosen.flatten(0, 1).T.flatten()  # [k · tokens], all first choices before all second ones
        tokens = len(slots) // self.k
        most = self.k * math.floor(factor * math.ceil(tokens / self.n_experts))
        queue = (
            F.one_hot(slots, self.n_experts).cumsum(0).gather(1, slots[:, None])
        )  # [k · tokens, 1], from 1
        kept = (queue <= most).view(self.k, tokens).T
        return kept.reshape(chosen.shape).float()

    def _by_all(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """The same by all experts for all tokens: in a graph made by torch.export no size depends on a value."""
        gates = torch.zeros_like(weights[..., :1]).repeat(1, 1, self.n_experts).scatter(-1, chosen, weights)
        pre = self.up.by_all(x[:, :, None].expand(-1, -1, self.n_experts, -1))
        gate, linear = pre.chunk(2, dim=-1) if self.gated else (pre, None)
        post = ACTIVATIONS[self.activation](gate)
        out = self.down.by_all(post * linear if linear is not None else post)
        return (out * gates[..., None]).sum(-2).to(out.dtype)

    def _see(
        self, rows: Tensor, kind: str, run: Pass, chosen: Tensor, order: Tensor, places: Tensor
    ) -> Tensor:
        """Show rows that are sorted by expert to the tap as [batch, time, k, width]."""
        name = f"{self.name}.{kind}"
        if run.tap is None or not run.tap.wants(name):
            return rows
        return run.see(rows[places].view(*chosen.shape, rows.shape[-1]), name).flatten(0, 2)[order]


class ExpertLinear(nn.Module):
    """A linear map for each expert: weight [experts, out, in], bias [experts · out].

    The bias has one dimension, so that whatever tells biases from matrices by their dimensions takes it for one.
    """

    def __init__(self, n_experts: int, inputs: int, outputs: int, *, bias: bool) -> None:
        super().__init__()
        self.n_experts, self.inputs, self.outputs = n_experts, inputs, outputs
        self.weight = nn.Parameter(torch.empty(n_experts, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(n_experts * outputs)) if bias else None

    def forward(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """Map rows [slots, in], sorted by expert, `counts` of them for each, to [slots, out]."""
        # One view of all experts: the gradient of weight[e] alone would be as large as that of all of them.
        weights = self.weight.unbind()
        biases = self.bias.view(len(weights), -1).unbind() if self.bias is not None else [None] * len(weights)
        pieces = zip(rows.split(list(counts)), weights, biases, strict=True)
        empty = not len(rows)
        return torch.cat([F.linear(part, w, b) for part, w, b in pieces if empty or len(part)])

    def by_all(self, x: Tensor) -> Tensor:
        """Map x [batch, time, experts, in] to [batch, time, experts, out]."""
        y = torch.einsum("btei,eoi->bteo", x, self.weight)
        return y if self.bias is None else y + self.bias.view(len(self.weight), -1)


class _Rows(torch.autograd.Function):
    """x[index]; `back` [rows of x, n] says where each row went.

    The gradient is a look-up and a sum. That of indexing is a scattered addition, whose order on a GPU is not fixed.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return x[index]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (back,) = ctx.saved_tensors
        return gradient[back].sum(1), None, None


@dataclass(frozen=True)
class Routed:
    """Where tokens were sent, over all layers."""

    sent: Tensor
    """How many to each expert, [experts]."""
    tokens: Tensor
    """How many there were, []."""


@torch.no_grad()
def routed(
    router_logits: Sequence[Tensor], experts_per_token: int, attention_mask: Tensor | None = None
) -> Routed:
    """Count where the routers send tokens; arguments as for `balance_loss`."""
    logits, kept = _stacked(router_logits, attention_mask)
    chosen = logits.softmax(-1).topk(experts_per_token, dim=-1).indices
    sent = torch.zeros_like(logits).scatter(-1, chosen, 1.0)
    return Routed((sent * kept).flatten(0, -2).sum(0), kept.sum())


def balance_loss(
    router_logits: Sequence[Tensor],
    experts_per_token: int,
    attention_mask: Tensor | None = None,
    whole: Routed | None = None,
) -> Tensor:
    """N · Σ_i f_i · P_i over the tokens of all layers together (Fedus et al. 2021, eq. 4 to 6; layers as in Mixtral).

    router_logits: [batch, time, experts] of each layer; attention_mask [batch, time] leaves padding out. f_i is how
    many times a token is sent to expert i on average (their sum is experts_per_token), P_i the router's mean
    probability of i; only P has a gradient. An even load gives experts_per_token, one expert for all tokens N.
    whole: counts over more tokens than these; what is returned is then the share of these in the loss of all.
    """
    logits, kept = _stacked(router_logits, attention_mask)
    whole = routed(router_logits, experts_per_token, attention_mask) if whole is None else whole
    tokens = whole.tokens.to(logits.dtype).clamp_min(1)
    share = whole.sent.to(logits.dtype) / tokens
    likely = (logits.softmax(-1) * kept).flatten(0, -2).sum(0) / tokens
    return logits.shape[-1] * (share * likely).sum()


def router_z_loss(router_logits: Sequence[Tensor], attention_mask: Tensor | None = None) -> Tensor:
    """Mean over tokens and layers of (log Σ_i exp logit_i)², which keeps the logits small (Zoph et al. 2022, eq. 5).

    Arguments as for `balance_loss`.
    """
    logits, kept = _stacked(router_logits, attention_mask)
    return (logits.logsumexp(-1, keepdim=True).square() * kept).sum() / kept.sum().clamp_min(1)


def _stacked(router_logits: Sequence[Tensor], attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Logits [layers, batch, time, experts] in float32 or wider, and 1 at real tokens [layers, batch, time, 1]."""
    logits = torch.stack(list(router_logits))
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if attention_mask is None:
        return logits, torch.ones_like(logits[..., :1])
    return logits, attention_mask.to(logits.dtype)[..., None].expand(len(logits), -1, -1, 1)
