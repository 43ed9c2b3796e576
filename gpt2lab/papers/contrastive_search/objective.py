"""SimCTG: next-token prediction that also pushes the states of different tokens apart (Su et al. 2022, arXiv 2202.06417).

    L = L_MLE + L_CL,   L_CL = mean over ordered pairs i ≠ j of max(0, ρ - 1 + cos(h_i, h_j))

The mean is over all pairs of the batch, both of real tokens, not over texts. 1 stands for cos(h_i, h_i).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.model.loss import IGNORE
from gpt2lab.training.micro_batches import Batch, Totals, share, target_share
from gpt2lab.training.objectives import Divisible, next_token
from gpt2lab.training.routing import RoutingLosses

_SMALLEST_NORM = 1e-12


def contrastive_loss(hidden: Tensor, real: Tensor, *, margin: float = 0.5, chunk: int = 64) -> Tensor:
    """Return L_CL of states hidden [batch, time, d_model], real [batch, time] False at padding; 0 without a pair.

    The cosines are held for `chunk` tokens of each row at a time, [batch, chunk, time], in the backward pass too.
    """
    wide = torch.promote_types(hidden.dtype, torch.float32)
    states = hidden.to(wide)
    unit = states / states.norm(dim=-1, keepdim=True).clamp_min(_SMALLEST_NORM)
    total: Tensor = _HingeSum.apply(unit, real, margin, chunk)
    return total / pair_count(real).clamp_min(1)


def pair_count(real: Tensor) -> Tensor:
    """Return the number of ordered pairs of different real tokens of one row, int64 []; real [batch, time]."""
    counts = real.sum(1)
    return (counts * (counts - 1)).sum()


class _HingeSum(torch.autograd.Function):
    """Σ over i ≠ j of max(0, ρ - 1 + u_i · u_j); its gradient to u_i is 2 Σ_j [the hinge is open] u_j."""

    @staticmethod
    def forward(ctx: Any, unit: Tensor, real: Tensor, margin: float, chunk: int) -> Tensor:
        total = unit.new_zeros(())
        gradient = torch.empty_like(unit)
        places = torch.arange(unit.shape[1], device=unit.device)
        for start in range(0, unit.shape[1], chunk):
            part = slice(start, start + chunk)
            hinge = margin - 1 + unit[:, part] @ unit.transpose(1, 2)  # formula: L_CL; [batch, chunk, time]
            counted = real[:, part, None] & real[:, None, :] & (places[part, None] != places)
            opened = (hinge > 0) & counted
            total = total + hinge.masked_fill(~opened, 0.0).sum()
            gradient[:, part] = 2 * (opened.to(unit.dtype) @ unit)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[0], None, None, None


@dataclass(frozen=True, kw_only=True)
class SimCTG(Divisible):
    """Contrastive training: cross entropy of the next token and a margin between the states of a text's tokens.

    The paper fine-tunes GPT-2 on WikiText-103, a line an example, at 2e-5 with 10 % warm-up, 40,000 updates of 128.
    """

    samples_labels = True

    margin: float = 0.5
    """ρ: cosines above 1 - ρ cost; 0 is plain training."""
    chunk: int = 64
    """Tokens of each row whose cosines are held at a time; changes memory, not the loss."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.margin <= 1.0:
            raise LabError(f"simctg: margin must lie in [0, 1], got {self.margin}; the paper's is 0.5")
        if self.chunk < 1:
            raise LabError(f"simctg: chunk must be at least 1, got {self.chunk}")

    def totals(self, model: Transformer, batch: Batch) -> Totals:
        """Return the numbers of targets and of pairs, and what the routers' losses must know."""
        return {**next_token.totals(model, batch), "pairs": pair_count(_real(batch))}

    def __call__(
        self, model: Transformer, batch: Batch, whole: Totals | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Return L in nats a target; metrics: likelihood (L_MLE), contrastive (L_CL) and the batch's isotropy.

        batch: as for `next_token`. Without an attention_mask, what stands after a row's last target is padding. whole:
        see `Divisible`. LabError for a bidirectional model.
        """
        model.config.require_causal("simctg")
        mask = batch.get("attention_mask")
        with RoutingLosses(model, mask, whole) as routing:
            hidden = model.hidden_of(batch)
        likelihood = model.cross_entropy(hidden, batch["targets"]) * target_share(batch, whole)
        real = _real(batch)
        of_pairs = share(pair_count(real), whole, "pairs")
        loss, metrics = likelihood, {"likelihood": float(likelihood.detach())}
        if of_pairs or whole is None:  # else the mean over the pairs of other micro-batches
            metrics["isotropy"] = batch_isotropy(hidden, real) * of_pairs
        if self.margin:
            apart = contrastive_loss(hidden, real, margin=self.margin, chunk=self.chunk) * of_pairs
            metrics["contrastive"] = float(apart.detach())
            loss = likelihood + apart
        loss, more = routing.added_to(loss)
        return loss, metrics | more

    def sampled_loss(
        self,
        model: Transformer,
        batch: Batch,
        whole: Totals | None = None,
        *,
        generator: torch.Generator | None = None,
        vocab_size: int | None = None,
    ) -> Tensor:
        """Return L_MLE at tokens that the model draws itself.

        L_CL adds nothing to the Gauss-Newton matrix: it is a sum of hinges of cosines, whose second derivative is 0.
        """
        return next_token.sampled_loss(model, batch, whole, generator=generator, vocab_size=vocab_size)


def _real(batch: Batch) -> Tensor:
    """Return where a batch's tokens are real, bool [batch, time]."""
    if "attention_mask" in batch:
        return batch["attention_mask"].bool()
    scored = batch["targets"] != IGNORE
    return scored.flip(1).cumsum(1).flip(1) > 0  # a target comes at this place, or later


def batch_isotropy(hidden: Tensor, real: Tensor) -> float:
    """Return 1 - the mean cosine over the pairs of each row's real states (weighting pairs); nan without a pair."""
    states = hidden.detach().double()
    unit = states / states.norm(dim=-1, keepdim=True).clamp_min(_SMALLEST_NORM) * real[..., None]
    pairs = int(pair_count(real))
    total = unit.sum(1).square().sum() - unit.square().sum()
    return float(1.0 - total / pairs) if pairs else float("nan")
