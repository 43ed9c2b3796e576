"""Objectives of language models: functions (model, batch) → loss, metrics."""

import torch
from torch import Tensor

from gpt2lab.model import Transformer, TransformerConfig, linear_cross_entropy
from gpt2lab.model.loss import IGNORE
from gpt2lab.training.parts import Batch, Divisible, Indivisible, Objective, Totals, share, target_count
from gpt2lab.training.routing import RoutingLosses, routing_totals

__all__ = [
    "Batch",
    "Divisible",
    "Indivisible",
    "Objective",
    "Totals",
    "default_objective",
    "masked_tokens",
    "next_token",
]


class _Targets:
    """A mean over targets, to which a model with experts adds the losses of its routers."""

    def totals(self, model: Transformer, batch: Batch) -> Totals:
        """Return the number of targets, and what the routers' losses must know."""
        return {**target_totals(batch), **routing_totals(model, batch)}


class _NextToken(_Targets):
    """Cross entropy of the next token, mean over targets: -1/n Σ log p(target | tokens before it)."""

    def __call__(
        self, model: Transformer, batch: Batch, whole: Totals | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss in nats a target.

        batch: tokens [batch, time], targets [batch, time] (already shifted; -100 carries no loss), and optionally
        attention_mask [batch, time]. The logits are never held whole. In training, a model with experts adds the losses
        of its routers (`balance_weight`, `router_z_weight` of its config) and reports them as metrics. whole: see
        `Divisible`. LabError for a bidirectional model, which would see its targets.
        """
        model.config.require_causal("predicting the next token")
        mask = batch.get("attention_mask")
        with RoutingLosses(model, mask, whole) as routing:
            hidden = model.hidden(batch["tokens"], attention_mask=mask)
        loss = linear_cross_entropy(hidden, model.head.weight, batch["targets"], bias=model.head.bias)
        return routing.added_to(loss * target_share(batch, whole))


class _MaskedTokens(_Targets):
    """Cross entropy of the hidden tokens, mean over them: -1/n Σ log p(target | all other tokens) (Devlin et al. 2019)."""

    def __call__(
        self, model: Transformer, batch: Batch, whole: Totals | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss in nats a hidden token.

        batch: tokens [batch, time] with some of them hidden, targets [batch, time] (the token that stood there, -100
        where nothing was hidden), and optionally attention_mask and token_types [batch, time]; see `MaskedBatches`. Only
        hidden places meet the head. whole: see `Divisible`. LabError for a model without a head.
        """
        mask = batch.get("attention_mask")
        with RoutingLosses(model, mask, whole) as routing:
            hidden = model.hidden(batch["tokens"], attention_mask=mask, token_types=batch.get("token_types"))
        chosen = batch["targets"] != IGNORE
        states, targets = model.head_input(hidden[chosen]), batch["targets"][chosen]
        loss = linear_cross_entropy(states, model.head.weight, targets, bias=model.head.bias)
        return routing.added_to(loss * target_share(batch, whole))


next_token = _NextToken()
"""Cross entropy of the next token, mean over targets."""
masked_tokens = _MaskedTokens()
"""Cross entropy of hidden tokens, mean over them."""


def target_totals(batch: Batch) -> Totals:
    """Return the number of targets as totals."""
    return {"targets": torch.tensor(target_count(batch))}


def target_share(batch: Batch, whole: Totals | None) -> float:
    """Return this batch's share of the targets of all micro-batches."""
    return 1.0 if whole is None else share(target_count(batch), whole, "targets")


def default_objective(config: TransformerConfig) -> Objective:
    """Return what a model of this configuration is trained on: the next token, or masked ones if it is not causal."""
    return next_token if config.causal else masked_tokens
