"""Meta-attention once more, slowly, in float64, from the paper's equations: one row, token by token, head by head."""

import math

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def turned(x: Tensor, position: int, base: float = 10000.0) -> Tensor:
    """One head's vector [d] rotated at a position: entry i and i + d/2 are a pair."""
    half = len(x) // 2
    angles = torch.tensor([position * base ** (-2 * i / len(x)) for i in range(half)], dtype=x.dtype)
    first, second = x[:half], x[half:]
    return torch.cat(
        [first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()]
    )


def attention(
    x: Tensor, qkv: Tensor, out: Tensor, biases: tuple[Tensor, Tensor] | None, n_heads: int, admits: list[list[bool]],
    *, rotary: bool,
) -> Tensor:  # fmt: skip
    """softmax(Q Kᵀ / √d + M + P) V for x [time, d]; admits[i][j]: whether M + P is 0 there. An empty row gives 0."""
    time, d = x.shape
    size = d // n_heads
    projected = x @ qkv.T + (0 if biases is None else biases[0])
    q, k, v = projected.split(d, dim=-1)
    rows = []
    for i in range(time):
        heads = []
        for h in range(n_heads):
            part = slice(h * size, (h + 1) * size)
            keys = [j for j in range(time) if admits[i][j]]
            if not keys:
                heads.append(torch.zeros(size, dtype=x.dtype))
                continue
            query = turned(q[i, part], i) if rotary else q[i, part]
            scores = torch.stack(
                [((turned(k[j, part], j) if rotary else k[j, part]) @ query) / math.sqrt(size) for j in keys]
            )
            weights = scores.exp() / scores.exp().sum()
            heads.append(sum(w * v[j, part] for w, j in zip(weights, keys, strict=True)))
        rows.append(torch.cat(heads))
    return torch.stack(rows) @ out.T + (0 if biases is None else biases[1])


def norm(y: Tensor, weights: Weights, name: str, *, literal: bool = False) -> Tensor:
    """LayerNorm over the last axis; literal divides by σ + ε."""
    centred = y - y.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    scale = variance.sqrt() + 1e-5 if literal else (variance + 1e-5).sqrt()
    return centred / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def states(
    weights: Weights,
    tokens: list[int],
    meta: int | None,
    n_layers: int,
    n_heads: int,
    *,
    rotary: bool,
    literal: bool = False,
) -> Tensor:
    """Last states of one row under GPT-2's stack with a second attention; meta None lets it see all earlier tokens."""
    time = len(tokens)
    x = weights["embedding.weight"][tokens]
    if not rotary:
        x = x + weights["position_embedding.weight"][:time]
    causal = [[j <= i for j in range(time)] for i in range(time)]
    both = [[meta is None or tokens[i] == tokens[j] == meta for j in range(time)] for i in range(time)]
    second = [[causal[i][j] and both[i][j] for j in range(time)] for i in range(time)]

    def first_attention(y: Tensor, block: str) -> Tensor:
        biases = weights[f"{block}.attention.qkv.bias"], weights[f"{block}.attention.out.bias"]
        matrices = weights[f"{block}.attention.qkv.weight"], weights[f"{block}.attention.out.weight"]
        return attention(y, *matrices, biases, n_heads, causal, rotary=rotary)

    def second_attention(y: Tensor, block: str) -> Tensor:
        matrices = weights[f"{block}.meta.qkv.weight"], weights[f"{block}.meta.out.weight"]
        return attention(y, *matrices, None, n_heads, second, rotary=rotary)

    def mlp(y: Tensor, block: str) -> Tensor:
        up = y @ weights[f"{block}.mlp.up.weight"].T + weights[f"{block}.mlp.up.bias"]
        gelu = 0.5 * up * (1 + torch.tanh(math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)))
        post = up.clamp_min(0) if literal else gelu
        return post @ weights[f"{block}.mlp.down.weight"].T + weights[f"{block}.mlp.down.bias"]

    for layer in range(n_layers):
        block = f"blocks.{layer}"
        if literal:
            x = norm(x + first_attention(x, block), weights, f"{block}.norm1", literal=True)
            x = norm(x + second_attention(x, block), weights, f"{block}.norm2", literal=True)
            x = x + mlp(x, block)
            continue
        x = x + first_attention(norm(x, weights, f"{block}.norm1"), block)
        x = x + second_attention(norm(x, weights, f"{block}.meta_norm"), block)
        x = x + mlp(norm(x, weights, f"{block}.norm2"), block)
    return norm(x, weights, "final_norm")
