"""What decoding costs: seconds a token, and the most bytes of tensors that are alive at a time."""

import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gpt2lab.decode.interface import Decoder, Limits
from gpt2lab.model import Transformer


class PeakMemory(TorchDispatchMode):
    """A scope that counts the bytes of tensors made inside it while they live; `peak` is the most at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._users: Counter[int] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves(args) if isinstance(leaf, Tensor)}
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                place, size = leaf.untyped_storage().data_ptr(), leaf.untyped_storage().nbytes()
                if size and (place not in given or self._users[place]):
                    self._use(leaf, place, size)
        return out

    def _use(self, tensor: Tensor, place: int, size: int) -> None:
        self._users[place] += 1
        if self._users[place] == 1:
            self._now += size
            self.peak = max(self.peak, self._now)
        weakref.finalize(tensor, self._drop, place, size)

    def _drop(self, place: int, size: int) -> None:
        self._users[place] -= 1
        if self._users[place] == 0:
            self._now -= size


def peak_bytes(decode: Callable[[], object], device: torch.device) -> int:
    """Return the most bytes of new tensors that lived at a time while `decode` ran; on a GPU, what its allocator held."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        decode()
        return torch.cuda.max_memory_allocated(device) - before
    with PeakMemory() as memory:
        decode()
    return memory.peak


def seconds(decode: Callable[[], object], device: torch.device) -> float:
    """Return how long `decode` takes."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    decode()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def compare(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    limits: Limits,
    ours: Decoder,
    theirs: Decoder,
    *,
    rounds: int = 1,
) -> dict[str, float]:
    """Let two decoders take turns on the same prompts.

    Returns the median over rounds of theirs / ours in time, each one's seconds, the share of equal tokens, and peak bytes.
    """
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    texts: dict[str, list[list[int]]] = {}
    decoders = {"ours": ours, "theirs": theirs}
    for decoder in decoders.values():  # warms up
        decoder.decode(model, prompts, Limits(max_new_tokens=2))
    for _ in range(rounds):
        for name, decoder in decoders.items():

            def decode(name: str = name, decoder: Decoder = decoder) -> None:
                texts[name] = list(decoder.decode(model, prompts, limits))

            times[name].append(seconds(decode, model.device))
    ratios = sorted(b / a for a, b in zip(times["ours"], times["theirs"], strict=True))
    pairs = [
        a == b
        for one, other in zip(texts["ours"], texts["theirs"], strict=True)
        for a, b in zip(one, other, strict=True)
    ]
    short = Limits(max_new_tokens=min(limits.max_new_tokens, 8))
    bytes_used = {
        name: peak_bytes(partial(decoder.decode, model, prompts, short), model.device)
        for name, decoder in decoders.items()
    }
    return {
        "ratio": ratios[len(ratios) // 2],
        "seconds": min(times["ours"]),
        "published_seconds": min(times["theirs"]),
        "identical": sum(pairs) / len(pairs),
        "bytes": float(bytes_used["ours"]),
        "published_bytes": float(bytes_used["theirs"]),
    }
