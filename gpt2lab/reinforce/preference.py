"""Direct preference optimisation, as an objective over pairs of answers (Rafailov et al. 2023).

    L = -mean log σ(β [(log π(y_w|x) - log ref(y_w|x)) - (log π(y_l|x) - log ref(y_l|x))]) + λ CE(y | x)

The second term, off by default, is the cross entropy of a ground-truth answer y, mean over its tokens: it keeps the policy
from making both answers of a pair less likely (gDPO; Tang et al. 2025, eq. 3).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.reinforce.pairs import PreferenceBatches, read_pairs, split_pairs
from gpt2lab.reinforce.reference import Reference
from gpt2lab.reinforce.rollouts import Continuations, score_tokens, summed
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.training.micro_batches import Batch, Totals, share
from gpt2lab.training.objectives import Divisible, OwnedModule
from gpt2lab.training.rows import RowData


class Preference(NamedTuple):
    """The loss of pairs, and the implicit rewards behind it."""

    loss: Tensor
    """[pairs], nats."""
    chosen: Tensor
    """β (log π - log ref) of the better answers, [pairs]."""
    rejected: Tensor
    """The same of the worse ones."""


def dpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float = 0.1,
) -> Preference:
    """Return -log σ(β [(log π - log ref)(y_w) - (log π - log ref)(y_l)]) for each pair (Rafailov et al. 2023, eq. 7).

    All [pairs]: log-probabilities of whole answers. LabError for a beta that is not positive and finite.
    """
    if not 0.0 < beta < math.inf:
        raise LabError(f"dpo: beta must be positive, got {beta}; 0.1 is usual")
    better = beta * (chosen - reference_chosen)
    worse = beta * (rejected - reference_rejected)
    return Preference(-F.logsigmoid(better - worse), better, worse)


@dataclass(kw_only=True)
class DPO(Divisible):
    """Objective on pairs of answers: `PreferenceBatches`, or files of rows through `gpt2lab train --objective dpo`.

    The reference is the policy as training begins (see `Reference`), unless one was put in place before.
    """

    beta: float = 0.1
    """How fast a lead over the reference counts; large: the policy stays near."""
    anchor: float = 0.0
    """Weight of the cross entropy of a ground-truth answer; 0 is plain DPO."""
    per_token: bool = False
    """Log-probabilities of answers are means over their tokens, not sums; published results use sums."""
    prompt: str = "prompt"
    """Field of the data that holds what both answers continue."""
    chosen: str = "chosen"
    """Field of the better answer."""
    rejected: str = "rejected"
    """Field of the worse answer."""
    truth: str | None = None
    """Field of a ground-truth answer, for the anchor."""
    reference: Reference | None = field(default=None, init=False, repr=False)
    """The policy that log-probabilities are compared with."""

    def __post_init__(self) -> None:
        if not 0.0 < self.beta < math.inf:
            raise LabError(f"dpo: beta must be positive, got {self.beta}; 0.1 is usual")
        if not 0.0 <= self.anchor < math.inf:
            raise LabError(f"dpo: anchor must not be negative, got {self.anchor}; 0 is plain DPO")

    def prepare(self, model: Transformer) -> None:
        """Take the model as the reference, unless there is one."""
        if self.reference is None:
            self.reference = Reference(model)

    def modules(self) -> Mapping[str, OwnedModule]:
        """Return the reference, if it has weights of its own; none of them train."""
        if self.reference is None or not self.reference.is_copy:
            return {}
        return {"reference": OwnedModule(module=self.reference.model)}

    def read_rows(
        self,
        data: Sequence[str],
        lm: LanguageModel,
        *,
        batch_size: int,
        context: int,
        valid_fraction: float,
        seed: int,
    ) -> RowData:
        """Return pairs as batches, a prompt's on one side. LabError as for `read_pairs` and `PreferenceBatches`."""
        if self.anchor and self.truth is None:
            raise LabError(
                "dpo: anchor needs a ground-truth answer; name its field, objective_options.truth=FIELD"
            )
        pairs = read_pairs(
            list(data), prompt=self.prompt, chosen=self.chosen, rejected=self.rejected, truth=self.truth
        )
        training, validation = split_pairs(pairs, valid_fraction)
        batches = PreferenceBatches(training, lm, batch_size=batch_size, context=context, seed=seed)
        held_out = PreferenceBatches(validation, lm, batch_size=batch_size, context=context, shuffle=False)
        places = range(0, len(held_out.rows), batch_size)
        return RowData(
            batches=batches,
            validation=[
                held_out.gather(range(place, min(place + batch_size, len(held_out.rows)))) for place in places
            ],
            examples=len(batches.rows),
            validation_examples=len(held_out.rows),
            dropped=batches.dropped + held_out.dropped,
        )

    def totals(self, model: Transformer, batch: Batch) -> Totals:
        """Return the number of pairs, and of tokens of ground truths."""
        found = {"pairs": torch.tensor(len(batch["chosen_tokens"]))}
        if self.anchor:
            found["truth"] = self._truth(batch).mask.sum()
        return found

    def __call__(
        self, model: Transformer, batch: Batch, whole: Totals | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss in nats a pair; metrics: the implicit rewards of both answers, their margin and accuracy.

        accuracy: the share of pairs whose better answer has the higher reward, a tie counting one half.
        whole: see `Divisible`. LabError for an anchor without ground truths, and before `prepare`.
        """
        reference = self.reference
        if reference is None:
            raise LabError("dpo: no reference yet; call prepare(model) before the first batch")
        better, worse = part_of(batch, "chosen"), part_of(batch, "rejected")
        said = [self._logprobs(model, answers) for answers in (better, worse)]
        known = [
            summed(reference.score(answers).logprobs, answers.mask, average=self.per_token)
            for answers in (better, worse)
        ]
        loss, rewards, others = dpo_loss(*said, *known, beta=self.beta)
        own = share(len(loss), whole, "pairs")
        margin = (rewards - others).detach()
        metrics = {
            "reward_chosen": float(rewards.detach().mean()) * own,
            "reward_rejected": float(others.detach().mean()) * own,
            "margin": float(margin.mean()) * own,
            "accuracy": float(((margin > 0).double() + (margin == 0).double() / 2).mean()) * own,
        }
        total = loss.mean() * own
        if self.anchor:
            truth = self._truth(batch)
            entropy = -score_tokens(model, truth).logprobs.sum() / truth.mask.sum().clamp_min(1)
            entropy = entropy * share(truth.mask.sum(), whole, "truth")
            metrics["truth"] = float(entropy.detach())
            total = total + self.anchor * entropy
        return total, metrics

    def _logprobs(self, model: Transformer, answers: Continuations) -> Tensor:
        return summed(score_tokens(model, answers).logprobs, answers.mask, average=self.per_token)

    def _truth(self, batch: Batch) -> Continuations:
        if "truth_tokens" not in batch:
            raise LabError(
                "dpo: anchor needs a ground-truth answer beside each pair; name its field, or set anchor to 0"
            )
        return part_of(batch, "truth")


def part_of(batch: Batch, name: str) -> Continuations:
    """Return one of the answers of a batch of `PreferenceBatches`: "chosen", "rejected" or "truth"."""
    return Continuations(
        tokens=batch[f"{name}_tokens"], attention_mask=batch[f"{name}_mask"], mask=batch[f"{name}_answer"]
    )
