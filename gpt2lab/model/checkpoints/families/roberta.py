"""RoBERTa (Liu et al. 2019): BERT whose positions count from pad + 1 and whose head always has an exact GELU.

Positions count the real tokens of the attention mask. `transformers` counts the ids that are not the padding's, which is
the same unless the padding's id stands for a real token.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from gpt2lab.base.errors import LabError
from gpt2lab.model.checkpoints.families.base import Entries, Weight, norm_rows, require
from gpt2lab.model.checkpoints.families.bert import (
    BERT,
    BODY,
    bert_config,
    bert_entries,
    bert_fields,
    linear_rows,
    outside,
)
from gpt2lab.model.config import TransformerConfig


def roberta_config(
    *, vocab_size: int, d_model: int, n_layers: int, n_heads: int, pad: int = 1, **changes: Any
) -> TransformerConfig:
    """Configure a RoBERTa for masked language modelling; `pad` decides where its positions begin."""
    fields: dict[str, Any] = {
        "norm_eps": 1e-5,
        "token_types": 1,
        "head_activation": "gelu",
        "family": "roberta",
    }
    return bert_config(
        vocab_size=vocab_size,
        d_model=d_model,
        n_layers=n_layers,
        n_heads=n_heads,
        **{**fields, "pad": pad, "position_offset": pad + 1, **changes},
    )


def _read(entries: Entries) -> dict[str, Any]:
    ids = {"pad": 1, "bos": 0, "eos": 2}  # what transformers fills in
    fields = bert_fields(entries)
    fields |= {name: id for name, id in ids.items() if f"{name}_token_id" not in entries.entries}
    if fields["pad"] is None:
        raise LabError(f"{entries.where}: a roberta counts positions from pad_token_id, which is null")
    offset = fields["pad"] + 1
    length = fields["max_positions"] - offset
    return {**fields, "head_activation": "gelu", "position_offset": offset, "max_positions": length}


def _write(config: TransformerConfig) -> dict[str, Any]:
    if config.pad is None:
        raise LabError("a roberta checkpoint counts positions from the padding's id, and this model has none")
    require(config, position_offset=config.pad + 1, head_activation="gelu")
    return bert_entries(config)


def _held(names: Collection[str]) -> dict[str, Any]:
    head = "lm_head.dense.weight" in names
    return {"head": "transform" if head else "none", "pooler": "pooler.dense.weight" in names}


ROBERTA = replace(
    BERT,
    name="roberta",
    architecture="RobertaForMaskedLM",
    bare="RobertaModel",
    prefix="roberta.",
    weights=(
        *BODY,
        *outside(linear_rows("head_transform.dense", "lm_head.dense")),
        *outside(norm_rows("head_transform.norm", "lm_head.layer_norm")),
        Weight("head.bias", ("lm_head.bias",), outside=True, also=("lm_head.decoder.bias",)),
    ),
    dropped=("embeddings.position_ids", "embeddings.token_type_ids"),
    head="lm_head.decoder.weight",
    read=_read,
    write=_write,
    held=_held,
)
