"""The losses that the training loop's objectives mean, in the forms that curvature is estimated from."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.papers.sophia.estimators import IGNORED, sampled_label_loss
from gpt2lab.training.objectives import Batch, Divisible, Objective, Totals, masked_tokens, next_token
from gpt2lab.training.parts import added, part, target_count, target_shares
from gpt2lab.training.routing import RoutingLosses


@dataclass(frozen=True)
class Sample:
    """What an estimate reads."""

    model: Transformer
    """With the weights that the curvature is wanted at."""
    parts: tuple[tuple[Batch, float], ...]
    """Micro-batches, each with its share of the targets; those without any are left out."""
    terms: int
    """Targets of all together."""
    whole: Totals | None
    """What an objective that is `Divisible` must know of all micro-batches; none for a single one."""
    objective: Objective
    """What is minimised."""


def drawn_sample(
    model: Transformer, batches: Sequence[Batch], objective: Objective, *, rows: int | None
) -> Sample:
    """Return the first `rows` rows of the micro-batches together; None: all. LabError if they have no target.

    A batch without `targets` has its rows for targets, as in the training loop.
    """
    kept, left = list[Batch](), rows
    for batch in batches:
        size = len(next(iter(batch.values())))
        size = size if left is None else min(left, size)
        kept.append({name: tensor[:size] for name, tensor in batch.items()})
        left = None if left is None else left - size
    kept = [batch for batch in kept if target_count(batch)]
    if not kept:
        raise LabError("sophia: the batch has no targets to estimate the curvature from")
    parts = tuple(zip(kept, target_shares(kept), strict=True))
    whole = None
    if len(kept) > 1 and isinstance(objective, Divisible):
        with torch.no_grad():
            whole = added(objective.totals(model, batch) for batch in kept)
    terms = sum(map(target_count, kept))
    return Sample(model=model, parts=parts, terms=terms, whole=whole, objective=objective)


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


def plain_loss(sample: Sample, batch: Batch, share: float) -> Tensor:
    """Return a micro-batch's share of the loss, of the next token and masked tokens in a form with a second derivative."""
    model, objective = sample.model, sample.objective
    if objective not in (next_token, masked_tokens):
        return part(objective, model, batch, share, sample.whole)[0]
    with RoutingLosses(model, batch.get("attention_mask"), sample.whole) as routing:
        logits, targets = _logits(model, batch, objective)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return routing.added_to(F.cross_entropy(logits, targets, ignore_index=IGNORED) * share)[0]


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
