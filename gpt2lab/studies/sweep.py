"""Optimizers side by side under equal conditions, as papers about optimizers compare them.

Every candidate trains the same model from the same initial weights on the same batches in the same order, with the
same schedule, clipping and number of updates. Each first chooses its learning rate, and the options it names, once for
all seeds: on a seed that is not judged, by the same rule and in the same number of trials, each a complete schedule that
may be shorter. The races of every seed are then run at that setting; no result is a trial of a sweep. Losses of
different lengths come from complete schedules of their own, never from the middle of a longer one.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from gpt2lab.base.errors import LabError
from gpt2lab.base.ordering import or_worst
from gpt2lab.studies.graph import TUNING_SEED, UnitSpec
from gpt2lab.studies.race import FURTHER, Candidate, Finish, Log, Prepare, clock, race
from gpt2lab.studies.workload import Workload

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run


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
    """Every trial: learning_rate, the options, and the loss on the tuning windows, by which it is chosen."""


def tune(
    workload: Workload,
    candidate: Candidate,
    *,
    steps: int,
    seed: int = TUNING_SEED,
    device: str = "cpu",
    log: Log | None = None,
) -> Tuned:
    """Choose learning rate and options by the loss on the tuning windows after `steps` updates.

    The rates are tried with the first options, then the other options at the best rate: `candidate.trials` in all,
    whatever is found. log(step, **numbers) gets the rows of every trial.
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
        tried.append({"learning_rate": rate, **options, "loss": finish.loss})
        return finish.loss

    first, *others = candidate.options
    further = FURTHER if candidate.chooses_rate else 0
    rate, loss, at_edge = best_on_grid(
        candidate.learning_rates, partial(loss_of, options=first), further=further
    )
    losses = [loss, *(or_worst(loss_of(rate, options), math.inf) for options in others)]
    options = candidate.options[losses.index(min(losses))]
    return Tuned(rate, options, min(losses), at_edge and candidate.chooses_rate, tuple(tried))


def best_on_grid(
    grid: Sequence[float], loss_of: Callable[[float], float], *, further: int
) -> tuple[float, float, bool]:
    """Return the best value of an ascending geometric grid, its loss, and whether it still lies at the edge.

    `further` values are tried beyond the grid's own, each where the best one so far calls for it: past the edge where that
    lies, else halfway (in the logarithm) to the better of its neighbours. So every search takes as many trials.
    A loss that is NaN is that of a run that diverged, infinite.
    LabError for a grid that is empty, not ascending or not above 0.
    """
    values = list(grid)
    if not values or values[0] <= 0 or values != sorted(set(values)):
        raise LabError(f"a grid of learning rates ascends from above 0, got {list(grid)}")
    losses = {value: or_worst(loss_of(value), math.inf) for value in values}
    for _ in range(further):
        new = _next_value(values, losses)
        losses[new] = or_worst(loss_of(new), math.inf)
        values = sorted([*values, new])
    best = min(values, key=lambda value: losses[value])
    return best, losses[best], best in (values[0], values[-1])


def _next_value(values: Sequence[float], losses: Mapping[float, float]) -> float:
    """Return the value to try after these: past an edge by the factor between the two values there, or between two."""
    if len(values) == 1:
        return 2 * values[0]
    place = min(range(len(values)), key=lambda index: losses[values[index]])
    if place == 0:
        return values[0] ** 2 / values[1]
    if place == len(values) - 1:
        return values[-1] ** 2 / values[-2]
    neighbour = min(values[place - 1], values[place + 1], key=lambda value: losses[value])
    return math.sqrt(values[place] * neighbour)


def choose(workload: Workload, candidate: Candidate, run: "Run", *, steps: int) -> None:
    """Tune a candidate on the run's seed and report what it chose: the work of a tuning unit.

    Results: learning_rate, choice (which of its options), option.NAME, at_edge, trials, seconds; table `sweep`.
    """
    run.chooses("learning rates and options", on="tuning windows of the tuning seed")
    began = (now := clock(run.device))()
    share = _Share(run, candidate.trials * steps)
    tuned = tune(workload, candidate, steps=steps, seed=run.seed, device=run.device, log=share.trial)
    run.table(
        "sweep",
        tuned.tried,
        f"Every setting tried, with its loss on the tuning windows after {steps} updates",
    )
    run.result("learning_rate", tuned.learning_rate)
    run.result("choice", candidate.options.index(tuned.options))
    for name, value in tuned.options.items():
        if isinstance(value, int | float):
            run.result(f"option.{name}", value)
    run.result("at_edge", tuned.at_edge)
    run.result("trials", len(tuned.tried))
    run.result("seconds", now() - began)


