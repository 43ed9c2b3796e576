"""The largest sizes that are believed: what a file of a few bytes may ask for, and what a machine can hold."""

import os
from typing import TYPE_CHECKING

import torch

from gpt2lab.base.errors import LabError, shown

if TYPE_CHECKING:
    from gpt2lab.model.config import TransformerConfig

_ANY = 2**31 - 1

SIZES: dict[str, tuple[int, int]] = {
    "vocab_size": (1, 2**24),  # the largest in use has 2^18
    "d_model": (1, 2**18),
    "n_layers": (0, 10_000),  # none: embedding and head alone
    "n_heads": (0, 2**16),  # none: a layer whose heads were all pruned
    "n_kv_heads": (0, 2**16),
    "d_head": (1, 2**18),
    "d_mlp": (0, 2**22),
    "max_positions": (1, _ANY),
    "position_offset": (0, _ANY),
    "token_types": (0, 2**16),
    "windows": (1, _ANY),
    "n_experts": (0, 2**14),
    "experts_per_token": (0, 2**14),
    "bos": (-_ANY, _ANY),  # -1 stands for none in some files
    "eos": (-_ANY, _ANY),
    "pad": (-_ANY, _ANY),
}
"""Whole numbers of a configuration: the least and the most that is accepted."""


def check_size(name: str, value: object) -> None:
    """LabError unless `value` is a whole number within the limits of the configuration's field `name`."""
    least, most = SIZES[name]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise LabError(f"{name} must be a whole number from {least:,} to {most:,}, got {shown(value)}")


def weights_of(config: "TransformerConfig") -> int:
    """Count a model's matrices and tables, without norms and biases, by arithmetic on its configuration alone."""
    width = config.d_model
    tables = config.vocab_size + config.token_types
    if config.positions == "learned":
        tables += config.max_positions + config.position_offset
    if config.head != "none" and not config.tied_head:
        tables += config.vocab_size
    total = tables * width
    for i in range(config.n_layers):
        layer = config.layer(i)
        attention = 2 * (layer.n_heads + layer.n_kv_heads) * layer.d_head
        total += width * (attention + max(layer.n_experts, 1) * (3 if config.gated else 2) * layer.d_mlp)
    return total


def check_memory(config: "TransformerConfig") -> None:
    """LabError if weights made now, in float32, are larger than this machine's memory; none are on the meta device."""
    if torch.get_default_device().type != "cpu":
        return
    needed, there = 4 * weights_of(config), machine_memory()
    if needed > there:
        raise LabError(
            f"a model of {needed // 4:,} weights takes {needed / 2**30:,.1f} GiB, this machine has {there / 2**30:,.1f}: "
            f"vocab_size {config.vocab_size:,}, d_model {config.d_model:,}, n_layers {config.n_layers:,}, "
            f"max_positions {config.max_positions:,}"
        )


def check_batch(config: "TransformerConfig", tokens: int, *, kept: bool) -> None:
    """LabError if the states of a micro-batch, at the least, are larger than this machine's memory.

    kept: every layer's inner states are kept for the backward pass (no gradient checkpointing).
    """
    needed = 4 * tokens * config.d_model * (2 + config.n_layers * (10 if kept else 1))
    if needed > machine_memory():
        raise LabError(
            f"a micro-batch of {tokens:,} tokens takes {needed / 2**30:,.1f} GiB of states or more, this machine has "
            f"{machine_memory() / 2**30:,.1f}; take a smaller batch_size, and accumulation for the rest"
        )


def machine_memory() -> int:
    """Return the bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
