"""Llama (Touvron et al. 2023): rotary positions, RMSNorm, gated feed-forward, grouped key/value heads."""

from typing import Any

from gpt2lab.base.errors import LabError, shown
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


def llama_config(
    *,
    vocab_size: int,
    d_model: int,
    n_layers: int,
    n_heads: int,
    d_mlp: int | None = None,
    n_kv_heads: int | None = None,
    max_positions: int = 2048,
    **changes: Any,
) -> TransformerConfig:
    """Configure a Llama; d_mlp None means 8/3 d_model, rounded up to a multiple of 8."""
    fields: dict[str, Any] = {
        "vocab_size": vocab_size,
        "d_model": d_model,
        "n_layers": n_layers,
        "n_heads": n_heads,
        "n_kv_heads": n_kv_heads,
        "d_mlp": d_mlp if d_mlp is not None else -(-8 * d_model // 24) * 8,
        "max_positions": max_positions,
        "norm": "rmsnorm",
        "norm_eps": 1e-6,
        "positions": "rotary",
        "activation": "silu",
        "gated": True,
        "qkv_bias": False,
        "attention_out_bias": False,
        "mlp_bias": False,
        "tied_head": False,
        "family": "llama",
    }
    return TransformerConfig(**{**fields, **changes})


def llama_fields(
    entries: Entries,
    *,
    n_kv_heads: int | None = None,
    max_positions: int = 2048,
    rotary_base: float = 10000.0,
) -> dict[str, Any]:
    """Read the entries that Llama and its heirs share; the keywords hold where config.json does not say.

    n_kv_heads None: as many as heads.
    """
    n_heads, d_model = entries.need("num_attention_heads"), entries.need("hidden_size")
    max_positions = entries.get("max_position_embeddings", max_positions)
    if "num_key_value_heads" in entries.entries:  # where null is as many as heads
        n_kv_heads = None
    n_kv_heads = entries.get("num_key_value_heads", n_heads if n_kv_heads is None else n_kv_heads)
    rotary = read_rotary(
        entries, max_positions, base=rotary_base, share=entries.get("partial_rotary_factor", 1.0)
    )
    if rotary["rotary_fraction"] != 1.0:
        raise LabError(
            f"{entries.where}: partial_rotary_factor={rotary['rotary_fraction']} is not supported, only 1.0"
        )
    d_head = entries.get("head_dim", d_model // n_heads)
    return {
        "vocab_size": entries.need("vocab_size"),
        "d_model": d_model,
        "n_layers": entries.layers("num_hidden_layers"),
        "n_heads": n_heads,
        "n_kv_heads": None if n_kv_heads == n_heads else n_kv_heads,
        "d_head": None if d_head * n_heads == d_model else d_head,
        "d_mlp": entries.need("intermediate_size"),
        "max_positions": max_positions,
        "norm": "rmsnorm",
        "norm_eps": entries.fraction("rms_norm_eps", 1e-6),
        "positions": "rotary",
        **rotary,
        "activation": entries.choose("hidden_act", "silu", ACTIVATION_NAMES),
        "gated": True,
        "qkv_bias": entries.get("attention_bias", False),
        "attention_out_bias": entries.get("attention_bias", False),
        "mlp_bias": entries.get("mlp_bias", False),
        "tied_head": entries.get("tie_word_embeddings", False),
        "attention_dropout": entries.get("attention_dropout", 0.0),
        "init_std": entries.fraction("initializer_range", 0.02),
        **special_ids(entries),
    }


def _write(config: TransformerConfig) -> dict[str, Any]:
    require(config, windows=None, attention_out_bias=config.qkv_bias, n_experts=0)
    return {**llama_entries(config), "attention_bias": config.qkv_bias, "mlp_bias": config.mlp_bias}


def window_kinds(windows: tuple[int | None, ...]) -> list[str]:
    """Return `layer_types`, which say in which layers `sliding_window` holds."""
    return ["full_attention" if window is None else "sliding_attention" for window in windows]


def windows_by_kind(kinds: list[str], window: int, n_layers: int, where: str) -> tuple[int | None, ...]:
    """The reverse of `window_kinds`. LabError for kinds that are neither, and for another number of them than of layers."""
    if len(kinds) != n_layers or set(kinds) - {"full_attention", "sliding_attention"}:
        raise LabError(
            f"{where}: layer_types must name full_attention or sliding_attention for each of {n_layers} layers, "
            f"got {shown(kinds)}"
        )
    return tuple(None if kind == "full_attention" else window for kind in kinds)


def llama_entries(config: TransformerConfig) -> dict[str, Any]:
    """Write the entries that Llama and its heirs share."""
    require(config, norm="rmsnorm", positions="rotary", gated=True, attention_scale=None, **DECODER)
    require(config, parallel_residual=False, rotary_fraction=1.0, embedding_dropout=0.0, residual_dropout=0.0)
    require_uniform(config, "n_heads", "n_kv_heads", "d_mlp")
    layer = config.layer(0)
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": layer.n_heads,
        "num_key_value_heads": layer.n_kv_heads,
        "head_dim": layer.d_head,
        "intermediate_size": layer.d_mlp,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        **written_rotary(config),
        "hidden_act": ACTIVATION_WRITTEN[config.activation],
        "tie_word_embeddings": config.tied_head,
        "attention_dropout": config.attention_dropout,
        "initializer_range": config.init_std,
        **written_ids(config),
    }


def _stacked(ours: str, *theirs: str) -> tuple[Weight, ...]:
    return tuple(
        Weight(f"blocks.{{i}}.{ours}.{kind}", tuple(f"layers.{{i}}.{name}.{kind}" for name in theirs))
        for kind in ("weight", "bias")
    )


NOT_NULL = ("max_position_embeddings", "hidden_act", "tie_word_embeddings", "use_cache")
"""`Family.not_null` of Llama and its heirs alike; each has further ones."""

LLAMA = Family(
    name="llama",
    architecture="LlamaForCausalLM",
    prefix="model.",
    weights=(
        Weight("embedding.weight", ("embed_tokens.weight",)),
        *norm_rows("blocks.{i}.norm1", "layers.{i}.input_layernorm", bias=False),
        *_stacked("attention.qkv", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        *_stacked("attention.out", "self_attn.o_proj"),
        *norm_rows("blocks.{i}.norm2", "layers.{i}.post_attention_layernorm", bias=False),
        *_stacked("mlp.up", "mlp.gate_proj", "mlp.up_proj"),
        *_stacked("mlp.down", "mlp.down_proj"),
        *norm_rows("final_norm", "norm", bias=False),
    ),
    dropped=("layers.*.self_attn.rotary_emb.inv_freq",),
    head="lm_head.weight",
    not_null=(*NOT_NULL, "attention_bias", "mlp_bias"),
    read=llama_fields,
    write=_write,
)
