"""An experiment without torch: two arms whose losses are pure functions of seed, arm and settings."""

import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

from gpt2lab.base.errors import LabError
from gpt2lab.studies.claim import Above, AtLeast, Below, Claim


@dataclass(frozen=True, kw_only=True)
class Tuning:
    momentum: float = 0.9
    """Share of the last step that is kept."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    steps: int = 20
    """Number of updates."""
    gain: float = 0.5
    """By how much tide is better, in nats."""
    noise: float = 0.05
    """Standard deviation over seeds."""
    pause: float = 0.0
    """Seconds that a step takes."""
    fail_in: tuple[str, ...] = ()
    """Units that fail, as `0/tide` or `1`."""
    die_in: str = ""
    """A unit that ends its process without a word."""
    tuning: Tuning = Tuning()
    """The optimizer's own."""


PRESETS = {"smoke": Settings(steps=5), "laptop": Settings(), "gpu": Settings(steps=1000)}

CLAIMS = [
    Claim(
        "Tide ends with a lower loss than the baseline",
        measure="loss.tide - loss.base",
        holds_if=Below(0.0),
        needs="loss.base < 3.5",
        paper="Fig. 2: 0.4 nats lower at 125M",
        unit="nats per token",
    ),
    Claim(
        "Tide needs half the updates",
        measure="updates.base / updates.tide",
        holds_if=AtLeast(2.0),
        holds_in_part_if=AtLeast(1.1),
        paper="Table 1: 2.1 times fewer",
    ),
    Claim("The baseline ends above Tide", measure="loss.base - loss.tide", holds_if=Above(0.0)),
    Claim("Tide scales to a billion parameters", measure="loss.tide", holds_if=Above(0), scales=("paper",)),
    Claim("Every update is counted", measure="updates.tide", holds_if=Above(0.0), kind="implementation"),
]


def arms(settings):
    return ["base", "tide"]


def run_arm(settings, arm, run):
    unit = f"{run.seed}/{arm}"
    count_the_call(run, unit)
    random_numbers = random.Random(unit)
    final = 3.0 - (settings.gain if arm == "tide" else 0.0) + random_numbers.gauss(0.0, settings.noise)
    for step in run.progress(range(1, settings.steps + 1)):
        time.sleep(settings.pause)
        run.log(step, loss=final + 4.0 / step)
    if unit in settings.fail_in:
        raise LabError(f"the loss is nan at step {settings.steps}")
    if unit == settings.die_in:
        os._exit(3)
    run.result("loss", final)
    run.result(
        "updates", settings.steps * (0.6 if arm == "tide" else 1.0) * random_numbers.uniform(0.95, 1.05)
    )


def run(settings, run):
    count_the_call(run, f"{run.seed}")
    if f"{run.seed}" in settings.fail_in:
        raise KeyError("loss")
    for name, arm in run.arms.items():
        run.result(f"loss.{name}", arm.results["loss"])
        run.result(f"updates.{name}", arm.results["updates"])
    run.text("sample", f"Once upon a time, seed {run.seed} found a shell.\nThe end.", caption="A sample")


def summarise(settings, study):
    rows = [
        {"seed": run.seed, "arm": name, **arm.results} for run in study.runs for name, arm in run.arms.items()
    ]
    study.table("arms", rows, caption="Final loss of every arm, nats per token")
    study.text("reading", "Tide is better in all of them.", caption="How to read it")


def count_the_call(run, unit):
    """Leave a mark for every time that a unit is run, in $TOY_CALLS."""
    if "TOY_CALLS" in os.environ:
        with (Path(os.environ["TOY_CALLS"]) / unit.replace("/", "-")).open("a") as file:
            file.write("x")
