"""Weights as whole numbers of 2 to 8 bits: how a rounded matrix is stored, and read back (`rounding` chooses the codes).

A row of the matrix is cut into groups that share a scale: ŵ = (level(code) - zero) · scale, or code · scale + minimum.
The codes of a row are a stream of bits (`bits`). NF4 has blocks and a layout of its own (`nf4`).
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
from gpt2lab.model.quantization.bits import packed_width, unpack
from gpt2lab.model.quantization.nf4 import SCALES_PER_BLOCK, blocks_of

Bits = Literal[2, 3, 4, 5, 6, 7, 8]
Scheme = Literal["symmetric", "asymmetric", "affine", "nf4"]


@dataclass(frozen=True, kw_only=True)
class Format:
    """How a weight matrix is rounded."""

    bits: Bits = 4
    """Bits of a weight."""
    scheme: Scheme | None = None
    """Levels: symmetric (whole steps around 0), asymmetric (with a whole zero point), affine (with a minimum of any size),
    nf4 (4 bits: quantiles of a normal distribution); none means symmetric for 8 bits, asymmetric for less."""
    group: int | None = None
    """Weights that share a scale: at most a row, but for nf4; none means the row for 8 bits, 64 for less."""
    double_scales: bool = False
    """Store the scales in 8 bits too, 256 of them to a block: 0.13 bits a weight in place of 0.5 for nf4's blocks of 64."""

    def __post_init__(self) -> None:
        if self.bits not in get_args(Bits):
            raise LabError(f"bits must be a whole number from 2 to 8, got {self.bits}")
        if self.scheme is not None and self.scheme not in get_args(Scheme):
            raise unknown("scheme", self.scheme, get_args(Scheme))
        if self.scheme == "nf4" and self.bits != 4:
            raise LabError(f"scheme nf4 has 16 levels, which are 4 bits; got bits={self.bits}")
        if self.scheme == "affine" and self.double_scales:
            raise LabError("double_scales are for schemes with one number a group; affine has two")
        if self.group is not None and self.group < 1:
            raise LabError(f"group must be at least 1 weight, got {self.group}")

    @property
    def levels(self) -> Scheme:
        """The scheme, its default filled in."""
        return self.scheme or ("symmetric" if self.bits == 8 else "asymmetric")

    @property
    def signed_bytes(self) -> bool:
        """Whether 8 bits are stored as signed numbers: those of the symmetric levels, as int8 kernels take them."""
        return self.bits == 8 and self.levels == "symmetric"

    @property
    def fits_int8(self) -> bool:
        """Whether level(code) - zero is a whole number of -128 … 127: so for all but nf4 and 8 bits without a sign."""
        return self.levels != "nf4" and (self.bits < 8 or self.signed_bytes)

    @property
    def ends(self) -> tuple[int, int]:
        """The least and the largest level, both whole numbers. Not for nf4."""
        if self.levels != "symmetric":
            return 0, 2**self.bits - 1
        half = 2 ** (self.bits - 1)
        return (-half + 1 if self.signed_bytes else -half), half - 1

    @property
    def offset(self) -> int:
        """Code of the level 0. Not for nf4."""
        return 0 if self.signed_bytes else -self.ends[0]

    def width(self, columns: int) -> int:
        """Return how many weights of a row of `columns` share a scale; nf4's blocks run on from row to row."""
        if self.levels == "nf4":
            return self.group or 64
        usual = columns if self.bits == 8 else 64
        return max(1, min(self.group or usual, columns))


def empty(
    columns: int, how: Format, form: Form, device: torch.device | str | None = None
) -> dict[str, Tensor]:
    """Return uninitialised tensors of the stored form of the matrices [rows, columns] of a form, by name.

    codes [rows, ⌈columns·bits/8⌉] uint8, or int8 for symmetric 8 bits; scales [rows, groups] bfloat16. asymmetric: also
    zeros [rows, ⌈groups·bits/8⌉] uint8; affine: scales and minima [rows, groups] float16, their unit [matrices] float32.
    nf4: codes [bytes] uint8 and scales [blocks] float32, matrix after matrix. With `double_scales`, what `nf4.compress`
    returns is in place of the scales.
    """
    rows = sum(form.heights)
    shape: tuple[int, ...] = (rows, packed_width(columns, how.bits))
    if how.levels == "nf4":
        shape = (sum(blocks_of(height * columns, 2) for height in form.heights),)
    kind = torch.int8 if how.signed_bytes else torch.uint8
    shapes = {"codes": (shape, kind), **_scale_shapes(form.heights, columns, how)}
    return {name: torch.empty(size, dtype=kind, device=device) for name, (size, kind) in shapes.items()}


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
        shapes["zeros"] = (rows, packed_width(groups, how.bits)), torch.uint8
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
    if how.signed_bytes:
        return (codes.view(shape) * _spread(scales, group, columns)).view(len(codes), columns)
    values = _levels(codes, how, columns).reshape(shape)
    if "zeros" in stored:
        values.sub_(_spread(unpack(stored["zeros"][chosen], scales.shape[1], how.bits), group, columns))
    values.mul_(_spread(scales, group, columns))
    if "minima" in stored:
        values.add_(_spread(minima(stored, form)[chosen], group, columns))
    return values.view(len(codes), columns)


