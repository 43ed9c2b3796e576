"""Mixtral (Jiang et al. 2024): Mistral with a mixture of experts in every layer."""

from dataclasses import replace
from typing import Any

from gpt2lab.model.checkpoints.families.base import Entries, Weight, require, require_uniform
from gpt2lab.model.checkpoints.families.llama import (
    LLAMA,
    NOT_NULL,
    llama_config,
    llama_entries,
    llama_fields,
)
from gpt2lab.model.config import TransformerConfig


def mixtral_config(
    *,
    vocab_size: int,
    d_model: int,
    n_layers: int,
    n_heads: int,
    n_experts: int = 8,
    experts_per_token: int = 2,
    **changes: Any,
) -> TransformerConfig:
    """Configure a Mixtral; further fields are those of `llama_config`, d_mlp being the width of one expert."""
    fields: dict[str, Any] = {"balance_weight": 0.001, "family": "mixtral", **changes}
    return llama_config(
        vocab_size=vocab_size,
        d_model=d_model,
        n_layers=n_layers,
        n_heads=n_heads,
        n_experts=n_experts,
        experts_per_token=experts_per_token,
        **fields,
    )


def _read(entries: Entries) -> dict[str, Any]:
    fields = llama_fields(entries, n_kv_heads=8, max_positions=4096 * 32, rotary_base=1e6)
    window = entries.get("sliding_window", None)
    return {
        **fields,
        "norm_eps": entries.fraction("rms_norm_eps", 1e-5),
        "windows": (window,) * fields["n_layers"] if window is not None else None,
        "n_experts": entries.get("num_local_experts", 8),
        "experts_per_token": entries.get("num_experts_per_tok", 2),
        "balance_weight": entries.get("router_aux_loss_coef", 0.001),
        # These two are ours; transformers keeps and ignores them.
        "router_z_weight": entries.get("router_z_loss_coef", 0.0),
        "expert_capacity": entries.get("expert_capacity", None),
    }


def _write(config: TransformerConfig) -> dict[str, Any]:
    require(config, qkv_bias=False, attention_out_bias=False, mlp_bias=False)
    require(config, normalise_expert_weights=True)
    require_uniform(config, "windows", "n_experts")
    return {
        **llama_entries(config),
        "sliding_window": config.windows[0] if config.windows else None,
        "num_local_experts": config.layer(0).n_experts,
        "num_experts_per_tok": config.experts_per_token,
        "router_aux_loss_coef": config.balance_weight,
        **({"router_z_loss_coef": config.router_z_weight} if config.router_z_weight else {}),
        **({"expert_capacity": config.expert_capacity} if config.expert_capacity is not None else {}),
    }


def _expert(ours: str, *theirs: str) -> Weight:
    names = tuple(f"layers.{{i}}.block_sparse_moe.experts.{{e}}.{name}.weight" for name in theirs)
    return Weight(f"blocks.{{i}}.mlp.{ours}.weight", names)


_NOT_NULL = (
    *NOT_NULL, "num_key_value_heads", "attention_dropout", "num_local_experts", "num_experts_per_tok",
    "output_router_logits", "router_aux_loss_coef", "router_jitter_noise",
)  # fmt: skip

MIXTRAL = replace(
    LLAMA,
    name="mixtral",
    architecture="MixtralForCausalLM",
    weights=(
        *(row for row in LLAMA.weights if ".mlp." not in row.ours),
        Weight("blocks.{i}.mlp.router.weight", ("layers.{i}.block_sparse_moe.gate.weight",)),
        _expert("up", "w1", "w3"),
        _expert("down", "w2"),
    ),
    aliases={"num_experts": "num_local_experts"},
    not_null=_NOT_NULL,
    read=_read,
    write=_write,
)
