"""The model as a function of adapter weights, differentiable any number of times; and a training step inside the graph.

Test-time learning and other forms of meta-learning take gradient steps on an adapter and differentiate through them:

    parameters = adapter_parameters(model)
    loss = functional_lora(model, parameters, lambda m: plain_loss(m, batch))
    gradients = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from gpt2lab.base.errors import LabError, nearest
from gpt2lab.model.adapters.lora import adapted, adapter_parameters
from gpt2lab.model.loss import IGNORE
from gpt2lab.model.transformer import Transformer

T = TypeVar("T")


class _Call(nn.Module):
    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[Transformer], T]) -> T:
        return function(self.model)


def functional_lora(
    model: Transformer, parameters: Mapping[str, Tensor], function: Callable[[Transformer], T]
) -> T:
    """Return function(model), computed with `parameters` in place of the adapters' own tensors of these names.

    Names as in `adapter_parameters`; adapters that are not named keep their own tensors. What is returned may be
    differentiated any number of times with respect to `parameters`: attention takes its plain form, since the fused
    kernels have no second derivative. The model is as before afterwards, and is only called inside `function`.
    LabError: a name or shape that is not the model's, merged adapters, gradient checkpointing (it would compute the
    backward pass with the model's own tensors).
    """
    own = adapter_parameters(model)
    for name, tensor in parameters.items():
        if name not in own:
            match = nearest(name, own)
            raise LabError(
                f"{name}: no adapter weight of this model" + (f"; did you mean {match}?" if match else "")
            )
        if tensor.shape != own[name].shape:
            raise LabError(f"{name} is {list(tensor.shape)}, the model's adapter has {list(own[name].shape)}")
    if any(layer.merged_weight is not None for _, layer in adapted(model)):
        raise LabError("the adapters are merged, so their tensors take no part; unmerge(model) first")
    if model.gradient_checkpointing:
        raise LabError(
            "gradient_checkpointing recomputes blocks in the backward pass, with the model's own adapters; switch it off"
        )
    with sdpa_kernel(SDPBackend.MATH):
        result: T = functional_call(
            _Call(model), {f"model.{name}": tensor for name, tensor in parameters.items()}, (function,)
        )
    return result


def plain_loss(model: Transformer, batch: Mapping[str, Tensor], weights: Tensor | None = None) -> Tensor:
    """Cross entropy of the next token in nats, differentiable any number of times; the logits are held whole.

    batch: tokens [batch, time], targets [batch, time] (-100 carries no loss), optionally attention_mask [batch, time].
    The mean over targets; with `weights` [batch, time], Σ weight · loss over all cells divided by their number,
    those without a target included.
    """
    logits = model.unembed(model.hidden_of(batch))
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(0, 1)
    targets = batch["targets"].flatten()
    losses = F.cross_entropy(wide, targets, ignore_index=IGNORE, reduction="none")
    if weights is None:
        return losses.sum() / (targets != IGNORE).sum().clamp_min(1)
    return (losses * weights.flatten()).sum() / max(targets.numel(), 1)


@dataclass(frozen=True, kw_only=True)
class InnerAdamW:
    """AdamW (Loshchilov & Hutter 2019, algorithm 2) as a pure function, whose result depends differentiably on all."""

    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of the two moments."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.01
    """Decoupled decay, times the learning rate."""

    def start(self, parameters: Mapping[str, Tensor]) -> "Moments":
        """Return the state before the first step: zero moments."""
        zeros = {name: torch.zeros_like(tensor) for name, tensor in parameters.items()}
        return Moments(first=zeros, second=dict(zeros))

    def step(
        self,
        parameters: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        state: "Moments",
        rates: Mapping[str, Tensor | float],
    ) -> tuple[dict[str, Tensor], "Moments"]:
        """Return the parameters and the state after one step, with a learning rate for each tensor."""
        beta1, beta2 = self.betas
        steps = state.steps + 1
        first = {n: beta1 * state.first[n] + (1 - beta1) * g for n, g in gradients.items()}
        second = {n: beta2 * state.second[n] + (1 - beta2) * g * g for n, g in gradients.items()}
        after = {}
        for name, parameter in parameters.items():
            root = _root(second[name] / (1 - beta2**steps))
            move = first[name] / (1 - beta1**steps) / (root + self.eps)
            after[name] = parameter * (1 - rates[name] * self.weight_decay) - rates[name] * move
        return after, Moments(first=first, second=second, steps=steps)


@dataclass(frozen=True, kw_only=True)
class Moments:
    """State of `InnerAdamW`."""

    first: Mapping[str, Tensor] = field(default_factory=dict)
    """Running means of the gradients."""
    second: Mapping[str, Tensor] = field(default_factory=dict)
    """Running means of their squares."""
    steps: int = 0
    """Steps made."""


def _root(x: Tensor) -> Tensor:
    """√x with derivative 0 at 0: an A beside a zero B has no gradient, and its moment no finite slope there."""
    positive = x > 0
    return torch.where(positive, x, 1.0).sqrt() * positive


def adapt(
    model: Transformer,
    parameters: Mapping[str, Tensor],
    loss: Callable[[Transformer], Tensor],
    rates: Mapping[str, Sequence[float] | Tensor],
    *,
    steps: int,
    truncate: int = 0,
    create_graph: bool = True,
    optimizer: InnerAdamW | None = None,
) -> tuple[dict[str, Tensor], list[float]]:
    """Take gradient steps on adapter weights; return the weights after them, and the loss before each step.

    rates: for each tensor its learning rate at every step, [steps]; tensors of rates get gradients too. The first
    `truncate` gradients count as constants: their step passes the gradient on through parameter · (1 - rate · decay) and
    to the rates alone (truncated backpropagation; truncate = steps is first-order). create_graph=False: no graph at
    all is kept, for adapting at test time. optimizer: default `InnerAdamW()`, its state fresh.
    LabError: truncate outside 0 … steps, a tensor without rates, too few rates; else as `functional_lora`.
    """
    if not 0 <= truncate <= steps:
        raise LabError(f"truncate must lie in 0 … {steps}, the number of steps, got {truncate}")
    for name in parameters:
        if name not in rates or len(rates[name]) < steps:
            raise LabError(f"rates: {name} needs a learning rate for each of {steps} steps")
    optimizer = optimizer if optimizer is not None else InnerAdamW()
    fast: dict[str, Tensor] = {
        name: tensor if create_graph else tensor.detach() for name, tensor in parameters.items()
    }
    state, losses = optimizer.start(fast), []
    for step in range(steps):
        value, gradients = _gradients(model, fast, loss, keep=create_graph and step >= truncate)
        now = {name: rates[name][step] for name in fast}
        with torch.set_grad_enabled(create_graph):
            fast, state = optimizer.step(fast, gradients, state, now)
        losses.append(value)
    return fast, losses


def _gradients(
    model: Transformer, fast: Mapping[str, Tensor], loss: Callable[[Transformer], Tensor], *, keep: bool
) -> tuple[float, dict[str, Tensor]]:
    """Loss and its gradients; without `keep` as constants, and no graph of the gradient is built."""
    with torch.enable_grad():
        at = dict(fast) if keep else {name: t.detach().requires_grad_() for name, t in fast.items()}
        at = {name: t if t.requires_grad else t.detach().requires_grad_() for name, t in at.items()}
        value = functional_lora(model, at, loss)
        found = torch.autograd.grad(value, list(at.values()), create_graph=keep, materialize_grads=True)
    return float(value.detach()), dict(zip(at, found, strict=True))
