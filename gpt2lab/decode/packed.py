"""Weights laid out for decoding, where every matrix meets only one or a few rows at a time.

A step of decoding reads every weight once and does next to nothing with it, so its time is that of reading memory.
The general matrix product reaches half of a machine's bandwidth or less at such shapes; two other layouts reach most
of it (benchmarks/decoding.py has the figures). Both compute the same sums in another order: in float32 the results
agree within 1e-6 of the largest.
"""

import math
from collections.abc import Callable
from typing import Literal, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2lab.base.errors import LabError
from gpt2lab.model import Pass, Transformer
from gpt2lab.model.attention import Attention

M = TypeVar("M", bound=nn.Module)
Weights = Literal["auto", "plain", "packed", "int8"]

_SMALLEST = {torch.float32: 1 << 18, torch.bfloat16: 1 << 12}
"""Weights in the smallest matrix that gains from a layout: of smaller ones, calling is all of the cost."""
_SMALLEST_STRIPS = 1 << 18  # of smaller matrices, the blocked layout is the faster one for a single row too
_WORTH_PACKING = 24  # steps: packing takes about as long as ten of them and saves about half of each
_STRIP = {
    torch.float32: 384,
    torch.bfloat16: 192,
}  # outputs whose sums stay in registers while all inputs pass by
_INT8_STRIP = 192  # weights that share a scale


def pack(
    model: Transformer, *, rows: int, weights: Weights = "packed", steps: int | None = None
) -> Transformer:
    """Return a model for decoding `rows` rows at a time; it shares everything but its matrices with `model`.

    weights: "packed" lays them out anew (x86 CPUs, float32 and bfloat16; elsewhere `model` itself is returned);
    "auto" does so if it pays within `steps` steps and no tap is open; "plain" returns `model`; "int8" rounds them to 8
    bits, with a scale and an offset for each run of weights from one input to a few hundred outputs, which pays
    for one row at a time. The copy needs the memory of the weights again, does not follow later changes of `model`, and
    gives no gradients. To keep it over several calls of `generate`, put it in a LanguageModel of its own.
    LabError for int8 where there is no kernel for it.
    """
    if weights not in ("auto", "plain", "packed", "int8"):
        raise LabError(f"weights {weights}: no such layout; choose auto, plain, packed or int8")
    known = has_kernels(model)
    if weights == "int8":
        if not known:
            raise LabError("weights=int8 needs an x86 CPU and a float32 or bfloat16 model; use weights=plain")
        return _swapped(model, Int8Linear if rows == 1 else lambda linear: BlockedLinear(rounded(linear)))
    too_short = steps is not None and steps < _WORTH_PACKING
    if not known or weights == "plain" or (weights == "auto" and (too_short or model.open_tap is not None)):
        return model
    return _swapped(model, _for_one_row if rows == 1 else BlockedLinear)


class StripLinear(nn.Module):
    """x Wᵀ + b for a single row x, with W cut into strips of outputs; other inputs take the usual way.

    Wᵀ [in, out] is stored strip after strip, [strips · in, width]. The product with one strip is a sum of its rows
    weighted by x, which is what `embedding_bag` computes, in registers and reading memory in one direction.
    """

    def __init__(self, linear: nn.Linear, widest: int | None = None) -> None:
        super().__init__()
        widest = widest or _STRIP[linear.weight.dtype]
        self.weight, self.bias, self.out_features = linear.weight, linear.bias, linear.out_features
        self.strips, self.table = _strips(linear.weight.detach(), widest)
        inputs = linear.in_features
        self.rows = torch.arange(self.strips * inputs, dtype=torch.int32)
        self.starts = torch.arange(0, self.strips * inputs, inputs, dtype=torch.int32)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., in] to [..., out]."""
        if x.numel() != x.shape[-1]:
            return F.linear(x, self.weight, self.bias)
        y = self.product(x.reshape(-1).repeat(self.strips)).view(-1)[: self.out_features]
        if self.bias is not None:
            y = y + self.bias
        return y.view(*x.shape[:-1], self.out_features)

    def product(self, x: Tensor) -> Tensor:
        """Return the sums of all strips, [strips, width]; x [strips · in] is the row once for each strip."""
        return torch.embedding_bag(self.table, self.rows, self.starts, False, 0, False, x)[0]


class Int8Linear(StripLinear):
    """The same with 8-bit weights, w ≈ scale · q + offset for q in 0 … 255; input and sums stay float32.

    Each row of a strip (one input, a few hundred outputs) has its own scale and offset. Inputs of several rows
    meet the rounded weights too, so that prompts and steps see one model.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(rounded(linear), widest=_INT8_STRIP)
        self.table = torch.ops.quantized.embedding_bag_byte_prepack(self.table.float())

    def product(self, x: Tensor) -> Tensor:
        """As in `StripLinear`."""
        kernel = torch.ops.quantized.embedding_bag_byte_rowwise_offsets
        y: Tensor = kernel(self.table, self.rows, self.starts, False, 0, False, x.float(), None, False)
        return y.to(x.dtype)


