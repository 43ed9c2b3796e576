"""Weights as small whole numbers: how a matrix is rounded to 8 or 4 bits, stored, and read back.

A row of the matrix is cut into groups that share a scale: ŵ = (level(code) - zero) · scale, or code · scale + minimum. A
4-bit code takes half a byte. NF4 has blocks and a layout of its own (`nf4`).
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.model.matrices import Form
from gpt2lab.model.quantization import nf4
from gpt2lab.model.quantization.nf4 import SCALES_PER_BLOCK, blocks_of

Scheme = Literal["symmetric", "asymmetric", "affine", "nf4"]


@dataclass(frozen=True, kw_only=True)
class Format:
    """How a weight matrix is rounded."""

    bits: Literal[4, 8] = 4
    """Bits of a weight."""
    scheme: Scheme | None = None
    """Levels: symmetric (whole steps around 0), asymmetric (4 bits: with a whole zero point), affine (4 bits: with a minimum
    of any size), nf4 (4 bits: quantiles of a normal distribution); none means asymmetric for 4 bits, symmetric for 8."""
    group: int | None = None
    """Weights that share a scale: at most a row, but for nf4; none means 64 for 4 bits, the row for 8."""
    double_scales: bool = False
    """Store the scales in 8 bits too, 256 of them to a block: 0.13 bits a weight in place of 0.5 for nf4's blocks of 64."""

    def __post_init__(self) -> None:
        if self.bits not in (4, 8):
            raise LabError(f"bits must be 4 or 8, got {self.bits}")
        if self.scheme is not None and self.scheme not in get_args(Scheme):
            raise unknown("scheme", self.scheme, get_args(Scheme))
        if self.bits == 8 and self.scheme not in (None, "symmetric"):
            raise LabError(f"scheme {self.scheme} is for 4 bits; 8 bits are symmetric")
        if self.scheme == "affine" and self.double_scales:
            raise LabError("double_scales are for schemes with one number a group; affine has two")
        if self.group is not None and self.group < 1:
            raise LabError(f"group must be at least 1 weight, got {self.group}")

    @property
    def levels(self) -> Scheme:
        """The scheme, its default filled in."""
        return self.scheme or ("asymmetric" if self.bits == 4 else "symmetric")

    def width(self, columns: int) -> int:
        """Return how many weights of a row of `columns` share a scale; nf4's blocks run on from row to row."""
        if self.levels == "nf4":
            return self.group or 64
        usual = 64 if self.bits == 4 else columns
        return max(1, min(self.group or usual, columns))


def empty(
    columns: int, how: Format, form: Form, device: torch.device | str | None = None
) -> dict[str, Tensor]:
    """Return uninitialised tensors of the stored form of the matrices [rows, columns] of a form, by name.

    codes [rows, columns] int8, or [rows, ⌈columns/2⌉] uint8 for 4 bits; scales [rows, groups] bfloat16. asymmetric: also
    zeros [rows, ⌈groups/2⌉] uint8; affine: scales and minima [rows, groups] float16 and their unit [matrices] float32.
    nf4: codes [bytes] uint8 and scales [blocks] float32, matrix after matrix. With `double_scales`, what `nf4.compress`
    returns is in place of the scales.
    """
    rows = sum(form.heights)
    codes: tuple[tuple[int, ...], torch.dtype] = (rows, blocks_of(columns, 2)), torch.uint8
    if how.levels == "nf4":
        codes = (sum(blocks_of(height * columns, 2) for height in form.heights),), torch.uint8
    elif how.bits == 8:
        codes = (rows, columns), torch.int8
    shapes = {"codes": codes, **_scale_shapes(form.heights, columns, how)}
    return {name: torch.empty(shape, dtype=kind, device=device) for name, (shape, kind) in shapes.items()}


