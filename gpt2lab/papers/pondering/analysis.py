"""What steps do: the loss by their number, and how distribution and input change from one to the next."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2lab.base.errors import LabError
from gpt2lab.measures.held_out import held_out_loss
from gpt2lab.model import Transformer
from gpt2lab.model.evaluating import evaluating
from gpt2lab.papers.pondering.steps import gradient_norms, pondering_steps, trace

_CHUNK_ELEMENTS = 1 << 21
"""Log-probabilities of one pass held at a time."""

Row = dict[str, Any]


def mean_loss(model: Transformer, rows: Tensor, *, batch_size: int = 32) -> float:
    """Return the mean next-token loss in nats; rows [n, time + 1] token ids, each a window of its own.

    LabError if the loss is not finite, or there is nothing to predict.
    """
    _need_targets(rows)
    batches = ({"tokens": batch[:, :-1], "targets": batch[:, 1:]} for batch in rows.split(batch_size))
    found = held_out_loss(model, batches).loss
    if not math.isfinite(found):
        raise LabError(
            "pondering: the model's losses are not finite; its weights or some embeddings hold NaN"
        )
    return found


def loss_by_steps(
    model: Transformer, rows: Tensor, steps: Iterable[int], *, batch_size: int = 32
) -> dict[int, float]:
    """Return the mean loss with each number of steps; rows as for `mean_loss`. LabError if the model does not ponder."""
    losses = {}
    for count in steps:
        with pondering_steps(model, count):
            losses[count] = mean_loss(model, rows, batch_size=batch_size)
    return losses


def step_statistics(model: Transformer, rows: Tensor, *, batch_size: int = 8) -> list[Row]:
    """Return a row for every pass i = 0 … steps, means over all tokens; rows [n, time + 1] token ids.

    loss and entropy (nats) of P_i; kl: KL(P_i || P_{i+1}) in nats; cosine: of E_i and E_{i+1}; raised: share of tokens
    whose probability is greater after the next pass; gradient: |dL/dE_i| on the first batch, L the last pass's loss.
    The last pass has no next one. LabError if the model does not ponder, or there is nothing to predict.
    """
    _need_targets(rows)
    sums: list[dict[str, float]] = []
    with evaluating(model):
        norms = gradient_norms(model, *_pair(rows[:batch_size].to(model.device)))
        with torch.no_grad():
            for batch in rows.to(model.device).split(batch_size):
                _add(sums, model, batch)
    count = rows[:, 1:].numel()
    found = []
    for index, known in enumerate(sums):
        row: Row = {"pass": index, **{name: value / count for name, value in known.items()}}
        found.append({**row, "gradient": norms[index]})
    return found


def _need_targets(rows: Tensor) -> None:
    if rows.dim() != 2 or not rows[:, 1:].numel():
        raise LabError(
            f"pondering: windows are [n, time + 1] tokens, at least one window of two, got {list(rows.shape)}"
        )


def _pair(batch: Tensor) -> tuple[Tensor, Tensor]:
    return batch[:, :-1], batch[:, 1:]


def _add(sums: list[dict[str, float]], model: Transformer, batch: Tensor) -> None:
    """Add one batch's sums over tokens to those of every pass."""
    tokens, targets = _pair(batch)
    steps = trace(model, tokens)
    sums.extend({} for _ in range(len(steps.states) - len(sums)))

    def add(index: int, name: str, value: Tensor) -> None:
        sums[index][name] = sums[index].get(name, 0.0) + float(value.double().sum())

    for index, (now, after) in enumerate(zip(steps.inputs, steps.inputs[1:], strict=False)):
        add(index, "cosine", F.cosine_similarity(now.float(), after.float(), dim=-1))
    states = [state.flatten(0, 1) for state in steps.states]
    size = max(16, _CHUNK_ELEMENTS // model.config.vocab_size)
    for start in range(0, len(states[0]), size):
        part, target = slice(start, start + size), targets.flatten()[start : start + size, None]
        before = None
        for index, state in enumerate(states):
            log_p = model.head(model.head_input(state[part])).float().log_softmax(-1)
            add(index, "loss", -log_p.gather(1, target))
            add(index, "entropy", -(log_p.exp() * log_p).sum(-1))
            if before is not None:
                add(index - 1, "kl", (before.exp() * (before - log_p)).sum(-1))
                add(index - 1, "raised", (log_p > before).gather(1, target))
            before = log_p


def likely_tokens(
    model: Transformer, tokens: Sequence[int], spell: Callable[[int], str], *, top: int = 3
) -> list[Row]:
    """Return a row for every position and pass: position, token, pass, entropy (nats), and the `top` likeliest tokens.

    tokens is one text; `spell` writes a token. LabError if the model does not ponder.
    """
    with evaluating(model), torch.no_grad():
        states = trace(model, torch.tensor([list(tokens)], dtype=torch.int64, device=model.device)).states
        rows: list[Row] = []
        log_p = [model.head(model.head_input(state[0])).float().log_softmax(-1) for state in states]
    for position, token in enumerate(tokens):
        for index, known in enumerate(log_p):
            values, ids = known[position].topk(min(top, known.shape[-1]))
            entropy = -(known[position].exp() * known[position]).sum()
            rows.append(
                {
                    "position": position,
                    "token": spell(token),
                    "pass": index,
                    "entropy": float(entropy),
                    **{
                        f"top {rank}": f"{spell(id)} {value:.2f}"
                        for rank, (id, value) in enumerate(
                            zip(ids.tolist(), values.exp().tolist(), strict=True), start=1
                        )
                    },
                }
            )
    return rows
