"""Training throughput beside `transformers`: the same weights, data, optimizer and plain loop, step by step in turn.

    python benchmarks/training.py [--steps 20] [--batch 8] [--precision float32 bf16] [--threads 2]

Prints tokens per second of a GPT-2 with 10M parameters (context 256) and the ratio of the median step times. The peer
is `GPT2LMHeadModel` with its default attention, given `labels`. Pairs of steps run in turn, so that a change in the
machine's speed touches both.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import GPT2LMHeadModel
from transformers.utils import logging

from gpt2lab.model import Transformer, save_model
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.training import TrainSettings, adamw, next_token

Step = Callable[[torch.Tensor], float]


def build(vocab_size: int, context: int) -> tuple[Transformer, GPT2LMHeadModel]:
    """The same random weights as our model and as transformers'."""
    config = gpt2_config(
        vocab_size=vocab_size, d_model=320, n_layers=6, n_heads=5, max_positions=context, init_std=0.02
    )
    ours = Transformer(config)
    with TemporaryDirectory() as folder:
        save_model(ours, Path(folder) / "model")
        theirs = GPT2LMHeadModel.from_pretrained(Path(folder) / "model")
    return ours.train(), theirs.train()


def our_step(model: Transformer, bf16: bool) -> Step:
    optimizer = adamw(model, TrainSettings(learning_rate=3e-4))

    def step(ids: torch.Tensor) -> float:
        batch = {"tokens": ids[:, :-1], "targets": ids[:, 1:].contiguous()}
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss, _ = next_token(model, batch)
        return finish(loss, model, optimizer)

    return step


def their_step(model: GPT2LMHeadModel, bf16: bool) -> Step:
    # The optimizer is torch's fused AdamW with the same groups: what is compared is the model and its loss.
    optimizer = adamw(model, TrainSettings(learning_rate=3e-4))

    def step(ids: torch.Tensor) -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            # They shift labels inside: the last position carries no loss, so they get one token more.
            loss = model(ids[:, :-1], labels=ids[:, :-1]).loss
        return finish(loss, model, optimizer)

    return step


def finish(loss: torch.Tensor, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> float:
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def in_turn(
    steps: dict[str, Step], count: int, batch: int, context: int, vocab: int
) -> dict[str, list[float]]:
    generator = torch.Generator().manual_seed(0)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(count + 2):
        ids = torch.randint(0, vocab, (batch, context + 1), generator=generator)
        for name, step in steps.items():
            start = time.perf_counter()
            step(ids)
            if i >= 2:  # the first two warm up
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", nargs="+", default=["float32", "bf16"], choices=["float32", "bf16"])
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    ours, theirs = build(given.vocab, given.context)
    parameters = ours.count_parameters()["total"]
    print(
        f"{parameters / 1e6:.1f}M parameters, context {given.context}, batch {given.batch}, {given.threads} threads"
    )
    for precision in given.precision:
        bf16 = precision == "bf16"
        pair = {
            "gpt2lab": our_step(copy.deepcopy(ours), bf16),
            "transformers": their_step(copy.deepcopy(theirs), bf16),
        }
        seconds = in_turn(pair, given.steps, given.batch, given.context, given.vocab)
        tokens = given.batch * given.context
        ratios = sorted(b / a for a, b in zip(*seconds.values(), strict=True))
        for name, times in seconds.items():
            middle = statistics.median(times)
            rate = tokens / middle
            flops = 6 * (parameters - given.context * 320) * rate
            print(
                f"  {precision:8} {name:13} {rate:8.0f} tokens/s  {middle * 1e3:7.1f} ms/step  {flops / 1e9:6.1f} GFLOP/s"
            )
        low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
        print(
            f"  {precision:8} ratio {statistics.median(ratios):.2f} (10th-90th percentile {low:.2f}-{high:.2f})"
        )


if __name__ == "__main__":
    main()
