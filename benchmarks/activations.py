"""What reading activations costs, beside the plain forward pass and beside the libraries made for it.

    python benchmarks/activations.py [--rounds 15] [--threads 1] [--parts core,patching,peers] [--clock wall]

core      a training step with taps built in but none open, beside a block that has none at all (same weights); then
          forward passes with a tap open, beside the plain pass (1M parameters, 24 × 64 tokens)
patching  a layer × position sweep, beside one forward pass for each of its cells
peers     recording all residual streams and one attention pattern, and recording three names, with this library, with
          transformer_lens (TransformerBridge) and with nnsight: the same weights and tokens in the same process, at
          the size of GPT-2 small and at that of a small study. Needs both libraries and transformers; no download.

Rounds run in turn; medians of the ratios within a round. `--clock cpu` counts the processor time of this process, which
suffers less from other work on the machine.
"""

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt2lab.model import Pass, Transformer, linear_cross_entropy, save_model
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.model.interpret import patch_sweep

Task = Callable[[], Any]
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


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


def million() -> Transformer:
    """A model of 1M parameters."""
    return Transformer(
        gpt2_config(vocab_size=512, d_model=128, n_layers=5, n_heads=4, max_positions=64)
    ).eval()


def drawn(vocab: int, shape: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.randint(0, vocab, shape, generator=torch.Generator().manual_seed(seed))


def training_step(model: Transformer, ids: Tensor) -> Task:
    def step() -> None:
        model.train()
        linear_cross_entropy(model.hidden(ids), model.head.weight, ids).backward()
        model.zero_grad(set_to_none=True)

    return step


def forward(model: Transformer, ids: Tensor, read: list[str]) -> Task:
    @torch.no_grad()
    def run() -> Tensor:
        if not read:
            return model(ids)
        with model.tap(read=read):
            return model(ids)

    return run


def core(rounds: int, clock: Callable[[], float]) -> None:
    model = million()
    bare = copy.deepcopy(model)
    bare.blocks = nn.ModuleList(Bare(block) for block in bare.blocks)
    ids = drawn(512, (24, 64))
    assert torch.equal(model(ids), bare(ids)), "the bare model computes something else"
    steps = {
        "a model without places": training_step(bare, ids),
        "taps built in, none open": training_step(model, ids),
    }
    show("training step, 1M parameters, 24 × 64 tokens", timed(steps, rounds, clock))
    model.eval()
    reads = {
        "plain forward pass": [],
        "one residual": ["blocks.2.hook_resid_post"],
        "three names": ["blocks.1.hook_resid_mid", "blocks.2.attn.hook_z", "blocks.3.mlp.hook_post"],
        "all residuals and one pattern": ["resid_post", "blocks.2.attn.hook_pattern"],
        "all 18 places of one block": ["blocks.2.*"],
        "everything": ["*"],
    }
    tasks = {name: forward(model, ids, read) for name, read in reads.items()}
    show("forward pass, 1M parameters, 24 × 64 tokens", timed(tasks, rounds, clock))


def patching(rounds: int, clock: Callable[[], float]) -> None:
    model, clean, corrupt = million(), drawn(512, (2, 16)), drawn(512, (2, 16), seed=1)

    def metric(logits: Tensor) -> Tensor:
        return logits[:, -1, 3] - logits[:, -1, 4]

    @torch.no_grad()
    def cell_by_cell() -> Tensor:
        with model.tap(read=["resid_pre"]) as tap:
            model(clean)
        found = torch.empty(5, 16, 2)
        for layer in range(5):
            name = f"blocks.{layer}.hook_resid_pre"
            for position in range(16):
                place = (slice(None), position)
                with model.tap(write={name: (place, tap[name][place])}):
                    found[layer, position] = metric(model(corrupt))
        return found

    def sweep(at: int | None) -> Task:
        return lambda: patch_sweep(model, clean, corrupt, "resid_pre", metric, at=at).values

    assert torch.allclose(cell_by_cell(), sweep(None)(), atol=1e-5)
    assert torch.allclose(cell_by_cell(), sweep(-1)(), atol=1e-5)
    tasks = {
        "one forward pass for each cell": cell_by_cell,
        "patch_sweep": sweep(None),
        "patch_sweep(at=-1)": sweep(-1),
    }
    show("layer × position sweep, 5 × 16 cells, 2 prompts, 1M parameters", timed(tasks, rounds, clock))


def peers(rounds: int, clock: Callable[[], float]) -> None:
    sizes = {
        "GPT-2 small, 1 × 64 tokens": ((50257, 768, 12, 12), (1, 64)),
        "2.5M parameters, 1 × 16 tokens": ((512, 128, 12, 4), (1, 16)),
        "2.5M parameters, 24 × 64 tokens": ((512, 128, 12, 4), (24, 64)),
    }
    for title, ((vocab, width, layers, heads), shape) in sizes.items():
        config = gpt2_config(
            vocab_size=vocab, d_model=width, n_layers=layers, n_heads=heads, max_positions=1024, bos=0, eos=0
        )
        for task, tasks in peer_tasks(Transformer(config).eval(), drawn(vocab, shape)).items():
            show(f"{task}; {title}", timed(tasks, rounds, clock))


def peer_tasks(model: Transformer, ids: Tensor) -> dict[str, dict[str, Task]]:
    """The two tasks in each library, on one set of weights; logits and recorded tensors are compared first."""
    import nnsight
    from transformer_lens.model_bridge.sources import build_bridge_from_module
    from transformers import GPT2LMHeadModel

    with tempfile.TemporaryDirectory() as folder:
        save_model(model, f"{folder}/model")
        fused, eager, bridged = (
            GPT2LMHeadModel.from_pretrained(f"{folder}/model", attn_implementation=kind).eval()
            for kind in ("sdpa", "eager", "eager")
        )
    bridge = build_bridge_from_module(bridged, "GPT2LMHeadModel", hf_config=bridged.config)
    # Only the eager attention of transformers returns patterns; nnsight is given the fused one where it can be.
    with_pattern, without = nnsight.NNsight(eager), nnsight.NNsight(fused)
    n_layers = model.config.n_layers
    middle = n_layers // 2
    residuals = [f"blocks.{i}.hook_resid_post" for i in range(n_layers)]
    pattern = f"blocks.{middle}.attn.hook_pattern"
    three = [
        "blocks.1.hook_resid_post",
        f"blocks.{middle}.hook_mlp_out",
        f"blocks.{n_layers - 2}.hook_resid_post",
    ]

    def ours(names: list[str]) -> Task:
        @torch.no_grad()
        def run() -> dict[str, Tensor]:
            with model.tap(read=names) as tap:
                logits = model(ids)
            return {"logits": logits} | {name: tap[name] for name in names}

        return run

    def lens(names: list[str]) -> Task:
        wanted = set(names)

        @torch.no_grad()
        def run() -> dict[str, Tensor]:
            logits, cache = bridge.run_with_cache(ids, names_filter=lambda name: name in wanted)
            return {"logits": logits} | {name: cache[name] for name in names}

        return run

    @torch.no_grad()
    def sight_all() -> dict[str, Tensor]:
        saved = []
        with with_pattern.trace(ids):
            for i, block in enumerate(with_pattern.transformer.h):
                if i == middle:
                    seen = block.attn.output[1].save()
                saved.append(block.output.save())
            logits = with_pattern.output.logits.save()
        return {"logits": logits, pattern: seen} | dict(zip(residuals, saved, strict=True))

    @torch.no_grad()
    def sight_three() -> dict[str, Tensor]:
        with without.trace(ids):
            first = without.transformer.h[1].output.save()
            second = without.transformer.h[middle].mlp.output.save()
            third = without.transformer.h[n_layers - 2].output.save()
            logits = without.output.logits.save()
        return {"logits": logits} | dict(zip(three, (first, second, third), strict=True))

    everything = [*residuals, pattern]
    plain = {"plain forward pass": forward(model, ids, [])}
    found = {
        "all residual streams and one pattern": {
            **plain, "gpt2lab": ours(everything), "transformer_lens": lens(everything), "nnsight": sight_all,
        },
        "three names": {**plain, "gpt2lab": ours(three), "transformer_lens": lens(three), "nnsight": sight_three},
    }  # fmt: skip
    for tasks in found.values():
        agree(tasks)
    with torch.no_grad():
        found["three names"]["plain forward pass of transformers"] = torch.no_grad()(
            lambda: fused(ids).logits
        )
    return found


def agree(tasks: dict[str, Task]) -> None:
    """Stop unless all libraries give the same logits and the same recorded tensors."""
    expected = tasks["gpt2lab"]()
    for name in ("transformer_lens", "nnsight"):
        found = tasks[name]()
        for key, tensor in expected.items():
            assert found[key].shape == tensor.shape, (name, key, found[key].shape, tensor.shape)
            assert (found[key] - tensor).abs().max() <= 1e-4 * tensor.abs().max(), (name, key)


def timed(tasks: dict[str, Task], rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of each task in each round; which goes first moves on, so that none always meets warm caches."""
    found: dict[str, list[float]] = {name: [] for name in tasks}
    names = list(tasks)
    for i in range(-2, rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = clock()
            tasks[name]()
            if i >= 0:
                found[name].append(clock() - start)
    return found


def show(title: str, found: dict[str, list[float]]) -> None:
    print(f"\n{title}")
    base = next(iter(found))
    for name, values in found.items():
        ratios = sorted(value / one for value, one in zip(values, found[base], strict=True))
        low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
        print(
            f"  {name:36} {1e3 * statistics.median(values):9.2f} ms   × {statistics.median(ratios):.3f}"
            f"   (10th-90th percentile {low:.3f}-{high:.3f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parts", default="core,patching,peers")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    parts = {"core": core, "patching": patching, "peers": peers}
    for name in given.parts.split(","):
        parts[name](given.rounds, CLOCKS[given.clock])


if __name__ == "__main__":
    main()
