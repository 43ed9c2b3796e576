"""Weights laid out for decoding, where every matrix meets only one or a few rows at a time.

A step of decoding reads every weight once and does next to nothing with it, so its time is that of reading memory.
The general matrix product reaches half of a machine's bandwidth or less at such shapes; two other layouts reach most
of it (benchmarks/decoding.py has the figures). Both compute the same sums in another order: in float32 the results
agree within 1e-6 of the largest.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2lab.base.errors import LabError
from gpt2lab.model import Pass, Transformer
from gpt2lab.model.attention import Attention
from gpt2lab.model.quantization import Format, QuantizedLinear, TiedHead

M = TypeVar("M", bound=nn.Module)
AnyLinear = nn.Linear | QuantizedLinear | TiedHead
Weights = Literal["auto", "plain", "packed", "int8"]

_SMALLEST = {torch.float32: 1 << 18, torch.bfloat16: 1 << 12}
"""Weights in the smallest matrix that gains from a layout: of smaller ones, calling is all of the cost."""
_SMALLEST_STRIPS = 1 << 18  # of smaller matrices, the blocked layout is the faster one for a single row too
_WORTH_PACKING = 24  # steps: packing takes about as long as ten of them and saves about half of each
_STRIP = {
    torch.float32: 384,
    torch.bfloat16: 192,
}  # outputs whose sums stay in registers while all inputs pass by
_BYTE_STRIP = 192
INT8 = Format(bits=8)
"""What weights="int8" rounds to: a scale for each output."""


def pack(
    model: Transformer, *, rows: int, weights: Weights = "packed", steps: int | None = None
) -> Transformer:
    """Return a model for decoding `rows` rows at a time; it shares everything but its matrices with `model`.

    weights: "packed" lays them out anew (x86 CPUs, float32 and bfloat16; elsewhere `model` itself is returned);
    "auto" does so if it pays within `steps` steps and no tap is open; "plain" returns `model`; "int8" rounds them to 8
    bits with a scale for each output, as `gpt2lab.model.quantization` does, which pays for one row at a time.
    The weights of a quantised model stay rounded as they are: whole-step ones as bytes for one row, others written
    out. The copy needs the memory of the weights again, does not follow later changes of `model`, and gives no
    gradients. To keep it over several calls of `generate`, put it in a LanguageModel of its own.
    LabError for int8 where there is no kernel for it.
    """
    if weights not in ("auto", "plain", "packed", "int8"):
        raise LabError(f"weights {weights}: no such layout; choose auto, plain, packed or int8")
    known = has_kernels(model)
    if weights == "int8":
        if not known:
            raise LabError("weights=int8 needs an x86 CPU and a float32 or bfloat16 model; use weights=plain")
        return _swapped(model, lambda linear: _quantised(_rounded(linear), rows, model.dtype))
    # Quantised weights are read back at every step of `model` itself.
    too_short = steps is not None and steps < (_WORTH_PACKING if not _is_quantised(model) else 2)
    if not known or weights == "plain" or (weights == "auto" and (too_short or model.open_tap is not None)):
        return model
    return _swapped(model, lambda linear: _laid_out(linear, rows, model.dtype))


class StripLinear(nn.Module):
    """x Wᵀ + b for a single row x, with W cut into strips of outputs; other inputs take the usual way.

    Wᵀ [in, out] is stored strip after strip, [strips · in, width]. The product with one strip is a sum of its rows
    weighted by x, which is what `embedding_bag` computes, in registers and reading memory in one direction.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias, self.out_features = linear.weight, linear.bias, linear.out_features
        self.strips, self.table = _strips(linear.weight.detach(), _STRIP[linear.weight.dtype])
        inputs = linear.in_features
        self.rows = torch.arange(self.strips * inputs, dtype=torch.int32)
        self.starts = torch.arange(0, self.strips * inputs, inputs, dtype=torch.int32)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., in] to [..., out]."""
        if x.numel() != x.shape[-1]:
            return F.linear(x, self.weight, self.bias)
        row = x.reshape(-1).repeat(self.strips)
        y = torch.embedding_bag(self.table, self.rows, self.starts, False, 0, False, row)[0]
        y = y.view(-1)[: self.out_features]
        if self.bias is not None:
            y = y + self.bias
        return y.view(*x.shape[:-1], self.out_features)


class CodesLinear(nn.Module):
    """x ŵᵀ + b for a single row x, with the signed codes of a quantised layer as bytes, in strips as `StripLinear`'s.

    The codes of each group of inputs are summed, weighted by x, in float32; the sums meet the scales of their outputs.
    Inputs of several rows are mapped by the quantised layer itself, so that prompts and steps see one model.
    """

    def __init__(self, layer: QuantizedLinear) -> None:
        super().__init__()
        self.layer, self.bias, self.out_features = layer, layer.bias, layer.out_features
        inputs, group = layer.in_features, layer.format.width(layer.in_features)
        self.strips, table = _strips(layer.signed_codes(), _BYTE_STRIP)
        self.table = _as_bytes(table, layer.format.bits)
        self.rows = torch.arange(len(table), dtype=torch.int32)
        starts = torch.arange(0, inputs, group, dtype=torch.int32)  # of the groups in a strip
        self.starts = (torch.arange(self.strips, dtype=torch.int32)[:, None] * inputs + starts).flatten()
        width = table.shape[1]
        scales = F.pad(layer.scale_table(), (0, 0, 0, self.strips * width - self.out_features))
        self.scales = scales.view(self.strips, width, len(starts)).transpose(1, 2).contiguous()
        self.group, self.minima = group, layer.minimum_table()

    @property
    def weight(self) -> Tensor:
        """The rounded weights, float32."""
        return self.layer.weight

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., in] to [..., out]."""
        if x.numel() != x.shape[-1]:
            y: Tensor = self.layer(x)
            return y
        kernel = torch.ops.quantized.embedding_bag_byte_rowwise_offsets
        row = x.reshape(-1).float().repeat(self.strips)
        sums = kernel(self.table, self.rows, self.starts, False, 0, False, row, None, False)
        y = (sums.view_as(self.scales) * self.scales).sum(1).view(-1)[: self.out_features]
        if self.minima is not None:  # Σ x · minimum, group by group
            inputs = F.pad(x.reshape(-1).float(), (0, -x.numel() % self.group))
            y = y + self.minima @ inputs.view(-1, self.group).sum(1)
        if self.bias is not None:
            y = y + self.bias
        return y.to(x.dtype).view(*x.shape[:-1], self.out_features)


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


