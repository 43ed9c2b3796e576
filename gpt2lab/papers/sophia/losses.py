"""The losses that the training loop's objectives mean, in the forms that curvature is estimated from."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.papers.sophia.estimators import IGNORED, sampled_label_loss
from gpt2lab.train.objectives import Batch, Objective, masked_tokens, next_token
from gpt2lab.train.routing import RoutingLosses


@dataclass(frozen=True)
class Sample:
    """What an estimate reads."""

    model: Transformer
    """With the weights that the curvature is wanted at."""
    parts: tuple[tuple[Batch, float], ...]
    """Micro-batches, each with its share of the targets; those without any are left out."""
    terms: int
    """Targets of all together."""
    objective: Objective
    """What is minimised."""


def drawn_sample(
    model: Transformer, batches: Sequence[Batch], objective: Objective, *, rows: int | None
) -> Sample:
    """Return the first `rows` rows of the micro-batches together; None: all. LabError if they have no target.

    A batch without `targets` counts as one, as in the training loop.
    """
    kept, left = list[Batch](), rows
    for batch in batches:
        size = len(next(iter(batch.values())))
        size = size if left is None else min(left, size)
        kept.append({name: tensor[:size] for name, tensor in batch.items()})
        left = None if left is None else left - size
    counts = [
        int((batch["targets"] != IGNORED).sum())
        if "targets" in batch
        else min(1, len(next(iter(batch.values()))))
        for batch in kept
    ]
    total = sum(counts)
    if not total:
        raise LabError("sophia: the batch has no targets to estimate the curvature from")
    parts = [(batch, count / total) for batch, count in zip(kept, counts, strict=True) if count]
    return Sample(model, tuple(parts), total, objective)


def sampled_loss(
    model: Transformer,
    batch: Batch,
    objective: Objective,
    *,
    generator: torch.Generator | None = None,
    vocab_size: int | None = None,
) -> Tensor:
    """Return the objective's cross entropy at labels that the model draws itself, mean over the targets, in nats.

    The losses of a mixture's routers have no labels and are left out. LabError for an objective without a distribution
    of labels: any but the next token and masked tokens.
    """
    require_labels(objective)
    logits, targets = _logits(model, batch, objective)
    return sampled_label_loss(logits, generator=generator, keep=targets != IGNORED, vocab_size=vocab_size)


def require_labels(objective: Objective) -> None:
    """LabError for an objective without a distribution of labels that is known here."""
    if objective not in (next_token, masked_tokens):
        raise LabError(
            f"sophia-g: labels can be drawn for the next token and for masked tokens, not for {_name(objective)}; "
            "sophia-h needs none, and in a loop of your own add_curvature takes any estimate"
        )


def plain_loss(model: Transformer, batch: Batch, objective: Objective) -> Tensor:
    """Return the objective's loss, for the next token and masked tokens in a form that can be differentiated twice."""
    if objective not in (next_token, masked_tokens):
        return objective(model, batch)[0]
    with RoutingLosses(model, batch.get("attention_mask")) as routing:
        logits, targets = _logits(model, batch, objective)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return routing.added_to(F.cross_entropy(logits, targets, ignore_index=IGNORED))[0]


def _logits(model: Transformer, batch: Batch, objective: Objective) -> tuple[Tensor, Tensor]:
    """Logits [rows, vocab] and targets [rows]: of all places, or of the masked ones."""
    mask, targets = batch.get("attention_mask"), batch["targets"]
    if objective is next_token:
        model.config.require_causal("predicting the next token")
        return model(batch["tokens"], attention_mask=mask).flatten(0, 1), targets.flatten()
    hidden = model.hidden(batch["tokens"], attention_mask=mask, token_types=batch.get("token_types"))
    masked = targets != IGNORED
    states = model.head_input(hidden[masked])
    return F.linear(states, model.head.weight, model.head.bias), targets[masked]


def _name(objective: Objective) -> str:
    return getattr(objective, "__name__", type(objective).__name__)
