"""GPT-NeoX (Black et al. 2022), the architecture of Pythia: partly rotated heads, parallel residual."""

from typing import Any

from gpt2lab.model.checkpoints.families.base import (
    ACTIVATION_NAMES,
    ACTIVATION_WRITTEN,
    DECODER,
    Entries,
    Family,
    Weight,
    norm_rows,
    read_rotary,
    require,
    require_uniform,
    special_ids,
    written_ids,
    written_rotary,
)
from gpt2lab.model.config import TransformerConfig


def gpt_neox_config(
    *, vocab_size: int, d_model: int, n_layers: int, n_heads: int, max_positions: int = 2048, **changes: Any
) -> TransformerConfig:
    """Configure a GPT-NeoX with Pythia's choices: a quarter of each head rotated, parallel residual, free head."""
    fields: dict[str, Any] = {
        "vocab_size": vocab_size,
        "d_model": d_model,
        "n_layers": n_layers,
        "n_heads": n_heads,
        "d_mlp": 4 * d_model,
        "max_positions": max_positions,
        "positions": "rotary",
        "rotary_fraction": 0.25,
        "activation": "gelu",
        "parallel_residual": True,
        "tied_head": False,
        "family": "gpt_neox",
    }
    return TransformerConfig(**{**fields, **changes})


def _read(entries: Entries) -> dict[str, Any]:
    max_positions = entries.get("max_position_embeddings", 2048)
    base, share = entries.get("rotary_emb_base", 10000.0), entries.get("rotary_pct", 0.25)
    rotary = read_rotary(entries, max_positions, base=base, share=share)
    return {
        "vocab_size": entries.get("vocab_size", 50432),
        "d_model": entries.get("hidden_size", 6144),
        "n_layers": entries.layers("num_hidden_layers", 44),
        "n_heads": entries.get("num_attention_heads", 64),
        "d_mlp": entries.get("intermediate_size", 24576),
        "max_positions": max_positions,
        "norm_eps": entries.fraction("layer_norm_eps", 1e-5),
        "positions": "rotary",
        **rotary,
        "activation": entries.choose("hidden_act", "gelu", ACTIVATION_NAMES),
        "qkv_bias": entries.get("attention_bias", True),
        "attention_out_bias": entries.get("attention_bias", True),
        "parallel_residual": entries.get("use_parallel_residual", True),
        "tied_head": entries.get("tie_word_embeddings", False),
        "embedding_dropout": entries.get("hidden_dropout", 0.0),
        "attention_dropout": entries.get("attention_dropout", 0.0),
        "residual_dropout": entries.get("hidden_dropout", 0.0),
        "init_std": entries.fraction("initializer_range", 0.02),
        **special_ids(entries),
    }


def _write(config: TransformerConfig) -> dict[str, Any]:
    require(config, norm="layernorm", positions="rotary", gated=False, windows=None, attention_scale=None)
    require(config, mlp_bias=True, n_kv_heads=None, attention_out_bias=config.qkv_bias)
    require(config, embedding_dropout=config.residual_dropout)
    require(config, n_experts=0, **DECODER)
    require_uniform(config, "n_heads", "d_mlp")
    layer = config.layer(0)
    if layer.d_head * layer.n_heads != config.d_model:
        require(config, d_head=config.d_model // layer.n_heads)
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": layer.n_heads,
        "intermediate_size": layer.d_mlp,
        "max_position_embeddings": config.max_positions,
        "layer_norm_eps": config.norm_eps,
        **written_rotary(config),
        "rotary_pct": config.rotary_fraction,
        "rotary_emb_base": config.rotary_base,
        "hidden_act": ACTIVATION_WRITTEN[config.activation],
        "attention_bias": config.qkv_bias,
        "use_parallel_residual": config.parallel_residual,
        "tie_word_embeddings": config.tied_head,
        "hidden_dropout": config.residual_dropout,
        "attention_dropout": config.attention_dropout,
        "initializer_range": config.init_std,
        **written_ids(config),
    }


def _linear(ours: str, theirs: str, *, by_head: bool = False) -> tuple[Weight, ...]:
    return tuple(
        Weight(f"blocks.{{i}}.{ours}.{kind}", (f"layers.{{i}}.{theirs}.{kind}",), by_head=by_head)
        for kind in ("weight", "bias")
    )


_NOT_NULL = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings", "hidden_act", "attention_bias", "use_parallel_residual", "tie_word_embeddings",
    "hidden_dropout", "attention_dropout", "classifier_dropout", "is_decoder", "use_cache",
)  # fmt: skip

GPT_NEOX = Family(
    name="gpt_neox",
    architecture="GPTNeoXForCausalLM",
    prefix="gpt_neox.",
    weights=(
        Weight("embedding.weight", ("embed_in.weight",)),
        *norm_rows("blocks.{i}.norm1", "layers.{i}.input_layernorm"),
        *_linear("attention.qkv", "attention.query_key_value", by_head=True),
        *_linear("attention.out", "attention.dense"),
        *norm_rows("blocks.{i}.norm2", "layers.{i}.post_attention_layernorm"),
        *_linear("mlp.up", "mlp.dense_h_to_4h"),
        *_linear("mlp.down", "mlp.dense_4h_to_h"),
        *norm_rows("final_norm", "final_layer_norm"),
    ),
    dropped=(
        "layers.*.attention.bias",
        "layers.*.attention.masked_bias",
        "layers.*.attention.rotary_emb.inv_freq",
    ),
    head="embed_out.weight",
    head_in_model="lm_head.weight",
    not_null=_NOT_NULL,
    read=_read,
    write=_write,
)