def compete(
    workload: Workload,
    candidate: Candidate,
    run: "Run",
    *,
    lengths: Sequence[int],
    prepare: Prepare | None = None,
) -> None:
    """Let a candidate race over every length at the setting that its tuning unit chose: the one that this unit needs.

    `prepare` sees the longest race only. Results: learning_rate and at_edge of the sweep, loss.sSTEPS, seconds,
    seconds_per_step, optimizer_share, flops (of the forward and backward passes of the losses); the longest race's rows are
    logged.
    """
    run.judges("final loss", on="validation windows of each seed")
    (sweep,) = run.needed.values()
    rate, options = sweep.results["learning_rate"], candidate.options[int(sweep.results["choice"])]
    run.result("learning_rate", rate)
    run.result("at_edge", sweep.results["at_edge"])
    share = _Share(run, sum(lengths))
    finishes: list[Finish] = []
    for steps in sorted(lengths):
        longest = steps == max(lengths)
        share.begin(sum(length for length in lengths if length < steps))
        finish = race(
            workload,
            candidate,
            steps=steps,
            learning_rate=rate,
            options=options,
            seed=run.seed,
            device=run.device,
            log=share.logged if longest else None,
            prepare=prepare if longest else None,
        )
        run.result(f"loss.s{steps}", finish.loss)
        finishes.append(finish)
    # The longest is logged and watched, which takes time of its own.
    timed = finishes[:-1] or finishes
    seconds, updates = sum(one.seconds for one in timed), sum(one.steps for one in timed)
    run.result("seconds", sum(one.seconds for one in finishes))
    run.result("seconds_per_step", seconds / max(updates, 1))
    run.result("optimizer_share", sum(one.optimizer_seconds for one in timed) / seconds)
    run.result("flops", sum(one.steps for one in finishes) * workload.flops)


def tuned_units(
    arms: Sequence[str], choose: Callable[..., None], compete: Callable[..., None]
) -> list[UnitSpec]:
    """Return the units of a comparison: a sweep of each arm, once for all seeds, and the races of each seed.

    Both are called as (settings, arm, run); the sweep's unit is the only one that an arm's races need.
    """
    return [
        *(UnitSpec(sweep_of(arm), partial(_work, choose, arm), tuning=True) for arm in arms),
        *(UnitSpec(arm, partial(_work, compete, arm), needs=(sweep_of(arm),)) for arm in arms),
    ]


def sweep_of(arm: str) -> str:
    """Return the name of the unit that chooses an arm's setting."""
    return f"{arm}.sweep"


def _work(work: Callable[..., None], arm: str, settings: Any, run: "Run") -> None:
    work(settings, arm, run)


def standings(run: "Run", arms: Sequence[str], lengths: Sequence[int]) -> dict[str, dict[int, float]]:
    """Report the results of every arm under its name, and a table of all; returns losses by arm and length.

    An arm has raced over the longest length, at least.
    """
    losses = dict[str, dict[int, float]]()
    for arm in arms:
        results = run.arms[arm].results
        for name, value in results.items():
            run.result(f"{arm}.{name}", value)
        losses[arm] = {
            steps: loss for steps in lengths if (loss := results.get(f"loss.s{steps}")) is not None
        }
    rows: list[dict[str, Any]] = [
        {
            "optimizer": arm,
            "learning rate": results["learning_rate"],
            **{f"loss, {steps} updates": losses[arm].get(steps) for steps in lengths},
            "ms an update": 1000 * results["seconds_per_step"],
            "share in the optimizer": results["optimizer_share"],
            "seconds in all": results["seconds"],
            "TFLOP of its losses": results["flops"] / 1e12,
        }
        for arm in arms
        for results in (run.arms[arm].results,)
    ]
    rows.sort(key=lambda row: row[f"loss, {max(lengths)} updates"])
    run.table("standings", rows, "Every optimizer at its tuned learning rate; loss in nats per token")
    return losses


class _Share:
    """How far a unit is: updates done of all that it does."""

    def __init__(self, run: "Run", total: int) -> None:
        self.run, self.total, self.done, self.last = run, total, 0, 0

    def begin(self, done: int) -> None:
        """A training begins, before which so many updates were done."""
        self.done, self.last = done, 0
        self.run.share(done / self.total)

    def trial(self, step: int, **numbers: Any) -> None:
        """Count a step of a training that is not logged."""
        if step < self.last:
            self.begin(self.done + self.last)  # the next trial has begun
        self.last = step
        self.run.share((self.done + step) / self.total)

    def logged(self, step: int, **numbers: Any) -> None:
        """Count and log a step."""
        self.trial(step)
        self.run.log(step, **numbers)
