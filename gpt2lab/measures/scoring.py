"""Log-probabilities of given tokens under a model: the one forward pass that all likelihood measures share.

Only the states that are scored meet the head, in chunks, so that [batch, time, vocab] logits never exist. No
number depends on the batch size: rows are causal and padded on the right, so a row never sees its padding. In
bfloat16 and float16 its last digits may, because they are rounded after sums whose order depends on the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.base.progress import Progress, progress
from gpt2lab.model import Transformer
from gpt2lab.model.evaluating import evaluating

_CHUNK_ELEMENTS = {"cpu": 1 << 22, "cuda": 1 << 26}
"""Logits held at a time: 16 and 256 MiB in float32."""


@dataclass(frozen=True)
class Row:
    """A sequence whose last tokens are scored, each given all before it."""

    tokens: Tensor
    """[length] int64; the first one is never scored."""
    scored: int
    """How many tokens at the end count: 1 ≤ scored < length."""


@dataclass(frozen=True)
class RowScore:
    """What the model says of a row's scored tokens."""

    losses: Tensor
    """[scored] float32, of a float64 model float64: -log p of each, in nats."""
    hits: Tensor
    """[scored] bool: whether it was the likeliest token (the lowest id among equals)."""


def score_rows(
    model: Transformer, rows: Sequence[Row], *, batch_size: int = 8, label: str = "scoring"
) -> list[RowScore]:
    """Score the end of each row; results in the order of `rows`, on the CPU.

    Rows of similar length share a batch. LabError: an id outside the vocabulary, NaN logits, a row longer than
    the model's positions, a row with nothing to score, a model that is not causal.
    """
    check_batch_size(batch_size)
    model.config.require_causal(label)
    _check_rows(model, rows)
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i].tokens))
    scores: dict[int, RowScore] = {}
    total = sum(row.scored for row in rows)
    bar: Progress[int] = progress(total=total, label=label, unit="tokens")
    with evaluating(model), torch.inference_mode(), bar:
        for start in range(0, len(rows), batch_size):
            picked = order[start : start + batch_size]
            batch = [rows[i] for i in picked]
            losses, hits = _score_batch(model, batch)
            lengths = [row.scored for row in batch]
            for i, loss, hit in zip(picked, losses.split(lengths), hits.split(lengths), strict=True):
                scores[i] = RowScore(loss, hit)
            bar.advance(sum(lengths))
    return [scores[i] for i in range(len(rows))]


def check_batch_size(batch_size: int) -> None:
    """Refuse a batch of no rows. LabError."""
    if batch_size < 1:
        raise LabError(f"batch_size must be at least 1, got {batch_size}")


def _check_rows(model: Transformer, rows: Sequence[Row]) -> None:
    longest, vocabulary = model.context, model.config.vocab_size
    for row in rows:
        if not 1 <= row.scored < len(row.tokens):
            raise LabError(
                f"a row of {len(row.tokens)} tokens cannot have {row.scored} scored; the first one never is"
            )
        if len(row.tokens) - 1 > longest and model.config.positions != "none":
            raise LabError(
                f"{len(row.tokens) - 1} input tokens are more than the model's {longest} positions"
            )
        low, high = (int(bound) for bound in row.tokens.aminmax())
        if low < 0 or high >= vocabulary:
            raise LabError(
                f"token {high if high >= vocabulary else low} is outside the model's vocabulary of {vocabulary}; "
                "was the text encoded with another model's tokenizer?"
            )


def _score_batch(model: Transformer, batch: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Losses and hits of all scored tokens of a batch, row after row; each [scored in all], on the CPU."""
    time = max(len(row.tokens) for row in batch) - 1
    inputs = torch.zeros(len(batch), time, dtype=torch.int64)
    places = []  # of the scored states, counted through the whole batch
    for i, row in enumerate(batch):
        end = len(row.tokens) - 1
        inputs[i, :end] = row.tokens[:-1]
        places.append(torch.arange(i * time + end - row.scored, i * time + end))
    targets = torch.cat([row.tokens[-row.scored :] for row in batch]).to(model.device)
    # No attention mask: in a causal model the padding, which stands on the right, is seen by nobody.
    hidden = model.hidden(inputs.to(model.device)).flatten(0, 1)  # [batch * time, d_model]
    if len(targets) < len(hidden):
        hidden = hidden[torch.cat(places).to(model.device)]
    wide = torch.promote_types(hidden.dtype, torch.float32)
    losses = torch.empty(len(targets), dtype=wide)
    hits = torch.empty(len(targets), dtype=torch.bool)
    step = max(1, _CHUNK_ELEMENTS.get(model.device.type, 1 << 22) // model.config.vocab_size)
    for start in range(0, len(targets), step):
        part = slice(start, start + step)
        logits, target = model.unembed(hidden[part]).to(wide), targets[part, None]  # [step, vocab], [step, 1]
        losses[part] = (logits.logsumexp(-1) - logits.gather(-1, target).squeeze(-1)).cpu()
        hits[part] = (logits.argmax(-1, keepdim=True) == target).squeeze(-1).cpu()
    if losses.isnan().any():
        raise LabError("the model's logits are NaN; look at its weights, or load it in float32")
    return losses, hits
