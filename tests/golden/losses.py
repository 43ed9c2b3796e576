"""Twenty steps of each family and objective on a fixed seed: `python -m tests.golden.losses` writes the file anew.

A change of these numbers is a change of losses.json, and its commit says why.
"""

import json
import platform
from pathlib import Path

import torch

from gpt2lab.model import Transformer
from gpt2lab.text.batches import MaskedBatches
from gpt2lab.training import TrainSettings, default_objective, train
from gpt2lab.training.loop import Batches
from tests.tiny import BIDIRECTIONAL, CAUSAL, CONFIGS
from tests.training.data import Counting

FILE = Path(__file__).with_name("losses.json")
STEPS = 20
CASES = [
    *[f"{family} next-token float32" for family in CAUSAL],
    *[f"{family} masked-tokens float32" for family in BIDIRECTIONAL],
    "gpt2 next-token bf16",
    "gpt2 next-token float32 dropout",
    "llama next-token float32 padded",
]


def machine() -> str:
    """What must be equal for sums to be equal to the last bit: processor, its widest instructions, torch."""
    processor = platform.processor()
    if Path("/proc/cpuinfo").exists():
        rows = [line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line]
        told = {name.strip(): value.strip() for name, value in reversed(rows)}
        wanted = ("model name", "cpu family", "model", "CPU implementer", "CPU part")
        processor = " ".join(told[name] for name in wanted if name in told)
    version = torch.__version__.split("+")[0]
    return f"{platform.machine()} {processor}, {torch.backends.cpu.get_cpu_capability()}, torch {version}, 1 thread"


def run(case: str) -> list[float]:
    """Train one case from its fixed seed and return the loss of every step, in nats."""
    family, _, precision, *rest = case.split()
    dropout = 0.1 if "dropout" in rest else 0.0
    config = CONFIGS[family].replace(residual_dropout=dropout, attention_dropout=dropout)
    model = Transformer(config, generator=torch.Generator().manual_seed(11))
    settings = TrainSettings(steps=STEPS, learning_rate=5e-3, warmup=3, accumulation=2, precision=precision)  # type: ignore[arg-type]  # a word of the case
    batches: Batches = Counting(padded="padded" in rest)
    if not config.causal:
        batches = MaskedBatches(batches, mask=60, vocab_size=61, seed=3)
    objective = default_objective(config)
    return train(model, batches, settings=settings, objective=objective, seed=7).losses


if __name__ == "__main__":
    torch.set_num_threads(1)
    FILE.write_text(
        json.dumps({"machine": machine(), "losses": {case: run(case) for case in CASES}}, indent=1) + "\n"
    )
