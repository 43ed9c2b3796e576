"""NF4 and double quantisation as published (Dettmers et al. 2023, section 3), in the layout of bitsandbytes.

A matrix [out, in] is flattened row by row and cut into blocks of 64, the last one short. A block's absmax, its largest
magnitude, is float32; a weight's code is that of the level nearest to w / absmax; two codes share a byte, the earlier
one in the upper half. Double quantisation takes the mean off the absmax of a matrix and keeps the rest in 8 bits: the
nearest entries of a dynamic map, in blocks of 256 that share a float32 absmax of their own.
"""

import functools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

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
"""Scales that share a second-level absmax (Dettmers et al. 2023, section 3, double quantisation)."""

_ZERO = 7


@functools.cache
def dynamic_map(device: torch.device) -> Tensor:
    """The signed 8-bit map of Dettmers et al. 2022 (section 2), ascending, [256] float32.

    Each sign has seven decades 10^-6 … 1. The interval [0.1, 1] of the i-th is cut into 2^i equal parts, whose middles
    are its entries; 0 and 1 complete the map.
    """
    entries = [0.0, 1.0]
    for i in range(7):
        edges = torch.linspace(0.1, 1.0, 2**i + 1)
        middles = 10.0 ** (i - 6) * ((edges[:-1] + edges[1:]) / 2)
        entries += [*middles.tolist(), *(-middles).tolist()]
    return torch.tensor(sorted(entries), device=device)


def blocks_of(numbers: int, size: int) -> int:
    """Return how many blocks so many numbers make."""
    return -(-numbers // size)


def quantise_matrix(matrix: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Return codes [⌈n/2⌉] uint8 and absmax [blocks] float32 of a matrix of n float32 numbers."""
    flat = torch.nn.functional.pad(matrix.flatten(), (0, -matrix.numel() % block)).view(-1, block)
    absmax = flat.abs().amax(1)
    levels = torch.tensor(NF4, device=matrix.device)
    codes = _nearest(flat, absmax, levels).flatten()[: matrix.numel()]
    codes = torch.nn.functional.pad(codes, (0, matrix.numel() % 2), value=_ZERO).view(-1, 2)
    return codes[:, 0] << 4 | codes[:, 1], absmax


def dequantise_matrices(codes: Tensor, absmax: Tensor, sizes: Sequence[int], block: int) -> Tensor:
    """Return the numbers that codes and absmax of several matrices in a row stand for, flat float32; sizes: of each."""
    if all(size % block == 0 == size % 2 for size in sizes):
        return _values(codes, absmax, block)  # blocks go on from one matrix to the next
    found = []
    bytes_of, counts = [blocks_of(size, 2) for size in sizes], [blocks_of(size, block) for size in sizes]
    for size, packed, scales in zip(sizes, codes.split(bytes_of), absmax.split(counts), strict=True):
        spread = scales.repeat_interleave(block)[:size]
        found.append(_levels(packed)[:size] * spread)
    return torch.cat(found)


def compress(scales: Sequence[Tensor]) -> dict[str, Tensor]:
    """Quantise the scales of several matrices once more, each by itself; flat tensors.

    scale_codes [Σ n] uint8, scale_absmax [Σ ⌈n/256⌉] float32, scale_mean [matrices] float32.
    """
    codes, largest, means = [], [], []
    for flat in scales:
        mean = flat.mean() if flat.numel() else flat.new_zeros(())
        centred = torch.nn.functional.pad(flat - mean, (0, -flat.numel() % SCALES_PER_BLOCK))
        blocks = centred.view(-1, SCALES_PER_BLOCK)
        largest.append(blocks.abs().amax(1))
        codes.append(_nearest(blocks, largest[-1], dynamic_map(flat.device)).flatten()[: flat.numel()])
        means.append(mean)
    return {
        "scale_codes": torch.cat(codes),
        "scale_absmax": torch.cat(largest),
        "scale_mean": torch.stack(means),
    }


def expand(stored: Mapping[str, Tensor], counts: Sequence[int]) -> Tensor:
    """Undo `compress`, flat float32; counts: how many scales each matrix has (eq. 6 of QLoRA)."""
    values = dynamic_map(stored["scale_codes"].device)[stored["scale_codes"].int()]
    seconds = [blocks_of(count, SCALES_PER_BLOCK) for count in counts]
    parts = zip(
        values.split(list(counts)),
        stored["scale_absmax"].split(seconds),
        stored["scale_mean"].unbind(),
        counts,
        strict=True,
    )
    found = [
        part * largest.repeat_interleave(SCALES_PER_BLOCK)[:count] + mean
        for part, largest, mean, count in parts
    ]
    return found[0] if len(found) == 1 else torch.cat(found)


def _nearest(blocks: Tensor, absmax: Tensor, levels: Tensor) -> Tensor:
    """Number of the level nearest to each x / absmax, uint8; of two as near the lower. A block of zeros gives 0's."""
    ratio = torch.where(absmax[:, None] == 0, 0.0, blocks / absmax[:, None])
    return torch.bucketize(ratio, (levels[1:] + levels[:-1]) / 2).to(torch.uint8)


def _values(codes: Tensor, absmax: Tensor, block: int) -> Tensor:
    return _levels(codes).view(-1, block).mul_(absmax[:, None]).flatten()


def _levels(codes: Tensor) -> Tensor:
    """The two levels of each byte, flat float32.

    They move as one 64-bit number: four times as fast as unpacking (at 768 × 2304, one core).
    """
    return _pairs(codes.device).index_select(0, codes.flatten().int()).view(torch.float32)


@functools.cache
def _pairs(device: torch.device) -> Tensor:
    """The two levels in each byte, upper half first, as one 64-bit number: [256] int64."""
    levels = torch.tensor(NF4, device=device)
    return torch.stack([levels.repeat_interleave(16), levels.repeat(16)], dim=1).view(torch.int64).flatten()
