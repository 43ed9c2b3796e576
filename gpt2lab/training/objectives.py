"""Objectives: what training minimises, what the loop may ask of it, and those of language models."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer, TransformerConfig
from gpt2lab.model.loss import IGNORE
from gpt2lab.training.micro_batches import Batch, Totals, target_count, target_share, target_totals
from gpt2lab.training.routing import RoutingLosses, balance_is_of_the_batch, routing_totals
from gpt2lab.training.sampled_labels import sampled_label_loss

LossFunction = Callable[[Transformer, Batch], tuple[Tensor, dict[str, float]]]
"""Loss and further numbers for the log, each a mean over the batch's targets (those not -100), the loss in nats."""


@dataclass(frozen=True, kw_only=True)
class OwnedModule:
    """A module of an objective: a reference model, a teacher, an auxiliary decoder, a multiplier.

    What it trains is what `requires_grad` says. The loop puts it on the model's device, adds groups for it to the
    optimizer, and keeps it in the checkpoints.
    """

    module: nn.Module
    """The module; one without trainable parameters stays in evaluation mode."""
    learning_rate: float | None = None
    """Peak of its groups, which the schedule scales; None is that of the optimizer's first group."""
    weight_decay: float = 0.0
    """Decay of its matrices; vectors are not decayed."""
    maximize: bool = False
    """Ascend the loss instead of descending it, as a Lagrange multiplier does."""

    @property
    def trains(self) -> bool:
        """Whether it has trainable parameters."""
        return any(parameter.requires_grad for parameter in self.module.parameters())


Owned = Mapping[str, OwnedModule]
"""An objective's modules by name."""


