"""Time and memory of training with pondering beside a plain pass, and of the mixture beside its textbook form.

    python benchmarks/pondering.py                       GPT-2's vocabulary, width 256, 4 blocks, batch 4 x 128
    python benchmarks/pondering.py --vocab 512 --rounds 5

Every form runs in a process of its own, in turns. Time is that of the processor in a forward and a backward pass, the
least of the rounds; memory is the peak of the process above what it held before the first pass, gradients included.
"textbook" is softmax(logits) V over all positions at once, as the published code writes it.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import torch

from gpt2lab.model import Transformer, attach
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.papers.pondering import Pondering, find_pondering
from gpt2lab.training import next_token

FORMS: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "textbook": {},
    "whole vocabulary": {},
    "top 100": {"top_k": 100},
    "top 100, passes recomputed": {"top_k": 100, "checkpoint_passes": True},
    "top 100, detached": {"top_k": 100, "detach": True},
    "loop": {"feedback": "loop"},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocab", type=int, default=50257)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--steps", type=int, default=3, help="extra passes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--form", choices=FORMS, help="measure one form in this process")
    asked = parser.parse_args()
    if asked.form:
        print(json.dumps(measured(asked)))
        return
    plain: dict[str, float] = {}
    print(f"{'':28}  seconds  x plain      MiB  x plain")
    for form in FORMS:
        done = subprocess.run(
            [sys.executable, *sys.argv, "--form", form], capture_output=True, text=True, check=True
        )
        row = json.loads(done.stdout)
        plain = plain or row
        print(
            f"{form:28} {row['seconds']:8.2f} {row['seconds'] / plain['seconds']:8.2f} "
            f"{row['mib']:8.0f} {row['mib'] / plain['mib']:8.2f}",
            flush=True,
        )


def measured(asked: argparse.Namespace) -> dict[str, float]:
    """Run one form and return its least seconds and its peak memory in MiB."""
    torch.set_num_threads(1)
    config = gpt2_config(
        vocab_size=asked.vocab,
        d_model=asked.width,
        n_layers=asked.blocks,
        n_heads=4,
        max_positions=asked.context,
    )
    model = Transformer(config).train()
    options = FORMS[asked.form]
    if options is not None:
        attach(model, Pondering(steps=asked.steps, **options))
    if asked.form == "textbook":
        wrapper = find_pondering(model)
        wrapper._expected = lambda model, hidden: model.unembed(hidden).softmax(-1) @ model.embedding.weight
    ids = torch.randint(
        asked.vocab, (asked.batch, asked.context + 1), generator=torch.Generator().manual_seed(0)
    )
    batch = {"tokens": ids[:, :-1], "targets": ids[:, 1:]}
    before, seconds = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, list[float]()
    for _ in range(asked.rounds):
        model.zero_grad(set_to_none=True)
        began = time.process_time()
        next_token(model, batch)[0].backward()
        seconds.append(time.process_time() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": min(seconds), "mib": (peak - before) / 1024}


if __name__ == "__main__":
    main()
