"""What mixtures of experts add to an objective: the losses that spread the load and keep the router's logits small."""

from types import TracebackType

import torch
from torch import Tensor

from gpt2lab.model import Transformer, TransformerConfig
from gpt2lab.model.experts import Routed, balance_loss, routed, router_z_loss
from gpt2lab.training.micro_batches import Batch, Totals, share

_ROUTER = "mlp.hook_router_logits"


class RoutingLosses:
    """A scope around a model's forward pass that sees the routers' logits; nothing for a model without experts.

        with RoutingLosses(model, attention_mask) as routing:
            hidden = model.hidden(tokens, attention_mask=attention_mask)
        return routing.added_to(loss)

    They are read through a tap, with their gradient, and belong to this scope: nothing stays on the model. Blocks that
    are computed again in the backward pass (gradient checkpointing) are seen once. Only a model in training mode has
    these losses; what is evaluated is the objective alone. `whole`: see `gpt2lab.training.Divisible`; the totals are those
    of `routing_totals`.
    """

    def __init__(
        self, model: Transformer, attention_mask: Tensor | None = None, whole: Totals | None = None
    ) -> None:
        self.config, self.attention_mask, self.whole = model.config, attention_mask, whole
        self.logits: dict[str, Tensor] = {}
        """[batch, time, experts] of each layer that has experts, by name."""
        used = model.training and model.config.has_experts
        self.tap = model.tap(write={_ROUTER: self._keep}) if used else None

    def _keep(self, x: Tensor, name: str) -> Tensor:
        self.logits.setdefault(name, x)
        return x

    def __enter__(self) -> "RoutingLosses":
        if self.tap is not None:
            self.tap.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.tap is not None:
            self.tap.__exit__(kind, error, trace)

    def added_to(self, loss: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Return the loss with those of the routers added by the weights in the model's config, and them as metrics.

        Metrics: balance (see `balance_loss`; an even load gives `experts_per_token`) and, if it is used, router_z.
        """
        if self.tap is None:
            return loss, {}
        config, logits, whole = self.config, list(self.logits.values()), self.whole
        everywhere = None if whole is None else Routed(whole["routed.sent"], whole["routed.tokens"])
        balance = balance_loss(logits, config.experts_per_token, self.attention_mask, everywhere)
        metrics = {"balance": float(balance.detach())}
        if config.balance_weight:
            loss = loss + config.balance_weight * balance
        if config.router_z_weight:
            own = self.routed().tokens
            size = router_z_loss(logits, self.attention_mask) * share(own, whole, "routed.tokens")
            metrics["router_z"] = float(size.detach())
            loss = loss + config.router_z_weight * size
        return loss, metrics

    def routed(self) -> Routed:
        """Return how many times each expert was chosen, and by how many tokens."""
        return routed(list(self.logits.values()), self.config.experts_per_token, self.attention_mask)


OF_THE_BATCH = "which tokens an expert has room for depends on the whole batch; an expert_capacity of none drops no token"


def balance_is_of_the_batch(config: TransformerConfig) -> str:
    """Return why rows of a model with experts have no loss of their own, as the end of a sentence; else empty."""
    if config.has_experts and config.balance_weight:
        return (
            "the balance of the experts' load is a statistic of the whole batch; a balance of 0 leaves it out"
        )
    return room_is_of_the_batch(config)


def room_is_of_the_batch(config: TransformerConfig) -> str:
    """Return why a batch of a model with experts is not the sum of its parts, as the end of a sentence; else empty."""
    return OF_THE_BATCH if config.has_experts and config.expert_capacity is not None else ""


@torch.no_grad()
def routing_totals(model: Transformer, batch: Batch) -> Totals:
    """Return what the routers' losses must know of all micro-batches; nothing for a model without experts.

    The share of tokens that each expert gets is a statistic of the whole batch, so this costs a forward pass of the
    blocks.
    """
    with RoutingLosses(model, batch.get("attention_mask")) as routing:
        if routing.tap is None:
            return {}
        model.hidden_of(batch)
    found = routing.routed()
    return {"routed.sent": found.sent.double(), "routed.tokens": found.tokens.double()}
