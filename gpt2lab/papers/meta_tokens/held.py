"""The cache of the gathered back end: keys and values of meta-tokens alone, and the slot of each."""

import torch
from torch import Tensor

from gpt2lab.model import KeyValueCache


class HeldMetas:
    """Keys and values of one layer's meta-tokens; rows may hold different numbers of them.

    `slots` [batch, held] says at which slot of the text each stands, -1 where a row has no more. Ordinary tokens take no
    room. Every write makes new tensors, so that gradients flow through; metas are few.
    """

    def __init__(self) -> None:
        self.slots: Tensor | None = None
        self.keys: Tensor | None = None
        """[batch, kv_heads, held, d_head]."""
        self.values: Tensor | None = None

    def append(
        self, start: int, keys: Tensor, values: Tensor, slots: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Add metas that stand at or after slot `start`, and return all keys, values and slots of them.

        keys and values [batch, kv_heads, metas, d_head]; slots [batch, metas], -1 where a row has fewer. What was held from
        `start` on is forgotten first: a block under gradient checkpointing writes a second time.
        """
        if self.slots is not None and self.keys is not None and self.values is not None:
            earlier = torch.where(self.slots < start, self.slots, -1)
            keys, values = torch.cat([self.keys, keys], dim=2), torch.cat([self.values, values], dim=2)
            slots = torch.cat([earlier, slots], dim=1)
        there = slots >= 0
        most = max(1, int(there.sum(1).max())) if there.numel() else there.shape[1]
        order = torch.sort((~there).to(torch.int8), dim=1, stable=True).indices[:, :most]  # [batch, held]
        self.slots = slots.gather(1, order)
        index = order[:, None, :, None]
        self.keys = keys.gather(2, index.expand(-1, keys.shape[1], -1, keys.shape[3]))
        self.values = values.gather(2, index.expand(-1, values.shape[1], -1, values.shape[3]))
        return self.keys, self.values, self.slots

    def reorder(self, rows: Tensor) -> None:
        """Let row r continue from old row rows[r]."""
        for name, tensor in self._tensors().items():
            setattr(self, name, tensor.index_select(0, rows))

    def keep(self, start: int, chosen: Tensor, count: int = 1) -> None:
        """Of the slots from `start` on keep `count` from start + chosen[r] on of row r, moved to `start`."""
        if self.slots is None:
            return
        first = start + chosen[:, None]
        inside = (self.slots >= first) & (self.slots < first + count)
        moved = torch.where(inside, self.slots - chosen[:, None], -1)
        self.slots = torch.where(self.slots < start, self.slots, moved)

    def rewind(self, length: int) -> None:
        """Forget metas at and after slot `length`; rewound to 0, everything."""
        if not length:
            self.slots = self.keys = self.values = None
        if self.slots is not None:
            self.slots = torch.where(self.slots < length, self.slots, -1)

    def select(self, rows: Tensor) -> "HeldMetas":
        """Return a cache whose row r is a copy of row rows[r]."""
        new = HeldMetas()
        for name, tensor in self._tensors().items():
            setattr(new, name, tensor.index_select(0, rows))
        return new

    def _tensors(self) -> dict[str, Tensor]:
        named = {"slots": self.slots, "keys": self.keys, "values": self.values}
        return {name: tensor for name, tensor in named.items() if tensor is not None}


def held_metas(cache: KeyValueCache, layer: int) -> HeldMetas:
    """Return the cache of a layer's metas, which lies beside the slots of `cache`."""
    found = cache.sides.setdefault(("meta", layer), HeldMetas())
    assert isinstance(found, HeldMetas)
    return found
