"""Static key/value caches for decoding."""

import copy
from collections.abc import Hashable, Sequence
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError


class SideCache(Protocol):
    """What a block keeps in a form of its own beside the slots, such as keys of a few tokens only."""

    def reorder(self, rows: Tensor) -> None:
        """As `KeyValueCache.reorder`."""
        ...

    def keep(self, start: int, chosen: Tensor, count: int = 1) -> None:
        """As `KeyValueCache.keep`, for `count` slots from start + chosen[r] on."""
        ...

    def rewind(self, length: int) -> None:
        """As `KeyValueCache.rewind`."""
        ...

    def select(self, rows: Tensor) -> "SideCache":
        """As `KeyValueCache.select`."""
        ...


class KeyValueCache:
    """Keys and values of every layer in tensors allocated once, at the first write, and filled slot by slot.

    `attention` [batch, length] is True where a slot holds a real token (padding stays False), `length` is how many
    slots are used. Feeding more tokens than fit is a LabError. dtype None keeps what is written in its own type.
    """

    def __init__(
        self,
        *,
        batch: int,
        length: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.tensors: dict[Hashable, Tensor] = {}
        """What was written, by name: [batch, heads, length, width]; keys of layer i are `("k", i)`."""
        self.sides: dict[Hashable, SideCache] = {}
        """What blocks keep in forms of their own, by name; it follows the rows and slots."""
        self.attention = torch.zeros(batch, length, dtype=torch.bool, device=device)
        self.dtype = dtype
        self.capacity = length
        self.length = 0
        self.padded = False
        """Whether any used slot is padding: if not, decoding needs no mask."""

    @property
    def batch(self) -> int:
        """Rows of the cache."""
        return self.attention.shape[0]

    def claim(self, attention_mask: Tensor | None, time: int) -> slice:
        """Reserve the next `time` slots, note which hold real tokens, and return them."""
        start, stop = self.length, self.length + time
        if stop > self.capacity:
            raise LabError(f"key/value cache: {stop} tokens do not fit in its {self.capacity} slots")
        if attention_mask is None:
            self.attention[:, start:stop] = True
        else:
            self.attention[:, start:stop] = attention_mask.bool()
            self.padded = self.padded or not bool(attention_mask.all())
        self.length = stop
        return slice(start, stop)

    def write(self, layer: Hashable, slots: slice, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values [batch, n_kv_heads, time, d_head] and return all of the layer's used slots."""
        return self.store(("k", layer), slots, keys), self.store(("v", layer), slots, values)

    def store(self, name: Hashable, slots: slice, x: Tensor) -> Tensor:
        """Keep x [batch, heads, time, width] at `slots` under a name; return all used slots, [batch, heads, used, width].

        A block that caches something of its own needs only a name that nothing else has.
        """
        held = self.tensors.get(name)
        if held is None:
            shape = (*x.shape[:2], self.capacity, *x.shape[3:])
            with torch.inference_mode(False):  # so that it can be written to outside of that mode too
                held = torch.zeros(shape, device=x.device, dtype=self.dtype or x.dtype)
            self.tensors[name] = held
        held[:, :, slots] = x
        return held[:, :, : slots.stop]

    def reorder(self, rows: Tensor) -> None:
        """Let row r continue from old row rows[r] (beam search); rows [batch] int64. Only used slots are moved."""
        used = self.length
        for tensor in self.tensors.values():
            tensor[:, :, :used] = tensor[:, :, :used].index_select(0, rows)
        self.attention[:, :used] = self.attention[:, :used].index_select(0, rows)
        for side in self.sides.values():
            side.reorder(rows)

    def keep(self, start: int, chosen: Tensor) -> None:
        """Of the slots from `start` on keep slot start + chosen[r] of row r, moved to `start`; chosen [batch] int64."""
        rows = torch.arange(self.batch, device=chosen.device)
        for tensor in self.tensors.values():
            tensor[:, :, start] = tensor[rows, :, start + chosen]
        for side in self.sides.values():
            side.keep(start, chosen)
        self.rewind(start + 1)

    def rewind(self, length: int) -> None:
        """Forget every slot from `length` on."""
        if not 0 <= length <= self.length:
            raise LabError(f"key/value cache: cannot rewind to {length}, {self.length} slots are used")
        self.attention[:, length : self.length] = False
        self.length = length
        for side in self.sides.values():
            side.rewind(length)

    def select(self, rows: Tensor) -> "KeyValueCache":
        """Return a cache whose row r is a copy of row rows[r]; there may be more rows than before, or fewer."""
        new = copy.copy(self)
        new.tensors = {name: tensor.index_select(0, rows) for name, tensor in self.tensors.items()}
        new.sides = {name: side.select(rows) for name, side in self.sides.items()}
        new.attention = self.attention.index_select(0, rows)
        return new


class GrowingCache(KeyValueCache):
    """A cache that gradients flow through, for training on what is read token by token: every write makes new tensors."""

    def store(self, name: Hashable, slots: slice, x: Tensor) -> Tensor:
        """As in `KeyValueCache`."""
        held = self.tensors.get(name)
        # What a block under gradient checkpointing writes a second time takes the place of the first.
        self.tensors[name] = x if held is None else torch.cat([held[:, :, : slots.start], x], dim=2)
        return self.tensors[name]


class CacheGroup:
    """Several caches that are decoded with as one: for a model that passes over each token more than once.

    Each part holds `ahead` slots more than this says, in front of the text (a learned prefix); rewound to 0, the
    parts forget those too.
    """

    def __init__(self, parts: Sequence["Cache"], *, ahead: int = 0) -> None:
        self.parts, self.ahead = tuple(parts), ahead

    @property
    def batch(self) -> int:
        """Rows of the caches."""
        return self.parts[0].batch

    @property
    def capacity(self) -> int:
        """Slots for tokens of the text."""
        return self.parts[0].capacity - self.ahead

    @property
    def length(self) -> int:
        """Slots that hold tokens of the text."""
        return max(0, self.parts[0].length - self.ahead)

    @property
    def padded(self) -> bool:
        """Whether any used slot is padding."""
        return self.parts[0].padded

    @property
    def attention(self) -> Tensor:
        """[batch, capacity], True where a slot holds a real token of the text."""
        return self.parts[0].attention[:, self.ahead :]

    def reorder(self, rows: Tensor) -> None:
        """As for one cache."""
        for part in self.parts:
            part.reorder(rows)

    def keep(self, start: int, chosen: Tensor) -> None:
        """As for one cache."""
        for part in self.parts:
            part.keep(start + self.ahead, chosen)

    def rewind(self, length: int) -> None:
        """As for one cache."""
        if not 0 <= length <= self.length:
            raise LabError(f"key/value cache: cannot rewind to {length}, {self.length} slots are used")
        for part in self.parts:
            part.rewind(min(part.length, length + self.ahead) if length else 0)

    def select(self, rows: Tensor) -> "CacheGroup":
        """As for one cache."""
        return CacheGroup([part.select(rows) for part in self.parts], ahead=self.ahead)


Cache: TypeAlias = KeyValueCache | CacheGroup
"""What `Transformer.new_cache` makes."""
