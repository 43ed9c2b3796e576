"""Which codes a weight matrix gets: the levels of its groups, and of each weight the nearest one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model.finite import all_finite
from gpt2lab.model.matrices import Form
from gpt2lab.model.quantization import nf4
from gpt2lab.model.quantization.bits import pack
from gpt2lab.model.quantization.codes import Format, minima, scale_table, units
from gpt2lab.model.quantization.nf4 import blocks_of

_AT_ONCE = 2**20

Rounding = Callable[[Tensor, Format, Form | None], dict[str, Tensor]]
"""What chooses codes: a matrix [rows, columns], its format and form → its stored form, as `quantise`."""


@torch.no_grad()
def quantise(weight: Tensor, how: Format, form: Form | None = None) -> dict[str, Tensor]:
    """Round a matrix [rows, columns], or the several of `form` in it, and return the stored form, as in `codes.empty`.

    Codes of whole steps are chosen for the scales as they are stored, so that rounding those costs no accuracy of its
    own: without `double_scales`, |w - ŵ| ≤ scale / 2. nf4's are chosen for the exact scales, as published. LabError for
    NaN or infinity.
    """
    refuse_not_finite(weight)
    form = form if form is not None else Form((len(weight),))
    exact = weight.detach().float()
    if how.levels == "nf4":
        return _as_normal_floats(form.published(exact), how, weight.shape[1])
    stored, levels = levels_of(exact, how, form)
    codes = []
    for rows in _some_rows(exact):
        grouped = _grouped(exact[rows], how.width(weight.shape[1]))  # [rows, groups, group]
        numbers = levels.rows(rows).nearest(grouped).flatten(1)[:, : weight.shape[1]]
        codes.append(as_codes(numbers, how))
    return {"codes": torch.cat(codes), **stored}


def _some_rows(weight: Tensor) -> list[slice]:
    """Cut the rows of a matrix into runs of a million weights or so, for temporary tensors of no more."""
    step = max(1, _AT_ONCE // max(1, weight[:1].numel()))
    return [slice(at, at + step) for at in range(0, max(1, len(weight)), step)]


def refuse_not_finite(weight: Tensor) -> None:
    """LabError for NaN or infinity."""
    if not all_finite(weight):
        raise LabError("the weight holds NaN or infinity, which no rounding can keep")


@dataclass(frozen=True)
class Levels:
    """The levels that the weights of some groups can have: (number - zero) · scale + minimum; nf4 has no such ones."""

    how: Format
    scales: Tensor
    """[rows, groups, 1] float32, as they are stored; so are the others."""
    zeros: Tensor | None = None
    minima: Tensor | None = None

    def nearest(self, weight: Tensor) -> Tensor:
        """Return the whole number of the level nearest to each weight [rows, groups, any]; a scale of 0 gives that of 0."""
        ratio = _ratio(weight if self.minima is None else weight - self.minima, self.scales)
        if self.zeros is not None:
            ratio = ratio + self.zeros
        return ratio.round().clamp(*self.how.ends)

    def values(self, numbers: Tensor) -> Tensor:
        """Return what whole numbers [rows, groups, any] stand for."""
        values = (numbers if self.zeros is None else numbers - self.zeros) * self.scales
        return values if self.minima is None else values + self.minima

    def rows(self, rows: slice) -> "Levels":
        """Return the levels of some rows."""
        zeros = None if self.zeros is None else self.zeros[rows]
        least = None if self.minima is None else self.minima[rows]
        return Levels(self.how, self.scales[rows], zeros, least)

    def group(self, index: int) -> "Levels":
        """Return the levels of one group, [rows, 1, 1] each."""
        one = slice(index, index + 1)
        zeros = None if self.zeros is None else self.zeros[:, one]
        least = None if self.minima is None else self.minima[:, one]
        return Levels(self.how, self.scales[:, one], zeros, least)


def levels_of(exact: Tensor, how: Format, form: Form) -> tuple[dict[str, Tensor], Levels]:
    """Return levels that reach the outermost weights of each group of a matrix [rows, columns] float32.

    First as they are stored (`codes.empty` without the codes), then as numbers. Not for nf4.
    """
    columns = exact.shape[1]
    grouped = _grouped(exact, how.width(columns))
    if how.levels == "affine":
        stored = _affine(grouped, how, form)
        table = scale_table(stored, how, columns, form)
        return stored, Levels(how, table[..., None], minima=minima(stored, form)[..., None])
    scales, zeros = _full_range(grouped, how)
    stored = stored_steps([Levels(how, scales, zeros)], how)
    if how.double_scales:
        each = scales.squeeze(-1).split(list(form.heights))
        del stored["scales"]
        stored |= nf4.compress([part.flatten() for part in each])
    return stored, Levels(how, scale_table(stored, how, columns, form)[..., None], zeros)


def stored_steps(levels: Sequence[Levels], how: Format) -> dict[str, Tensor]:
    """Return scales and zero points of groups beside each other as they are stored. Not for affine and double scales."""
    scales = torch.cat([one.scales for one in levels], dim=1).squeeze(-1)
    stored = {"scales": scales.to(torch.bfloat16)}  # exact: they were rounded before
    zeros = [one.zeros for one in levels if one.zeros is not None]
    if zeros:
        stored["zeros"] = pack(torch.cat(zeros, dim=1).squeeze(-1).to(torch.uint8), how.bits)
    return stored


def as_codes(numbers: Tensor, how: Format) -> Tensor:
    """Return whole numbers [rows, columns] of levels as packed codes."""
    if how.signed_bytes:
        return numbers.to(torch.int8)
    return pack((numbers + how.offset).to(torch.uint8), how.bits)


def _as_normal_floats(matrices: list[Tensor], how: Format, columns: int) -> dict[str, Tensor]:
    """`quantise` for nf4, each matrix by itself."""
    made = [nf4.quantise_matrix(matrix, how.width(columns)) for matrix in matrices]
    absmax = [scales for _, scales in made]
    scales = nf4.compress(absmax) if how.double_scales else {"scales": torch.cat(absmax)}
    return {"codes": torch.cat([codes for codes, _ in made]), **scales}


def _grouped(weight: Tensor, group: int) -> Tensor:
    """Cut rows into groups, the last filled up with the row's last weight: [rows, columns] → [rows, groups, group]."""
    short = -weight.shape[1] % group
    padded = torch.cat([weight, weight[:, -1:].expand(-1, short)], dim=1) if short else weight
    return padded.reshape(len(weight), blocks_of(weight.shape[1], group), group)


