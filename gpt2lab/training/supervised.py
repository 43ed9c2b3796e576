"""Objectives of supervised heads: cross entropy, binary cross entropy, squared error, for texts and for tokens."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.model.loss import IGNORE, is_labelled, next_tokens
from gpt2lab.model.task_heads import Head, heads, read_states
from gpt2lab.training.micro_batches import Batch, Totals, share
from gpt2lab.training.objectives import Divisible
from gpt2lab.training.routing import RoutingLosses, routing_totals
from gpt2lab.training.sampled_labels import drawn_labels, sampled_label_loss


@dataclass(frozen=True, kw_only=True)
class HeadLoss:
    """How one head's loss counts."""

    weight: float = 1.0
    """Its factor in the sum over heads."""
    class_weights: tuple[float, ...] | None = None
    """A factor for each class; multilabel: for the positive answers of each label."""
    smoothing: float = 0.0
    """Share of the target's probability that is spread over all classes (Szegedy et al. 2016, section 7)."""

    def __post_init__(self) -> None:
        if not self.weight >= 0:
            raise LabError(f"the weight of a head's loss must not be negative, got {self.weight}")
        if not 0.0 <= self.smoothing < 1.0:
            raise LabError(f"smoothing must lie in [0, 1), got {self.smoothing}")
        if not all(0 <= weight < math.inf for weight in self.class_weights or ()):
            raise LabError(
                f"class_weights must be finite and not negative, got {list(self.class_weights or ())}"
            )


class Supervised(Divisible):
    """Objective: the weighted sum of the losses of one head or several, from one pass of the backbone.

    Reads batches of `LabelledBatches`. What a head's loss is follows from its kind: cross entropy for classification
    and tokens (nats), the mean of binary cross entropies for multilabel (nats), squared error for regression (units
    of the label, squared). `language` times the next-token cross entropy of the same texts is added
    (Radford et al. 2018, eq. 5). LabError if the model lacks a head, or class_weights do not fit it.
    """

    samples_labels = True

    def __init__(self, losses: Mapping[str, HeadLoss], *, language: float = 0.0) -> None:
        if not losses:
            raise LabError("a supervised objective needs a head")
        if not language >= 0:
            raise LabError(f"language must not be negative, got {language}")
        self.losses, self.language = dict(losses), language

    def totals(self, model: Transformer, batch: Batch) -> Totals:
        """Return what each part's mean is over: labels of each head by their weights, targets of the language loss."""
        known = heads(model)
        found = {
            f"labels.{name}": label_count(known[name], batch[f"labels.{name}"], how)
            for name, how in self.losses.items()
        }
        if self.language:
            found["language"] = _language_count(batch)
        found["terms"] = torch.tensor(self.sampled_terms(batch))
        return {**found, **routing_totals(model, batch)}

    def __call__(
        self, model: Transformer, batch: Batch, whole: Totals | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss, and each head's own loss where there are several parts; whole: see `Divisible`."""
        mask = batch.get("attention_mask")
        with RoutingLosses(model, mask, whole) as routing:
            hidden = model.hidden_of(batch)
        said = read_states(model, hidden, mask, tuple(self.losses))
        known = heads(model)
        parts: dict[str, Tensor] = {}
        for name, how in self.losses.items():
            over = whole[f"labels.{name}"] if whole is not None else None
            labels = batch[f"labels.{name}"]
            parts[name] = how.weight * head_loss(known[name], said[name], labels, how, over=over)
        if self.language:
            own = share(_language_count(batch), whole, "language")
            parts["language"] = self.language * _language_loss(model, hidden, batch) * own
        total, routed = routing.added_to(torch.stack(list(parts.values())).sum())
        metrics = {f"loss_{name}": float(part.detach()) for name, part in parts.items()}
        return total, {**(metrics if len(parts) > 1 else {}), **routed}

    def sampled_terms(self, batch: Batch) -> int:
        """Return the number of labels of all heads, and of next tokens where they are learnt too."""
        terms = sum(int(is_labelled(batch[f"labels.{name}"]).sum()) for name in self.losses)
        return terms + (int(_language_count(batch)) if self.language else 0)

    def sampled_loss(
        self,
        model: Transformer,
        batch: Batch,
        whole: Totals | None = None,
        *,
        generator: torch.Generator | None = None,
        vocab_size: int | None = None,
    ) -> Tensor:
        """Return the loss at classes, labels, numbers and tokens that the model draws itself; see `Objective`.

        A squared error is the likelihood of a normal distribution of variance 1/2. The routers' losses have no labels.
        """
        mask, hidden = batch.get("attention_mask"), model.hidden_of(batch)
        said, known = read_states(model, hidden, mask, tuple(self.losses)), heads(model)
        terms = self.sampled_terms(batch) if whole is None else int(whole["terms"])
        total = torch.zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32), device=hidden.device)
        for name, how in self.losses.items():
            labels = batch[f"labels.{name}"]
            over = label_count(known[name], labels, how) if whole is None else whole[f"labels.{name}"]
            if over:
                drawn = sampled_head_loss(known[name], said[name], labels, how, generator)
                total = total + drawn * math.sqrt(how.weight / (float(over) * terms))
        own = int(_language_count(batch)) if self.language else 0
        if own:
            targets = _language_targets(batch)
            logits = model.head(hidden[:, :-1][targets != IGNORE])  # [targets, vocab]
            mean = sampled_label_loss(logits, generator=generator, vocab_size=vocab_size)
            count = own if whole is None else int(whole["language"])
            total = total + mean * own * math.sqrt(self.language / (count * terms))
        return total


