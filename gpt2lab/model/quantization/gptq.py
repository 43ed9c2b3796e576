"""GPTQ: columns are rounded one after another, and each one's error is passed on to those left (Frantar et al. 2022).

What is made small is ‖(W - Ŵ)X‖ for the inputs X of a calibration text, of which only H = 2XXᵀ is needed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model.finite import all_finite
from gpt2lab.model.matrices import Form
from gpt2lab.model.quantization.codes import Format
from gpt2lab.model.quantization.rounding import (
    Levels,
    Rounding,
    as_codes,
    levels_of,
    quantise,
    refuse_not_finite,
    stored_steps,
)

_BLOCK = 128
"""Columns whose corrections reach those behind them together: a matter of speed, not of the result (section 3, step 2)."""


@dataclass(frozen=True, kw_only=True)
class GPTQ:
    """How columns are chosen and corrected."""

    act_order: bool = False
    """Round the columns with the largest inputs first; the levels of groups are then those of the given weights."""
    damping: float = 0.01
    """Added to the diagonal of H, as a share of its mean."""

    def __post_init__(self) -> None:
        if not self.damping > 0:
            raise LabError(f"damping must be above 0, got {self.damping}; 0.01 is the paper's value")

    def rounding(self, hessians: Sequence[Tensor]) -> Rounding:
        """Return a function like `rounding.quantise` for a tensor of equally high parts (experts), each with its H."""

        def round(weight: Tensor, how: Format, form: Form | None = None) -> dict[str, Tensor]:
            form = form if form is not None else Form((len(weight),))
            share = len(form.heights) // len(hessians)
            parts = weight.split(len(weight) // len(hessians)) if len(hessians) > 1 else (weight,)
            made = []
            for i, (part, hessian) in enumerate(zip(parts, hessians, strict=True)):
                own = Form(form.heights[i * share : (i + 1) * share], form.heads)
                made.append(self.quantise(part, hessian, how, own))
            return {name: torch.cat([one[name] for one in made]) for name in made[0]}

        return round

    @torch.no_grad()
    def quantise(self, weight: Tensor, hessian: Tensor, how: Format, form: Form) -> dict[str, Tensor]:
        """Round a matrix [rows, columns] whose inputs have H [columns, columns] float64; return the stored form.

        Without `act_order` the levels of a group are those of its weights as corrected so far; with it, and where the
        scales of a matrix are stored together (affine, `double_scales`), those of the given weights. An input that is
        always 0 says nothing of its column, whose weights go to the nearest level. LabError for nf4, for NaN or infinity.
        """
        if how.levels == "nf4":
            raise LabError(
                "gptq needs whole steps, which nf4 has not; choose symmetric, asymmetric or affine"
            )
        refuse_not_finite(weight)
        if not all_finite(hessian):
            raise LabError("the calibration text gives the layer NaN or infinite inputs")
        rows, columns = weight.shape
        if not weight.numel():
            return quantise(weight, how, form)
        order = torch.arange(columns, device=weight.device)
        if self.act_order:
            order = hessian.diagonal().argsort(descending=True, stable=True)
        factor = _factor(hessian[order][:, order], self.damping)
        given = levels_of(weight.float(), how, form) if self._are_given(how) else None
        left, numbers = weight.double()[:, order], weight.new_empty(rows, columns, dtype=torch.float64)
        width, found = how.width(columns), list[Levels]()
        for start, stop in _blocks(columns, width):
            errors = left.new_empty(rows, stop - start)
            for j in range(start, stop):
                column = int(order[j])
                if given is not None:
                    levels = given[1].group(column // width)
                elif j % width == 0:
                    levels = levels_of(left[:, j : j + width].float(), how, form)[1]
                    found.append(levels)
                number = levels.nearest(left[:, j, None, None])
                numbers[:, column] = number.flatten()
                errors[:, j - start] = (left[:, j] - levels.values(number).flatten()) / factor[j, j]
                left[:, j:stop].addr_(errors[:, j - start], factor[j, j:stop], alpha=-1)  # eq. 2
            left[:, stop:].addmm_(errors, factor[start:stop, stop:], alpha=-1)  # eq. 4
        stored = given[0] if given is not None else stored_steps(found, how)
        return {"codes": as_codes(numbers, how), **stored}

    def _are_given(self, how: Format) -> bool:
        return self.act_order or how.levels == "affine" or how.double_scales


def add_inputs(hessian: Tensor, inputs: Tensor) -> None:
    """Add 2XXᵀ of inputs [..., columns] to H [columns, columns] float64."""
    x = inputs.flatten(0, -2)
    # In float32 at least: twice as fast as float64, and what a batch loses is far below the damping.
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    hessian.add_(x.T @ x, alpha=2)


def _factor(hessian: Tensor, damping: float) -> Tensor:
    """Upper Cholesky factor of the inverse of the damped H: its rows are what eq. 3 leaves of H⁻¹, over √ of the first."""
    diagonal = hessian.diagonal()
    damped = hessian + damping * diagonal.mean() * torch.eye(len(hessian)).to(hessian)
    damped.diagonal()[diagonal == 0] = 1.0
    try:
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
        return torch.linalg.cholesky(inverse, upper=True)
    except torch.linalg.LinAlgError:
        raise LabError(
            f"the inputs of the layer are too much alike for damping={damping}; raise it, to 0.1 for one"
        ) from None


def _blocks(columns: int, width: int) -> Iterator[tuple[int, int]]:
    """Cut columns into blocks, in each of which whole groups begin and end, or which begin with a group or within one."""
    if width <= _BLOCK:
        step = _BLOCK // width * width
        yield from ((start, min(start + step, columns)) for start in range(0, columns, step))
        return
    for group in range(0, columns, width):
        end = min(group + width, columns)
        yield from ((start, min(start + _BLOCK, end)) for start in range(group, end, _BLOCK))
