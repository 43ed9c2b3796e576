"""Rounding a model by GPTQ, block after block: each reads the text as the rounded blocks before it hand it on."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gpt2lab.base.errors import LabError
from gpt2lab.base.progress import progress
from gpt2lab.model.evaluating import evaluating, unseen
from gpt2lab.model.experts import ExpertLinear
from gpt2lab.model.forward import Pass
from gpt2lab.model.matrices import forms
from gpt2lab.model.quantization.gptq import GPTQ, add_inputs
from gpt2lab.model.quantization.quantized import Quantized
from gpt2lab.model.transformer import Transformer

States = list[tuple[Tensor, Pass]]
"""What a block is given, batch after batch."""


@torch.no_grad()
def calibrate(
    model: Transformer, quantized: Quantized, batches: Sequence[Tensor], gptq: GPTQ | None = None
) -> Transformer:
    """Attach `quantized` to a model in place, with codes chosen by GPTQ; batches: tokens [batch, time]. Return the model.

    Matrices of the blocks are rounded for the inputs that they have in the text; tables and heads, which stand outside,
    to the nearest level, before anything is read. LabError as `Quantized.attach`, for nf4, without text, and for a model
    whose forward pass an architecture surrounds.
    """
    gptq = gptq if gptq is not None else GPTQ()
    if len(model.wrappers):
        raise LabError("gptq reads text block by block, which an architecture around the pass does not allow")
    if not batches:
        raise LabError("gptq needs text to calibrate on")
    chosen, known = quantized.chosen(model), forms(model)
    of_blocks = [
        {name: module for name, module in chosen.items() if name.startswith(f"blocks.{i}.")}
        for i in range(len(model.blocks))
    ]
    outside = {name: module for name, module in chosen.items() if not name.startswith("blocks.")}
    quantized.replace(
        model, {name: quantized.rounded(name, one, known.get(name)) for name, one in outside.items()}
    )
    with evaluating(model), unseen(model):
        states = [_first(model, tokens) for tokens in batches]
        for block, own in zip(progress(model.blocks, label="gptq", unit="block"), of_blocks, strict=True):
            hessians = _hessians(block, own, states)
            made = {
                name: quantized.rounded(name, module, known.get(name), gptq.rounding(hessians[name]))
                for name, module in own.items()
            }
            quantized.replace(model, made)
            states = [(block(x, run), run) for x, run in states]
    model.architectures = (*model.architectures, quantized)  # as `attach` does for codes to the nearest level
    return model


class _Reached(Exception):
    """The pass has come to the first block."""


def _first(model: Transformer, tokens: Tensor) -> tuple[Tensor, Pass]:
    """What the first block is given for tokens [batch, time]."""
    found: list[tuple[Tensor, Pass]] = []

    def stop(_: nn.Module, given: tuple[Any, ...]) -> None:
        found.append((given[0], given[1]))
        raise _Reached

    hook = model.blocks[0].register_forward_pre_hook(stop)
    try:
        model.hidden(tokens)
    except _Reached:
        pass
    finally:
        hook.remove()
    return found[0]


def _hessians(block: nn.Module, own: Mapping[str, nn.Module], states: States) -> dict[str, list[Tensor]]:
    """H of the inputs of each matrix of a block, by name; of experts one each."""
    found: dict[str, list[Tensor]] = {}
    with contextlib.ExitStack() as stack:
        for name, module in own.items():
            found[name] = stack.enter_context(_observed(module))
        if own:
            for x, run in states:
                block(x, run)
    return found


@contextlib.contextmanager
def _observed(module: nn.Module) -> Iterator[list[Tensor]]:
    """Sum up 2XXᵀ of what a layer is given inside this scope."""
    experts = module.n_experts if isinstance(module, ExpertLinear) else 1
    assert isinstance(module, nn.Linear | ExpertLinear)
    columns = module.weight.shape[-1]
    hessians = [
        torch.zeros(columns, columns, dtype=torch.float64, device=module.weight.device)
        for _ in range(experts)
    ]

    def add(_: nn.Module, given: tuple[Any, ...]) -> None:
        rows = given[0].split(list(given[1])) if isinstance(module, ExpertLinear) else (given[0],)
        for hessian, part in zip(hessians, rows, strict=True):
            add_inputs(hessian, part)

    hook = module.register_forward_pre_hook(add)
    try:
        yield hessians
    finally:
        hook.remove()
