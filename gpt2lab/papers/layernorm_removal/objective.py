"""The auxiliary losses of the removal: every token's standard deviation before the last norm, or before every norm, near
their mean.
"""

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
        with self._states(model) as states:
            model.hidden_of(batch)
        (last,) = states.values()
        sigma, kinds = _scales(model, last), self._kinds(model, batch)
        return {**next_token.totals(model, batch), **_sums(sigma, kinds)}

    def __call__(
        self, model: Transformer, batch: Batch, whole: Totals | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Return loss and metrics; whole: see `Divisible`. LabError for a model without blocks or a final norm."""
        with self._states(model) as states:
            loss, metrics = next_token(model, batch, whole)
        (last,) = states.values()
        sigma, kinds = _scales(model, last), self._kinds(model, batch)
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
    def _states(self, model: Transformer) -> Iterator[dict[str, Tensor]]:
        """Collect what the norms read whose scales are evened, in the order of the forward pass, by name; the last one last.

        LabError for a model without blocks or a final norm.
        """
        if not model.config.n_layers or not isinstance(model.final_norm, Norm):
            raise LabError(
                "the auxiliary loss reads what the last block gives to the final norm, and this model lacks one"
            )
        states = dict[str, Tensor]()

        def keep(x: Tensor, name: str) -> Tensor:
            states[name] = x
            return x

        with model.tap(write=dict.fromkeys(self._places(model), keep)):
            yield states

    def _places(self, model: Transformer) -> list[str]:
        return [f"blocks.{model.config.n_layers - 1}.hook_resid_post"]

    def _kinds(self, model: Transformer, batch: Batch) -> dict[str, Tensor]:
        """Return where tokens are real, first of a row, an end of a text or none of these (usual), bool [batch, time]."""
        tokens = batch["tokens"]
        end = model.config.eos if self.end_of_text is None else self.end_of_text
        mask = batch.get("attention_mask")
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.bool()
        first = (real.cumsum(1) == 1) & real
        ends = (tokens == end) & real if end is not None else torch.zeros_like(real)
        return {"real": real, "usual": real & ~first & ~ends, "first": first, "ends": ends}


@dataclass(frozen=True, kw_only=True)
class EvenLogScales(EvenScales):
    """Cross entropy + penalty · mean over all norms and tokens of (log σ - target)²: ours, for gated feed-forwards.

    target is the mean of log σ before that norm over all tokens but the first of a row and the ends of texts, without
    gradient; 0 if there are none. A logarithm has no unit: the loss is the same for a model whose states are ten times as
    long, and a token a thousand times longer than the others is pulled back without outweighing all else. It is taken before
    every norm, since a gated block squares what a frozen norm lets through. spread is that mean, the other numbers the same.
    """

    def totals(self, model: Transformer, batch: Batch) -> Totals:
        """Return counts and sums of σ by kind of token, and those of log σ by place."""
        with self._states(model) as states:
            model.hidden_of(batch)
        kinds, *_, last = self._kinds(model, batch), *states.values()
        logs = {
            f"log_sigma.{name}": (_scales(model, x).log() * kinds["usual"]).sum()
            for name, x in states.items()
        }
        return {**next_token.totals(model, batch), **_sums(_scales(model, last), kinds), **logs}

    def __call__(
        self, model: Transformer, batch: Batch, whole: Totals | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Return loss and metrics; whole: see `Divisible`. LabError for a model without blocks or a final norm."""
        with self._states(model) as states:
            loss, metrics = next_token(model, batch, whole)
        kinds, *_, last = self._kinds(model, batch), *states.values()
        _, numbers = uneven(_scales(model, last).detach(), kinds, whole)
        spread = self._spread(model, states, kinds, whole)
        metrics = {
            **metrics,
            "cross_entropy": float(loss.detach()),
            "spread": float(spread.detach()),
            **numbers,
        }
        return (loss + self.penalty * spread if self.penalty else loss), metrics

    def _spread(
        self,
        model: Transformer,
        states: Mapping[str, Tensor],
        kinds: Mapping[str, Tensor],
        whole: Totals | None,
    ) -> Tensor:
        logs = {name: _scales(model, x).log() for name, x in states.items()}
        counts = {f"tokens.{kind}": where.sum() for kind, where in kinds.items()} if whole is None else whole
        usual = counts["tokens.usual"].clamp_min(1)
        spreads = []
        for name, log in logs.items():
            own = (log.detach() * kinds["usual"]).sum() if whole is None else whole[f"log_sigma.{name}"]
            far = ((log - own / usual).square() * kinds["real"]).sum()
            spreads.append(far / counts["tokens.real"].clamp_min(1))
        return torch.stack(spreads).mean()

    def _places(self, model: Transformer) -> list[str]:
        ends = ("hook_resid_pre", "hook_resid_mid")
        return [
            *(name for name in model.activation_names() if name.endswith(ends) and ":" not in name),
            *super()._places(model),
        ]


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
