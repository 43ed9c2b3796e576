"""The auxiliary loss of the removal: every token's standard deviation before the last norm near their mean."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.model.norms import Norm
from gpt2lab.training.micro_batches import Batch, Totals
from gpt2lab.training.objectives import Divisible, next_token


@dataclass(frozen=True, kw_only=True)
class EvenScales(Divisible):
    """Cross entropy of the next token + penalty · mean over all tokens of (σ - target)² (Baroni et al. 2025).

    σ is what the last norm, were it real, would divide a token by; target is its mean over all tokens but the first of a
    row and the ends of texts, and carries no gradient; 1 if there are none. As an objective of `gpt2lab.training.train` it
    reports cross_entropy, spread (the mean without its factor), sigma (the target), sigma_first and sigma_end.
    """

    penalty: float = 0.1
    """Weight λ of the auxiliary loss, not negative; 0.1 for GPT-2 small, 0.01 for XL."""
    end_of_text: int | None = None
    """Token that ends a text; none is the model's own."""

    def __post_init__(self) -> None:
        if not self.penalty >= 0:
            raise LabError(
                f"penalty must not be negative, got {self.penalty}; 0.1 is the paper's for GPT-2 small"
            )

    def totals(self, model: Transformer, batch: Batch) -> Totals:
        """Return counts and sums of σ by kind of token, from a forward pass, beside those of the next token."""
        with self._last_states(model) as states:
            model.hidden_of(batch)
        sigma, kinds = _scales(model, states[0]), self._kinds(model, batch)
        return {**next_token.totals(model, batch), **_sums(sigma, kinds)}

    def __call__(
        self, model: Transformer, batch: Batch, whole: Totals | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Return loss and metrics; whole: see `Divisible`. LabError for a model without blocks or a final norm."""
        with self._last_states(model) as states:
            loss, metrics = next_token(model, batch, whole)
        sigma, kinds = _scales(model, states[0]), self._kinds(model, batch)
        spread, numbers = uneven(sigma, kinds, whole)
        metrics = {
            **metrics,
            "cross_entropy": float(loss.detach()),
            "spread": float(spread.detach()),
            **numbers,
        }
        return (loss + self.penalty * spread if self.penalty else loss), metrics  # formula: L

    def no_example_loss(self, model: Transformer) -> str:
        """Return why one row has no loss of its own, unless the penalty is 0."""
        return (
            "the target of σ is a mean over the whole batch"
            if self.penalty
            else super().no_example_loss(model)
        )

    @contextmanager
    def _last_states(self, model: Transformer) -> Iterator[list[Tensor]]:
        """Put what the last block gives to the final norm into a list. LabError if there is no such place."""
        last = model.config.n_layers - 1
        if last < 0 or not isinstance(model.final_norm, Norm):
            raise LabError(
                "the auxiliary loss reads what the last block gives to the final norm, and this model lacks one"
            )
        states = list[Tensor]()

        def keep(x: Tensor, name: str) -> Tensor:
            states.append(x)
            return x

        with model.tap(write={f"blocks.{last}.hook_resid_post": keep}):
            yield states

    def _kinds(self, model: Transformer, batch: Batch) -> dict[str, Tensor]:
        """Return where tokens are real, first of a row, an end of a text or none of these (usual), bool [batch, time]."""
        tokens = batch["tokens"]
        end = model.config.eos if self.end_of_text is None else self.end_of_text
        mask = batch.get("attention_mask")
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.bool()
        first = (real.cumsum(1) == 1) & real
        ends = (tokens == end) & real if end is not None else torch.zeros_like(real)
        return {"real": real, "usual": real & ~first & ~ends, "first": first, "ends": ends}


def _scales(model: Transformer, states: Tensor) -> Tensor:
    """Return σ of every token, [batch, time]; a frozen norm's real one too."""
    assert isinstance(model.final_norm, Norm)
    return Norm.scale(model.final_norm, states).squeeze(-1)


def _sums(sigma: Tensor, kinds: Mapping[str, Tensor]) -> Totals:
    """Return how many tokens there are of each kind, and the sum of σ over the usual ones."""
    counts = {f"tokens.{kind}": where.sum() for kind, where in kinds.items()}
    return {**counts, "sigma.usual": (sigma.detach() * kinds["usual"]).sum()}


def uneven(
    sigma: Tensor, kinds: Mapping[str, Tensor], whole: Totals | None = None
) -> tuple[Tensor, dict[str, float]]:
    """Return mean (σ - target)² over the real tokens, and means of σ by kind.

    sigma and each of `kinds` [batch, time]; with the totals of more tokens their shares in the means over all of them.
    """
    totals = _sums(sigma, kinds) if whole is None else whole

    def mean(values: Tensor, kind: str) -> Tensor:
        return (values * kinds[kind]).sum() / totals[f"tokens.{kind}"].clamp_min(1)

    detached = sigma.detach()
    usual = bool(totals["tokens.usual"])
    target = totals["sigma.usual"] / totals["tokens.usual"] if usual else torch.ones_like(detached[0, 0])
    own = mean(detached, "usual") if usual else mean(torch.ones_like(detached), "real")
    numbers = {"sigma": float(own), "sigma_first": float(mean(detached, "first"))}
    if bool(totals["tokens.ends"]):
        numbers["sigma_end"] = float(mean(detached, "ends"))
    return mean((sigma - target).square(), "real"), numbers  # formula: L_aux / λ
