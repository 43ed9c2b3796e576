"""Optimizers side by side under equal conditions, as papers about optimizers compare them.

Every candidate trains the same model from the same initial weights on the same batches in the same order, with the
same schedule, clipping and number of updates. Each first tunes its learning rate, and the options it names, by the same
rule: all values of its grid over a shorter complete schedule, and further values on the side where the best one lies at
the edge. Tuning windows choose; validation windows, others, are judged. Losses of different lengths come from complete
schedules of their own, never from the middle of a longer one.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

from gpt2lab.base.errors import LabError
from gpt2lab.base.ordering import or_worst
from gpt2lab.measures.held_out import windows_loss
from gpt2lab.model import Transformer
from gpt2lab.studies.workload import Workload as Workload
from gpt2lab.text.batches import PackedBatches
from gpt2lab.training import make_optimizer, train
from gpt2lab.training.loop import NotFinite

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run

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


@dataclass(frozen=True)
class Finish:
    """How one training ended."""

    loss: float
    """Validation loss in nats per token; inf if training broke off because a number was not finite."""
    seconds: float
    """Time in updates, evaluation left out; see `clock`."""
    optimizer_seconds: float
    """Of these, time in the optimizer's own steps."""
    steps: int
    """Updates made."""
    tuning_loss: float = math.nan
    """Loss on the tuning windows, where it was asked for; inf as for `loss`."""


@dataclass(frozen=True)
class Tuned:
    """What a sweep found."""

    learning_rate: float
    """The best."""
    options: Mapping[str, Any]
    """The options it was best with."""
    loss: float
    """Its loss on the tuning windows."""
    at_edge: bool
    """Whether a further value on one side might have been better still."""
    tried: tuple[Mapping[str, Any], ...]
    """Every trial: learning_rate, the options, loss (on the tuning windows, by which it is chosen), validation_loss."""


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

    log(step, **numbers) gets the training's rows. tuning: the loss on the tuning windows is taken, too, for a choice. A
    loss or gradient that is not finite ends the training with loss inf.
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
        return Finish(math.inf, watch.total, watch.inside, watch.steps, math.inf)
    total = watch.total
    loss = _loss(model, workload.validation(seed))
    tuning_loss = _loss(model, workload.tuning(seed)) if tuning else math.nan
    return Finish(loss, total, watch.inside, done.steps, tuning_loss)


def tune(
    workload: Workload,
    candidate: Candidate,
    *,
    steps: int,
    seed: int = 0,
    widen: int = 2,
    device: str = "cpu",
    log: Log | None = None,
) -> Tuned:
    """Choose learning rate and options by the loss on the tuning windows after `steps` updates.

    If the best rate lies at the edge of its grid, up to `widen` further values are tried on that side, each by the
    factor between the two outermost values. log(step, **numbers) gets the rows of every trial.
    """
    tried: list[dict[str, Any]] = []

    def loss_of(rate: float, options: Mapping[str, Any]) -> float:
        finish = race(
            workload,
            candidate,
            steps=steps,
            learning_rate=rate,
            options=options,
            seed=seed,
            device=device,
            log=log,
            tuning=True,
        )
        losses = {"loss": finish.tuning_loss, "validation_loss": finish.loss}
        tried.append({"learning_rate": rate, **options, **losses})
        return finish.tuning_loss

    best, best_options, best_loss, edge = math.nan, candidate.options[0], math.inf, True
    for options in candidate.options:
        rate, loss, at_edge = best_on_grid(
            candidate.learning_rates, partial(loss_of, options=options), widen=widen
        )
        if loss < best_loss or math.isnan(best):
            best, best_options, best_loss, edge = rate, options, loss, at_edge
    return Tuned(best, best_options, best_loss, edge, tuple(tried))


def best_on_grid(
    grid: Sequence[float], loss_of: Callable[[float], float], *, widen: int
) -> tuple[float, float, bool]:
    """Return the best value of an ascending geometric grid, its loss, and whether it still lies at the edge.

    A loss that is NaN is that of a run that diverged, infinite.
    LabError for a grid that is empty, not ascending or not above 0.
    """
    values = list(grid)
    if not values or values[0] <= 0 or values != sorted(set(values)):
        raise LabError(f"a grid of learning rates ascends from above 0, got {list(grid)}")
    losses = {value: or_worst(loss_of(value), math.inf) for value in values}
    ratio_low = values[1] / values[0] if len(values) > 1 else 2.0
    ratio_high = values[-1] / values[-2] if len(values) > 1 else 2.0
    for _ in range(widen):
        best = min(values, key=lambda value: losses[value])
        if best == values[0]:
            values.insert(0, values[0] / ratio_low)
            losses[values[0]] = or_worst(loss_of(values[0]), math.inf)
        elif best == values[-1]:
            values.append(values[-1] * ratio_high)
            losses[values[-1]] = or_worst(loss_of(values[-1]), math.inf)
    best = min(values, key=lambda value: losses[value])
    return best, losses[best], best in (values[0], values[-1])


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


