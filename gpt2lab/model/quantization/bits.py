"""Codes of 2 to 8 bits as a stream of bits: how they are packed into bytes, and taken out again."""

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2lab.model.quantization.nf4 import blocks_of


def packed_width(columns: int, bits: int) -> int:
    """Return how many bytes hold a row of codes."""
    return blocks_of(columns * bits, 8)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack codes below 2^bits; [rows, columns] uint8 → [rows, packed_width] uint8.

    Code i of a row is bits i·b to (i + 1)·b - 1 of its bytes, the lowest bit of the first byte being bit 0: of two codes
    of 4 bits the first is in the lower half. A row begins with a byte of its own; what is left of its last one is 0.
    """
    if bits == 8:
        return codes
    rows, columns = codes.shape
    eights = (
        F.pad(codes, (0, -columns % 8)).view(rows, blocks_of(columns, 8), 8).long()
    )  # they fill `bits` bytes
    words = (eights << torch.arange(0, 8 * bits, bits, device=codes.device)).sum(-1, keepdim=True)
    filled = (words >> torch.arange(0, 8 * bits, 8, device=codes.device)) & 255  # [rows, eights, bits]
    return filled.to(torch.uint8).flatten(1)[:, : packed_width(columns, bits)].contiguous()


def unpack(packed: Tensor, columns: int, bits: int) -> Tensor:
    """Undo `pack`: [rows, packed_width] uint8 → [rows, columns] uint8."""
    if bits == 8:
        return packed
    if bits == 4:
        return torch.stack([packed & 15, packed >> 4], dim=-1).flatten(1)[:, :columns]
    rows, width, mask = *packed.shape, (1 << bits) - 1
    filled = F.pad(packed, (0, -width % bits)).view(rows, blocks_of(width, bits), bits)
    eights = filled.new_empty(rows, filled.shape[1], 8)
    for i in range(8):  # a code lies in one byte, or in two that follow each other
        byte, shift = divmod(i * bits, 8)
        code = filled[..., byte] >> shift
        if shift + bits > 8:
            code = code | (filled[..., byte + 1] << (8 - shift))  # the bits above 255 fall off
        eights[..., i] = code & mask
    return eights.flatten(1)[:, :columns]
