"""Objectives: functions (model, batch) → loss, metrics."""

from collections.abc import Callable, Mapping

from torch import Tensor

from gpt2lab.model import Transformer, TransformerConfig, linear_cross_entropy
from gpt2lab.model.loss import IGNORE
from gpt2lab.train.routing import RoutingLosses

Batch = Mapping[str, Tensor]
Objective = Callable[[Transformer, Batch], tuple[Tensor, dict[str, float]]]
"""The loss is a mean over the batch's targets (those not -100), in nats; metrics are further numbers for the log."""


def next_token(model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """Cross entropy of the next token, mean over targets: -1/n Σ log p(target | tokens before it).

    batch: tokens [batch, time], targets [batch, time] (already shifted; -100 carries no loss), and optionally
    attention_mask [batch, time]. The logits are never held whole. In training, a model with experts adds the losses of
    its routers (`balance_weight`, `router_z_weight` of its config) and reports them as metrics.
    LabError for a bidirectional model, which would see its targets.
    """
    model.config.require_causal("predicting the next token")
    mask = batch.get("attention_mask")
    with RoutingLosses(model, mask) as routing:
        hidden = model.hidden(batch["tokens"], attention_mask=mask)
    loss = linear_cross_entropy(hidden, model.head.weight, batch["targets"], bias=model.head.bias)
    return routing.added_to(loss)


def masked_tokens(model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """Cross entropy of the hidden tokens, mean over them: -1/n Σ log p(target | all other tokens) (Devlin et al. 2019).

    batch: tokens [batch, time] with some of them hidden, targets [batch, time] (the token that stood there, -100 where
    nothing was hidden), and optionally attention_mask and token_types [batch, time]; see `MaskedBatches`. Only hidden
    places meet the head. LabError for a model without a head.
    """
    mask = batch.get("attention_mask")
    with RoutingLosses(model, mask) as routing:
        hidden = model.hidden(batch["tokens"], attention_mask=mask, token_types=batch.get("token_types"))
    chosen = batch["targets"] != IGNORE
    states, targets = model.head_input(hidden[chosen]), batch["targets"][chosen]
    return routing.added_to(linear_cross_entropy(states, model.head.weight, targets, bias=model.head.bias))


def default_objective(config: TransformerConfig) -> Objective:
    """Return what a model of this configuration is trained on: the next token, or masked ones if it is not causal."""
    return next_token if config.causal else masked_tokens
