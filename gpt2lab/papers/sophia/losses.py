"""The batches that curvature is estimated from, and the two losses that are differentiated there."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.training.micro_batches import Batch, Totals, added, row_count, target_count, target_shares
from gpt2lab.training.objectives import Divisible, LossFunction, Objective, as_objective


@dataclass(frozen=True)
class Sample:
    """What an estimate reads."""

    model: Transformer
    """With the weights that the curvature is wanted at."""
    parts: tuple[tuple[Batch, float], ...]
    """Micro-batches, each with its share of the targets; those without any are left out."""
    whole: Totals | None
    """What an objective that is `Divisible` must know of all micro-batches; none for a single one."""
    objective: Objective
    """What is minimised."""

    @property
    def terms(self) -> int:
        """Labels that are drawn for all micro-batches together: B of algorithm 2."""
        return sum(self.objective.sampled_terms(batch) for batch, _ in self.parts)

    def share(self, loss: Tensor, of_targets: float) -> Tensor:
        """Return a micro-batch's share of a mean; an objective that is `Divisible` has taken it already."""
        return loss * of_targets if self.whole is None else loss

    def sampled(
        self, batch: Batch, of_targets: float, generator: torch.Generator, vocab_size: int | None
    ) -> Tensor:
        """Return a micro-batch's share of the loss at labels that the model draws itself; see `Objective.sampled_loss`."""
        loss = self.objective.sampled_loss(
            self.model, batch, self.whole, generator=generator, vocab_size=vocab_size
        )
        return self.share(loss, of_targets)

    def plain(self, batch: Batch, of_targets: float) -> Tensor:
        """Return a micro-batch's share of the loss, in a form with a second derivative where the objective has one."""
        return self.share(self.objective.twice_differentiable_loss(self.model, batch, self.whole), of_targets)


def drawn_sample(
    model: Transformer, batches: Sequence[Batch], objective: Objective | LossFunction, *, rows: int | None
) -> Sample:
    """Return the first `rows` rows of the micro-batches together; None: all. LabError if they have no target.

    A batch without `targets` has its rows for targets, as in the training loop.
    """
    objective = as_objective(objective)
    kept, left = list[Batch](), rows
    for batch in batches:
        size = row_count(batch)
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
    return Sample(model=model, parts=parts, whole=whole, objective=objective)


def require_labels(objective: Objective | LossFunction) -> None:
    """LabError for an objective without a distribution of labels."""
    objective = as_objective(objective)
    if not objective.samples_labels:
        raise LabError(
            f"sophia-g: labels can be drawn for objectives with a likelihood, such as the next token, not for "
            f"{objective.name}; sophia-h needs none, and in a loop of your own add_curvature takes any estimate"
        )
