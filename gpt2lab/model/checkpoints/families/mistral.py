"""Mistral (Jiang et al. 2023): Llama with a sliding window in every layer."""

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
    fields = llama_fields(entries, n_kv_heads=8, max_positions=4096 * 32)
    n_layers = fields["n_layers"]
    absent = None if "sliding_window" in entries.entries else 4096  # null is: no window
    window, kinds = entries.get("sliding_window", absent), entries.get("layer_types", None)
    if window is None:
        return fields
    if kinds is None:
        return {**fields, "windows": (window,) * n_layers}
    return {**fields, "windows": windows_by_kind(kinds, window, n_layers, entries.where)}


def _write(config: TransformerConfig) -> dict[str, Any]:
    require(config, qkv_bias=False, attention_out_bias=False, mlp_bias=False, n_experts=0)
    windows = config.windows or (None,)
    sizes = {window for window in windows if window is not None}
    if len(sizes) > 1:
        raise LabError(f"a mistral checkpoint has one sliding_window, this model {sorted(sizes)}")
    # Windows in some layers only: transformers' AutoModel makes a Ministral of these entries, which has the same tensors.
    kinds = {"layer_types": window_kinds(windows)} if len(set(windows)) > 1 else {}
    return {**llama_entries(config), "sliding_window": sizes.pop() if sizes else None, **kinds}


MISTRAL = replace(
    LLAMA,
    name="mistral",
    architecture="MistralForCausalLM",
    not_null=(*NOT_NULL, "num_key_value_heads", "attention_dropout"),
    read=_read,
    write=_write,
)