def sampled_head_loss(
    head: Head, said: Tensor, labels: Tensor, how: HeadLoss, generator: torch.Generator | None = None
) -> Tensor:
    """Return Σ √cₜ ℓₜ over the labels that are there, ℓₜ the negative log-likelihood of one drawn from the head itself.

    said and labels as of `head_loss`. cₜ is the factor by which class weights and smoothing multiply the Hessian of term t
    with respect to the head's output: Σ_c q_c w_c for classes (q the smoothed label), w y + 1 - y for multilabel.
    """
    wide, there = said.to(torch.promote_types(said.dtype, torch.float32)), is_labelled(labels)
    weights = None if how.class_weights is None else wide.new_tensor(how.class_weights)
    if head.kind in ("classification", "tokens"):
        logits, chosen = wide[there], labels[there]  # [labels, classes], [labels]
        nll = F.cross_entropy(logits, drawn_labels(logits.detach(), generator), reduction="none")
        if weights is None:
            return nll.sum()
        factor = (1 - how.smoothing) * weights[chosen] + how.smoothing * weights.mean()
        return (factor.sqrt() * nll).sum()
    if head.kind == "regression":
        noise = torch.empty_like(wide).normal_(generator=generator) * math.sqrt(0.5)
        return (wide - (wide.detach() + noise))[there].square().sum()
    logits, truth = wide[there], labels[there].to(wide.dtype) * (1 - how.smoothing) + how.smoothing / 2
    drawn = torch.empty_like(logits).uniform_(generator=generator) < logits.detach().sigmoid()
    nll = F.binary_cross_entropy_with_logits(logits, drawn.to(logits.dtype), reduction="none")
    if weights is None:
        return nll.sum()
    factor = weights.expand_as(wide)[there] * truth + 1 - truth
    return (factor.sqrt() * nll).sum()


def label_count(head: Head, labels: Tensor, how: HeadLoss) -> Tensor:
    """Return what the mean of `head_loss` is over: the labels that are there, of classes by their weights; float64 []."""
    if labels.is_floating_point():
        return (~labels.isnan()).sum().double()
    there = labels[labels != IGNORE]
    if how.class_weights is None:
        return torch.tensor(float(there.numel()), dtype=torch.float64, device=labels.device)
    _check_weights(head, how)
    return labels.new_tensor(how.class_weights, dtype=torch.float64)[there].sum()


def _check_weights(head: Head, how: HeadLoss) -> None:
    if how.class_weights is not None and len(how.class_weights) != head.outputs:
        raise LabError(
            f"head {head.name}: {len(how.class_weights)} class_weights for {head.outputs} outputs; give one for each"
        )


