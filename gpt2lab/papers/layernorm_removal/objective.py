"""The auxiliary loss of the removal: every token's standard deviation before the last norm near their mean."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.model.norms import Norm
from gpt2lab.train.objectives import Batch, next_token


@dataclass(frozen=True, kw_only=True)
class EvenScales:
    """Cross entropy of the next token + penalty · mean over all tokens of (σ - target)² (Baroni et al. 2025).

    σ is what the last norm, were it real, would divide a token by; target is its mean over all tokens but the first of a
    row and the ends of texts, and carries no gradient; 1 if there are none. As an objective of `gpt2lab.train.train` it
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

    def __call__(self, model: Transformer, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return loss and metrics. LabError for a model without blocks or a final norm."""
        config = model.config
        if not config.n_layers or not isinstance(model.final_norm, Norm):
            raise LabError(
                "the auxiliary loss reads what the last block gives to the final norm, and this model lacks one"
            )
        states = list[Tensor]()

        def keep(x: Tensor, name: str) -> Tensor:
            states.append(x)
            return x

        with model.tap(write={f"blocks.{config.n_layers - 1}.hook_resid_post": keep}):
            loss, metrics = next_token(model, batch)
        sigma = Norm.scale(model.final_norm, states[0]).squeeze(
            -1
        )  # [batch, time]; a frozen norm's real σ too
        end = config.eos if self.end_of_text is None else self.end_of_text
        real = (
            torch.ones_like(batch["tokens"])
            if batch.get("attention_mask") is None
            else batch["attention_mask"]
        )
        spread, numbers = uneven(sigma, real.bool(), batch["tokens"], end)
        metrics = {
            **metrics,
            "cross_entropy": float(loss.detach()),
            "spread": float(spread.detach()),
            **numbers,
        }
        return (loss + self.penalty * spread if self.penalty else loss), metrics


def uneven(sigma: Tensor, real: Tensor, tokens: Tensor, end: int | None) -> tuple[Tensor, dict[str, float]]:
    """Return mean (σ - target)² over the real tokens, and means of σ by kind; sigma, real, tokens [batch, time]."""
    first = (real.cumsum(1) == 1) & real
    ends = (tokens == end) & real if end is not None else torch.zeros_like(real)
    usual = real & ~first & ~ends
    detached = sigma.detach()
    target = _mean(detached, usual)
    target = torch.ones_like(target) if not bool(usual.any()) else target
    numbers = {"sigma": float(target), "sigma_first": float(_mean(detached, first))}
    if bool(ends.any()):
        numbers["sigma_end"] = float(_mean(detached, ends))
    return _mean((sigma - target).square(), real), numbers


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    return (values * chosen).sum() / chosen.sum().clamp_min(1)