def compete(
    workload: Workload,
    candidate: Candidate,
    run: "Run",
    *,
    tuning_steps: int,
    lengths: Sequence[int],
    prepare: Prepare | None = None,
) -> Tuned:
    """Tune a candidate, let it race over every length, and report to `run`; `prepare` sees the longest race only.

    Results: learning_rate, at_edge, option.NAME, loss.sSTEPS, seconds_per_step, optimizer_share; table `sweep`; the
    longest race's rows are logged.
    """
    share = _Share(run, tuning_steps * len(candidate.learning_rates) * len(candidate.options) + sum(lengths))
    run.chooses("learning rate and options", on="tuning windows")
    run.judges("final loss", on="validation windows")
    tuned = tune(workload, candidate, steps=tuning_steps, seed=run.seed, device=run.device, log=share.trial)
    run.table(
        "sweep",
        tuned.tried,
        f"Every setting tried, after {tuning_steps} updates: `loss` on the tuning windows chooses",
    )
    run.result("learning_rate", tuned.learning_rate)
    run.result("at_edge", tuned.at_edge)
    for name, value in tuned.options.items():
        if isinstance(value, int | float):
            run.result(f"option.{name}", value)
    seconds, inside, updates = 0.0, 0.0, 0
    for steps in sorted(lengths):
        share.begin(sum(lengths) - sum(length for length in lengths if length < steps))
        longest = steps == max(lengths)
        finish = race(
            workload,
            candidate,
            steps=steps,
            learning_rate=tuned.learning_rate,
            options=tuned.options,
            seed=run.seed,
            device=run.device,
            log=share.logged if longest else None,
            prepare=prepare if longest else None,
        )
        run.result(f"loss.s{steps}", finish.loss)
        if not longest or len(lengths) == 1:  # the longest is logged and watched, which takes time of its own
            seconds, inside, updates = (
                seconds + finish.seconds,
                inside + finish.optimizer_seconds,
                updates + finish.steps,
            )
    run.result("seconds_per_step", seconds / max(updates, 1))
    run.result("optimizer_share", inside / seconds)
    return tuned


def standings(run: "Run", lengths: Sequence[int]) -> dict[str, dict[int, float]]:
    """Report every arm's results under its name, and a table of all; returns losses by arm and length."""
    losses = dict[str, dict[int, float]]()
    for arm, record in run.arms.items():
        for name, value in record.results.items():
            run.result(f"{arm}.{name}", value)
        losses[arm] = {steps: record.results[f"loss.s{steps}"] for steps in lengths}
    rows: list[dict[str, Any]] = [
        {
            "optimizer": arm,
            "learning rate": record.results["learning_rate"],
            **{f"loss, {steps} updates": losses[arm][steps] for steps in lengths},
            "ms an update": 1000 * record.results["seconds_per_step"],
            "share in the optimizer": record.results["optimizer_share"],
        }
        for arm, record in run.arms.items()
    ]
    rows.sort(key=lambda row: row[f"loss, {max(lengths)} updates"])
    run.table("standings", rows, "Every optimizer at its tuned learning rate; loss in nats per token")
    return losses


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


class _Share:
    """How far a candidate is: updates done of all that are planned; those of a widened grid are not among them."""

    def __init__(self, run: "Run", total: int) -> None:
        self.run, self.total, self.done, self.last = run, total, 0, 0

    def begin(self, left: int) -> None:
        """A training begins, before which `left` updates are left in all."""
        self.done, self.last = self.total - left, 0
        self.run.share(self.done / self.total)

    def trial(self, step: int, **numbers: Any) -> None:
        """Count a step of a training that is not logged."""
        if step < self.last:
            self.done += self.last  # the next trial has begun
        self.last = step
        self.run.share((self.done + step) / self.total)

    def logged(self, step: int, **numbers: Any) -> None:
        """Count and log a step."""
        self.trial(step)
        self.run.log(step, **numbers)


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
