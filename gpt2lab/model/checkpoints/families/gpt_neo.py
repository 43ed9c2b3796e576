"""GPT-Neo (Black et al. 2021): GPT-2 with unscaled scores and a local window in some layers."""

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
    require,
    require_uniform,
    special_ids,
    written_ids,
)
from gpt2lab.model.config import TransformerConfig


def gpt_neo_config(
    *,
    vocab_size: int,
    d_model: int,
    n_layers: int,
    n_heads: int,
    max_positions: int = 2048,
    local_window: int = 256,
    **changes: Any,
) -> TransformerConfig:
    """Configure a GPT-Neo: layers 0, 2, 4 … see everything before them, layers 1, 3, 5 … the last `local_window`."""
    return TransformerConfig(
        vocab_size=vocab_size,
        d_model=d_model,
        n_layers=n_layers,
        n_heads=n_heads,
        max_positions=max_positions,
        windows=tuple(local_window if i % 2 else None for i in range(n_layers)),
        attention_scale=1.0,
        qkv_bias=False,
        family="gpt_neo",
        **changes,
    )


def _windows(entries: Entries, n_layers: int) -> tuple[int | None, ...]:
    """Read `attention_types` [[["global", "local"], 12]] or `attention_layers` ["global", "local", …]."""
    kinds = entries.get("attention_layers", None)
    types = entries.get("attention_types", [[["global", "local"], 12]])
    named = sum(len(pattern) * max(times, 0) for pattern, times in types)  # before it is that often repeated
    if kinds is None or len(kinds) != n_layers:
        if named != n_layers:
            raise LabError(f"{entries.where}: attention_types names {named} layers of num_layers {n_layers}")
        kinds = [kind for pattern, times in types for kind in list(pattern) * times]
    if unknown_kinds := set(kinds) - {"global", "local"}:
        raise LabError(
            f"{entries.where}: attention is global or local, attention_types has {shown(unknown_kinds)}"
        )
    window = entries.get("window_size", 256)
    return tuple(window if kind == "local" else None for kind in kinds)


def _read(entries: Entries) -> dict[str, Any]:
    n_layers = entries.layers("num_layers", 24)
    return {
        "vocab_size": entries.get("vocab_size", 50257),
        "d_model": entries.get("hidden_size", 2048),
        "n_layers": n_layers,
        "n_heads": entries.get("num_heads", 16),
        "d_mlp": entries.get("intermediate_size", None),
        "max_positions": entries.get("max_position_embeddings", 2048),
        "norm_eps": entries.fraction("layer_norm_epsilon", 1e-5),
        "activation": entries.choose("activation_function", "gelu_new", ACTIVATION_NAMES),
        "tied_head": entries.get("tie_word_embeddings", True),
        "windows": _windows(entries, n_layers),
        "attention_scale": 1.0,
        "qkv_bias": False,
        "embedding_dropout": entries.get("embed_dropout", 0.0),
        "attention_dropout": entries.get("attention_dropout", 0.0),
        "residual_dropout": entries.get("resid_dropout", 0.0),
        "init_std": entries.fraction("initializer_range", 0.02),
        **special_ids(entries),
    }


def _write(config: TransformerConfig) -> dict[str, Any]:
    require(config, norm="layernorm", positions="learned", gated=False, attention_scale=1.0)
    require(
        config,
        qkv_bias=False,
        attention_out_bias=True,
        mlp_bias=True,
        n_kv_heads=None,
        parallel_residual=False,
    )
    require(config, n_experts=0, **DECODER)
    require_uniform(config, "n_heads", "d_mlp")
    windows = config.windows or (None,) * config.n_layers
    sizes = {window for window in windows if window is not None}
    if len(sizes) > 1:
        raise LabError(f"a gpt_neo checkpoint has one window_size, this model {sorted(sizes)}")
    kinds = ["global" if window is None else "local" for window in windows]
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_layers": config.n_layers,
        "num_heads": config.layer(0).n_heads if config.n_layers else config.n_heads,
        "intermediate_size": config.d_mlp[0] if isinstance(config.d_mlp, tuple) else config.d_mlp,
        "max_position_embeddings": config.max_positions,
        "layer_norm_epsilon": config.norm_eps,
        "activation_function": ACTIVATION_WRITTEN[config.activation],
        "tie_word_embeddings": config.tied_head,
        "attention_types": [[[kind], 1] for kind in kinds],
        "attention_layers": kinds,
        "window_size": sizes.pop() if sizes else 256,
        "embed_dropout": config.embedding_dropout,
        "attention_dropout": config.attention_dropout,
        "resid_dropout": config.residual_dropout,
        "initializer_range": config.init_std,
        **written_ids(config),
    }


def _linear(ours: str, theirs: str) -> tuple[Weight, ...]:
    return tuple(
        Weight(f"blocks.{{i}}.{ours}.{kind}", (f"h.{{i}}.{theirs}.{kind}",)) for kind in ("weight", "bias")
    )


_NOT_NULL = (
    "vocab_size", "hidden_size", "num_layers", "num_heads", "max_position_embeddings", "activation_function",
    "tie_word_embeddings", "attention_layers", "window_size", "embed_dropout", "attention_dropout", "resid_dropout",
    "classifier_dropout", "use_cache",
)  # fmt: skip

GPT_NEO = Family(
    name="gpt_neo",
    architecture="GPTNeoForCausalLM",
    prefix="transformer.",
    weights=(
        Weight("embedding.weight", ("wte.weight",)),
        Weight("position_embedding.weight", ("wpe.weight",)),
        *norm_rows("blocks.{i}.norm1", "h.{i}.ln_1"),
        Weight(
            "blocks.{i}.attention.qkv.weight",
            tuple(f"h.{{i}}.attn.attention.{part}_proj.weight" for part in "qkv"),
        ),
        *_linear("attention.out", "attn.attention.out_proj"),
        *norm_rows("blocks.{i}.norm2", "h.{i}.ln_2"),
        *_linear("mlp.up", "mlp.c_fc"),
        *_linear("mlp.down", "mlp.c_proj"),
        *norm_rows("final_norm", "ln_f"),
    ),
    dropped=("h.*.attn.attention.bias", "h.*.attn.attention.masked_bias"),
    head="lm_head.weight",
    aliases={"num_attention_heads": "num_heads", "num_hidden_layers": "num_layers"},
    not_null=_NOT_NULL,
    read=_read,
    write=_write,
)
