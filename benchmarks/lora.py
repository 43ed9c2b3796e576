"""A training step with LoRA beside one of full fine-tuning, and a forward pass with adapters beside one without.

    python benchmarks/lora.py [--device cuda] [--d-model 256] [--layers 4] [--rank 8]

Steps of the kinds take turns, so that other work on the machine meets all of them alike; medians are printed.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from gpt2lab.model import Transformer, attach
from gpt2lab.model.adapters import Lora, count_trainable, merged
from gpt2lab.model.checkpoints.families import gpt2_config, llama_config
from gpt2lab.training import next_token


def model_of(arguments: argparse.Namespace, targets: tuple[str, ...] = ()) -> Transformer:
    """A model, with an adapter on the targets if there are any."""
    make = gpt2_config if arguments.family == "gpt2" else llama_config
    config = make(
        vocab_size=8192,
        d_model=arguments.d_model,
        n_layers=arguments.layers,
        n_heads=arguments.d_model // 64,
        max_positions=arguments.time,
    )
    model = Transformer(config).to(arguments.device, getattr(torch, arguments.dtype)).train()
    return attach(model, Lora(rank=arguments.rank, targets=targets)) if targets else model


def step(model: Transformer, tokens: torch.Tensor) -> Callable[[], None]:
    """One update of whatever trains."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)

    def update() -> None:
        next_token(model, {"tokens": tokens, "targets": tokens})[0].backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return update


def forward(model: Transformer, tokens: torch.Tensor) -> Callable[[], None]:
    """One forward pass of all blocks without gradients."""

    def run() -> None:
        with torch.no_grad():
            model.eval().hidden(tokens)

    return run


def seconds(kinds: dict[str, Callable[[], None]], rounds: int, device: str) -> dict[str, float]:
    """Median seconds of each kind, one call of each a round."""
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for round_ in range(rounds + 2):
        for name, call in kinds.items():
            start = time.perf_counter()
            call()
            if device != "cpu":
                torch.cuda.synchronize()
            if round_ >= 2:
                found[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in found.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--family", default="llama", choices=("gpt2", "llama"))
    for name, usual in (
        ("d-model", 256),
        ("layers", 4),
        ("rank", 8),
        ("batch", 8),
        ("time", 128),
        ("rounds", 15),
    ):
        parser.add_argument(f"--{name}", type=int, default=usual)
    arguments = parser.parse_args()
    tokens = torch.randint(0, 8192, (arguments.batch, arguments.time), device=arguments.device)
    models = {
        "full": model_of(arguments),
        "lora q, v": model_of(arguments, ("q", "v")),
        "lora all": model_of(arguments, ("all-linear",)),
    }
    train = seconds({n: step(m, tokens) for n, m in models.items()}, arguments.rounds, arguments.device)
    models["merged"] = merged(models["lora all"])
    ahead = seconds({n: forward(m, tokens) for n, m in models.items()}, arguments.rounds, arguments.device)
    print(f"{'':20}{'weights that train':>20}{'step ms':>10}{'of full':>9}{'forward ms':>12}{'of full':>9}")
    for name, model in models.items():
        trained = count_trainable(model).trainable if name in train else 0
        row = f"{name:20}{trained:>20,}"
        row += f"{train[name] * 1e3:>10.1f}{train[name] / train['full']:>9.2f}" if name in train else " " * 19
        print(f"{row}{ahead[name] * 1e3:>12.1f}{ahead[name] / ahead['full']:>9.2f}")


if __name__ == "__main__":
    main()
