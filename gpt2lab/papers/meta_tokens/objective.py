"""Pre-training with metas: every batch gets meta-tokens at random places, drawn anew at every update."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model import Backbone, Transformer
from gpt2lab.papers.meta_tokens.architecture import meta_token
from gpt2lab.papers.meta_tokens.injection import Injector
from gpt2lab.training.micro_batches import Batch, Totals, target_count
from gpt2lab.training.objectives import NextToken

_EVALUATION = -1
"""Moment of evaluation: the same places at every evaluation, others than in any update."""


@dataclass(kw_only=True)
class MetaInjection(NextToken):
    """The next real token of text into which meta-tokens are put at random places; no loss for predicting a meta."""

    fraction: float = 0.1
    """Share of a row's places that are metas."""
    token: int | None = None
    """Id of the meta-token; none is that of the model's meta-attention, or the last row of its table, where
    `gpt2lab apply add-meta-token` puts it. Text that holds it is refused."""
    append: bool = False
    """Rows grow by their metas; otherwise they keep their length, and their last tokens are left out."""
    exclude_first: int = 0
    """First places of a row that are never metas."""
    exclude_last: int = 0
    """Last places of a row that are never metas."""
    bridge_targets: bool = False
    """A token before a meta predicts the next real token, instead of nothing."""
    seed: int = 0
    """Decides where metas stand."""
    _moment: int = field(default=0, init=False, repr=False)
    _found: int | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self._injector(0)  # refuses what no row can have

    def prepare(self, model: Transformer) -> None:
        """Find the model's meta-token. LabError for one outside its vocabulary."""
        self._found = token_of(model, self.token)

    def before_update(self, model: Transformer, step: int, steps: int) -> None:
        """Note the update: each draws places of its own, so that every epoch does."""
        self._moment = step

    def __call__(
        self, model: Transformer, batch: Batch, whole: Totals | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss in nats a target, over real tokens.

        In training mode the places are those of the update, otherwise always the same. LabError as for `Injector`, and for
        rows that grow beyond the model's positions.
        """
        return super().__call__(model, self.injected(model, batch), whole)

    def totals(self, model: Transformer, batch: Batch) -> Totals:
        """Return the number of targets that are left, and what the routers' losses must know."""
        return super().totals(model, self.injected(model, batch))

    def logits(self, model: Transformer, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return logits and targets of all places of the rows with metas."""
        return super().logits(model, self.injected(model, batch))

    def sampled_loss(
        self,
        model: Transformer,
        batch: Batch,
        whole: Totals | None = None,
        *,
        generator: torch.Generator | None = None,
        vocab_size: int | None = None,
    ) -> Tensor:
        """Return the cross entropy at drawn tokens; see `Objective.sampled_loss`."""
        plain = NextToken()
        return plain.sampled_loss(
            model, self.injected(model, batch), whole, generator=generator, vocab_size=vocab_size
        )

    def twice_differentiable_loss(
        self, model: Transformer, batch: Batch, whole: Totals | None = None
    ) -> Tensor:
        """Return the loss from whole logits."""
        return NextToken().twice_differentiable_loss(model, self.injected(model, batch), whole)

    def sampled_terms(self, batch: Batch) -> int:
        """Return how many labels `sampled_loss` draws: one for each target that is left. LabError before `prepare`."""
        if self._found is None:
            raise LabError(
                "meta-injection: prepare the objective with a model first; the model has the meta-token"
            )
        return target_count(self._injector(self._found)(batch, moment=self._moment))

    def injected(self, model: Backbone, batch: Batch) -> Batch:
        """Return the batch with metas. LabError for rows that grow beyond the model's positions."""
        moment = self._moment if model.training else _EVALUATION
        made = self._injector(token_of(model, self.token))(batch, moment=moment)
        refuse_beyond(model, made["tokens"].shape[1])
        return made

    def _injector(self, token: int) -> Injector:
        return Injector(
            token=token,
            fraction=self.fraction,
            append=self.append,
            exclude_first=self.exclude_first,
            exclude_last=self.exclude_last,
            bridge_targets=self.bridge_targets,
            seed=self.seed,
        )


def token_of(model: Backbone, token: int | None) -> int:
    """Return the id of the meta-token: the given one, that of the model's meta-attention, or the last row of its table.

    LabError for one outside the vocabulary.
    """
    size = model.config.vocab_size
    if token is None:
        attached = meta_token(model)
        return size - 1 if attached is None else attached
    if not 0 <= token < size:
        raise LabError(f"meta-tokens: token {token} is outside the vocabulary of {size}")
    return token


def refuse_beyond(model: Backbone, time: int) -> None:
    """LabError for a window of `time` tokens that the model has no positions for."""
    if model.config.positions != "none" and time > model.context:
        advice = (
            "`gpt2lab apply extend-context` makes it read further"
            if model.config.positions == "rotary"
            else "its learned positions end there"
        )
        raise LabError(
            f"meta-tokens: windows of {time} tokens, metas included, are beyond the model's {model.context} positions; "
            f"{advice}"
        )
