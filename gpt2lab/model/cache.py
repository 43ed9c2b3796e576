"""Static key/value cache for decoding."""

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model.config import TransformerConfig


class KeyValueCache:
    """Keys and values of every layer in tensors allocated once, filled slot by slot.

    keys[i], values[i]: [batch, n_kv_heads, length, d_head] for layer i.
    `attention` [batch, length] is True where a slot holds a real token (padding stays False), `length` is how many
    slots are used. Feeding more tokens than fit is a LabError.
    """

    def __init__(
        self,
        config: TransformerConfig,
        *,
        batch: int,
        length: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        layers = [config.layer(i) for i in range(config.n_layers)]
        shapes = [(batch, layer.n_kv_heads, length, layer.d_head) for layer in layers]
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for shape in shapes]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for shape in shapes]
        self.attention = torch.zeros(batch, length, dtype=torch.bool, device=device)
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

    def write(self, layer: int, slots: slice, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values [batch, n_kv_heads, time, d_head] and return all of the layer's used slots."""
        self.keys[layer][:, :, slots] = keys
        self.values[layer][:, :, slots] = values
        return self.keys[layer][:, :, : slots.stop], self.values[layer][:, :, : slots.stop]

    def reorder(self, rows: Tensor) -> None:
        """Let row r continue from old row rows[r] (beam search); rows [batch] int64. Only used slots are moved."""
        used = self.length
        for tensors in (self.keys, self.values):
            for tensor in tensors:
                tensor[:, :, :used] = tensor[:, :, :used].index_select(0, rows)
        self.attention[:, :used] = self.attention[:, :used].index_select(0, rows)

    def rewind(self, length: int) -> None:
        """Forget every slot from `length` on."""
        if not 0 <= length <= self.length:
            raise LabError(f"key/value cache: cannot rewind to {length}, {self.length} slots are used")
        self.attention[:, length : self.length] = False
        self.length = length
