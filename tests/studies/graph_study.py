"""A study without torch whose units need each other: shared pre-training, two arms of two stages, a grid of budgets."""

import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

from gpt2lab.base.errors import LabError
from gpt2lab.studies.claim import Below, Claim
from gpt2lab.studies.graph import UnitSpec

ARMS = ("tide", "base")


@dataclass(frozen=True, kw_only=True)
class Settings:
    budgets: tuple[int, ...] = (10, 100)
    """Labels that the second stage may use."""
    pause: float = 0.0
    """Seconds that a unit takes."""
    fail_in: tuple[str, ...] = ()
    """Units that fail, as `0/pretrain`."""


PRESETS = {"smoke": Settings(), "laptop": Settings(pause=0.3)}
CLAIMS = [Claim("Tide wins with the most labels", measure="loss.tide - loss.base", holds_if=Below(0.0))]


def units(settings):
    """Pretrain → tuned.ARM → labelled.ARM.BUDGET, listed from the end: the order of work is that of the needs."""
    grid = [
        UnitSpec(f"labelled.{arm}.{budget}", labelled(arm, budget), needs=(f"tuned.{arm}",))
        for arm in ARMS
        for budget in settings.budgets
    ]
    stages = [UnitSpec(f"tuned.{arm}", tuned(arm), needs=("pretrain",)) for arm in ARMS]
    return [*grid, *stages, UnitSpec("pretrain", pretrain)]


def pretrain(settings, run):
    begin(settings, run)
    (run.folder / "weights.txt").write_text(f"{random.Random(run.seed).random()}")
    run.result("loss", 4.0)


def tuned(arm):
    def work(settings, run):
        begin(settings, run)
        (source,) = run.needed.values()
        weights = float((source.folder / "weights.txt").read_text())
        gain = 1.0 + weights / 10 if arm == "tide" else 0.0
        run.result("loss", source.results["loss"] + weights - gain)

    return work


def labelled(arm, budget):
    def work(settings, run):
        begin(settings, run)
        assert set(run.needed) == {f"tuned.{arm}"}
        run.result("loss", run.needed[f"tuned.{arm}"].results["loss"] - budget / 1000)

    return work


def run(settings, run):
    begin(settings, run)
    for arm in ARMS:
        run.result(f"loss.{arm}", run.arms[f"labelled.{arm}.{max(settings.budgets)}"].results["loss"])


def begin(settings, run):
    """Leave a mark and the time for every unit that begins, in $TOY_CALLS; then take the time, or fail."""
    unit = f"{run.seed}/{run.row.arm or 'end'}"
    with (Path(os.environ["TOY_CALLS"]) / unit.replace("/", "-")).open("a") as file:
        file.write("x")
    time.sleep(settings.pause)
    if unit in settings.fail_in:
        raise LabError("the loss is nan at step 5")
