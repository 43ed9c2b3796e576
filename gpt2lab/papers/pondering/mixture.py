"""The embedding that a model expects: the mean of the input table under the distribution that the head predicts.

    T = Σ_v p(v) V[v],   p = softmax(head(h) / temperature)                                            (eq. 4 and 5)

p comes from the output head, V is the input table; with a tied head both are the same matrix. Over the K likeliest
tokens p is normalised anew. States are worked on in chunks, and of more than one chunk none is kept for the backward
pass, so neither [batch, time, vocab] logits nor probabilities are ever held whole.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from gpt2lab.model import Backbone

CHUNK_ELEMENTS = {"cpu": 1 << 21, "cuda": 1 << 27}
"""Numbers held at a time: logits, or gathered rows of the head."""

_CHUNK_ROWS = 192
"""But at least so many states: with fewer, reading the tables again for each chunk costs more than the arithmetic."""


def expected_embedding(
    model: Backbone, hidden: Tensor, *, top_k: int | None = None, temperature: float = 1.0
) -> Tensor:
    """Return the mean input embedding under the predicted distribution; last states [..., d_model] → same.

    top_k: sum over that many likeliest tokens only. The softmax is taken in float32 (or wider), the mean in the
    table's type. Gradients flow to states, head and table.
    """
    table = input_table(model)
    if top_k is None:
        mix = partial(_all, model, table=table, temperature=temperature)
        width = model.config.vocab_size
    else:
        mix = partial(_likeliest, model, table=table, top_k=top_k, temperature=temperature)
        width = max(model.config.vocab_size, top_k * model.config.d_model)
    flat = hidden.reshape(-1, hidden.shape[-1])
    rows = max(_CHUNK_ROWS, CHUNK_ELEMENTS.get(hidden.device.type, 1 << 24) // width)
    if len(flat) <= rows:
        return mix(flat).view(hidden.shape)
    recompute = torch.is_grad_enabled()
    mixed = [
        checkpoint(mix, part, use_reentrant=False, preserve_rng_state=False) if recompute else mix(part)
        for part in flat.split(rows)
    ]
    return torch.cat(mixed).view(hidden.shape)


def input_table(model: Backbone) -> Tensor:
    """Return the input embeddings of all tokens, [vocab, d_model]; of a table stored otherwise, as numbers."""
    if type(model.embedding) is nn.Embedding:
        return model.embedding.weight
    return model.embed(torch.arange(model.config.vocab_size, device=model.device)[None])[0]


def _all(model: Backbone, states: Tensor, *, table: Tensor, temperature: float) -> Tensor:
    """The mean over the whole vocabulary; states [rows, d_model]."""
    logits = model.head(model.head_input(states))
    return mix_all(logits, table, temperature)


def mix_all(logits: Tensor, table: Tensor, temperature: float) -> Tensor:
    """softmax(logits / temperature) · table; logits [..., vocab]."""
    return _probabilities(logits, temperature).to(table.dtype) @ table  # eq. 4 and 5


def mix_likeliest(logits: Tensor, table: Tensor, top_k: int, temperature: float) -> Tensor:
    """The same over the `top_k` largest logits of each row; logits [rows, vocab]."""
    values, tokens = logits.topk(top_k, dim=-1)
    return _bag(values, tokens, table, temperature)


def _likeliest(model: Backbone, states: Tensor, *, table: Tensor, top_k: int, temperature: float) -> Tensor:
    """The mean over the likeliest tokens; states [rows, d_model].

    With gradients, the K logits are computed once more from the K rows of the head alone, so that the backward pass never
    meets the vocabulary. A head that is no plain matrix is asked for all logits.
    """
    states = model.head_input(states)
    if type(model.head) is not nn.Linear or not torch.is_grad_enabled():
        return mix_likeliest(model.head(states), table, top_k, temperature)
    with torch.no_grad():
        tokens = model.head(states).topk(top_k, dim=-1).indices
    rows = F.embedding(tokens, model.head.weight)  # [rows, k, d_model]
    values = (rows @ states[:, :, None].to(rows.dtype))[..., 0]
    if model.head.bias is not None:
        values = values + model.head.bias[tokens]
    return _bag(values, tokens, table, temperature)


def _bag(values: Tensor, tokens: Tensor, table: Tensor, temperature: float) -> Tensor:
    """Rows `tokens` [rows, k] of the table, weighted by the softmax of `values`, without gathering them first."""
    weights = _probabilities(values, temperature).to(table.dtype)  # eq. 4 and 5, over K tokens
    return F.embedding_bag(tokens, table, per_sample_weights=weights, mode="sum")


def _probabilities(logits: Tensor, temperature: float) -> Tensor:
    wide = torch.promote_types(logits.dtype, torch.float32)
    # Divided in the wide type: in float16, logits over a low temperature are infinite.
    return (logits if temperature == 1.0 else logits.to(wide) / temperature).softmax(-1, dtype=wide)
