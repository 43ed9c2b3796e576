"""Time of an optimizer's step beside torch's AdamW and pytorch_optimizer's versions: same weights, same gradients.

    python benchmarks/optimizers.py [--size 10M 124M] [--family llama] [--rounds 15] [--threads 2] [--clock wall]

All take turns (A B C A B C …) on copies of the same model with random gradients, so that other work on the machine meets
all of them. A row has the median time of a step, its ratio to `torch.optim.AdamW` (fused), and to the version of
pytorch_optimizer, if that is installed (`pip install pytorch_optimizer`). The first steps of Conda, which take all singular
value decompositions, are left out and timed on their own, and so are Sophia's estimates: one of each kind, in forward and
backward passes of the same 8 rows. A step of Sophia-G is also one of Sophia-H, which is what pytorch_optimizer has; its own
estimate, at its first step, is left out. On a busy machine `--clock cpu --threads 1` counts processor time.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families import CONSTRUCTORS
from gpt2lab.papers.conda import Conda, Muon
from gpt2lab.papers.sophia import Lion, SophiaG, SophiaH
from gpt2lab.training import next_token, parameter_groups

SIZES: dict[str, dict[str, int]] = {
    "1M": {"vocab_size": 1024, "d_model": 128, "n_layers": 4, "n_heads": 4, "max_positions": 128},
    "10M": {"vocab_size": 4096, "d_model": 320, "n_layers": 6, "n_heads": 5, "max_positions": 256},
    "124M": {"vocab_size": 50257, "d_model": 768, "n_layers": 12, "n_heads": 12, "max_positions": 1024},
}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
Make = Callable[[Transformer], Optimizer]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", nargs="+", choices=SIZES, default=["10M"])
    parser.add_argument("--family", choices=CONSTRUCTORS, default="gpt2")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="time that passes, or the processor's"
    )
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    for size in asked.size:
        measure(size, asked.family, asked.rounds, CLOCKS[asked.clock])


def measure(size: str, family: str, rounds: int, now: Callable[[], float]) -> None:
    """Print the table of one size."""
    config = CONSTRUCTORS[family](**SIZES[size])
    model = Transformer(config, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.grad = 1e-3 * torch.randn(parameter.shape, generator=generator)
    makes = {**ours(), **peers()}
    steps = {name: ready(make, model) for name, make in makes.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 2):
        for name, step in steps.items():
            start = now()
            step()
            if turn > 1:  # the first turns make states and bases
                times[name].append(1000 * (now() - start))
    print(f"\n{family} {size}: {model.count_parameters()['total']:,} parameters")
    print("| optimizer | ms a step | times AdamW | times pytorch_optimizer's |")
    print("|---|---|---|---|")
    for name in ours():
        peer = f"pytorch_optimizer {name}"
        against = ratio(times[name], times[peer]) if peer in times else "–"
        print(
            f"| {name} | {statistics.median(times[name]):.1f} | {ratio(times[name], times['AdamW'])} | {against} |"
        )
    bases(model)
    estimates(model)


def ready(make: Make, model: Transformer) -> Callable[[], Any]:
    """Return the step of an optimizer on its own copy of the model, with the same gradients."""
    own = copy.deepcopy(model)
    for mine, given in zip(own.parameters(), model.parameters(), strict=True):
        mine.grad = given.grad
    optimizer = make(own)
    return optimizer.step


def estimates(model: Transformer, rows: int = 8, time_steps: int = 64) -> None:
    """Print the time of Sophia's estimates in passes, processor time of the quickest of three."""
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(0, model.config.vocab_size, (rows, time_steps + 1), generator=generator)
    batch = {"tokens": tokens[:, :-1], "targets": tokens[:, 1:].contiguous()}
    model = copy.deepcopy(model).train()

    def seconds(work: Callable[[], Any]) -> float:
        spent = []
        for _ in range(3):
            start = time.process_time()
            work()
            spent.append(time.process_time() - start)
        return min(spent)

    one_pass = seconds(lambda: next_token(model, batch)[0].backward())
    for name, optimizer in (("G", SophiaG.for_model(model)), ("H", SophiaH.for_model(model))):
        taken = seconds(lambda o=optimizer: o.refresh(model, [batch], next_token, generator))
        print(
            f"Sophia-{name}: one estimate takes {taken / one_pass:.2f} forward and backward passes of the same rows"
        )


def bases(model: Transformer) -> None:
    """Print the time of Conda's decompositions."""
    optimizer = Conda.for_model(copy.deepcopy(model), refresh=1)
    for mine, given in zip(
        (p for group in optimizer.param_groups for p in group["params"]),
        (p for group in Conda.for_model(model).param_groups for p in group["params"]),
        strict=True,
    ):
        mine.grad = given.grad
    optimizer.seconds = {}
    optimizer.step()
    print(f"\nConda: one refresh of all bases takes {optimizer.seconds['svd']:.2f} s of processor time")


def ours() -> dict[str, Make]:
    """The lab's optimizers, AdamW first."""
    return {
        "AdamW": lambda model: torch.optim.AdamW(parameter_groups(model, 0.1), lr=1e-5, fused=True),
        "Lion": lambda model: Lion(model.parameters(), lr=1e-5),
        "Sophia-G": lambda model: SophiaG(model.parameters(), lr=1e-5),
        "Conda": lambda model: Conda.for_model(model, lr=1e-5),
        "Muon": lambda model: Muon.for_model(model, lr=1e-5),
    }


def peers() -> dict[str, Make]:
    """pytorch_optimizer's versions; none if it is not installed."""
    try:
        import pytorch_optimizer as other
    except ImportError:
        return {}

    def split(model: Transformer) -> tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]:
        groups = Conda.for_model(model).param_groups
        hidden = [p for group in groups if group["project"] for p in group["params"]]
        return hidden, [p for group in groups if not group["project"] for p in group["params"]]

    def muon(model: Transformer) -> Optimizer:
        hidden, rest = split(model)
        return other.Muon(
            [{"params": hidden, "use_muon": True}, {"params": rest, "use_muon": False}], lr=1e-5
        )

    def conda(model: Transformer) -> Optimizer:
        hidden, rest = split(model)
        projected = {"params": hidden, "update_proj_gap": 2000, "scale": 0.25, "projection_type": "std"}
        return other.Conda([projected, {"params": rest}], lr=1e-5)

    def sophia(model: Transformer) -> Optimizer:
        class WithoutEstimate(other.SophiaH):  # type: ignore[misc]  # the package has no types
            def compute_hutchinson_hessian(self, *_: Any, **__: Any) -> None:
                """It would need a graph of the gradients; only the step is timed."""

        return WithoutEstimate(model.parameters(), lr=1e-5, update_period=1_000_000)

    return {
        "pytorch_optimizer Lion": lambda model: other.Lion(model.parameters(), lr=1e-5),
        "pytorch_optimizer Conda": conda,
        "pytorch_optimizer Muon": muon,
        "pytorch_optimizer Sophia-G": sophia,
    }


def ratio(mine: list[float], theirs: list[float]) -> str:
    """Median and range of mine over theirs, turn by turn."""
    ratios = sorted(a / b for a, b in zip(mine, theirs, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[len(ratios) // 10]:.2f} to {ratios[-1 - len(ratios) // 10]:.2f})"


if __name__ == "__main__":
    main()
