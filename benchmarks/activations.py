"""What reading activations costs, beside the same model without any of it.

    python benchmarks/activations.py [--rounds 30] [--threads 1]

First a training step with taps built in but none open, beside a block that has none at all (bare residual code, same
weights); then forward passes with taps open, beside the plain forward pass. Rounds run in turn; medians of the ratios.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2lab.model import Pass, Transformer, linear_cross_entropy
from gpt2lab.model.families import gpt2_config


class Bare(nn.Module):
    """The arithmetic of a GPT-2 block on the same modules, with no place where a tap could look."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, run: Pass) -> Tensor:
        """Map x [batch, time, d_model] → same."""
        block, attention = self.block, self.block.attention
        size = (x.shape[-1],)
        y = F.layer_norm(x, size, block.norm1.weight, block.norm1.bias, block.norm1.eps)
        heads = attention.qkv(y).unflatten(-1, (-1, attention.d_head))
        q, k, v = (part.transpose(1, 2) for part in heads.chunk(3, dim=2))
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=attention.scale)
        x = x + attention.out(z.transpose(1, 2).flatten(2))
        y = F.layer_norm(x, size, block.norm2.weight, block.norm2.bias, block.norm2.eps)
        return x + block.mlp.down(F.gelu(block.mlp.up(y), approximate="tanh"))


def build() -> tuple[Transformer, Transformer]:
    """A model of 1M parameters, and the same with bare blocks."""
    model = Transformer(gpt2_config(vocab_size=512, d_model=128, n_layers=5, n_heads=4, max_positions=64))
    bare = copy.deepcopy(model)
    bare.blocks = nn.ModuleList(Bare(block) for block in bare.blocks)
    return model, bare


def training_step(model: Transformer, ids: Tensor) -> Callable[[], None]:
    def step() -> None:
        model.train()
        linear_cross_entropy(model.hidden(ids), model.head.weight, ids).backward()
        model.zero_grad(set_to_none=True)

    return step


def forward(model: Transformer, ids: Tensor, read: list[str]) -> Callable[[], None]:
    @torch.no_grad()
    def run() -> None:
        if not read:
            model(ids)
            return
        with model.tap(read=read):
            model(ids)

    return run


def ratios(
    base: Callable[[], None], others: dict[str, Callable[[], None]], rounds: int
) -> dict[str, list[float]]:
    def seconds(call: Callable[[], None]) -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    found: dict[str, list[float]] = {name: [] for name in others}
    for i in range(rounds + 3):
        for name, call in others.items():
            # Which of the two goes first alternates, so that neither always meets warm caches.
            first, second = (base, call) if i % 2 else (call, base)
            one, two = seconds(first), seconds(second)
            if i >= 3:
                found[name].append(two / one if i % 2 else one / two)
    return found


def show(title: str, found: dict[str, list[float]]) -> None:
    print(title)
    for name, values in found.items():
        low, high = sorted(values)[len(values) // 10], sorted(values)[-1 - len(values) // 10]
        print(f"  {name:44} {statistics.median(values):.3f}  (10th-90th percentile {low:.3f}-{high:.3f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model, bare = build()
    ids = torch.randint(0, 512, (24, 64), generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(ids), bare(ids)), "the bare model computes something else"
    steps = {"taps built in, none open": training_step(model, ids)}
    show("training step beside one without taps", ratios(training_step(bare, ids), steps, given.rounds))
    reads = {
        "one residual": ["blocks.2.hook_resid_post"],
        "three names": ["blocks.1.hook_resid_mid", "blocks.2.attn.hook_z", "blocks.3.mlp.hook_post"],
        "all residuals and one pattern": ["resid_post", "blocks.2.attn.hook_pattern"],
        "all sites of one block": ["blocks.2.*"],
        "everything": ["*"],
    }
    open_taps = {name: forward(model, ids, read) for name, read in reads.items()}
    show(
        "forward pass with a tap beside the plain one",
        ratios(forward(model, ids, []), open_taps, given.rounds),
    )


if __name__ == "__main__":
    main()