def _levels(codes: Tensor, how: Format, columns: int) -> Tensor:
    """level(code) [rows, columns] float32, of unsigned codes."""
    if how.bits != 4:
        levels = unpack(codes, columns, how.bits).float()
        return levels.sub_(how.offset) if how.offset else levels
    # Two levels move as one 64-bit number: four times as fast as unpacking (at 768 × 2304, one core).
    pairs = _pairs(how.levels, codes.device).index_select(0, codes.flatten().int())
    return pairs.view(torch.float32).view(len(codes), 2 * codes.shape[1])[:, :columns]


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
    """Return level(code) - zero [rows, columns] int8, the whole numbers that the scales multiply.

    LabError where they are none, or do not fit (`Format.fits_int8`).
    """
    if not how.fits_int8:
        raise LabError(
            "the levels of nf4 are no whole numbers"
            if how.levels == "nf4"
            else f"the levels of 8 bits {how.levels} do not fit into signed bytes"
        )
    if how.signed_bytes:
        return stored["codes"]
    values = unpack(stored["codes"], columns, how.bits).to(torch.int8) - how.offset
    if "zeros" not in stored:
        return values
    group = how.width(columns)
    zeros = unpack(stored["zeros"], blocks_of(columns, group), how.bits).to(torch.int8)
    return values - zeros.repeat_interleave(group, 1)[:, :columns]


def scale_table(stored: Mapping[str, Tensor], how: Format, columns: int, form: Form) -> Tensor:
    """Return the scales [rows, groups] float32, read back from 8 bits if they are stored so. LabError for nf4."""
    if how.levels == "nf4":
        raise LabError("the blocks of nf4 run on from row to row")
    if "unit" in stored:
        return stored["scales"].float() * units(stored, form)
    if "scales" in stored:
        return stored["scales"].float()
    groups = blocks_of(columns, how.width(columns)) if columns else 0
    return _flat_scales(stored, _counts(form.heights, columns, how)).view(sum(form.heights), groups)


def minima(stored: Mapping[str, Tensor], form: Form) -> Tensor:
    """Return what code 0 stands for, [rows, groups] float32. For affine only."""
    return stored["minima"].float() * units(stored, form)


def units(stored: Mapping[str, Tensor], form: Form) -> Tensor:
    """Return the unit of the scales and minima of each row, [rows, 1]. For affine only."""
    if len(form.heights) == 1:
        return stored["unit"][:, None]
    heights = torch.tensor(form.heights, device=stored["unit"].device)
    return stored["unit"].repeat_interleave(heights)[:, None]


def _flat_scales(stored: Mapping[str, Tensor], counts: list[int]) -> Tensor:
    return stored["scales"].flatten().float() if "scales" in stored else nf4.expand(stored, counts)


def _spread(part: Tensor, group: int, columns: int) -> Tensor:
    """Bring [rows, groups] to the shape in which it meets the weights: [rows, groups, 1], else [rows, columns]."""
    return part.repeat_interleave(group, 1)[:, :columns] if columns % group else part[..., None]


@functools.cache
def _pairs(scheme: Scheme, device: torch.device) -> Tensor:
    """The two levels in each byte, lower half first, as one 64-bit number: [256] int64."""
    levels = torch.arange(16.0, device=device) - (8.0 if scheme == "symmetric" else 0.0)
    return torch.stack([levels.repeat(16), levels.repeat_interleave(16)], dim=1).view(torch.int64).flatten()


def bytes_of(columns: int, how: Format, height: int) -> int:
    """Return how many bytes a matrix [height, columns] takes in its stored form."""
    return sum(tensor.nbytes for tensor in empty(columns, how, Form((height,)), "meta").values())