class BlockedLinear(nn.Module):
    """x Wᵀ + b for a few rows, with W in the blocked layout of oneDNN's kernels."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        # No number of rows is given, so that one layout, and with it one order of summation, serves them all.
        self.blocked: Tensor = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., in] to [..., out]."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.blocked, self.bias, "none", [], "")
        return y


class WideAttention(Attention):
    """Attention that mixes in float32, with a cache kept in float32.

    For bfloat16 models: at a single query the bfloat16 kernel takes three to six times as long (batch 8, 160 keys, 12
    heads of 64, one core: 1.65 ms against 0.25 ms), and rounds more.
    """

    def _cached(self, k: Tensor, v: Tensor, run: Pass) -> tuple[Tensor, Tensor]:
        return super()._cached(k.float(), v.float(), run)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, run: Pass) -> Tensor:
        return super()._attend(q.float(), k, v, run).to(q.dtype)


def rounded(linear: nn.Linear) -> nn.Linear:
    """Return a layer with the 8-bit weights of `Int8Linear`, written out in the layer's own number type."""
    strips, table = _strips(linear.weight.detach().float(), _INT8_STRIP)
    stored = torch.ops.quantized.embedding_bag_byte_prepack(table)
    values = torch.ops.quantized.embedding_bag_byte_unpack(stored).view(strips, linear.in_features, -1)
    weight = values.transpose(1, 2).reshape(-1, linear.in_features)[: linear.out_features]
    new = nn.Linear(linear.in_features, linear.out_features, device="meta")
    new.weight = nn.Parameter(weight.to(linear.weight.dtype).contiguous(), requires_grad=False)
    new.bias = linear.bias
    return new


def _strips(weight: Tensor, widest: int) -> tuple[int, Tensor]:
    """Cut weight [out, in] into strips of at most `widest` outputs; return [strips · in, width], zeros at the end."""
    outputs, inputs = weight.shape
    threads = torch.get_num_threads()
    strips = -(-outputs // (widest * threads)) * threads  # the same number for each thread
    width = -(-outputs // (strips * 16)) * 16  # whole vectors
    strips = -(-outputs // width)
    table = weight.new_zeros(strips, inputs, width)
    for strip, part in zip(table, weight.split(width), strict=True):
        strip[:, : len(part)] = part.t()  # one by one, because a 2-D transpose is copied in tiles
    return strips, table.view(strips * inputs, width)


def _for_one_row(linear: nn.Linear) -> nn.Module:
    return StripLinear(linear) if linear.weight.numel() >= _SMALLEST_STRIPS else BlockedLinear(linear)


def _swapped(module: M, make: Callable[[nn.Linear], nn.Module]) -> M:
    """Copy a tree of modules, sharing every tensor, with each large linear map replaced by make(linear)."""
    kind: type[nn.Module] = WideAttention if type(module) is Attention else type(module)
    new = kind.__new__(kind)
    new.__dict__ = dict(module.__dict__)
    children: dict[str, nn.Module | None] = {}
    for name, child in module._modules.items():
        if isinstance(child, nn.Linear) and _gains(child):
            children[name] = make(child)
        else:
            children[name] = None if child is None else _swapped(child, make)
    new.__dict__["_modules"] = children
    return cast(M, new)


def _gains(linear: nn.Linear) -> bool:
    """Whether a layer is a plain one, without hooks of anybody's, and large enough."""
    hooked = linear._forward_hooks or linear._forward_pre_hooks
    smallest = _SMALLEST.get(linear.weight.dtype, math.inf)
    return type(linear) is nn.Linear and not hooked and linear.weight.numel() >= smallest


def has_kernels(model: Transformer) -> bool:
    """Whether the layouts have their kernels here: x86 with vector units, oneDNN, and a number type they know."""
    if model.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    known = {torch.float32: ("AVX2", "AVX512"), torch.bfloat16: ("AVX512",)}.get(model.dtype, ())
    return torch.backends.cpu.get_cpu_capability() in known
