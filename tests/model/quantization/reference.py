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


def rounded_group(weights: Array, scheme: str, bits: int) -> Array:
    """The nearest levels of one group: ŵ = (level - zero) · scale, of affine code · scale + minimum."""
    if scheme == "affine":
        return affine_group(weights, bits)
    if scheme == "asymmetric":
        low, high, top = min(0.0, weights.min()), max(0.0, weights.max()), 2**bits - 1
        scale = bfloat16_above(np.float32((np.float32(high) - np.float32(low)) / np.float32(top)))
        if scale == 0:
            return np.zeros_like(weights)
        zero = np.round(-low / scale)
        return (np.clip(np.round(weights / scale + zero), 0, top) - zero) * scale
    largest = 2 ** (bits - 1) - 1
    scale = bfloat16_above(np.float32(np.abs(weights).max()) / np.float32(largest))
    if scale == 0:
        return np.zeros_like(weights)
    return np.clip(np.round(weights / scale), -127 if bits == 8 else -largest - 1, largest) * scale


def affine_group(weights: Array, bits: int) -> Array:
    """Scale and minimum have the eleven significant bits of float16; the range of float16 does not matter."""
    low, high = weights.min(), weights.max()
    scale = eleven_bits(np.float32(np.float32(high) - np.float32(low)) / np.float32(2**bits - 1))
    minimum = eleven_bits(low)
    if scale == 0:
        return np.full_like(weights, minimum)
    return np.clip(np.round((weights - minimum) / scale), 0, 2**bits - 1) * scale + minimum


def eleven_bits(value: float) -> float:
    """The nearest number of eleven significant bits."""
    if value == 0.0:
        return 0.0
    step = 2.0 ** (math.floor(math.log2(abs(value))) - 10)
    return float(np.round(value / step) * step)


def grid(weights: Array, scheme: str, bits: int) -> tuple[float, float]:
    """Scale and zero point of a group, of the schemes of whole steps."""
    top = 2**bits - 1 if scheme == "asymmetric" else 2 ** (bits - 1) - 1
    low, high = min(0.0, float(weights.min())), max(0.0, float(weights.max()))
    span = np.float32(high) - np.float32(low) if scheme == "asymmetric" else np.float32(max(-low, high))
    scale = bfloat16_above(np.float32(span / np.float32(top)))
    return scale, float(np.round(-low / scale)) if scheme == "asymmetric" and scale else 0.0


def gptq(
    weight: Array, hessian: Array, scheme: str, bits: int, group: int, *, act_order: bool, damping: float
) -> tuple[NDArray[np.int64], Array]:
    """Levels less zero points, and the weights that they stand for: one column at a time with the inverse of what is left.

    Frantar et al. 2022, eq. 2 (the weights that are left) and eq. 3 (the inverse Hessian without the column), for a fixed
    order of columns. Groups have the levels of their weights as corrected so far; with act_order, of the given weights.
    """
    rows, columns = weight.shape
    diagonal = np.diag(hessian)
    damped = hessian + damping * diagonal.mean() * np.eye(columns)
    for dead in np.flatnonzero(diagonal == 0):
        damped[dead, dead] = 1.0
    inverse, left = np.linalg.inv(damped), weight.copy()
    numbers, made = np.zeros((rows, columns), dtype=np.int64), np.zeros_like(weight)
    low, high = (0, 2**bits - 1) if scheme == "asymmetric" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    order = sorted(range(columns), key=lambda q: -diagonal[q]) if act_order else range(columns)
    grids: dict[tuple[int, int], tuple[float, float]] = {}
    for q in order:
        start = q - q % group
        for row in range(rows):
            if (row, start) not in grids:
                source = weight if act_order else left
                grids[row, start] = grid(source[row, start : start + group], scheme, bits)
            scale, zero = grids[row, start]
            ratio = left[row, q] / scale if scale else 0.0
            numbers[row, q] = np.clip(np.round(ratio + zero), low, high) - zero
            made[row, q] = numbers[row, q] * scale
            left[row] -= (left[row, q] - made[row, q]) / inverse[q, q] * inverse[:, q]
        inverse = inverse - np.outer(inverse[:, q], inverse[q, :]) / inverse[q, q]
    return numbers, made


