"""How fast training goes, and which share of the machine's arithmetic that is."""

import functools
import time
from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from gpt2lab.model import Transformer, TransformerConfig, Wrapper
from gpt2lab.model.layer_kinds import count_weights
from gpt2lab.training.micro_batches import Batch


class Meter:
    """Counts positions over a run, and says how fast they go."""

    def __init__(self, model: Transformer, *, bf16: bool) -> None:
        self.model, self.dtype = model, torch.bfloat16 if bf16 else model.dtype
        self.positions, self.time_steps = 0, 0
        """Positions trained on, padding included, and how many in a row of the last batch."""
        self.last_row = (0, 0.0)
        """Positions and seconds of training when this was asked last."""
        self.peak = 0.0
        """Operations per second that the machine was seen to do."""
        counts = model.count_parameters()
        self.parameter_count = counts.get("active", counts["total"])

    def count(self, batches: Sequence[Batch]) -> None:
        """Count the micro-batches of an update."""
        read = [tensor for batch in batches for name, tensor in batch.items() if name.endswith("tokens")]
        self.positions += sum(tensor.numel() for tensor in read)
        self.time_steps = max((tensor.shape[-1] for tensor in read), default=0)

    def numbers(self, seconds: float) -> dict[str, float]:
        """Positions per second since the last time this was asked, and which share of the machine's peak they need."""
        positions, passed = self.positions - self.last_row[0], seconds - self.last_row[1]
        self.last_row = (self.positions, seconds)
        rate = positions / passed
        flops = flops_per_token(self.model.config, self.time_steps, self.parameter_count)
        for wrapper in cast("list[Wrapper]", list(self.model.wrappers)):
            flops = wrapper.training_flops(self.model, self.time_steps, flops)
        needed = rate * flops * done_share(self.model, self.time_steps)
        device = str(self.model.device)
        self.peak = max(self.peak, peak_flops(device, self.dtype, torch.get_num_threads()))
        if needed > self.peak:
            self.peak = max(self.peak, timed_peak(device, self.dtype))
        return {"tokens_per_second": rate, "mfu": needed / self.peak}


def flops_per_token(config: TransformerConfig, time_steps: int, parameters: int) -> float:
    """Floating-point operations of one token's forward and backward pass.

    6 a weight that multiplies (a tied table counts once, as the head; look-ups multiply nothing), and
    12 · heads · d_head · time a layer for scores and mixing, half of it if causal (Chowdhery et al. 2022, app. B).
    """
    tables = config.vocab_size * config.d_model * (0 if config.tied_head else 1)
    if config.positions == "learned":
        tables += config.max_positions * config.d_model
    attention = sum(3 * _mixing(config, i, time_steps) for i in range(config.n_layers))
    return 6.0 * (parameters - tables) + attention


def _mixing(config: TransformerConfig, layer: int, time_steps: int) -> float:
    """Operations of one layer's scores and mixing for one token, forward; backward has twice as many."""
    seen = time_steps / 2 if config.causal else time_steps
    return 4 * config.layer(layer).n_heads * config.layer(layer).d_head * seen


def done_share(model: Transformer, time_steps: int) -> float:
    """Return which share of the operations of full training is done where some weights are frozen.

    Of the 6 a weight, 2 are its gradient, which a frozen one has not, and 2 lead the gradient to the states before it, of
    which there are none to reach in blocks below the first that trains.
    """
    counts = model.count_parameters()
    active = counts.get("active", counts["total"])
    full, config = flops_per_token(model.config, time_steps, active), model.config
    idle = counts["total"] - active
    saved = 2.0 * max(0, _frozen(model) - _frozen_tables(model) - idle)
    for i, block in enumerate(model.blocks):
        if _trains(block) or _trains_before_blocks(model):
            break
        saved += 2.0 * count_weights(block) + 2 * _mixing(config, i, time_steps)
    return 1.0 - saved / full


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _frozen(module: nn.Module) -> int:
    trained = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    return count_weights(module) - trained


def _before_blocks(model: Transformer) -> list[nn.Module]:
    """The tables that are looked up; a tied one multiplies too, as the head."""
    names = ("position_embedding", "token_type_embedding")
    return [model.embedding, *(getattr(model, name) for name in names if hasattr(model, name))]


def _trains_before_blocks(model: Transformer) -> bool:
    return any(_trains(table) for table in _before_blocks(model)) or _trains(model.wrappers)


def _frozen_tables(model: Transformer) -> int:
    tables = _before_blocks(model)
    return sum(_frozen(table) for table in (tables[1:] if model.config.tied_head else tables))


@functools.cache
def peak_flops(device: str, dtype: torch.dtype, threads: int) -> float:
    """Measure floating-point operations per second of a large matrix product: the machine's own best.

    Measured, not looked up: a laptop under load or a core of a shared machine has no data sheet. `threads` is part
    of the question because the answer depends on it; takes about 0.2 s once a process.
    """
    return timed_peak(device, dtype)


def timed_peak(device: str, dtype: torch.dtype) -> float:
    """Measure it now: a machine that was busy the first time has a higher peak than was found then."""
    size = 4096 if device.startswith("cuda") else 768
    generator = torch.Generator(device).manual_seed(0)  # the global one is not ours to draw from
    left, right = torch.randn(2, size, size, device=device, generator=generator).to(dtype).unbind()
    best = float("inf")
    for _ in range(6):
        start = time.perf_counter()
        product = left @ right
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    del product
    return 2.0 * size**3 / best
