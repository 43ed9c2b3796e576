"""Distillation: the next token, and the distribution that a frozen teacher gives it (Hinton et al. 2015, section 2).

L = (1 - w) CE(target) + w τ² KL(softmax(z_teacher / τ) ‖ softmax(z / τ)),   means over the targets
"""

import copy
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from gpt2lab.base.errors import LabError
from gpt2lab.base.settings import Model
from gpt2lab.model import Transformer, linear_cross_entropy, load_model
from gpt2lab.model.loss import IGNORE
from gpt2lab.training.micro_batches import Batch, Totals, target_share
from gpt2lab.training.objectives import Divisible, Owned, OwnedModule, next_token
from gpt2lab.training.routing import RoutingLosses

_ROWS = 256
"""Positions whose logits, the teacher's and the student's, are held at a time."""


@dataclass(kw_only=True)
class Distillation(Divisible):
    """The next token, and a frozen teacher's distribution over it."""

    teacher: Model | None = None
    """MODEL to learn from, of the same tokenizer; none is the model itself as training begins, which it then stays near."""
    weight: float = 0.5
    """w: share of the teacher's term."""
    temperature: float = 2.0
    """τ: divides the logits of both."""
    taught_by: Transformer | None = field(default=None, init=False, repr=False)
    """The teacher, from `prepare` on."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.weight <= 1.0:
            raise LabError(f"distillation: weight must lie in [0, 1], got {self.weight}")
        if not 0.0 < self.temperature < float("inf"):
            raise LabError(f"distillation: temperature must be above 0, got {self.temperature}")

    def prepare(self, model: Transformer) -> None:
        """Load the teacher, or copy the model, unless there is one. LabError for a teacher of another vocabulary."""
        if self.taught_by is None:
            given = copy.deepcopy(model) if self.teacher is None else load_model(Path(self.teacher))
            self.taught_by = given.eval().requires_grad_(False)
        if (own := model.config.vocab_size) != (theirs := self.taught_by.config.vocab_size):
            raise LabError(
                f"distillation: the teacher has {theirs} token ids, the model {own}; both need the same tokenizer"
            )
        self.taught_by.config.require_causal("teaching the next token")

    def modules(self) -> Owned:
        """Return the teacher; it does not train."""
        return {} if self.taught_by is None else {"teacher": OwnedModule(module=self.taught_by)}

    def totals(self, model: Transformer, batch: Batch) -> Totals:
        """Return the number of targets, and what the routers' losses must know."""
        return next_token.totals(model, batch)

    def __call__(
        self, model: Transformer, batch: Batch, whole: Totals | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Return L in nats a target; metrics: cross_entropy, and divergence, the KL without its factors.

        batch: as for `next_token`. whole: see `Divisible`. LabError before `prepare`.
        """
        teacher = self.taught_by
        if teacher is None:
            raise LabError("distillation: no teacher yet; call prepare(model) before the first batch")
        model.config.require_causal("predicting the next token")
        mask, scored = batch.get("attention_mask"), batch["targets"] != IGNORE
        with RoutingLosses(model, mask, whole) as routing:
            states = model.hidden(batch["tokens"], attention_mask=mask)[scored]  # [targets, d_model]
        with torch.no_grad():
            wanted = teacher.hidden(batch["tokens"], attention_mask=mask)[scored]
        own = target_share(batch, whole)
        entropy = linear_cross_entropy(
            states, model.head.weight, batch["targets"][scored], bias=model.head.bias
        )
        divergence = self._divergence(model, states, teacher, wanted) * own
        entropy = entropy * own
        loss = (1 - self.weight) * entropy + self.weight * self.temperature**2 * divergence
        loss, more = routing.added_to(loss)
        numbers = {"cross_entropy": float(entropy.detach()), "divergence": float(divergence.detach())}
        return loss, {**numbers, **more}

    def _divergence(self, model: Transformer, states: Tensor, teacher: Transformer, wanted: Tensor) -> Tensor:
        """Return the mean KL over the rows of states [targets, d_model]; logits are computed again in the backward pass."""

        def chunk(own: Tensor, theirs: Tensor) -> Tensor:
            students = F.log_softmax(model.head(own).to(wide) / self.temperature, dim=-1)
            with torch.no_grad():
                teachers = F.log_softmax(teacher.head(theirs).to(wide) / self.temperature, dim=-1)
            return F.kl_div(students, teachers, reduction="sum", log_target=True)

        wide = torch.promote_types(states.dtype, torch.float32)
        total = torch.zeros((), dtype=wide, device=states.device)
        for own, theirs in zip(states.split(_ROWS), wanted.split(_ROWS), strict=True):
            total = total + checkpoint(chunk, own, theirs, use_reentrant=False)
        return total / max(1, len(states))
