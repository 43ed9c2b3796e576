"""Whether a model and its batches fit into the machine's memory, asked before anything is allocated."""

import os

import torch

from gpt2lab.base.errors import LabError
from gpt2lab.model.config import TransformerConfig


def weights_of(config: TransformerConfig) -> int:
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


def check_memory(config: TransformerConfig) -> None:
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


def check_batch(config: TransformerConfig, tokens: int, *, kept: bool) -> None:
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