def _full_range(grouped: Tensor, how: Format) -> tuple[Tensor, Tensor | None]:
    """Scales (and zero points) that reach the largest weight of each group: [rows, groups, 1]."""
    steps = how.ends[1]  # from 0 to the largest level
    if how.levels == "asymmetric":
        low = grouped.amin(-1, keepdim=True).clamp_max(0.0)
        high = grouped.amax(-1, keepdim=True).clamp_min(0.0)
        scales = _rounded_up((high - low) / steps)
        return scales, (-_ratio(low, scales)).round()
    return _rounded_up(grouped.abs().amax(-1, keepdim=True) / steps), None


def _affine(grouped: Tensor, how: Format, form: Form) -> dict[str, Tensor]:
    """Scale and minimum of each group in float16, in a unit of each matrix: a power of two, so that none is out of range.

    A group that was rounded to such levels with scales in float16 gets them back exactly: GGUF's Q4_1 and Q5_1, whose
    levels reach from the least weight to the largest, and Q4_0, Q5_0 and Q8_0, whose levels lie around 0.
    """
    if not grouped.numel():
        shape = grouped.shape[:2]
        return {
            "scales": grouped.new_zeros(shape, dtype=torch.float16),
            "minima": grouped.new_zeros(shape, dtype=torch.float16),
            "unit": grouped.new_ones(len(form.heights)),
        }
    low, high = grouped.aminmax(dim=-1)
    scales = (high - low) / how.ends[1]
    around = torch.cat([_around_zero(grouped[rows], how.bits) for rows in _some_rows(grouped)])
    scales = torch.where(around != 0, around, scales)
    low = torch.where(around != 0, -(2 ** (how.bits - 1)) * around, low)
    largest = torch.stack(
        [
            part.amax() if part.numel() else part.new_zeros(())
            for part in low.abs().maximum(scales.abs()).split(list(form.heights))
        ]
    )
    unit = torch.ldexp(torch.ones_like(largest), torch.frexp(largest).exponent - 15)  # numbers below 2^15
    spread = units({"unit": unit}, form)
    return {
        "scales": (scales / spread).to(torch.float16),
        "minima": (low / spread).to(torch.float16),
        "unit": unit,
    }


def _around_zero(grouped: Tensor, bits: int) -> Tensor:
    """Return the scales of groups that lie on whole multiples of one float16 number, as GGUF rounds them; 0 for others.

    In fewer than 8 bits that number is -1/2^(bits-1) of the largest weight, with its sign: the scale may be negative.
    """
    half = 2 ** (bits - 1)
    steps = -half if bits < 8 else half - 1
    largest = grouped.gather(-1, grouped.abs().argmax(-1, keepdim=True))
    scale = (largest / steps).to(torch.float16).float()
    scale = torch.where(scale.isfinite(), scale, 0.0)
    exact = (_ratio(grouped, scale).round() * scale == grouped).all(-1) & (
        scale[..., 0] * steps == largest[..., 0]
    )
    return torch.where(exact, scale[..., 0], 0.0)


def _rounded_up(scales: Tensor) -> Tensor:
    """The next bfloat16 at or above each scale, as float32: rounded down, the largest weight would be out of reach."""
    bits = scales.contiguous().view(torch.int32)
    return ((bits + 0xFFFF) & ~0xFFFF).view(torch.float32)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole == 0, 0.0, part / whole)
