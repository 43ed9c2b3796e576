"""An experiment that trains a small transformer in each arm: sums whose bits depend on the number of threads."""

from dataclasses import dataclass

import torch

from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.studies.claim import Below, Claim
from gpt2lab.text.batches import ArrayTokens, PackedBatches
from gpt2lab.training import TrainSettings, train


@dataclass(frozen=True, kw_only=True)
class Settings:
    steps: int = 8
    """Number of updates."""


PRESETS = {"smoke": Settings()}
CLAIMS = [Claim("Wide is better", measure="loss.wide - loss.narrow", holds_if=Below(0.0))]


def arms(settings):
    return ["narrow", "wide"]


def run_arm(settings, arm, run):
    width = {"narrow": 32, "wide": 128}[arm]
    generator = torch.Generator().manual_seed(run.seed)
    config = gpt2_config(vocab_size=257, d_model=width, n_layers=2, n_heads=4, max_positions=64)
    tokens = ArrayTokens(torch.randint(257, (4096,), generator=generator).numpy())
    batches = PackedBatches(tokens, batch_size=16, context=64, seed=run.seed)
    model = Transformer(config, generator=generator)
    done = train(
        model, batches, settings=TrainSettings(steps=settings.steps, log_every=1), log=run.log, seed=run.seed
    )
    run.result("loss", done.loss)
    run.result("weights", float(sum(p.detach().double().sum() for p in model.parameters())))
    run.result("threads", torch.get_num_threads())


def run(settings, run):
    for name, arm in run.arms.items():
        run.result(f"loss.{name}", arm.results["loss"])