def _as_bytes(codes: Tensor, bits: int) -> Tensor:
    """Signed codes [rows, width] int8 in the form of torch's byte tables: code + shift, then a scale and an offset a row.

    The scale is 1 and the offset -shift, so that the kernel sums the codes themselves. The shift is no larger than codes
    of so many bits need, since digits of the sum cancel with it.
    """
    shift = min(1 << bits, 128)
    tail = torch.tensor([1.0, float(-shift)]).view(torch.uint8).expand(len(codes), 8)
    return torch.cat([(codes.short() + shift).to(torch.uint8), tail], dim=1)


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


def _laid_out(linear: AnyLinear, rows: int, dtype: torch.dtype) -> nn.Module:
    if not isinstance(linear, nn.Linear):
        return _quantised(_rounded(linear), rows, dtype)
    if rows == 1 and linear.weight.numel() >= _SMALLEST_STRIPS:
        return StripLinear(linear)
    return BlockedLinear(linear) if _gains(linear) else linear


def _quantised(linear: QuantizedLinear, rows: int, dtype: torch.dtype) -> nn.Module:
    if rows == 1 and linear.n_weights >= _SMALLEST_STRIPS and linear.format.fits_int8:
        return CodesLinear(linear)
    return _laid_out(linear.to_linear(dtype), rows, dtype)


def _rounded(linear: AnyLinear) -> QuantizedLinear:
    """Round a linear map to 8 bits; one that is rounded already stays as it is."""
    if isinstance(linear, TiedHead):
        return linear.untied()
    return linear if isinstance(linear, QuantizedLinear) else QuantizedLinear.of(linear, INT8)


def _is_quantised(model: Transformer) -> bool:
    return any(isinstance(module, QuantizedLinear | TiedHead) for module in model.modules())


def _swapped(module: M, make: Callable[[Any], nn.Module]) -> M:
    """Copy a tree of modules, sharing every tensor, with each linear map that gains replaced by make(linear)."""
    kind: type[nn.Module] = WideAttention if type(module) is Attention else type(module)
    new = kind.__new__(kind)
    new.__dict__ = dict(module.__dict__)
    children: dict[str, nn.Module | None] = {}
    for name, child in module._modules.items():
        if child is not None and _gains(child):
            children[name] = make(child)
        else:
            children[name] = None if child is None else _swapped(child, make)
    new.__dict__["_modules"] = children
    return cast(M, new)


def _gains(module: nn.Module) -> bool:
    """Whether a module is a quantised linear map, or a plain and large one, without hooks of anybody's."""
    if module._forward_hooks or module._forward_pre_hooks:
        return False
    if type(module) is nn.Linear:
        return module.weight.numel() >= _SMALLEST.get(module.weight.dtype, math.inf)
    return type(module) in (QuantizedLinear, TiedHead)


def has_kernels(model: Transformer) -> bool:
    """Whether the layouts have their kernels here: x86 with vector units, oneDNN, and a number type they know."""
    if model.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    known = {torch.float32: ("AVX2", "AVX512"), torch.bfloat16: ("AVX512",)}.get(model.dtype, ())
    return torch.backends.cpu.get_cpu_capability() in known