def rounded(weight: Array, scheme: str, bits: int, group: int) -> Array:
    """Every group of every row by itself; the last group of a row may be short."""
    made = np.empty_like(weight)
    for row in range(weight.shape[0]):
        for start in range(0, weight.shape[1], group):
            part = slice(start, start + group)
            made[row, part] = rounded_group(weight[row, part], scheme, bits)
    return made


def normal_floats(matrix: Array, levels: Array, block: int = 64) -> tuple[list[int], list[float], Array]:
    """NF4 as published: codes and absmax of the flattened matrix, block after block, and the values they stand for."""
    flat = matrix.reshape(-1)
    codes: list[int] = []
    absmax: list[float] = []
    for start in range(0, len(flat), block):
        part = flat[start : start + block]
        absmax.append(float(np.abs(part).max()))
        for weight in part:
            ratio = weight / absmax[-1] if absmax[-1] else 0.0
            codes.append(int(np.abs(ratio - levels).argmin()))
    values = [levels[code] * absmax[i // block] for i, code in enumerate(codes)]
    return codes, absmax, np.array(values).reshape(matrix.shape)


def two_in_a_byte(codes: list[int]) -> list[int]:
    """The earlier code in the upper half; a last one without a partner stands beside the code of 0."""
    filled = [*codes, 7] if len(codes) % 2 else codes
    return [16 * first + second for first, second in zip(filled[::2], filled[1::2], strict=True)]


def dynamic_map() -> Array:
    """The signed 8-bit map: for decade i of seven, 2^i middles between a tenth of its end and its end; with 0 and 1."""
    entries = {0.0, 1.0}
    for i in range(7):
        end, parts = 10.0 ** (i - 6), 2**i
        for k in range(parts):
            middle = end * (0.1 + 0.9 * (2 * k + 1) / (2 * parts))
            entries |= {middle, -middle}
    return np.array(sorted(entries))


def double_quantised(absmax: list[float], block: int = 256) -> tuple[list[int], list[float], float, Array]:
    """Codes, second absmax, mean, and the scales that they stand for (Dettmers et al. 2023, section 3)."""
    entries, values = dynamic_map(), np.array(absmax)
    mean = float(values.mean())
    codes: list[int] = []
    seconds: list[float] = []
    for start in range(0, len(values), block):
        part = values[start : start + block] - mean
        seconds.append(float(np.abs(part).max()))
        codes += [int(np.abs((x / seconds[-1] if seconds[-1] else 0.0) - entries).argmin()) for x in part]
    found = [entries[code] * seconds[i // block] + mean for i, code in enumerate(codes)]
    return codes, seconds, mean, np.array(found)


def codes_in(row: NDArray[np.generic], bits: int, count: int) -> list[int]:
    """The codes of a row of bytes, bit by bit: code i is bits i·b … of a stream that begins with the lowest of the first."""
    stream = [int(byte) >> place & 1 for byte in row for place in range(8)]
    return [sum(stream[i * bits + k] << k for k in range(bits)) for i in range(count)]


def read_back(
    stored: dict[str, NDArray[np.generic]], scheme: str, bits: int, group: int, columns: int
) -> Array:
    """The weights of codes of any width but signed bytes, one at a time."""
    rows = stored["codes"].shape[0]
    made = np.empty((rows, columns))
    for row in range(rows):
        zeros = codes_in(stored["zeros"][row], bits, -(-columns // group)) if scheme == "asymmetric" else []
        for column, code in enumerate(codes_in(stored["codes"][row], bits, columns)):
            place = column // group
            level = code - 2 ** (bits - 1) if scheme == "symmetric" else code
            level -= zeros[place] if zeros else 0
            made[row, column] = level * float(stored["scales"][row, place])
            if scheme == "affine":
                made[row, column] += float(stored["minima"][row, place])
                made[row, column] *= float(stored["unit"][0])
    return made
