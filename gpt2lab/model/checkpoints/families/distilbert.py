"""DistilBERT (Sanh et al. 2019): BERT without token types and pooler, under names of its own.

In training both sums of a block have dropout on what is added, as in BERT; the authors' code has it on the second only.
"""

from collections.abc import Collection
from typing import Any

from gpt2lab.model.checkpoints.families.base import (
    ACTIVATION_NAMES,
    ACTIVATION_WRITTEN,
    Entries,
    Family,
    Weight,
    norm_rows,
    require,
    special_ids,
    written_ids,
)
from gpt2lab.model.checkpoints.families.bert import (
    ENCODER,
    bert_config,
    linear_rows,
    outside,
    require_encoder,
)
from gpt2lab.model.config import TransformerConfig

_EPS = 1e-12  # written into the code of transformers, not into config.json


def distilbert_config(
    *, vocab_size: int, d_model: int, n_layers: int, n_heads: int, **changes: Any
) -> TransformerConfig:
    """Configure a DistilBERT for masked language modelling; `changes` are further fields of TransformerConfig."""
    fields = {"token_types": 0, "family": "distilbert", **changes}
    return bert_config(vocab_size=vocab_size, d_model=d_model, n_layers=n_layers, n_heads=n_heads, **fields)


def _read(entries: Entries) -> dict[str, Any]:
    return {
        "vocab_size": entries.get("vocab_size", 30522),
        "d_model": entries.get("dim", 768),
        "n_layers": entries.layers("n_layers", 6),
        "n_heads": entries.get("n_heads", 12),
        "d_mlp": entries.get("hidden_dim", 3072),
        "max_positions": entries.get("max_position_embeddings", 512),
        "norm_eps": _EPS,
        "activation": entries.choose("activation", "gelu", ACTIVATION_NAMES),
        "head": "transform",
        "tied_head": entries.get("tie_word_embeddings", True),
        "embedding_dropout": entries.get("dropout", 0.1),
        "attention_dropout": entries.get("attention_dropout", 0.1),
        "residual_dropout": entries.get("dropout", 0.1),
        "init_std": entries.fraction("initializer_range", 0.02),
        **ENCODER,
        **special_ids(entries),
    }


def _write(config: TransformerConfig) -> dict[str, Any]:
    require_encoder(config)
    require(config, token_types=0, position_offset=0, head_activation=None, pooler=False, norm_eps=_EPS)
    return {
        "vocab_size": config.vocab_size,
        "dim": config.d_model,
        "n_layers": config.n_layers,
        "n_heads": config.layer(0).n_heads if config.n_layers else config.n_heads,
        "hidden_dim": config.layer(0).d_mlp if config.n_layers else config.d_mlp,
        "max_position_embeddings": config.max_positions,
        "activation": ACTIVATION_WRITTEN[config.activation],
        "tie_word_embeddings": config.tied_head,
        "dropout": config.residual_dropout,
        "attention_dropout": config.attention_dropout,
        "initializer_range": config.init_std,
        **written_ids(config),
    }


def _held(names: Collection[str]) -> dict[str, Any]:
    return {"head": "transform" if "vocab_transform.weight" in names else "none"}


_LAYER = "transformer.layer.{i}"
_NOT_NULL = (
    "vocab_size", "dim", "n_layers", "n_heads", "hidden_dim", "max_position_embeddings", "activation",
    "tie_word_embeddings", "dropout", "attention_dropout", "qa_dropout", "seq_classif_dropout",
    "sinusoidal_pos_embds", "chunk_size_feed_forward",
)  # fmt: skip

DISTILBERT = Family(
    name="distilbert",
    architecture="DistilBertForMaskedLM",
    bare="DistilBertModel",
    prefix="distilbert.",
    weights=(
        Weight("embedding.weight", ("embeddings.word_embeddings.weight",)),
        Weight("position_embedding.weight", ("embeddings.position_embeddings.weight",)),
        *norm_rows("embedding_norm", "embeddings.LayerNorm"),
        *linear_rows("blocks.{i}.attention.qkv", *(f"{_LAYER}.attention.{part}_lin" for part in "qkv")),
        *linear_rows("blocks.{i}.attention.out", f"{_LAYER}.attention.out_lin"),
        *norm_rows("blocks.{i}.norm1", f"{_LAYER}.sa_layer_norm"),
        *linear_rows("blocks.{i}.mlp.up", f"{_LAYER}.ffn.lin1"),
        *linear_rows("blocks.{i}.mlp.down", f"{_LAYER}.ffn.lin2"),
        *norm_rows("blocks.{i}.norm2", f"{_LAYER}.output_layer_norm"),
        *outside(linear_rows("head_transform.dense", "vocab_transform")),
        *outside(norm_rows("head_transform.norm", "vocab_layer_norm")),
        Weight("head.bias", ("vocab_projector.bias",), outside=True),
    ),
    dropped=("embeddings.position_ids",),
    renamed={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
    head="vocab_projector.weight",
    aliases={"hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"},
    not_null=_NOT_NULL,
    read=_read,
    write=_write,
    held=_held,
)