class Objective:
    """What training minimises: model + batch → loss, in nats, and numbers for the log, each a mean over the targets.

    In several micro-batches every target weighs the same. An objective that is other means is `Divisible`; one that
    cannot be computed in parts says why in `indivisible`. A subclass writes `__call__`; the other members say what else
    it can do, and each has a default. A plain function is an objective too: see `as_objective`.
    """

    indivisible: ClassVar[str] = ""
    """Why k micro-batches cannot be one large batch, as the end of a sentence; empty if they can."""
    samples_labels: ClassVar[bool] = False
    """Whether there is a distribution of labels to draw from: `sampled_loss` is written."""

    @property
    def name(self) -> str:
        """As it is named in messages."""
        return type(self).__name__

    def __call__(self, model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the loss, a tensor with a gradient, and numbers for the log."""
        raise NotImplementedError

    def prepare(self, model: Transformer) -> None:
        """Get ready for a run with this model, once, before the first update; a resumed run does it before it loads.

        Here a reference model is copied and an auxiliary head gets the model's width.
        """

    def modules(self) -> Owned:
        """Return the modules that it owns by name, the same ones at every call after `prepare`."""
        return {}

    def before_update(self, model: Transformer, step: int, steps: int) -> None:
        """Hear that update `step` (0 is the first) of `steps` begins; here a coefficient follows its schedule."""

    def no_example_loss(self, model: Transformer) -> str:
        """Return why one row has no loss of its own, as the end of a sentence; empty if it has one."""
        return self.indivisible

    def sampled_terms(self, batch: Batch) -> int:
        """Return how many labels `sampled_loss` draws for a batch."""
        return target_count(batch)

    def sampled_loss(
        self,
        model: Transformer,
        batch: Batch,
        whole: Totals | None = None,
        *,
        generator: torch.Generator | None = None,
        vocab_size: int | None = None,
    ) -> Tensor:
        """Return this batch's share of the mean over all terms of √(B wₜ) ℓₜ, at labels that the model draws itself.

        ℓₜ is the negative log-likelihood of term t at its drawn label, wₜ its weight in the loss and B the number of
        terms, so that B times the squared gradient estimates the Gauss-Newton diagonal of the loss without bias (Liu et
        al. 2023, algorithm 2, where all wₜ are 1/B). Parts of the loss that have no labels are left out. vocab_size: draw
        only tokens below it. LabError unless `samples_labels`.
        """
        raise LabError(f"{self.name} has no distribution of labels to draw from")

    def twice_differentiable_loss(
        self, model: Transformer, batch: Batch, whole: Totals | None = None
    ) -> Tensor:
        """Return the loss in a form that has a second derivative, where the usual form has none."""
        return self(model, batch)[0]


class Divisible(Objective):
    """An objective that is several means, such as a loss for each head, or whose terms read a statistic of the batch."""

    def totals(self, model: Transformer, batch: Batch) -> Totals:
        """Return sums that, added over the micro-batches, are those of all of them; called without gradients."""
        raise NotImplementedError

    def __call__(
        self, model: Transformer, batch: Batch, whole: Totals | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Return loss and numbers of a batch, or, with the added totals, the share of this micro-batch in each.

        Over the micro-batches the shares add up to loss and numbers of one large batch, and so do their gradients.
        """
        raise NotImplementedError

    def no_example_loss(self, model: Transformer) -> str:
        """Return why one row has no loss of its own: a mixture's balance is a statistic of the batch."""
        return self.indivisible or balance_is_of_the_batch(model.config)

    def twice_differentiable_loss(
        self, model: Transformer, batch: Batch, whole: Totals | None = None
    ) -> Tensor:
        """Return the loss, or this micro-batch's share of it, in a form that has a second derivative."""
        return self(model, batch, whole)[0]


class FunctionObjective(Objective):
    """A plain function (model, batch) → loss, numbers as an objective."""

    def __init__(self, function: LossFunction) -> None:
        self.function = function

    @property
    def name(self) -> str:
        """The function's own name."""
        function = self.function
        return function.__name__ if isinstance(function, FunctionType) else type(function).__name__

    def __call__(self, model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return what the function returns."""
        return self.function(model, batch)


def as_objective(objective: Objective | LossFunction) -> Objective:
    """Return an objective; a function is one whose loss is a mean over the targets and which can do nothing else."""
    return objective if isinstance(objective, Objective) else FunctionObjective(objective)


def part(
    objective: Objective, model: Transformer, batch: Batch, share_of_targets: float, whole: Totals | None
) -> tuple[Tensor, dict[str, float]]:
    """Return a micro-batch's share of the loss and of each number; `whole` is for objectives that are `Divisible`."""
    if whole is not None:
        assert isinstance(objective, Divisible)
        return objective(model, batch, whole)
    loss, numbers = objective(model, batch)
    return loss * share_of_targets, {name: value * share_of_targets for name, value in numbers.items()}


def refuse_parts(reason: str, count: int) -> None:
    """LabError for several micro-batches, where a reason says why a batch cannot be computed in parts; else it is empty."""
    if count > 1 and reason:
        raise LabError(
            f"accumulation {count}: {reason}; raise batch_size instead, with gradient_checkpointing if memory is short"
        )


class _Tokens(Divisible):
    """Cross entropy, mean over targets, to which a model with experts adds the losses of its routers."""

    samples_labels = True

    def totals(self, model: Transformer, batch: Batch) -> Totals:
        """Return the number of targets, and what the routers' losses must know."""
        return {**target_totals(batch), **routing_totals(model, batch)}

    def logits(self, model: Transformer, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return logits [rows, vocab] and targets [rows] of the places that the loss reads; -100 carries no loss."""
        raise NotImplementedError

    def sampled_loss(
        self,
        model: Transformer,
        batch: Batch,
        whole: Totals | None = None,
        *,
        generator: torch.Generator | None = None,
        vocab_size: int | None = None,
    ) -> Tensor:
        """Return the cross entropy at tokens that the model draws itself; the losses of routers have no labels."""
        logits, targets = self.logits(model, batch)
        drawn = sampled_label_loss(logits, generator=generator, keep=targets != IGNORE, vocab_size=vocab_size)
        return drawn * target_share(batch, whole)

    def twice_differentiable_loss(
        self, model: Transformer, batch: Batch, whole: Totals | None = None
    ) -> Tensor:
        """Return the loss, or this micro-batch's share of it, from whole logits."""
        with RoutingLosses(model, batch.get("attention_mask"), whole) as routing:
            logits, targets = self.logits(model, batch)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss = F.cross_entropy(logits, targets, ignore_index=IGNORE)
        return routing.added_to(loss * target_share(batch, whole))[0]


class NextToken(_Tokens):
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
        with RoutingLosses(model, batch.get("attention_mask"), whole) as routing:
            hidden = model.hidden_of(batch)
        loss = model.cross_entropy(hidden, batch["targets"])
        return routing.added_to(loss * target_share(batch, whole))

    def logits(self, model: Transformer, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return logits [batch · time, vocab] and targets [batch · time]."""
        model.config.require_causal("predicting the next token")
        return model.unembed(model.hidden_of(batch)).flatten(0, 1), batch["targets"].flatten()


class _MaskedTokens(_Tokens):
    """Cross entropy of the hidden tokens, mean over them: -1/n Σ log p(target | all other tokens) (Devlin et al. 2019)."""

    def __call__(
        self, model: Transformer, batch: Batch, whole: Totals | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss in nats a hidden token.

        batch: tokens [batch, time] with some of them hidden, targets [batch, time] (the token that stood there, -100
        where nothing was hidden), and optionally attention_mask and token_types [batch, time]; see `MaskedBatches`. Only
        hidden places meet the head. whole: see `Divisible`. LabError for a model without a head.
        """
        with RoutingLosses(model, batch.get("attention_mask"), whole) as routing:
            states, targets = self._states(model, batch)
        loss = model.cross_entropy(states, targets)
        return routing.added_to(loss * target_share(batch, whole))

    def logits(self, model: Transformer, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return logits [hidden tokens, vocab] and targets [hidden tokens]."""
        states, targets = self._states(model, batch)
        return F.linear(model.head_input(states), model.head.weight, model.head.bias), targets

    def _states(self, model: Transformer, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the last states at the hidden places, [hidden tokens, d_model], and their targets."""
        chosen = batch["targets"] != IGNORE
        return model.hidden_of(batch)[chosen], batch["targets"][chosen]


next_token = NextToken()
"""Cross entropy of the next token, mean over targets."""
masked_tokens = _MaskedTokens()
"""Cross entropy of hidden tokens, mean over them."""


def default_objective(config: TransformerConfig) -> Objective:
    """Return what a model of this configuration is trained on: the next token, or masked ones if it is not causal."""
    return next_token if config.causal else masked_tokens
