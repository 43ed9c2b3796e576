"""Pondering once more, slowly, in float64, from the paper's equations; GPT-2's stack written out by hand."""

import math

import torch
from torch import Tensor

from gpt2lab.model import Transformer


def gpt2_states(weights: dict[str, Tensor], x: Tensor, n_layers: int, n_heads: int) -> Tensor:
    """LM(E) up to the final norm for one row of input embeddings x [time, d]: token by token, head by head."""
    time, d = x.shape
    x = x + weights["position_embedding.weight"][:time]

    def norm(y: Tensor, name: str) -> Tensor:
        centred = y - y.mean(-1, keepdim=True)
        variance = centred.square().mean(-1, keepdim=True)
        return centred / (variance + 1e-5).sqrt() * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(y: Tensor, name: str) -> Tensor:
        return y @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    for layer in range(n_layers):
        block, size = f"blocks.{layer}", d // n_heads
        q, k, v = linear(norm(x, f"{block}.norm1"), f"{block}.attention.qkv").split(d, dim=-1)
        rows = []
        for t in range(time):
            heads = []
            for h in range(n_heads):
                part = slice(h * size, (h + 1) * size)
                scores = k[: t + 1, part] @ q[t, part] / math.sqrt(size)
                heads.append(scores.softmax(0) @ v[: t + 1, part])
            rows.append(torch.cat(heads))
        x = x + linear(torch.stack(rows), f"{block}.attention.out")
        up = linear(norm(x, f"{block}.norm2"), f"{block}.mlp.up")
        gelu = 0.5 * up * (1 + torch.tanh(math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)))
        x = x + linear(gelu, f"{block}.mlp.down")
    return norm(x, "final_norm")


def pondered(
    plain: Transformer,
    tokens: Tensor,
    *,
    steps: int,
    top_k: int | None = None,
    temperature: float = 1.0,
    scale: float = 1.0,
    first: float = 1.0,
    feedback: str = "embedding",
    accumulate: bool = True,
    projector: Tensor | None = None,
    by_hand: bool = False,
) -> Tensor:
    """Logits of the last pass, [batch, time, vocab], of a plain model in float64 and its weights; equations 3 to 7."""
    table, head = plain.embedding.weight, plain.head.weight

    def states(x: Tensor) -> Tensor:
        if not by_hand:
            return plain.hidden(embeddings=x)
        weights, config = dict(plain.named_parameters()), plain.config
        assert isinstance(config.n_heads, int)
        return torch.stack([gpt2_states(weights, row, config.n_layers, config.n_heads) for row in x])

    start = x = first * scale * torch.stack([torch.stack([table[token] for token in row]) for row in tokens])
    for _ in range(steps):
        h = states(x)
        fed = torch.zeros_like(x)
        for b in range(x.shape[0]):
            for t in range(x.shape[1]):
                if feedback != "embedding":
                    fed[b, t] = h[b, t] if projector is None else projector @ h[b, t]
                    continue
                logits = head @ h[b, t] / temperature
                kept = (
                    range(len(logits)) if top_k is None else logits.argsort(descending=True)[:top_k].tolist()
                )
                total = sum(logits[v].exp() for v in kept)
                fed[b, t] = sum(logits[v].exp() / total * scale * table[v] for v in kept)
        x = fed if feedback == "loop" else (x if accumulate else start) + fed
    return states(x) @ head.T
