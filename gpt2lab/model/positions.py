"""Which position each token of a forward pass has."""

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model.cache import KeyValueCache
from gpt2lab.model.config import TransformerConfig


def count_positions(
    config: TransformerConfig,
    slots: slice,
    attention_mask: Tensor | None,
    cache: KeyValueCache | None,
    device: torch.device,
) -> Tensor:
    """Count real tokens from 0: [batch or 1, time]; padding takes the position of the token before it, or 0.

    LabError for more real tokens than the table of learned positions has rows.
    """
    if slots.stop > config.max_positions and config.positions == "learned":
        longest = slots.stop if attention_mask is None and (cache is None or not cache.padded) else None
        if longest is None:
            valid = cache.attention[:, : slots.stop] if cache is not None else attention_mask
            longest = int(valid.sum(1).max()) if valid is not None else slots.stop
        if longest > config.max_positions:
            raise LabError(f"{longest} tokens are more than the model's {config.max_positions} positions")
    if cache is not None and cache.padded:
        counted = cache.attention[:, : slots.stop].long().cumsum(1) - 1
        return counted[:, slots].clamp_min(0)
    if attention_mask is not None and cache is None:
        return (attention_mask.long().cumsum(1) - 1).clamp_min(0)
    return torch.arange(slots.start, slots.stop, device=device)[None]


def check_positions(config: TransformerConfig, positions: Tensor) -> None:
    """Refuse given positions that the table of learned positions does not have. LabError."""
    if config.positions == "learned" and positions.numel() and int(positions.max()) >= config.max_positions:
        raise LabError(f"position {int(positions.max())} is beyond the model's {config.max_positions}")
