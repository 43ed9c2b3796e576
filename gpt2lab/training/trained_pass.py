"""The conditions of a forward pass in training: precision, and dropout as a function of seed and micro-batch."""

import contextlib
from collections.abc import Iterator

import torch


def use_bf16(precision: str, device: str) -> bool:
    """Return whether passes run in bf16: where it is asked for, and with "auto" on GPUs that have it."""
    if precision == "auto":
        return device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bf16"


@contextlib.contextmanager
def as_trained(device: torch.device, seed: int, index: int, *, bf16: bool) -> Iterator[None]:
    """Dropout and precision of micro-batch `index` of a run."""
    with dropout_seed(device, seed, index), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        yield


@contextlib.contextmanager
def dropout_seed(device: torch.device, seed: int, index: int) -> Iterator[None]:
    """Make dropout a pure function of (seed, micro-batch): torch's dropout knows only the global generator.

    The global state is put back afterwards, so nothing outside sees it, and a resumed run needs no saved state.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed((seed * 1_000_003 + index) % 2**63)
        yield
