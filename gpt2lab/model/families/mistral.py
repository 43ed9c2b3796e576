"""Mistral (Jiang et al. 2023): Llama with a sliding window in every layer."""

from dataclasses import replace
from typing import Any

from gpt2lab.model.config import TransformerConfig
from gpt2lab.model.families.base import Entries, require, require_uniform
from gpt2lab.model.families.llama import LLAMA, llama_config, llama_entries, llama_fields


def mistral_config(
    *, vocab_size: int, d_model: int, n_layers: int, n_heads: int, window: int | None = 4096, **changes: Any
) -> TransformerConfig:
    """Configure a Mistral whose every layer sees the last `window` positions; further fields are those of `llama_config`."""
    fields: dict[str, Any] = {
        "windows": None if window is None else (window,) * n_layers,
        "family": "mistral",
    }
    return llama_config(
        vocab_size=vocab_size, d_model=d_model, n_layers=n_layers, n_heads=n_heads, **{**fields, **changes}
    )


def _read(entries: Entries) -> dict[str, Any]:
    fields = llama_fields(entries)
    window = entries.get("sliding_window", None)
    return {**fields, "windows": (window,) * fields["n_layers"] if window is not None else None}


def _write(config: TransformerConfig) -> dict[str, Any]:
    require(config, qkv_bias=False, attention_out_bias=False, mlp_bias=False, n_experts=0)
    require_uniform(config, "windows")
    return {**llama_entries(config), "sliding_window": config.windows[0] if config.windows else None}


MISTRAL = replace(LLAMA, name="mistral", architecture="MistralForCausalLM", read=_read, write=_write)
