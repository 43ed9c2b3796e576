"""The number of steps of a model that ponders: another one for a while or for good, and what happens in each."""

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.papers.pondering.architecture import Ponder, Pondering
from gpt2lab.papers.pondering.options import is_count
from gpt2lab.papers.pondering.pause import Pause


def find_pondering(model: Transformer) -> Ponder | Pause:
    """Return what makes a model ponder. LabError if nothing does."""
    found = [wrapper for wrapper in model.wrappers if isinstance(wrapper, Ponder | Pause)]
    if not found:
        raise LabError(
            "pondering: this model does not ponder; attach the architecture pondering and train it"
        )
    return found[0]


@contextlib.contextmanager
def pondering_steps(model: Transformer, steps: int) -> Iterator[Transformer]:
    """Let a model take another number of steps inside this scope: in training, evaluation and new caches.

    LabError for a number below 0, or a model that does not ponder. A cache from outside the scope is refused inside.
    """
    wrapper = find_pondering(model)
    before = (wrapper.steps, wrapper.random_steps)
    wrapper.steps, wrapper.random_steps = _checked(steps), 0
    try:
        yield model
    finally:
        wrapper.steps, wrapper.random_steps = before


def with_steps(model: Transformer, steps: int) -> Transformer:
    """Let a model take another number of steps from now on, and when it is saved and loaded; returns the model."""
    wrapper = find_pondering(model)
    wrapper.steps = _checked(steps)
    model.architectures = tuple(
        dataclasses.replace(known, steps=steps) if isinstance(known, Pondering) else known
        for known in model.architectures
    )
    if isinstance(wrapper, Ponder):
        wrapper.options = dataclasses.replace(wrapper.options, steps=steps)
    return model


@dataclass(frozen=True)
class StepTrace:
    """Inputs and last states of every pass, both [batch, time, d_model] with index 0 … steps."""

    inputs: list[Tensor]
    """E_0 … E_s, without positions."""
    states: list[Tensor]
    """What the head reads after each pass; without `multiply_by_steps` those of pass i are the model's with i steps."""


def trace(model: Transformer, tokens: Tensor, *, attention_mask: Tensor | None = None) -> StepTrace:
    """Run a model once and keep what goes into every pass and what comes out of it; gradients flow if they are enabled.

    What another architecture puts in front of the text (a learned prefix) is left out.
    LabError for a model that does not ponder, or whose passes are pauses.
    """
    kept, time = _traced(model, tokens, attention_mask), tokens.shape[1]
    inputs, states = ([x[:, x.shape[1] - time :] for x in known] for known in (kept.inputs, kept.states))
    return StepTrace(inputs, states)


def _traced(model: Transformer, tokens: Tensor, attention_mask: Tensor | None = None) -> StepTrace:
    """As `trace`, but of all that the passes read, which may be longer than the text."""
    wrapper = find_pondering(model)
    if isinstance(wrapper, Pause):
        raise LabError("pondering: with feedback=pause there is one pass; there are no steps to look into")
    kept = StepTrace([], [])

    def watch(x: Tensor, hidden: Tensor) -> None:
        kept.inputs.append(x)
        kept.states.append(hidden)

    wrapper.watch = watch
    try:
        model.hidden(tokens, attention_mask=attention_mask)
    finally:
        wrapper.watch = None
    return kept


def gradient_norms(model: Transformer, tokens: Tensor, targets: Tensor) -> list[float]:
    """Return |dL/dE_i| for every pass i, L the mean next-token loss of the last.

    tokens and targets [batch, time], targets -100 where there is none. Parameters' gradients stay as they are, and
    may all be frozen.
    """
    # A frozen table gives embeddings without a gradient, and nothing before them would have one.
    hook = model.embedding.register_forward_hook(
        lambda _, __, x: x if x.requires_grad else x.requires_grad_()
    )
    time = tokens.shape[1]
    try:
        with torch.enable_grad():
            steps = _traced(model, tokens)
            states = steps.states[-1][:, -time:]
            loss = model.cross_entropy(states, targets)
            found = torch.autograd.grad(loss, steps.inputs, allow_unused=True)
    finally:
        hook.remove()
    return [0.0 if gradient is None else float(gradient[:, -time:].norm()) for gradient in found]


def _checked(steps: int) -> int:
    if not is_count(steps, 0):
        raise LabError(f"pondering: steps must be a whole number of at least 0, got {steps!r}")
    return steps