def _scale_shapes(
    heights: tuple[int, ...], columns: int, how: Format
) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shapes and types of all that `empty` has beside the codes."""
    groups, rows = blocks_of(columns, how.width(columns)) if columns else 0, sum(heights)
    counts = _counts(heights, columns, how)
    if how.double_scales:
        seconds = sum(blocks_of(count, SCALES_PER_BLOCK) for count in counts)
        shapes: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
            "scale_codes": ((sum(counts),), torch.uint8),
            "scale_absmax": ((seconds,), torch.float32),
            "scale_mean": ((len(heights),), torch.float32),
        }
    elif how.levels == "nf4":
        shapes = {"scales": ((sum(counts),), torch.float32)}
    else:
        kind = torch.float16 if how.levels == "affine" else torch.bfloat16
        shapes = {"scales": ((rows, groups), kind)}
    if how.levels == "asymmetric":
        shapes["zeros"] = (rows, blocks_of(groups, 2)), torch.uint8
    if how.levels == "affine":
        shapes |= {"minima": ((rows, groups), torch.float16), "unit": ((len(heights),), torch.float32)}
    return shapes


def _counts(heights: tuple[int, ...], columns: int, how: Format) -> list[int]:
    """How many scales each matrix has."""
    width = how.width(columns)
    if how.levels == "nf4":
        return [blocks_of(height * columns, width) for height in heights]
    return [height * (blocks_of(columns, width) if columns else 0) for height in heights]


@torch.no_grad()
def quantise(weight: Tensor, how: Format, form: Form | None = None) -> dict[str, Tensor]:
    """Round a matrix [rows, columns], or the several of `form` in it, and return the stored form, as in `empty`.

    Codes of whole steps are chosen for the scales as they are stored, so that rounding those costs no accuracy of its
    own: without `double_scales`, |w - ŵ| ≤ scale / 2. nf4's are chosen for the exact scales, as published. LabError for
    NaN or infinity.
    """
    if not torch.isfinite(weight).all():
        raise LabError("the weight holds NaN or infinity, which no rounding can keep")
    form = form if form is not None else Form((len(weight),))
    columns, exact = weight.shape[1], weight.detach().float()
    if how.levels == "nf4":
        return _as_normal_floats(form.published(exact), how, columns)
    grouped = _grouped(exact, how.width(columns))  # [rows, groups, group]
    zeros: Tensor | None = None
    if how.levels == "affine":
        stored = _affine(grouped, form)
        grouped = grouped - minima(stored, form)[..., None]
    else:
        scales, zeros = _full_range(grouped, how)
        stored = _stored_scales(scales.squeeze(-1), how, form)
    if zeros is not None:
        stored["zeros"] = pack(zeros.squeeze(-1).to(torch.uint8))
    table = scale_table(stored, how, columns, form)[..., None]
    codes = _codes(grouped, table, zeros, how).flatten(1)[:, :columns]
    stored["codes"] = codes.to(torch.int8) if how.bits == 8 else pack(codes.to(torch.uint8))
    return stored


def _as_normal_floats(matrices: list[Tensor], how: Format, columns: int) -> dict[str, Tensor]:
    """`quantise` for nf4, each matrix by itself."""
    made = [nf4.quantise_matrix(matrix, how.width(columns)) for matrix in matrices]
    absmax = [scales for _, scales in made]
    scales = nf4.compress(absmax) if how.double_scales else {"scales": torch.cat(absmax)}
    return {"codes": torch.cat([codes for codes, _ in made]), **scales}


@torch.no_grad()
def dequantise(
    stored: Mapping[str, Tensor],
    how: Format,
    columns: int,
    form: Form,
    rows: slice | Tensor | None = None,
) -> Tensor:
    """Return ŵ [rows, columns] float32, of all rows or of some: exactly what the stored form stands for."""
    chosen, group = slice(None) if rows is None else rows, how.width(columns)
    if how.levels == "nf4":
        return _normal_floats(stored, how, columns, form, chosen)
    codes, scales = stored["codes"][chosen], scale_table(stored, how, columns, form)[chosen]
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
        values.sub_(_spread(unpack(stored["zeros"][chosen], scales.shape[1]), group, columns))
    values.mul_(_spread(scales, group, columns))
    if "minima" in stored:
        values.add_(_spread(minima(stored, form)[chosen], group, columns))
    return values.view(len(codes), columns)


def _normal_floats(
    stored: Mapping[str, Tensor], how: Format, columns: int, form: Form, chosen: slice | Tensor
) -> Tensor:
    """`dequantise` for nf4, whose blocks run on from row to row."""
    codes, block = stored["codes"], how.width(columns)
    scales = _flat_scales(stored, _counts(form.heights, columns, how))
    if (
        columns and columns % (2 * block) == 0 and form.heads is None
    ):  # every row has blocks and bytes of its own
        codes = codes.view(-1, columns // 2)[chosen]
        scales = scales.view(-1, columns // block)[chosen]
        return nf4.dequantise_matrices(codes.flatten(), scales.flatten(), [codes.numel() * 2], block).view(
            -1, columns
        )
    sizes = [height * columns for height in form.heights]
    values = nf4.dequantise_matrices(codes, scales, sizes, block).view(sum(form.heights), columns)
    return form.stored(values)[chosen]


def signed_codes(stored: Mapping[str, Tensor], how: Format, columns: int) -> Tensor:
    """Return level(code) - zero [rows, columns] int8, the whole numbers that the scales multiply. Not for nf4."""
    if how.levels == "nf4":
        raise LabError("the levels of nf4 are no whole numbers")
    if how.bits == 8:
        return stored["codes"]
    values = unpack(stored["codes"], columns).to(torch.int8)
    if how.levels == "affine":
        return values
    if "zeros" not in stored:
        return values - 8
    group = how.width(columns)
    zeros = unpack(stored["zeros"], blocks_of(columns, group)).to(torch.int8)
    return values - zeros.repeat_interleave(group, 1)[:, :columns]


def scale_table(stored: Mapping[str, Tensor], how: Format, columns: int, form: Form) -> Tensor:
    """Return the scales [rows, groups] float32, read back from 8 bits if they are stored so. LabError for nf4."""
    if how.levels == "nf4":
        raise LabError("the blocks of nf4 run on from row to row")
    if "unit" in stored:
        return stored["scales"].float() * _units(stored, form)
    if "scales" in stored:
        return stored["scales"].float()
    groups = blocks_of(columns, how.width(columns)) if columns else 0
    return _flat_scales(stored, _counts(form.heights, columns, how)).view(sum(form.heights), groups)


def minima(stored: Mapping[str, Tensor], form: Form) -> Tensor:
    """Return what code 0 stands for, [rows, groups] float32. For affine only."""
    return stored["minima"].float() * _units(stored, form)


def _units(stored: Mapping[str, Tensor], form: Form) -> Tensor:
    """The unit of each row's numbers, [rows, 1]."""
    if len(form.heights) == 1:
        return stored["unit"][:, None]
    heights = torch.tensor(form.heights, device=stored["unit"].device)
    return stored["unit"].repeat_interleave(heights)[:, None]


