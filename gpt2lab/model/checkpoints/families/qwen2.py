"""Qwen2 (Yang et al. 2024): Llama with biases on queries, keys and values, and windows in the upper layers if asked for."""

from dataclasses import replace
from typing import Any

from gpt2lab.base.errors import LabError
from gpt2lab.model.checkpoints.families.base import Entries, require
from gpt2lab.model.checkpoints.families.llama import (
    LLAMA,
    NOT_NULL,
    llama_config,
    llama_entries,
    llama_fields,
    window_kinds,
    windows_by_kind,
)
from gpt2lab.model.config import TransformerConfig


def qwen2_config(
    *, vocab_size: int, d_model: int, n_layers: int, n_heads: int, **changes: Any
) -> TransformerConfig:
    """Configure a Qwen2; further fields are those of `llama_config`."""
    fields: dict[str, Any] = {"qkv_bias": True, "family": "qwen2", **changes}
    return llama_config(vocab_size=vocab_size, d_model=d_model, n_layers=n_layers, n_heads=n_heads, **fields)


def _read(entries: Entries) -> dict[str, Any]:
    fields = llama_fields(entries, n_kv_heads=32, max_positions=32768)
    fields |= {"qkv_bias": True, "attention_out_bias": False, "mlp_bias": False}
    window = entries.get("sliding_window", 4096) if entries.get("use_sliding_window", False) else None
    first = entries.get("max_window_layers", 28)
    kinds = entries.get("layer_types", None)
    if kinds is None:
        kinds = ["full_attention" if i < first else "sliding_attention" for i in range(fields["n_layers"])]
    windows = windows_by_kind(kinds, window or 1, fields["n_layers"], entries.where)
    return fields if window is None else {**fields, "windows": windows}


def _write(config: TransformerConfig) -> dict[str, Any]:
    require(config, qkv_bias=True, attention_out_bias=False, mlp_bias=False, n_experts=0)
    windows = config.windows or (None,) * config.n_layers
    sizes = {window for window in windows if window is not None}
    if len(sizes) > 1:
        raise LabError(f"a qwen2 checkpoint has one sliding_window, this model {sorted(sizes)}")
    kinds = window_kinds(windows)
    return {
        **llama_entries(config),
        "use_sliding_window": bool(sizes),
        "sliding_window": sizes.pop() if sizes else None,
        "max_window_layers": kinds.count("full_attention"),
        "layer_types": kinds,
    }


QWEN2 = replace(
    LLAMA,
    name="qwen2",
    architecture="Qwen2ForCausalLM",
    not_null=(*NOT_NULL, "attention_dropout", "use_sliding_window", "max_window_layers", "head_dim"),
    read=_read,
    write=_write,
)
