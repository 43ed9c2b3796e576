"""Log-probabilities of many continuations that begin alike: what two of them share is read and unembedded once."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.base.progress import Progress, progress
from gpt2lab.measures.continuation import Continuation, room_for
from gpt2lab.measures.scoring import check_batch_size
from gpt2lab.model import Transformer
from gpt2lab.model.evaluating import evaluating

_Tokens = tuple[int, ...]

_CHUNK_ELEMENTS = {"cpu": 1 << 22, "cuda": 1 << 26}
"""Logits held at a time: 16 and 256 MiB in float32."""


def log_probabilities(
    model: Transformer, items: Sequence[Continuation], *, batch_size: int = 256, label: str = "titles"
) -> list[float]:
    """Return Σ log p(token | all before it) of each continuation, in nats.

    The tokens to be read form trees: of 792 titles after a prompt, GPT-2's tokenizer leaves 291 paths, and 331 states whose
    next token is asked for instead of 1,537. A context that does not fit the model loses its beginning. LabError: an empty
    context or continuation, one that leaves no room for a context, NaN logits.
    """
    check_batch_size(batch_size)
    asked: dict[_Tokens, dict[int, float]] = {}  # beginning → {next token: log p}
    items = [_fitted(model, item) for item in items]
    for item in items:
        whole = (*item.context, *item.tokens)
        for end in range(len(item.context), len(whole)):
            asked.setdefault(whole[:end], {})[whole[end]] = 0.0
    paths = _paths(asked)
    bar: Progress[None] = progress(total=len(paths), label=label, unit="paths")
    with evaluating(model), torch.inference_mode(), bar:
        for start in range(0, len(paths), batch_size):
            batch = paths[start : start + batch_size]
            _fill(model, batch, asked)
            bar.advance(len(batch))
    return [sum(_along(asked, item)) for item in items]


def _fitted(model: Transformer, item: Continuation) -> Continuation:
    if not item.tokens or not item.context:
        raise LabError("a continuation needs at least one token, and one before it")
    room = room_for(model, item)
    if room < 1:
        raise LabError(
            f"{len(item.tokens)} tokens leave no room for a context in the model's {model.context} positions"
        )
    return item if len(item.context) <= room else Continuation(item.context[-room:], item.tokens)


def _along(asked: dict[_Tokens, dict[int, float]], item: Continuation) -> Iterator[float]:
    whole = (*item.context, *item.tokens)
    for end in range(len(item.context), len(whole)):
        yield asked[whole[:end]][whole[end]]


def _paths(beginnings: dict[_Tokens, dict[int, float]]) -> list[tuple[_Tokens, list[int]]]:
    """Return the beginnings that no other one goes on from, longest first, and the lengths that each answers for."""
    paths: list[tuple[_Tokens, list[int]]] = []
    done: set[_Tokens] = set()
    for path in sorted(beginnings, key=lambda tokens: (-len(tokens), tokens)):
        ends = [n for n in range(1, len(path) + 1) if path[:n] in beginnings and path[:n] not in done]
        if ends and path not in done:
            done.update(path[:n] for n in ends)
            paths.append((path, ends))
    return paths


def _fill(
    model: Transformer, batch: Sequence[tuple[_Tokens, list[int]]], asked: dict[_Tokens, dict[int, float]]
) -> None:
    """Read some paths and write the log-probabilities that they answer for."""
    time = max(len(path) for path, _ in batch)
    inputs = torch.zeros(
        len(batch), time, dtype=torch.int64
    )  # a causal model does not see the padding on its right
    places, wanted = [], []
    for row, (path, ends) in enumerate(batch):
        inputs[row, : len(path)] = torch.tensor(path)
        for end in ends:
            places.append(row * time + end - 1)
            wanted.append(asked[path[:end]])
    hidden = model.hidden(inputs.to(model.device)).flatten(0, 1)  # [batch * time, d_model]
    hidden = hidden[torch.tensor(places, device=hidden.device)]  # [states, d_model]
    step = max(1, _CHUNK_ELEMENTS.get(model.device.type, 1 << 22) // model.config.vocab_size)
    for start in range(0, len(wanted), step):
        part = wanted[start : start + step]
        logits = model.unembed(hidden[start : start + step])  # [step, vocab]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if logits.isnan().any():
            raise LabError("the model's logits are NaN; look at its weights, or load it in float32")
        rows = torch.tensor([row for row, tokens in enumerate(part) for _ in tokens], device=logits.device)
        tokens = torch.tensor([token for tokens in part for token in tokens], device=logits.device)
        found: Tensor = logits[rows, tokens] - logits.logsumexp(-1)[rows]
        for (row, token), value in zip(
            ((row, token) for row, tokens in enumerate(part) for token in tokens), found.tolist(), strict=True
        ):
            part[row][token] = value
