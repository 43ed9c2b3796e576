"""Rounding weights, once more: group by group in float64, from the formulas, and stored forms read back bit by bit."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Array = NDArray[np.float64]


def bfloat16_above(value: float) -> float:
    """The least number of eight significant bits that is at least `value` ≥ 0."""
    if value == 0.0:
        return 0.0
    step = 2.0 ** (math.floor(math.log2(value)) - 7)
    return math.ceil(value / step) * step


def normal_float_4() -> Array:
    """NF4 by its construction (Dettmers et al. 2023, appendix E): 8 quantiles above 0, 7 below, and 0 itself.

    The outermost quantile is the mean of those of 15 and of 16 levels: 1 - (1/30 + 1/32) / 2.
    """
    outermost = 1 - (1 / 30 + 1 / 32) / 2
    positive = norm.ppf(np.linspace(outermost, 0.5, 9)[:-1])
    negative = -norm.ppf(np.linspace(outermost, 0.5, 8)[:-1])
    levels = np.sort(np.concatenate([positive, [0.0], negative]))
    return levels / levels.max()


def rounded_group(weights: Array, scheme: str, bits: int, levels: Array) -> Array:
    """The nearest levels of one group: ŵ = (level - zero) · scale."""
    if scheme == "asymmetric":
        low, high = min(0.0, weights.min()), max(0.0, weights.max())
        scale = bfloat16_above(np.float32((np.float32(high) - np.float32(low)) / np.float32(15)))
        if scale == 0:
            return np.zeros_like(weights)
        zero = np.round(-low / scale)
        return (np.clip(np.round(weights / scale + zero), 0, 15) - zero) * scale
    largest = {("symmetric", 8): 127, ("symmetric", 4): 7, ("nf4", 4): 1}[scheme, bits]
    scale = bfloat16_above(np.float32(np.abs(weights).max()) / np.float32(largest))
    if scale == 0:
        return np.zeros_like(weights)
    if scheme == "nf4":
        return levels[np.abs(weights[:, None] / scale - levels).argmin(1)] * scale
    return np.clip(np.round(weights / scale), -127 if bits == 8 else -8, largest) * scale


def rounded(weight: Array, scheme: str, bits: int, group: int, levels: Array) -> Array:
    """Every group of every row by itself; the last group of a row may be short."""
    made = np.empty_like(weight)
    for row in range(weight.shape[0]):
        for start in range(0, weight.shape[1], group):
            part = slice(start, start + group)
            made[row, part] = rounded_group(weight[row, part], scheme, bits, levels)
    return made


def double_scales(codes: NDArray[np.int8], steps: Array, mean: float, block: int = 256) -> Array:
    """Scales from their own 8-bit codes: code · step of its block + mean (Dettmers et al. 2023, section 3)."""
    flat = codes.reshape(-1).astype(np.float64)
    for index in range(len(flat)):
        flat[index] = flat[index] * steps[index // block] + mean
    return flat.reshape(codes.shape)


def read_back(
    stored: dict[str, NDArray[np.generic]], scheme: str, group: int, columns: int, levels: Array
) -> Array:
    """The weights of 4-bit codes, one at a time: the first of a pair in the lower half of its byte."""
    rows = stored["codes"].shape[0]
    made = np.empty((rows, columns))
    for row in range(rows):
        for column in range(columns):
            byte = int(stored["codes"][row, column // 2])
            code = byte >> 4 if column % 2 else byte & 15
            place = column // group
            level = levels[code] if scheme == "nf4" else code - 8 if scheme == "symmetric" else code
            if scheme == "asymmetric":
                pair = int(stored["zeros"][row, place // 2])
                level -= pair >> 4 if place % 2 else pair & 15
            made[row, column] = level * float(stored["scales"][row, place])
    return made
