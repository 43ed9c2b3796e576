"""What mixtures of experts add to an objective: the losses that spread the load and keep the router's logits small."""

from types import TracebackType

from torch import Tensor

from gpt2lab.model import Transformer
from gpt2lab.model.experts import balance_loss, router_z_loss

_ROUTER = "mlp.hook_router_logits"


class RoutingLosses:
    """A scope around a model's forward pass that sees the routers' logits; nothing for a model without experts.

        with RoutingLosses(model, attention_mask) as routing:
            hidden = model.hidden(tokens, attention_mask=attention_mask)
        return routing.added_to(loss)

    They are read through a tap, with their gradient, and belong to this scope: nothing stays on the model. Blocks that
    are computed again in the backward pass (gradient checkpointing) are seen once. Only a model in training mode has
    these losses; what is evaluated is the objective alone.
    """

    def __init__(self, model: Transformer, attention_mask: Tensor | None = None) -> None:
        self.config, self.attention_mask = model.config, attention_mask
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
        config, logits = self.config, list(self.logits.values())
        balance = balance_loss(logits, config.experts_per_token, self.attention_mask)
        metrics = {"balance": float(balance.detach())}
        if config.balance_weight:
            loss = loss + config.balance_weight * balance
        if config.router_z_weight:
            size = router_z_loss(logits, self.attention_mask)
            metrics["router_z"] = float(size.detach())
            loss = loss + config.router_z_weight * size
        return loss, metrics
