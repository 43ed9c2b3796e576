"""Objectives: functions (model, batch) → loss, metrics."""

from collections.abc import Callable, Mapping

from torch import Tensor

from gpt2lab.model import Transformer, linear_cross_entropy
from gpt2lab.train.routing import RoutingLosses

Batch = Mapping[str, Tensor]
Objective = Callable[[Transformer, Batch], tuple[Tensor, dict[str, float]]]
"""The loss is a mean over the batch's targets (those not -100), in nats; metrics are further numbers for the log."""


def next_token(model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """Cross entropy of the next token, mean over targets: -1/n Σ log p(target | tokens before it).

    batch: tokens [batch, time], targets [batch, time] (already shifted; -100 carries no loss), and optionally
    attention_mask [batch, time]. The logits are never held whole. In training, a model with experts adds the losses of
    its routers (`balance_weight`, `router_z_weight` of its config) and reports them as metrics.
    """
    mask = batch.get("attention_mask")
    with RoutingLosses(model, mask) as routing:
        hidden = model.hidden(batch["tokens"], attention_mask=mask)
    loss = linear_cross_entropy(hidden, model.head.weight, batch["targets"], bias=model.head.bias)
    return routing.added_to(loss)
