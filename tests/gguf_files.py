"""Tiny GGUF files written by the package `gguf`, without our exporter."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, quants

SIZES = {"vocab": 300, "width": 64, "layers": 2, "heads": 4, "kv_heads": 2, "hidden": 256, "context": 1024}
TEXT = "the old cat sat on the mat under the sea, and 12 ships ran; it's late"


def shapes(kind: str, *, tied: bool = False, bias: bool = True) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a tiny model's tensors in llama.cpp's layout."""
    d, kv, f = SIZES["width"], SIZES["width"] // SIZES["heads"] * SIZES["kv_heads"], SIZES["hidden"]
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (SIZES["vocab"], d)}
    normed = ["output_norm"]
    if kind == "gpt2":
        found["position_embd.weight"] = (SIZES["context"], d)
    for i in range(SIZES["layers"]):
        b = f"blk.{i}"
        normed += [f"{b}.attn_norm", f"{b}.ffn_norm"]
        linear = {"attn_output": (d, d), "ffn_up": (f, d), "ffn_down": (d, f)}
        if kind in ("gpt2", "gptneox"):
            linear["attn_qkv"] = (3 * d, d)
            biased = set(linear)
        else:
            linear |= {"attn_q": (d, d), "attn_k": (kv, d), "attn_v": (kv, d), "ffn_gate": (f, d)}
            biased = {"attn_q", "attn_k", "attn_v"} if kind == "qwen2" else set()
        for name, shape in linear.items():
            found[f"{b}.{name}.weight"] = shape
            if name in biased and bias:
                found[f"{b}.{name}.bias"] = shape[:1]
    for name in normed:
        found[f"{name}.weight"] = (d,)
        if kind in ("gpt2", "gptneox"):
            found[f"{name}.bias"] = (d,)
    if not tied:
        found["output.weight"] = (SIZES["vocab"], d)
    return found


def stored(shape: tuple[int, ...], kind: str, generator: np.random.Generator) -> np.ndarray:
    """Random numbers as the file holds them."""
    if kind in ("Q4_K", "Q6_K", "Q5_K", "Q3_K", "Q2_K"):  # the package has no way there: random codes
        block, size = gguf.GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
        blocks = np.prod(shape) // block
        data = generator.integers(0, 256, (blocks, size), dtype=np.uint8)
        scale = np.full((blocks, 1), 0.002, np.float16).view(np.uint8)
        places = {
            "Q4_K": (0, 2),
            "Q5_K": (0, 2),
            "Q6_K": (size - 2,),
            "Q3_K": (size - 2,),
            "Q2_K": (size - 4, size - 2),
        }
        for place in places[kind]:
            data[:, place : place + 2] = scale
        return data.reshape(*shape[:-1], -1)
    values = generator.normal(0, 0.2, shape).astype(np.float32)
    return values if kind == "F32" else quants.quantize(values, GGMLQuantizationType[kind])


def write(
    path: Path,
    kind: str,
    *,
    matrices: str = "F32",
    down: str = "",
    fields: Mapping[str, Any] = {},
    tokenizer: Mapping[str, Any] = {},
    tied: bool = False,
    tensors: Mapping[str, np.ndarray] = {},
    without: tuple[str, ...] = (),
) -> dict[str, np.ndarray]:
    """Write a random model and return its tensors dequantised; `down`: the type of the feed-forwards' second matrices."""
    generator = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, kind)
    writer.add_context_length(SIZES["context"])
    writer.add_embedding_length(SIZES["width"])
    writer.add_block_count(SIZES["layers"])
    writer.add_feed_forward_length(SIZES["hidden"])
    writer.add_head_count(SIZES["heads"])
    writer.add_vocab_size(SIZES["vocab"])
    if kind in ("gpt2", "gptneox"):
        writer.add_layer_norm_eps(1e-5)
    else:
        writer.add_head_count_kv(SIZES["kv_heads"])
        writer.add_layer_norm_rms_eps(1e-6)
    if kind == "gptneox":
        writer.add_rope_dimension_count(4)
        writer.add_parallel_residual(True)
    if kind != "gpt2":
        writer.add_rope_freq_base(500.0)
    if kind in ("llama", "qwen2"):
        writer.add_rope_dimension_count(SIZES["width"] // SIZES["heads"])
    for name, value in {**fields, **tokenizer}.items():
        if isinstance(value, list):
            writer.add_array(name, value)
        else:
            add = {
                bool: writer.add_bool,
                int: writer.add_uint32,
                float: writer.add_float32,
                str: writer.add_string,
            }
            add[type(value)](name, value)
    expected: dict[str, np.ndarray] = {}
    for name, shape in shapes(kind, tied=tied).items():
        if name in without:
            continue
        wide = len(shape) < 2 or name.startswith("position")
        store = "F32" if wide else down if down and "ffn_down" in name else matrices
        data = stored(shape, store, generator)
        if name.endswith("norm.weight"):
            data = data + 1
        writer.add_tensor(name, data, raw_dtype=GGMLQuantizationType[store])
        expected[name] = quants.dequantize(data, GGMLQuantizationType[store]).reshape(shape)
    for name, values in tensors.items():
        writer.add_tensor(name, values, raw_dtype=GGMLQuantizationType.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected


def byte_level_fields(tokenizer: Any, pre: str, **more: Any) -> dict[str, Any]:
    """Fields of a byte-level BPE, given one of ours."""
    import json

    content = json.loads(tokenizer.backend.to_str())
    vocabulary = tokenizer.vocabulary
    tokens = list(vocabulary) + [f"[PAD{id}]" for id in range(len(vocabulary), SIZES["vocab"])]
    kinds = [3 if id in tokenizer.special_ids else 1 for id in range(len(vocabulary))]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds + [5] * (len(tokens) - len(kinds)),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in content["model"]["merges"]],
        "tokenizer.ggml.eos_token_id": tokenizer.eos,
        **{f"tokenizer.{name}": value for name, value in more.items()},
    }