def _flat_scales(stored: Mapping[str, Tensor], counts: list[int]) -> Tensor:
    return stored["scales"].flatten().float() if "scales" in stored else nf4.expand(stored, counts)


def pack(codes: Tensor) -> Tensor:
    """Put two 4-bit codes into a byte, the first in the lower half; [rows, columns] uint8 → [rows, ⌈columns/2⌉]."""
    if codes.shape[1] % 2:
        codes = torch.cat([codes, codes.new_zeros(len(codes), 1)], dim=1)
    return codes[:, 0::2] | (codes[:, 1::2] << 4)


def unpack(packed: Tensor, columns: int) -> Tensor:
    """Undo `pack`: [rows, ⌈columns/2⌉] uint8 → [rows, columns] uint8."""
    return torch.stack([packed & 15, packed >> 4], dim=-1).flatten(1)[:, :columns]


def _grouped(weight: Tensor, group: int) -> Tensor:
    """Cut rows into groups, the last filled up with the row's last weight: [rows, columns] → [rows, groups, group]."""
    short = -weight.shape[1] % group
    padded = torch.cat([weight, weight[:, -1:].expand(-1, short)], dim=1) if short else weight
    return padded.reshape(len(weight), blocks_of(weight.shape[1], group), group)


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
    return _rounded_up(largest / (127 if how.bits == 8 else 7)), None


def _affine(grouped: Tensor, form: Form) -> dict[str, Tensor]:
    """Scale and minimum of each group in float16, in a unit of each matrix: a power of two, so that none is out of range.

    A group that lies on 16 levels already (GGUF's Q4_1, whose scales and minima are float16) gets them back exactly.
    """
    if not grouped.numel():
        shape = grouped.shape[:2]
        return {
            "scales": grouped.new_zeros(shape, dtype=torch.float16),
            "minima": grouped.new_zeros(shape, dtype=torch.float16),
            "unit": grouped.new_ones(len(form.heights)),
        }
    low, high = grouped.aminmax(dim=-1)
    scales = (high - low) / 15
    largest = torch.stack(
        [
            part.amax() if part.numel() else part.new_zeros(())
            for part in low.abs().maximum(scales).split(list(form.heights))
        ]
    )
    unit = torch.ldexp(torch.ones_like(largest), torch.frexp(largest).exponent - 15)  # numbers below 2^15
    spread = _units({"unit": unit}, form)
    return {
        "scales": (scales / spread).to(torch.float16),
        "minima": (low / spread).to(torch.float16),
        "unit": unit,
    }


def _codes(grouped: Tensor, scales: Tensor, zeros: Tensor | None, how: Format) -> Tensor:
    """Codes of the nearest levels, as float; a scale of 0 gives the code of 0."""
    ratio = _ratio(grouped, scales)
    match how.levels:
        case "asymmetric":
            assert zeros is not None
            return (ratio + zeros).round().clamp(0, 15)
        case "affine":
            return ratio.round().clamp(0, 15)
        case _:
            return ratio.round().clamp(-127, 127) if how.bits == 8 else ratio.round().clamp(-8, 7) + 8


def _stored_scales(scales: Tensor, how: Format, form: Form) -> dict[str, Tensor]:
    """Scales [rows, groups] as they are stored."""
    if not how.double_scales:
        return {"scales": scales.to(torch.bfloat16)}  # exact: they were rounded before
    return nf4.compress([part.flatten() for part in scales.split(list(form.heights))])


def _rounded_up(scales: Tensor) -> Tensor:
    """The next bfloat16 at or above each scale, as float32: rounded down, the largest weight would be out of reach."""
    bits = scales.contiguous().view(torch.int32)
    return ((bits + 0xFFFF) & ~0xFFFF).view(torch.float32)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole == 0, 0.0, part / whole)


@functools.cache
def _pairs(scheme: Scheme, device: torch.device) -> Tensor:
    """The two levels in each byte, lower half first, as one 64-bit number: [256] int64."""
    levels = torch.arange(16.0, device=device) - (8.0 if scheme == "symmetric" else 0.0)
    return torch.stack([levels.repeat(16), levels.repeat_interleave(16)], dim=1).view(torch.int64).flatten()


def bytes_of(columns: int, how: Format, height: int) -> int:
    """Return how many bytes a matrix [height, columns] takes in its stored form."""
    return sum(tensor.nbytes for tensor in empty(columns, how, Form((height,)), "meta").values())
