"""How fast training goes, and which share of the machine's arithmetic that is."""

import functools
import time

import torch

from gpt2lab.model import TransformerConfig


def flops_per_token(config: TransformerConfig, time_steps: int, parameters: int) -> float:
    """Floating-point operations of one token's forward and backward pass.

    6 a weight that multiplies (a tied table counts once, as the head; look-ups multiply nothing), and
    12 · heads · d_head · time a layer for scores and mixing, half of it if causal (Chowdhery et al. 2022, app. B).
    """
    tables = config.vocab_size * config.d_model * (0 if config.tied_head else 1)
    if config.positions == "learned":
        tables += config.max_positions * config.d_model
    layers = [config.layer(i) for i in range(config.n_layers)]
    seen = time_steps / 2 if config.causal else time_steps
    attention = sum(12 * layer.n_heads * layer.d_head * seen for layer in layers)
    return 6.0 * (parameters - tables) + attention


@functools.cache
def peak_flops(device: str, dtype: torch.dtype, threads: int) -> float:
    """Measure floating-point operations per second of a large matrix product: the machine's own best.

    Measured, not looked up: a laptop under load or a core of a shared machine has no data sheet. `threads` is part
    of the question because the answer depends on it; takes about 0.2 s once a process.
    """
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
