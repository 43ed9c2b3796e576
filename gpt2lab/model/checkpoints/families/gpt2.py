"""GPT-2 (Radford et al. 2019)."""

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


def gpt2_config(
    *, vocab_size: int, d_model: int, n_layers: int, n_heads: int, max_positions: int = 1024, **changes: Any
) -> TransformerConfig:
    """Configure a GPT-2 of any size; `changes` are further fields of TransformerConfig."""
    return TransformerConfig(
        vocab_size=vocab_size,
        d_model=d_model,
        n_layers=n_layers,
        n_heads=n_heads,
        max_positions=max_positions,
        family="gpt2",
        **changes,
    )


def _read(entries: Entries) -> dict[str, Any]:
    entries.refuse("add_cross_attention", False)
    # reorder_and_upcast_attn asks for scores and softmax in float32 whatever the weights; the sums of float32 are those
    # of any order, and attention here keeps scores in float32 for 16-bit weights anyway. It is written back as it was.
    return {
        "attention_scale": _read_scale(entries),
        "vocab_size": entries.get("vocab_size", 50257),
        "d_model": entries.get("n_embd", 768),
        "n_layers": entries.layers("n_layer", 12),
        "n_heads": entries.get("n_head", 12),
        "d_mlp": entries.get("n_inner", None),
        "max_positions": entries.get("n_positions", 1024),
        "norm_eps": entries.fraction("layer_norm_epsilon", 1e-5),
        "activation": entries.choose("activation_function", "gelu_new", ACTIVATION_NAMES),
        "tied_head": entries.get("tie_word_embeddings", True),
        "embedding_dropout": entries.get("embd_pdrop", 0.1),
        "attention_dropout": entries.get("attn_pdrop", 0.1),
        "residual_dropout": entries.get("resid_pdrop", 0.1),
        "init_std": entries.fraction("initializer_range", 0.02),
        **special_ids(entries),
    }


def attention_scales(
    n_layers: int, d_head: int, *, by_width: bool = True, by_layer: bool = False
) -> float | tuple[float, ...] | None:
    """Return `TransformerConfig.attention_scale` for GPT-2's two switches: 1/sqrt(d_head), and 1/(layer + 1).

    `scale_attn_weights` and `scale_attn_by_inverse_layer_idx` of transformers; the second as in Mistral's GPT-2 runs
    and Sophia's (Karamcheti et al. 2021).
    """
    width = d_head**-0.5 if by_width else 1.0
    if by_layer:
        return tuple(width / (i + 1) for i in range(n_layers)) or None
    return None if by_width else 1.0


def _read_scale(entries: Entries) -> float | tuple[float, ...] | None:
    by_width = entries.get("scale_attn_weights", True)
    by_layer = entries.get("scale_attn_by_inverse_layer_idx", False)
    for name, value in (("scale_attn_weights", by_width), ("scale_attn_by_inverse_layer_idx", by_layer)):
        if not isinstance(value, bool):
            raise LabError(f"{entries.where}: {name} must be true or false, got {shown(value)}")
    width, heads = entries.get("n_embd", 768), entries.get("n_head", 12)
    if by_width and not by_layer:
        return None
    if not all(isinstance(n, int) and n > 0 for n in (width, heads)):
        return None  # TransformerConfig says which of them is no size
    layers = entries.layers("n_layer", 12)
    return attention_scales(layers, width // heads, by_width=by_width, by_layer=by_layer)


def _written_scale(config: TransformerConfig) -> dict[str, bool]:
    """The reverse of `_read_scale`: the switches that give this model's factors; LabError if none do."""
    factors = [config.layer(i).attention_scale for i in range(config.n_layers)]
    for by_layer in (False, True):
        for by_width in (True, False):
            given = config.replace(
                attention_scale=attention_scales(
                    config.n_layers, config.head_width, by_width=by_width, by_layer=by_layer
                )
            )
            if factors == [given.layer(i).attention_scale for i in range(config.n_layers)]:
                return {"scale_attn_weights": by_width, "scale_attn_by_inverse_layer_idx": by_layer}
    raise LabError(
        f"a gpt2 checkpoint scales scores by 1/sqrt(d_head), 1/(layer + 1), both or neither, this model by {factors}; "
        "it cannot be written in that layout"
    )


def _write(config: TransformerConfig) -> dict[str, Any]:
    require(config, norm="layernorm", positions="learned", gated=False, windows=None)
    require(
        config,
        qkv_bias=True,
        attention_out_bias=True,
        mlp_bias=True,
        n_kv_heads=None,
        parallel_residual=False,
    )
    require(config, n_experts=0, **DECODER)
    require_uniform(config, "n_heads", "d_mlp")
    if config.head_width * config.layer(0).n_heads != config.d_model:
        require(config, d_head=config.d_model // config.layer(0).n_heads)
    return {
        "vocab_size": config.vocab_size,
        "n_embd": config.d_model,
        "n_layer": config.n_layers,
        "n_head": config.layer(0).n_heads if config.n_layers else config.n_heads,
        "n_inner": config.d_mlp[0] if isinstance(config.d_mlp, tuple) else config.d_mlp,
        "n_positions": config.max_positions,
        "layer_norm_epsilon": config.norm_eps,
        "activation_function": ACTIVATION_WRITTEN[config.activation],
        "tie_word_embeddings": config.tied_head,
        "embd_pdrop": config.embedding_dropout,
        "attn_pdrop": config.attention_dropout,
        "resid_pdrop": config.residual_dropout,
        "initializer_range": config.init_std,
        **_written_scale(config),
        **written_ids(config),
    }


def _linear(ours: str, theirs: str) -> tuple[Weight, ...]:
    return (
        Weight(f"blocks.{{i}}.{ours}.weight", (f"h.{{i}}.{theirs}.weight",), transposed=True),
        Weight(f"blocks.{{i}}.{ours}.bias", (f"h.{{i}}.{theirs}.bias",)),
    )


_NOT_NULL = (
    "vocab_size", "n_embd", "n_layer", "n_head", "n_positions", "activation_function", "tie_word_embeddings",
    "embd_pdrop", "attn_pdrop", "resid_pdrop", "scale_attn_weights", "scale_attn_by_inverse_layer_idx",
    "reorder_and_upcast_attn", "add_cross_attention", "summary_type", "summary_use_proj", "summary_proj_to_labels",
    "summary_first_dropout", "use_cache",
)  # fmt: skip

GPT2 = Family(
    name="gpt2",
    architecture="GPT2LMHeadModel",
    prefix="transformer.",
    weights=(
        Weight("embedding.weight", ("wte.weight",)),
        Weight("position_embedding.weight", ("wpe.weight",)),
        *norm_rows("blocks.{i}.norm1", "h.{i}.ln_1"),
        *_linear("attention.qkv", "attn.c_attn"),
        *_linear("attention.out", "attn.c_proj"),
        *norm_rows("blocks.{i}.norm2", "h.{i}.ln_2"),
        *_linear("mlp.up", "mlp.c_fc"),
        *_linear("mlp.down", "mlp.c_proj"),
        *norm_rows("final_norm", "ln_f"),
    ),
    dropped=("h.*.attn.bias", "h.*.attn.masked_bias"),
    head="lm_head.weight",
    aliases={
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    },
    not_null=_NOT_NULL,
    read=_read,
    write=_write,
)
