"""Rotary position embeddings (Su et al. 2021, eq. 34), in Hugging Face's half-split order, and their extensions."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model.limits import check_size

ROWS = 2**17
"""Positions for which tables are made at once; a model of more (config.json may say any) has them made as it reads."""


@dataclass(frozen=True, kw_only=True)
class RotaryScaling:
    """How the angles change so that a model reads further than it was trained.

    linear: positions divided by `factor` (Chen et al. 2023, eq. 4). dynamic: a larger base once a sequence is longer than
    `original_positions` ("dynamic NTK"). yarn: fast pairs as they were, slow pairs interpolated, a ramp between them
    (Peng et al. 2023, eq. 20 and 21). llama3: the same idea with limits in wavelengths (Grattafiori et al. 2024).
    """

    kind: Literal["linear", "dynamic", "yarn", "llama3"]
    factor: float
    """How many times longer."""
    original_positions: int
    """Positions the model was trained on."""
    beta_fast: float = 32.0
    """yarn: pairs that turn more often than this over the original positions stay as they are."""
    beta_slow: float = 1.0
    """yarn: pairs that turn less often than this are interpolated."""
    truncate: bool = True
    """yarn: round the ends of the ramp outwards to whole pairs."""
    extrapolation: float = 1.0
    """yarn: share, 0 to 1, by which pairs before and on the ramp stay as they were; at 0 all are interpolated."""
    magnitude: float | None = None
    """yarn: factor on cos and sin; None means 0.1 ln(factor) + 1."""
    low_frequency: float = 1.0
    """llama3: pairs of which fewer waves than this fit into the original positions are interpolated."""
    high_frequency: float = 4.0
    """llama3: pairs of which more waves than this fit stay as they are."""

    def __post_init__(self) -> None:
        numbers = (
            *(self.factor, self.beta_fast, self.beta_slow, self.extrapolation),
            *(self.low_frequency, self.high_frequency),
        )
        if not all(math.isfinite(number) for number in (*numbers, self.magnitude or 0.0)):
            raise LabError(f"rotary scaling: its numbers must be finite, got {self}")
        if not self.factor >= 1.0:
            raise LabError(f"rotary scaling: factor must be at least 1, got {self.factor}")
        check_size("max_positions", self.original_positions)
        if self.kind == "llama3" and not 0 < self.low_frequency < self.high_frequency:
            raise LabError("rotary scaling: low_frequency must lie between 0 and high_frequency")
        if self.kind == "yarn" and not (self.beta_fast > 0 and self.beta_slow > 0):
            raise LabError("rotary scaling: beta_fast and beta_slow must be above 0")
        if not 0 <= self.extrapolation <= 1:
            raise LabError(f"rotary scaling: extrapolation must lie in [0, 1], got {self.extrapolation}")

    @property
    def amplitude(self) -> float:
        """Factor on cos and sin."""
        if self.kind != "yarn":
            return 1.0
        if self.magnitude is not None:
            return self.magnitude
        return 0.1 * math.log(self.factor) + 1.0  # Peng et al. 2023, eq. 22


def rotary_frequencies(width: int, base: float, scaling: RotaryScaling | None, length: int) -> Tensor:
    """Return the angle per position of each pair, [width / 2] float64; θ_i = base^(-2i/width) unless scaled.

    `length` is that of the longest sequence; only dynamic scaling looks at it.
    """
    if scaling is not None and scaling.kind == "dynamic" and length > scaling.original_positions:
        stretch = scaling.factor * length / scaling.original_positions - (scaling.factor - 1)
        base = base * stretch ** (width / (width - 2))
    theta = base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    if scaling is None or scaling.kind == "dynamic":
        return theta
    slow = theta / scaling.factor
    if scaling.kind == "linear":
        return slow
    if scaling.kind == "yarn":
        kept = (1 - _yarn_ramp(width, base, scaling)) * scaling.extrapolation
    else:
        waves = scaling.original_positions * theta / (2 * math.pi)  # that fit into the original positions
        low, high = scaling.low_frequency, scaling.high_frequency
        kept = ((waves - low) / (high - low)).clamp(0, 1)
    return kept * theta + (1 - kept) * slow


def _yarn_ramp(width: int, base: float, scaling: RotaryScaling) -> Tensor:
    """From 0 (pair kept) to 1 (pair interpolated), [width / 2]."""

    def pair(rotations: float) -> float:
        """The pair that turns so often over the original positions."""
        return width * math.log(scaling.original_positions / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low, high = pair(scaling.beta_fast), pair(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    if low == high:
        high += 0.001  # a step instead of a division by zero
    return ((torch.arange(width // 2, dtype=torch.float64) - low) / (high - low)).clamp(0, 1)


def rotary_tables(
    width: int,
    base: float,
    length: int,
    scaling: RotaryScaling | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Return cos and sin [length, width] of `dtype` for positions 0 … length-1.

    Computed in float64: at position 10,000 a float32 angle is already off by 1e-3.
    """
    frequencies = rotary_frequencies(width, base, scaling, length)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies  # [length, width / 2]
    angles = torch.cat([angles, angles], dim=-1)
    amplitude = 1.0 if scaling is None else scaling.amplitude
    return (angles.cos() * amplitude).to(dtype), (angles.sin() * amplitude).to(dtype)


class RotaryTables:
    """The tables of a model, made when they are needed and made anew when they no longer fit."""

    def __init__(
        self, width: int, base: float, max_positions: int, scaling: RotaryScaling | None = None
    ) -> None:
        self.width, self.base, self.max_positions, self.scaling = width, base, max_positions, scaling
        self.held: tuple[Tensor, Tensor] | None = None

    def at(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return cos and sin at positions [batch or 1, time], each [batch or 1, 1, time, width] of `dtype`.

        The tables are held in float32, for a float64 model in float64.
        """
        wide = torch.promote_types(dtype, torch.float32)
        scaling = self.scaling
        # torch.export cannot look at values; there, the table made before has all positions.
        needed = int(positions.max()) + 1 if positions.numel() and not torch.compiler.is_exporting() else 1
        # Dynamic scaling turns longer texts by the length at hand: their table is made anew whenever that changes.
        stretched = scaling is not None and scaling.kind == "dynamic" and needed > scaling.original_positions
        length = needed if stretched else max(needed, min(self.max_positions, max(2 * needed, ROWS)))
        cos = self.held[0] if self.held is not None else None
        fits = cos is not None and (
            cos.shape[0] == length if stretched else needed <= cos.shape[0] <= max(length, self.max_positions)
        )
        if cos is None or not fits or cos.device != positions.device or cos.dtype != wide:
            tables = rotary_tables(self.width, self.base, length, scaling, dtype=wide)
            self.held = tables[0].to(positions.device), tables[1].to(positions.device)
        assert self.held is not None
        cos, sin = self.held
        return cos[positions][:, None].to(dtype), sin[positions][:, None].to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first `width` entries of each head.

    x [batch, heads, time, d_head], cos and sin [batch or 1, 1, time, width] → like x.
    """
    width = cos.shape[-1]
    turned, rest = x[..., :width], x[..., width:]
    first, second = turned.chunk(2, dim=-1)
    turned = turned * cos + torch.cat([-second, first], dim=-1) * sin
    return torch.cat([turned, rest], dim=-1) if rest.shape[-1] else turned
