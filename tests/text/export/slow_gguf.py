"""A forward pass in float64 on the tensors of a GGUF file, by the rules of llama.cpp's llama and gptneox."""

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np

Array = np.ndarray


class File:
    """Metadata and tensors of a file, by name."""

    def __init__(self, path: Path) -> None:
        reader = gguf.GGUFReader(path)
        self.fields = {name: field.contents() for name, field in reader.fields.items()}
        self.kinds = {tensor.name: tensor.tensor_type for tensor in reader.tensors}
        self.tensors = {
            tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float64)
            for tensor in reader.tensors
        }
        self.kind = self.fields["general.architecture"]

    def number(self, name: str) -> float:
        return self.fields[f"{self.kind}.{name}"]

    def linear(self, name: str, x: Array) -> Array:
        return x @ self.tensors[f"{name}.weight"].T + self.tensors.get(f"{name}.bias", 0.0)

    def norm(self, name: str, x: Array) -> Array:
        if self.kind == "llama":
            eps = self.number("attention.layer_norm_rms_epsilon")
            return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * self.tensors[f"{name}.weight"]
        eps = self.number("attention.layer_norm_epsilon")
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
        return scaled * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def gelu_tanh(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))


def turned(x: Array, file: File) -> Array:
    """Rotate x [time, d_head]: neighbours in a llama, halves in a gptneox; only the first dimension_count entries."""
    width, y = int(file.number("rope.dimension_count")), x.copy()
    slowed = file.tensors.get("rope_freqs.weight", np.ones(width // 2))
    for i in range(width // 2):
        a, b = (2 * i, 2 * i + 1) if file.kind == "llama" else (i, i + width // 2)
        angle = np.arange(len(x)) * file.number("rope.freq_base") ** (-2 * i / width) / slowed[i]
        if file.fields.get(f"{file.kind}.rope.scaling.type") == "linear":
            angle = angle / file.number("rope.scaling.factor")
        y[:, a] = x[:, a] * np.cos(angle) - x[:, b] * np.sin(angle)
        y[:, b] = x[:, a] * np.sin(angle) + x[:, b] * np.cos(angle)
    return y


def attention(file: File, block: str, x: Array) -> Array:
    heads = int(file.number("attention.head_count"))
    if file.kind == "llama":
        q, k, v = (file.linear(f"{block}.attn_{part}", x) for part in "qkv")
    else:
        q, k, v = np.split(file.linear(f"{block}.attn_qkv", x), 3, axis=-1)
    shared = heads // int(file.fields.get(f"{file.kind}.attention.head_count_kv", heads))
    d = q.shape[-1] // heads
    mixed = []
    for h in range(heads):
        part = slice((h // shared) * d, (h // shared + 1) * d)
        scores = turned(q[:, h * d : (h + 1) * d], file) @ turned(k[:, part], file).T / d**0.5
        scores[np.triu_indices(len(x), 1)] = -np.inf
        mixed.append(softmax(scores) @ v[:, part])
    return file.linear(f"{block}.attn_output", np.concatenate(mixed, -1))


def feed_forward(file: File, block: str, x: Array) -> Array:
    if f"{block}.ffn_gate_inp.weight" in file.tensors:
        return np.stack([experts(file, block, row) for row in x])
    if file.kind == "llama":
        gate = silu(file.linear(f"{block}.ffn_gate", x))
        return file.linear(f"{block}.ffn_down", gate * file.linear(f"{block}.ffn_up", x))
    return file.linear(f"{block}.ffn_down", gelu_tanh(file.linear(f"{block}.ffn_up", x)))


def experts(file: File, block: str, x: Array) -> Array:
    weights = {kind: file.tensors[f"{block}.ffn_{kind}_exps.weight"] for kind in ("gate", "up", "down")}
    p = softmax(file.linear(f"{block}.ffn_gate_inp", x))
    best = np.argsort(-p)[: int(file.number("expert_used_count"))]
    parts = [
        p[e] * (weights["down"][e] @ (silu(weights["gate"][e] @ x) * (weights["up"][e] @ x))) for e in best
    ]
    return sum(parts) / p[best].sum()


def logits(file: File, ids: list[int]) -> Array:
    """Logits [time, vocab] of one row."""
    x = file.tensors["token_embd.weight"][ids]
    parallel: Callable[[], bool] = lambda: bool(file.fields.get("gptneox.use_parallel_residual", False))
    for i in range(int(file.number("block_count"))):
        block = f"blk.{i}"
        middle = x + attention(file, block, file.norm(f"{block}.attn_norm", x))
        x = middle + feed_forward(file, block, file.norm(f"{block}.ffn_norm", x if parallel() else middle))
    x = file.norm("output_norm", x)
    return x @ file.tensors.get("output.weight", file.tensors["token_embd.weight"]).T
