"""Which positions a query may look at."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

Order = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Called as order(query slots [time, 1], key slots [1, keys], valid [batch, keys] or None): which keys a query may look
at, windows and padding aside, bool [time, keys] or [batch, time, keys]."""


def attention_masks(
    slots: slice,
    valid: Tensor | None,
    device: torch.device,
    *,
    causal: bool = True,
    order: Order | None = None,
    siblings: bool = False,
) -> Callable[[int | None], Tensor | None]:
    """Return a function window → mask [batch or 1, 1, time or 1, keys], True where a query may look.

    Queries stand at `slots`, keys at 0 … slots.stop. valid [batch, keys] is true at real tokens, None if all are.
    A query sees keys at and before its own slot, the last `window` real ones, and no padding; a padding query sees
    itself, so that its row of the softmax is never empty. None stands for plain causal attention without padding,
    which the kernels mask themselves (or need not mask, for a single query at the end).
    Not causal: every query sees all real tokens, and in a row without any sees everything; None stands for no mask.
    An `order` says which keys a query sees in place of those at and before its own slot. `siblings`: the queries are
    alternatives for the one place at slots.start; each sees what stands before it, and itself.
    """
    if not causal and order is None:
        return _both_ways(valid)

    @cache
    def mask(window: int | None) -> Tensor | None:
        time = 1 if siblings else slots.stop - slots.start
        last = slots.start + time
        # A graph made by torch.export serves all lengths, so it cannot ask whether this one fits into the window.
        alone = window is None or (not torch.compiler.is_exporting() and last <= window)
        if order is None and valid is None and alone and (slots.start == 0 or time == 1) and not siblings:
            return None
        query = torch.arange(slots.start, slots.stop, device=device)[:, None]
        key = torch.arange(slots.stop, device=device)[None, :]
        own = key == query
        place = torch.full_like(query, slots.start) if siblings else query
        seen = key <= place if order is None else order(place, key, valid)
        if not alone:
            assert window is not None
            seen = seen & _near(key, place, window, valid)
        if siblings:
            seen = (seen & (key < slots.start)) | own
        if valid is None:
            return seen.view(-1, 1, *seen.shape[-2:])
        return ((seen & valid.bool()[:, None, :]) | own)[:, None]

    return mask


def _near(key: Tensor, place: Tensor, window: int, valid: Tensor | None) -> Tensor:
    """Which keys [1, keys] are less than `window` real tokens before a place [time, 1]; [time, keys], or with batch."""
    if valid is None:
        return key > place - window
    # Slots are no measure: padding may stand between a learned prefix and the text.
    count = valid.long().cumsum(1)  # [batch, keys]
    return count[:, None, :] > count[:, place] - window


def _both_ways(valid: Tensor | None) -> Callable[[int | None], Tensor | None]:
    """The masks of bidirectional attention, which has no windows."""
    seen = None
    if valid is not None:
        valid = valid.bool()
        seen = (valid | ~valid.any(1, keepdim=True))[:, None, None]  # [batch, 1, 1, keys]
    return lambda window: seen