def head_loss(
    head: Head, said: Tensor, labels: Tensor, how: HeadLoss | None = None, *, over: Tensor | None = None
) -> Tensor:
    """Return the mean loss of one head over the labels that are there; 0 if there are none.

    said [batch, outputs] or [batch, time, outputs], labels as in `LabelledBatches`. over: the `label_count` of all
    micro-batches, by which the sum over this one is divided; None: this batch's own.
    """
    how = how or HeadLoss()
    _check_weights(head, how)
    weights = None if how.class_weights is None else said.new_tensor(how.class_weights)
    wide = said.to(torch.promote_types(said.dtype, torch.float32))
    if head.kind in ("classification", "tokens"):
        rows = wide.flatten(0, -2)
        return class_loss(rows, labels.flatten(), weights=weights, smoothing=how.smoothing, over=over)
    if head.kind == "multilabel":
        return multilabel_loss(wide, labels, weights=weights, smoothing=how.smoothing, over=over)
    if head.kind == "regression":
        return regression_loss(wide, labels, over=over)
    raise LabError(f"head {head.name} is an embedding; train it with a contrastive objective")


def class_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
    over: Tensor | None = None,
) -> Tensor:
    """Cross entropy -Σ_c q_c w_c log p_c over Σ w_label; q is 1 - s at the label, plus s/classes everywhere.

    logits [rows, classes], labels [rows] int64 (-100: none), weights [classes]. 0 if no label has a weight.
    over: what the sum is divided by instead of Σ w_label.
    """
    there = labels[labels != IGNORE]
    if weights is not None:
        weights = weights.to(logits.dtype)
    counted = over if over is not None else torch.ones_like(there) if weights is None else weights[there]
    if not bool(counted.any()):
        return logits.sum() * 0.0  # a mean over nothing
    reduction = "mean" if over is None else "sum"
    loss = F.cross_entropy(
        logits, labels, weight=weights, ignore_index=IGNORE, label_smoothing=smoothing, reduction=reduction
    )
    return loss if over is None else loss / over


def multilabel_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
    over: Tensor | None = None,
) -> Tensor:
    """Mean of -w y log σ(x) - (1 - y) log(1 - σ(x)) over the labels that are there; with s, y becomes (1 - s)y + s/2.

    logits and labels [rows, classes], NaN where there is no label, weights [classes]. over: as of `class_loss`.
    """
    there = ~labels.isnan()
    truth = torch.where(there, labels, 0.0).to(logits.dtype) * (1 - smoothing) + smoothing / 2
    if weights is not None:
        weights = weights.to(logits.dtype)
    losses = F.binary_cross_entropy_with_logits(logits, truth, pos_weight=weights, reduction="none")
    return (losses * there).sum() / (there.sum() if over is None else over).clamp_min(1)


def regression_loss(said: Tensor, labels: Tensor, *, over: Tensor | None = None) -> Tensor:
    """Mean squared error over the numbers that are there; said and labels [rows, numbers], NaN where there is none.

    over: as of `class_loss`.
    """
    there = ~labels.isnan()
    errors = torch.where(there, said - labels.nan_to_num(0.0).to(said.dtype), 0.0)
    return errors.square().sum() / (there.sum() if over is None else over).clamp_min(1)


def _language_targets(batch: Batch) -> Tensor:
    return next_tokens(batch["tokens"], batch.get("attention_mask"))


def _language_count(batch: Batch) -> Tensor:
    return (_language_targets(batch) != IGNORE).sum().double()


def _language_loss(model: Transformer, hidden: Tensor, batch: Batch) -> Tensor:
    return model.cross_entropy(hidden[:, :-1], _language_targets(batch))


def balanced_weights(counts: Sequence[int]) -> tuple[float, ...]:
    """Return weights n / (classes · n_class), which make every class count alike. LabError for an empty class."""
    if not counts or min(counts) < 1:
        raise LabError(f"balanced class weights need an example of every class, got counts {list(counts)}")
    return tuple(sum(counts) / (len(counts) * count) for count in counts)
