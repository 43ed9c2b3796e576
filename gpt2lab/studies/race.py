"""One training of a candidate over a complete schedule, timed, and what the losses of several lengths say of its steps."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim import Optimizer

from gpt2lab.base.ordering import or_worst
from gpt2lab.measures.held_out import windows_loss
from gpt2lab.model import Transformer
from gpt2lab.studies.workload import Workload
from gpt2lab.text.batches import PackedBatches
from gpt2lab.training import make_optimizer, train
from gpt2lab.training.loop import NotFinite

FURTHER = 1
"""Learning rates that a sweep tries beyond its grid: past an edge where the best one lies, else between the best two."""

Log = Callable[..., None]
Prepare = Callable[[Transformer, Optimizer], None]
"""Called before the first update; it may register hooks on the optimizer's steps."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An optimizer with what it may choose from."""

    name: str
    """What reports call it."""
    optimizer: type[Optimizer]
    """Its class; made by `make_optimizer`."""
    learning_rates: tuple[float, ...]
    """The grid, ascending."""
    weight_decay: float = 0.1
    """Decoupled decay."""
    options: tuple[Mapping[str, Any], ...] = field(default_factory=lambda: ({},))
    """Alternatives of further arguments; the sweep crosses them with the learning rates."""
    warmup: float | None = None
    """Share of the updates in which its learning rate rises; None: the workload's."""
    by_length: Callable[[int], Mapping[str, Any]] | None = None
    """Further arguments that depend on the length of the schedule, such as a period that is a share of it."""

    @property
    def trials(self) -> int:
        """How many settings its sweep tries; one if there is nothing to choose."""
        return len(self.options) - 1 + (len(self.learning_rates) + FURTHER if self.chooses_rate else 1)

    @property
    def chooses_rate(self) -> bool:
        """Whether its learning rate is chosen: one value is not a choice."""
        return len(self.learning_rates) > 1


@dataclass(frozen=True)
class Finish:
    """How one training ended."""

    loss: float
    """Loss in nats per token on the validation windows, of a trial on the tuning windows; inf if training broke off
    because a number was not finite."""
    seconds: float
    """Time in updates, evaluation left out; see `clock`."""
    optimizer_seconds: float
    """Of these, time in the optimizer's own steps."""
    steps: int
    """Updates made."""


def race(
    workload: Workload,
    candidate: Candidate,
    *,
    steps: int,
    learning_rate: float,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "cpu",
    log: Log | None = None,
    prepare: Prepare | None = None,
    tuning: bool = False,
) -> Finish:
    """Train once over a complete schedule and return how it ended.

    log(step, **numbers) gets the training's rows. tuning: the loss on the tuning windows is taken for a choice, and none on
    those that are judged. A loss or gradient that is not finite ends the training with loss inf.
    """
    if candidate.warmup is not None:
        workload = dataclasses.replace(workload, warmup=candidate.warmup)
    model = workload.model(seed).to(device)
    optimizer = make_optimizer(
        candidate.optimizer,
        model,
        learning_rate=learning_rate,
        weight_decay=candidate.weight_decay,
        **(options if options is not None else candidate.options[0]),
        **(candidate.by_length(steps) if candidate.by_length is not None else {}),
    )
    watch = _Stopwatch(optimizer, clock(device))
    if prepare is not None:
        prepare(model, optimizer)
    try:
        done = train(
            model,
            workload.batches(seed),
            settings=workload.settings(steps, learning_rate),
            optimizer=optimizer,
            log=log,
            seed=seed,
            label=f"{candidate.name} lr {learning_rate:.2g}",
        )
    except NotFinite:
        return Finish(math.inf, watch.total, watch.inside, watch.steps)
    total = watch.total
    loss = _loss(model, workload.tuning(seed) if tuning else workload.validation(seed))
    return Finish(loss, total, watch.inside, done.steps)


def steps_to_reach(losses: Mapping[int, float], target: float) -> float:
    """Return after how many updates a loss of `target` is reached, from complete schedules of several lengths.

    Between two lengths the loss is taken as linear in the logarithm of the steps. Reached already by the shortest: its
    length, an upper bound. Not reached by the longest: inf.
    """
    lengths = sorted(losses)
    for i, steps in enumerate(lengths):
        if losses[steps] > target:
            continue
        if i == 0:
            return float(steps)
        before = lengths[i - 1]
        share = (losses[before] - target) / (losses[before] - losses[steps])
        if not math.isfinite(share):
            return float(steps)
        return float(before * (steps / before) ** share)
    return math.inf


def step_ratio(baseline: Mapping[int, float], other: Mapping[int, float]) -> float:
    """Return how many times fewer updates `other` needs for the loss that the baseline ends with.

    losses by length of the schedule, the same lengths in both. Where `other` does not get there, the ratio is below 1: the
    updates after which the baseline has the loss that `other` ends with, over the longest length.
    """
    longest = max(baseline)
    needed = steps_to_reach(other, baseline[longest])
    if math.isfinite(needed):
        return longest / needed
    return steps_to_reach(baseline, other[longest]) / longest if math.isfinite(other[longest]) else 0.0


def _loss(model: Transformer, windows: PackedBatches) -> float:
    """Return the loss over windows; inf where the last update diverged."""
    return or_worst(windows_loss(model, windows).loss, math.inf)


def clock(device: str) -> Callable[[], float]:
    """Return the clock that updates are timed with, in seconds.

    On the CPU it counts the processor time of this process, which other work on the machine hardly touches; elsewhere
    it is the time that passes, read when the device has done all it was given.
    """
    if torch.device(device).type == "cpu":
        return time.process_time

    def now() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return now


class _Stopwatch:
    """Time since it was made, and time spent in an optimizer's own steps."""

    def __init__(self, optimizer: Optimizer, now: Callable[[], float]) -> None:
        self.now, self.inside, self.steps = now, 0.0, 0
        self.created = self.began = now()
        optimizer.register_step_pre_hook(self._start)
        optimizer.register_step_post_hook(self._stop)

    @property
    def total(self) -> float:
        """Seconds since it was made."""
        return self.now() - self.created

    def _start(self, *_: object) -> None:
        self.began = self.now()

    def _stop(self, *_: object) -> None:
        self.inside += self.now() - self.began
        self.steps += 1
