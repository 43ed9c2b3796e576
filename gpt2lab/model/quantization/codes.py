"""Weights as small whole numbers: how a matrix is rounded to 8 or 4 bits, stored, and read back.

A row of the matrix is cut into groups that share a scale: ŵ = (level(code) - zero) · scale. A 4-bit code takes half a byte.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError, unknown

Scheme = Literal["symmetric", "asymmetric", "nf4"]

NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
"""Quantiles of a normal distribution, scaled to [-1, 1], with an exact zero (Dettmers et al. 2023, appendix E)."""

SCALES_PER_BLOCK = 256
"""Scales that share a second-level step (Dettmers et al. 2023, section 3, double quantisation)."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """How a weight matrix is rounded."""

    bits: Literal[4, 8] = 4
    """Bits of a weight."""
    scheme: Scheme | None = None
    """Levels: symmetric (whole steps around 0), asymmetric (4 bits: with a zero point), nf4 (4 bits: quantiles of a normal
    distribution); none means asymmetric for 4 bits, symmetric for 8."""
    group: int | None = None
    """Weights in a row that share a scale, at most the row; none means 64 for 4 bits, the row for 8."""
    double_scales: bool = False
    """Store the scales in 8 bits too, 256 of them to a step: 0.13 bits a weight in place of 0.25 for groups of 64."""

    def __post_init__(self) -> None:
        if self.bits not in (4, 8):
            raise LabError(f"bits must be 4 or 8, got {self.bits}")
        if self.scheme is not None and self.scheme not in get_args(Scheme):
            raise unknown("scheme", self.scheme, get_args(Scheme))
        if self.bits == 8 and self.scheme in ("asymmetric", "nf4"):
            raise LabError(f"scheme {self.scheme} is for 4 bits; 8 bits are symmetric")
        if self.group is not None and self.group < 1:
            raise LabError(f"group must be at least 1 weight, got {self.group}")

    @property
    def levels(self) -> Scheme:
        """The scheme, its default filled in."""
        return self.scheme or ("asymmetric" if self.bits == 4 else "symmetric")

    def width(self, columns: int) -> int:
        """Return how many weights of a row of `columns` share a scale."""
        usual = 64 if self.bits == 4 else columns
        return max(1, min(self.group or usual, columns))


def empty(
    rows: int, columns: int, how: Format, device: torch.device | str | None = None
) -> dict[str, Tensor]:
    """Return uninitialised tensors of the stored form of a matrix [rows, columns], by name.

    codes [rows, columns] int8, or [rows, ⌈columns/2⌉] uint8 for 4 bits; scales [rows, groups] bfloat16, or scale_codes
    [rows, groups] int8 with scale_steps [blocks] and scale_mean [] bfloat16; asymmetric: zeros [rows, ⌈groups/2⌉] uint8.
    """
    groups = -(-columns // how.width(columns)) if columns else 0
    shapes: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        "codes": ((rows, columns), torch.int8) if how.bits == 8 else ((rows, -(-columns // 2)), torch.uint8),
    }
    if how.levels == "asymmetric":
        shapes["zeros"] = (rows, -(-groups // 2)), torch.uint8
    if how.double_scales:
        shapes["scale_codes"] = (rows, groups), torch.int8
        shapes["scale_steps"] = (-(-rows * groups // SCALES_PER_BLOCK),), torch.bfloat16
        shapes["scale_mean"] = (), torch.bfloat16
    else:
        shapes["scales"] = (rows, groups), torch.bfloat16
    return {name: torch.empty(shape, dtype=kind, device=device) for name, (shape, kind) in shapes.items()}


@torch.no_grad()
def quantise(weight: Tensor, how: Format) -> dict[str, Tensor]:
    """Round a matrix [rows, columns] and return its stored form, named and shaped as in `empty`.

    Codes are chosen for the scales as they are stored, so that rounding those costs no accuracy of its own. Without
    `double_scales`, |w - ŵ| ≤ scale / 2 for the whole-step schemes. LabError for NaN or infinity.
    """
    if not torch.isfinite(weight).all():
        raise LabError("the weight holds NaN or infinity, which no rounding can keep")
    columns = weight.shape[1]
    grouped = _grouped(weight.detach().float(), how.width(columns))  # [rows, groups, group]
    scales, zeros = _full_range(grouped, how)
    stored = _stored_scales(scales, how)
    if zeros is not None:
        stored["zeros"] = pack(zeros.squeeze(-1).to(torch.uint8))
    codes = _codes(grouped, effective_scales(stored)[..., None], zeros, how).flatten(1)[:, :columns]
    stored["codes"] = codes.to(torch.int8) if how.bits == 8 else pack(codes.to(torch.uint8))
    return stored


@torch.no_grad()
def dequantise(stored: Mapping[str, Tensor], how: Format, columns: int) -> Tensor:
    """Return ŵ [rows, columns] float32: (level(code) - zero) · scale, exactly what the stored form stands for."""
    codes, group = stored["codes"], how.width(columns)
    scales = effective_scales(stored)
    shape = (len(codes), columns) if columns % group else (*scales.shape, group)
    if how.bits == 8:
        return (codes.view(shape) * _spread(scales, group, columns)).view(len(codes), columns)
    pairs = _pairs(how.levels, codes.device)
    # Two levels move as one 64-bit number: four times as fast as unpacking (at 768 × 2304, one core).
    values = (
        pairs.index_select(0, codes.flatten().int()).view(torch.float32).view(len(codes), 2 * codes.shape[1])
    )
    values = values[:, :columns].reshape(shape)
    if "zeros" in stored:
        values.sub_(_spread(unpack(stored["zeros"], scales.shape[1]), group, columns))
    return values.mul_(_spread(scales, group, columns)).view(len(codes), columns)


def signed_codes(stored: Mapping[str, Tensor], how: Format, columns: int) -> Tensor:
    """Return level(code) - zero [rows, columns] int8, the whole numbers that the scales multiply. Not for nf4."""
    if how.levels == "nf4":
        raise LabError("the levels of nf4 are no whole numbers")
    if how.bits == 8:
        return stored["codes"]
    values = unpack(stored["codes"], columns).to(torch.int8)
    if "zeros" not in stored:
        return values - 8
    group = how.width(columns)
    zeros = unpack(stored["zeros"], -(-columns // group)).to(torch.int8)
    return values - zeros.repeat_interleave(group, 1)[:, :columns]


def effective_scales(stored: Mapping[str, Tensor]) -> Tensor:
    """Return the scales [rows, groups] float32, read back from 8 bits if they are stored so (eq. 6 of QLoRA)."""
    if "scales" in stored:
        return stored["scales"].float()
    codes = stored["scale_codes"]
    steps = (
        stored["scale_steps"].float().repeat_interleave(SCALES_PER_BLOCK)[: codes.numel()].view(codes.shape)
    )
    return codes * steps + stored["scale_mean"].float()


def pack(codes: Tensor) -> Tensor:
    """Put two 4-bit codes into a byte, the first in the lower half; [rows, columns] uint8 → [rows, ⌈columns/2⌉]."""
    if codes.shape[1] % 2:
        codes = torch.cat([codes, codes.new_zeros(len(codes), 1)], dim=1)
    return codes[:, 0::2] | (codes[:, 1::2] << 4)


def unpack(packed: Tensor, columns: int) -> Tensor:
    """Undo `pack`: [rows, ⌈columns/2⌉] uint8 → [rows, columns] uint8."""
    return torch.stack([packed & 15, packed >> 4], dim=-1).flatten(1)[:, :columns]


def _grouped(weight: Tensor, group: int) -> Tensor:
    """Cut rows into groups, the last filled up with zeros: [rows, columns] → [rows, groups, group]."""
    short = -weight.shape[1] % group
    padded = torch.nn.functional.pad(weight, (0, short)) if short else weight
    return padded.reshape(len(weight), -(-weight.shape[1] // group), group)


def _spread(part: Tensor, group: int, columns: int) -> Tensor:
    """Bring [rows, groups] to the shape in which it meets the weights: [rows, groups, 1], else [rows, columns]."""
    return part.repeat_interleave(group, 1)[:, :columns] if columns % group else part[..., None]


def _full_range(grouped: Tensor, how: Format) -> tuple[Tensor, Tensor | None]:
    """Scales (and zero points) that reach the largest weight of each group: [rows, groups, 1]."""
    if how.levels == "asymmetric":
        low = grouped.amin(-1, keepdim=True).clamp_max(0.0)
        high = grouped.amax(-1, keepdim=True).clamp_min(0.0)
        scales = _rounded_up((high - low) / 15)
        return scales, (-_ratio(low, scales)).round()
    largest = grouped.abs().amax(-1, keepdim=True)
    steps = {("symmetric", 8): 127.0, ("symmetric", 4): 7.0, ("nf4", 4): 1.0}[how.levels, how.bits]
    return _rounded_up(largest / steps), None


def _codes(grouped: Tensor, scales: Tensor, zeros: Tensor | None, how: Format) -> Tensor:
    """Codes of the nearest levels, as float or int64; a scale of 0 gives the code of 0."""
    ratio = _ratio(grouped, scales)
    match how.levels:
        case "asymmetric":
            assert zeros is not None
            return (ratio + zeros).round().clamp(0, 15)
        case "nf4":
            levels = torch.tensor(NF4, device=grouped.device)
            return torch.bucketize(ratio, (levels[1:] + levels[:-1]) / 2)
        case _:
            return ratio.round().clamp(-127, 127) if how.bits == 8 else ratio.round().clamp(-8, 7) + 8


def _stored_scales(scales: Tensor, how: Format) -> dict[str, Tensor]:
    """Scales [rows, groups, 1] as they are stored. Double: the mean is taken off, the rest rounded to 8 bits.

    Dettmers et al. 2023, section 3, with whole 8-bit steps in place of 8-bit floating point.
    """
    flat = scales.squeeze(-1)
    if not how.double_scales:
        return {"scales": flat.to(torch.bfloat16)}  # exact: they were rounded before
    mean = (flat.mean() if flat.numel() else flat.new_zeros(())).to(torch.bfloat16)
    centred = torch.nn.functional.pad((flat - mean).flatten(), (0, -flat.numel() % SCALES_PER_BLOCK))
    blocks = centred.view(-1, SCALES_PER_BLOCK)
    steps = _rounded_up(blocks.abs().amax(1, keepdim=True) / 127)
    codes = _ratio(blocks, steps).round().flatten()[: flat.numel()].view(flat.shape)
    steps = steps.flatten().to(torch.bfloat16)
    return {"scale_codes": codes.to(torch.int8), "scale_steps": steps, "scale_mean": mean}


def _rounded_up(scales: Tensor) -> Tensor:
    """The next bfloat16 at or above each scale, as float32: rounded down, the largest weight would be out of reach."""
    bits = scales.contiguous().view(torch.int32)
    return ((bits + 0xFFFF) & ~0xFFFF).view(torch.float32)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole == 0, 0.0, part / whole)


@functools.cache
def _levels(scheme: Scheme, device: torch.device) -> Tensor:
    """The level of each 4-bit code, [16]."""
    if scheme == "nf4":
        return torch.tensor(NF4, device=device)
    return torch.arange(16.0, device=device) - (8.0 if scheme == "symmetric" else 0.0)


@functools.cache
def _pairs(scheme: Scheme, device: torch.device) -> Tensor:
    """The two levels in each byte, as one 64-bit number: [256] int64."""
    levels = _levels(scheme, device)
    pairs = torch.stack([levels.repeat(16), levels.repeat_interleave(16)], dim=1)  # lower half first
    return pairs.contiguous().view(torch.int64).flatten()
