"""BERT (Devlin et al. 2019): bidirectional, post-norm, token types, a head with a transform, perhaps a pooler.

What the files hold decides what the model has: a head if there is one (files of BertModel have none), a pooler if there
is one (files of BertForMaskedLM have none). `cls.seq_relationship`, the classifier of next sentences, is left out.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from gpt2lab.base.errors import LabError
from gpt2lab.model.checkpoints.families.base import (
    ACTIVATION_NAMES,
    ACTIVATION_WRITTEN,
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

ENCODER: dict[str, Any] = {
    "norm": "layernorm",
    "norm_placement": "post",
    "embedding_norm": True,
    "positions": "learned",
    "causal": False,
}
"""What BERT and its heirs have in common, as fields of TransformerConfig."""


def bert_config(
    *, vocab_size: int, d_model: int, n_layers: int, n_heads: int, max_positions: int = 512, **changes: Any
) -> TransformerConfig:
    """Configure a BERT for masked language modelling; `changes` are further fields of TransformerConfig."""
    fields: dict[str, Any] = {
        "vocab_size": vocab_size,
        "d_model": d_model,
        "n_layers": n_layers,
        "n_heads": n_heads,
        "d_mlp": 4 * d_model,
        "max_positions": max_positions,
        "norm_eps": 1e-12,
        "token_types": 2,
        "activation": "gelu",
        "head": "transform",
        "family": "bert",
    }
    return TransformerConfig(**{**fields, **ENCODER, **changes})


def bert_fields(entries: Entries) -> dict[str, Any]:
    """Read the entries that BERT and RoBERTa share."""
    entries.refuse("is_decoder", False)
    entries.refuse("add_cross_attention", False)
    entries.refuse("position_embedding_type", "absolute")
    return {
        "vocab_size": entries.get("vocab_size", 30522),
        "d_model": entries.get("hidden_size", 768),
        "n_layers": entries.layers("num_hidden_layers", 12),
        "n_heads": entries.get("num_attention_heads", 12),
        "d_mlp": entries.get("intermediate_size", 3072),
        "max_positions": entries.get("max_position_embeddings", 512),
        "norm_eps": entries.fraction("layer_norm_eps", 1e-12),
        "token_types": entries.get("type_vocab_size", 2),
        "activation": entries.choose("hidden_act", "gelu", ACTIVATION_NAMES),
        "head": "transform",
        "tied_head": entries.get("tie_word_embeddings", True),
        "embedding_dropout": entries.get("hidden_dropout_prob", 0.1),
        "attention_dropout": entries.get("attention_probs_dropout_prob", 0.1),
        "residual_dropout": entries.get("hidden_dropout_prob", 0.1),
        "init_std": entries.fraction("initializer_range", 0.02),
        **ENCODER,
        **special_ids(entries),
    }


def require_encoder(config: TransformerConfig) -> None:
    """Refuse to write what no heir of BERT has."""
    require(config, **ENCODER, gated=False, windows=None, attention_scale=None, n_kv_heads=None, n_experts=0)
    require(config, qkv_bias=True, attention_out_bias=True, mlp_bias=True)
    require(config, embedding_dropout=config.residual_dropout)
    require(config, head=config.head if config.head == "none" else "transform")
    require_uniform(config, "n_heads", "d_mlp")
    if config.head_width * config.layer(0).n_heads != config.d_model:
        require(config, d_head=config.d_model // config.layer(0).n_heads)


def bert_entries(config: TransformerConfig) -> dict[str, Any]:
    """Write the entries that BERT and RoBERTa share."""
    require_encoder(config)
    if not config.token_types:
        raise LabError(
            f"a {config.family} checkpoint has at least one row of token types, this model none; "
            "it cannot be written in that layout"
        )
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.layer(0).n_heads if config.n_layers else config.n_heads,
        "intermediate_size": config.layer(0).d_mlp if config.n_layers else config.d_mlp,
        "max_position_embeddings": config.max_positions + config.position_offset,
        "layer_norm_eps": config.norm_eps,
        "type_vocab_size": config.token_types,
        "hidden_act": ACTIVATION_WRITTEN[config.activation],
        "tie_word_embeddings": config.tied_head,
        "hidden_dropout_prob": config.residual_dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "initializer_range": config.init_std,
        **written_ids(config),
    }


def _write(config: TransformerConfig) -> dict[str, Any]:
    require(config, position_offset=0, head_activation=None)
    return bert_entries(config)


def _held(names: Collection[str]) -> dict[str, Any]:
    head = "cls.predictions.transform.dense.weight" in names
    return {"head": "transform" if head else "none", "pooler": "pooler.dense.weight" in names}


def linear_rows(ours: str, *theirs: str) -> tuple[Weight, ...]:
    """Rows for a matrix and its bias; several of theirs are stacked."""
    kinds = ("weight", "bias")
    return tuple(Weight(f"{ours}.{kind}", tuple(f"{name}.{kind}" for name in theirs)) for kind in kinds)


def outside(rows: tuple[Weight, ...]) -> tuple[Weight, ...]:
    """Mark rows whose names stand outside the family's prefix."""
    return tuple(replace(row, outside=True) for row in rows)


_LAYER = "encoder.layer.{i}"
BODY: tuple[Weight, ...] = (
    Weight("embedding.weight", ("embeddings.word_embeddings.weight",)),
    Weight("position_embedding.weight", ("embeddings.position_embeddings.weight",)),
    Weight("token_type_embedding.weight", ("embeddings.token_type_embeddings.weight",)),
    *norm_rows("embedding_norm", "embeddings.LayerNorm"),
    *linear_rows(
        "blocks.{i}.attention.qkv", *(f"{_LAYER}.attention.self.{part}" for part in ("query", "key", "value"))
    ),
    *linear_rows("blocks.{i}.attention.out", f"{_LAYER}.attention.output.dense"),
    *norm_rows("blocks.{i}.norm1", f"{_LAYER}.attention.output.LayerNorm"),
    *linear_rows("blocks.{i}.mlp.up", f"{_LAYER}.intermediate.dense"),
    *linear_rows("blocks.{i}.mlp.down", f"{_LAYER}.output.dense"),
    *norm_rows("blocks.{i}.norm2", f"{_LAYER}.output.LayerNorm"),
    *linear_rows("pooler.dense", "pooler.dense"),
)
"""All but the head, whose names BERT and RoBERTa do not share."""

_NOT_NULL = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings", "type_vocab_size", "hidden_act", "tie_word_embeddings", "hidden_dropout_prob",
    "attention_probs_dropout_prob", "is_decoder", "add_cross_attention", "chunk_size_feed_forward", "use_cache",
)  # fmt: skip

BERT = Family(
    name="bert",
    architecture="BertForMaskedLM",
    bare="BertModel",
    prefix="bert.",
    weights=(
        *BODY,
        *outside(linear_rows("head_transform.dense", "cls.predictions.transform.dense")),
        *outside(norm_rows("head_transform.norm", "cls.predictions.transform.LayerNorm")),
        Weight("head.bias", ("cls.predictions.bias",), outside=True, also=("cls.predictions.decoder.bias",)),
    ),
    dropped=("embeddings.position_ids", "embeddings.token_type_ids", "cls.seq_relationship.*"),
    renamed={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
    head="cls.predictions.decoder.weight",
    not_null=_NOT_NULL,
    read=bert_fields,
    write=_write,
    held=_held,
)
