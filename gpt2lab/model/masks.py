"""Which positions a query may look at."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor


def attention_masks(
    slots: slice, valid: Tensor | None, device: torch.device
) -> Callable[[int | None], Tensor | None]:
    """Return a function window → mask [batch or 1, 1, time, keys], True where a query may look.

    Queries stand at `slots`, keys at 0 … slots.stop. valid [batch, keys] is true at real tokens, None if all are.
    A query sees keys at and before its own slot, the last `window` of them, and no padding; a padding query sees
    itself, so that its row of the softmax is never empty. None stands for plain causal attention without padding,
    which the kernels mask themselves (or need not mask, for a single query at the end).
    """

    @cache
    def mask(window: int | None) -> Tensor | None:
        time = slots.stop - slots.start
        alone = window is None or slots.stop <= window
        if valid is None and alone and (slots.start == 0 or time == 1):
            return None
        query = torch.arange(slots.start, slots.stop, device=device)[:, None]
        key = torch.arange(slots.stop, device=device)[None, :]
        seen = key <= query
        if not alone:
            seen = seen & (key > query - window)  # type: ignore[operator]  # alone covers None
        if valid is None:
            return seen[None, None]
        own = key == query
        return ((seen & valid.bool()[:, None, :]) | own)[:, None]

    return mask
