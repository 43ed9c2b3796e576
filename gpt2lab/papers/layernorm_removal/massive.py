"""Massive activations: single tokens whose state is a hundred times longer than all others' (Sun et al. 2024).

A frozen norm divides every token by about the standard deviation of the usual ones, so that such a token reaches the next
layer as many times too large as it is longer. A plain feed-forward passes that on once. A gated one multiplies two such
numbers: its output grows with the square, block after block, until nothing is finite.

So a gated model first trains with its norms and `EvenLogScales`, which pulls the token back while the norm still makes up
for its length, and the first norm is frozen only when no token stands out any more.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.model.evaluating import evaluating
from gpt2lab.training.callbacks import Callback
from gpt2lab.training.loop import NotFinite

LARGEST_RATIO = 8.0
"""Of a token's σ to the median's when a gated model's first norm is frozen: tokens of 10 in six blocks of SmolLM2-135M ended
at infinity though position 0 had a constant of its own; those of 3.6 in a llama of 656,000 parameters did no harm."""


@dataclass(frozen=True)
class Widest:
    """The token whose σ stands out most from the others'."""

    place: str
    """Name of the residual stream's state."""
    position: int
    sigma: float
    """Its standard deviation (of an RMSNorm its root mean square) over d_model."""
    median: float
    """That of the median token at the same place."""

    @property
    def ratio(self) -> float:
        """How many times the median."""
        return self.sigma / self.median if self.median > 0 else float("inf")

    def __str__(self) -> str:
        return (
            f"{self.sigma:,.4g} at position {self.position} of {self.place}, {self.ratio:,.0f} times the median "
            f"token's {self.median:.3g}"
        )


@torch.no_grad()
def widest_token(model: Transformer, tokens: Tensor) -> Widest:
    """Return the token of `tokens` [batch, time] whose σ is most times the median of its place, over all norms' inputs."""
    names = [
        name
        for name in model.activation_names()
        if name.endswith(("hook_resid_pre", "hook_resid_mid")) and ":" not in name
    ]
    if model.config.n_layers:
        names.append(f"blocks.{model.config.n_layers - 1}.hook_resid_post")
    with evaluating(model), model.tap(read=names) as tap:
        model.hidden(tokens.to(model.device))
    found = [_widest(name, _sigma(model, tap[name])) for name in names]
    return max(found, key=lambda one: one.ratio, default=Widest("embeddings", 0, 1.0, 1.0))


def is_massive(model: Transformer, found: Widest) -> bool:
    """Tell whether a token stands out so far that no norm of this model can be frozen yet: a gated one's squares it."""
    return model.config.gated and found.ratio > LARGEST_RATIO


def refuse_massive(model: Transformer, found: Widest) -> None:
    """LabError for a gated model with a massive activation, whose norms are to be frozen without training."""
    if is_massive(model, found):
        raise LabError(
            f"remove-layernorm: this {model.config.family} has a massive activation: its standard deviation is {found}. "
            "A frozen norm lets it through that many times too large, and gated feed-forwards square it, until the model "
            "gives NaN; only training brings it down before a norm is frozen (mode=full)"
        )


class FirstEvent(Callback):
    """Stops a removal before its first norm is frozen while a token of a gated model still stands out."""

    def __init__(self, tokens: Tensor, step: int, start: Widest) -> None:
        self.tokens, self.step, self.start = tokens, step, start

    def on_start(self, step: int, model: Transformer) -> None:
        """Look before a schedule that begins at once. LabError."""
        if step == 0:
            self.on_update(step, {}, model)

    def on_update(self, step: int, numbers: Mapping[str, float], model: Transformer) -> None:
        """Look at the widest token after the last update with all norms real. LabError."""
        if step != self.step or not is_massive(model, now := widest_token(model, self.tokens)):
            return
        raise LabError(
            f"remove-layernorm: after {step} updates with its norms this {model.config.family} still has a massive "
            f"activation: the standard deviation that stands out most was {self.start} and is {now}. Frozen norms would let "
            f"it through, and gated feed-forwards square it; give more steps or a larger penalty, so that it is at most "
            f"{LARGEST_RATIO:g} times the median when the first norm is frozen"
        )


@contextlib.contextmanager
def explained(model: Transformer, tokens: Tensor, start: Widest) -> Iterator[None]:
    """Say of a removal that is not finite any more how the widest token grew since `start`, in place of the usual advice."""
    try:
        yield
    except NotFinite as error:
        now = widest_token(model, tokens)
        if now.ratio < 2 * start.ratio:
            raise
        raise NotFinite(
            f"remove-layernorm: {error.facts}",
            f"the standard deviation that stands out most was {start} and is {now}: one token has blown up while norms were "
            "frozen; more steps, wider gaps of the schedule (gated feed-forwards square what they read) or "
            "special_positions=true may help",
        ) from None


def _sigma(model: Transformer, x: Tensor) -> Tensor:
    """What a norm divides x [batch, time, d_model] by, without eps, [batch, time]."""
    return model.final_norm.centred(x.double()).square().mean(-1).sqrt()


def _widest(place: str, sigma: Tensor) -> Widest:
    known = torch.nan_to_num(sigma, nan=float("inf"))
    row = known.max(0).values  # [time]
    position = int(row.argmax())
    return Widest(place, position, float(row[position]), float(known.median()))
