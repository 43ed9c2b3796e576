"""The one training loop."""

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import sweep
from gpt2lab.base.progress import Progress, progress, quantity
from gpt2lab.base.signals import deferred_interrupt
from gpt2lab.model import Transformer, Wrapper
from gpt2lab.training.callbacks import Callback, StopsEarly, stop_reason
from gpt2lab.training.checkpoints import (
    fingerprints,
    load_best_weights,
    load_checkpoint,
    newest_checkpoint,
    prune,
    save_checkpoint,
)
from gpt2lab.training.gradients import GradientStrategy, SummedGradient, Update
from gpt2lab.training.micro_batches import target_count
from gpt2lab.training.objectives import LossFunction, Objective, as_objective, next_token
from gpt2lab.training.optimizer_protocols import ChecksObjective, ReadsCurvature
from gpt2lab.training.optimizers import adamw
from gpt2lab.training.owned_modules import add_groups, place
from gpt2lab.training.ramps import GroupSchedule
from gpt2lab.training.schedules import learning_rate_share
from gpt2lab.training.settings import TrainResult, TrainSettings
from gpt2lab.training.throughput import Meter
from gpt2lab.training.trained_pass import as_trained, use_bf16


class Batches(Protocol):
    """Micro-batches by number: batches[i] is a pure function of i, so a run resumes by going on at i."""

    def __getitem__(self, index: int) -> Mapping[str, Tensor]: ...


class NotFinite(LabError):
    """The loss or the gradient is NaN or infinite; raised before the update that would spread it.

    `facts` says what, where, and which checkpoint is good, without the advice that follows it in the message.
    """

    def __init__(self, facts: str, advice: str) -> None:
        super().__init__(f"{facts}; {advice}")
        self.facts = facts


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP, after the state was saved; the message says how far the run was."""


def train(
    model: Transformer,
    batches: Batches,
    *,
    settings: TrainSettings,
    objective: Objective | LossFunction = next_token,
    optimizer: torch.optim.Optimizer | None = None,
    gradients: GradientStrategy | None = None,
    schedules: Sequence[GroupSchedule] = (),
    callbacks: Sequence[Callback] = (),
    evaluate: Callable[[], Mapping[str, float]] | None = None,
    log: Callable[..., None] | None = None,
    checkpoints: Path | None = None,
    resume: bool = False,
    seed: int = 0,
    label: str = "train",
) -> TrainResult:
    """Update `model` in place for `settings.steps` optimizer steps, or until a callback ends the run.

    batches: see `Batches`; update s uses micro-batches s·accumulation … (s+1)·accumulation - 1. objective: its own
    modules are placed, trained, checkpointed and resumed with the model. optimizer: any torch optimizer over the model's
    parameters (default AdamW by the settings), which gets groups for the objective's modules; the schedule scales each
    group's own learning rate, and `schedules` further options of the groups. gradients: how a gradient is made; default
    by `settings.privacy`. callbacks: hear of every update and evaluation. evaluate() returns numbers, of which
    `settings.best` decides the best checkpoint; it runs in evaluation mode without gradients. log(step, **numbers) gets a
    row every `log_every` updates. checkpoints: folder for training state; with resume=True the newest whole one there is
    continued, bit for bit: weights, the rows that follow and the result are those of a run that was never stopped (times
    aside). seed: of dropout and of the gradient's noise.

    NotFinite if the loss or the gradient is, before the update that would spread it. Interrupted on Ctrl-C, SIGTERM
    or SIGHUP after the running update, with a checkpoint written if there is a folder for it.
    """
    if model.config.norm != "none" and model.config.norm_eps > 1:
        raise LabError(
            f"norm_eps {model.config.norm_eps:g} switches this model's norms off, with gains to match, which training "
            "would move; fold them into the weights first"
        )
    if settings.keep == "best" and (checkpoints is None or evaluate is None):
        raise LabError("keep best: needs evaluations, and a folder for checkpoints")
    loop = _Loop(model, batches, settings, as_objective(objective), optimizer, gradients, seed)
    loop.evaluate, loop.log, loop.checkpoints = evaluate, log, checkpoints
    loop.callbacks = [*callbacks, *loop.callbacks]
    loop.schedules = [*schedules, *loop.schedules]
    for schedule in loop.schedules:
        schedule.begin(loop.optimizer.param_groups)
    if checkpoints is not None:
        loop.frozen = fingerprints(model, loop.owned)
    first = loop.restore() if resume and checkpoints is not None else None
    loop.set_training(True)
    model.gradient_checkpointing = settings.gradient_checkpointing
    try:
        with deferred_interrupt() as interrupted:
            loop.run(first, label, interrupted)
            loop.finish()
    finally:
        loop.set_training(False)
        model.gradient_checkpointing = False
    return loop.result


class _Loop:
    """The state of one run of `train`."""

    def __init__(
        self,
        model: Transformer,
        batches: Batches,
        settings: TrainSettings,
        objective: Objective,
        optimizer: torch.optim.Optimizer | None,
        gradients: GradientStrategy | None,
        seed: int,
    ) -> None:
        self.model, self.batches, self.settings, self.seed = model, batches, settings, seed
        self.objective, self.optimizer = objective, optimizer or adamw(model, settings)
        self.gradients: GradientStrategy = gradients or settings.privacy or SummedGradient()
        self.gradients.check(model, objective, self.optimizer, settings.accumulation)
        if isinstance(self.optimizer, ChecksObjective):
            self.optimizer.check_objective(objective)
        self.evaluate: Callable[[], Mapping[str, float]] | None = None
        self.log: Callable[..., None] | None = None
        self.checkpoints: Path | None = None
        self.saved: Path | None = None
        self.frozen: Mapping[str, str] = {}
        """Fingerprints of what is not trained, as the run began."""
        self.callbacks: list[Callback] = (
            [StopsEarly(settings.early_stopping)] if settings.early_stopping else []
        )
        decay = settings.weight_decay_schedule
        self.schedules = [GroupSchedule(option="weight_decay", factor=decay)] if decay else []
        self.result = TrainResult()
        self.validated = 0
        """Updates made when `result.validation` was measured."""
        self.best: float | None = None
        """The best value of `settings.best` so far."""
        self.bf16 = use_bf16(settings.precision, model.device.type)
        self.meter = Meter(model, bf16=self.bf16)
        objective.prepare(model)
        self.owned = objective.modules()
        place(self.owned, model.device, training=True)
        add_groups(self.optimizer, self.owned)
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", float(group["lr"]))
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        if settings.compile:
            for block in model.blocks:
                block.compile(dynamic=False)

    def set_training(self, training: bool) -> None:
        """Put the model and the objective's modules into training or evaluation mode."""
        self.model.train(training)
        place(self.owned, self.model.device, training=training)

    def run(self, first: int | None, label: str, interrupted: Callable[[], bool]) -> None:
        """Make all updates from number `first` on; None: a run that is not resumed."""
        settings, start = self.settings, first or 0
        self.result.steps = start
        for callback in self.callbacks:
            callback.on_start(start, self.model)
        line: Progress[int] = progress(total=settings.steps, label=label, unit="step", done=start)
        with line:
            if first is None and settings.evaluate_start:
                self._before(line)
            for step in range(start, settings.steps):
                if stop_reason(self.callbacks):
                    break
                numbers = self.update(step)
                self.result.steps = step + 1
                line.advance()
                for callback in self.callbacks:
                    callback.on_update(step + 1, dict(numbers), self.model)
                last = step + 1 == settings.steps or bool(stop_reason(self.callbacks))
                if self._due(settings.evaluate_every) or last:
                    numbers |= self.validate()
                last = last or bool(stop_reason(self.callbacks))
                # Logged before it is saved: a run that dies in between makes this update again and logs it again.
                if step == 0 or self._due(settings.log_every) or last or self.validated == step + 1:
                    numbers |= self.meter.numbers(self.result.seconds)
                    line.note(self._note(numbers))
                    if self.log is not None:
                        self.log(step + 1, **numbers)
                improved = self._is_new_best()
                if improved or self._due(settings.checkpoint_every) or last:
                    self.save()
                if interrupted() and not last:
                    self._stop()

    def finish(self) -> None:
        """End the run with the weights that are to be kept, and tell the callbacks."""
        result, settings = self.result, self.settings
        result.stopped = stop_reason(self.callbacks)
        if settings.keep == "best" and self.checkpoints is not None:
            if self.best is None:
                warnings.warn(
                    f"no finite {settings.best.number} was measured; the last weights are kept", stacklevel=3
                )
            else:
                step, notes = load_best_weights(self.checkpoints, self.model, settings.best, self.owned)
                result.kept, result.validation = step, notes["validation"]
        for callback in self.callbacks:
            callback.on_end(result.steps, result.validation, self.model)

    def _is_new_best(self) -> bool:
        """Say whether the evaluation after this update is the best so far, where the best weights are to be kept."""
        watched, result = self.settings.best, self.result
        if self.settings.keep != "best" or self.validated != result.steps or not result.validation:
            return False
        watched.require(result.validation, "best.number")
        value = watched.value(result.validation)
        if value is None or (self.best is not None and watched.gain(value, over=self.best) <= 0):
            return False
        self.best = value
        return True

    def _before(self, line: Progress[int]) -> None:
        """Evaluate the model as it was given, as step 0."""
        numbers = self.validate()
        if "validation_loss" in numbers:
            line.note(f"before training: val {numbers['validation_loss']:.3f}")
        if numbers and self.log is not None:
            self.log(0, **numbers)
        if self._is_new_best():
            self.save()

    def update(self, step: int) -> dict[str, float]:
        """Make one optimizer update and return its numbers."""
        start = time.perf_counter()
        wrappers = cast("list[Wrapper]", list(self.model.wrappers))
        for wrapper in wrappers:
            wrapper.before_update(self.model, step)
        self.objective.before_update(self.model, step, self.settings.steps)
        share = learning_rate_share(step, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * share
        for schedule in self.schedules:
            schedule.apply(self.optimizer.param_groups, step, self.settings.steps)
        micro = self._micro_batches(step)
        loss, metrics = self._gradient(step, micro)
        rate = self.optimizer.param_groups[0]["lr"]
        if not math.isfinite(loss):
            raise self._not_finite("the loss", loss, step, rate)
        norm = self.gradients.clip(self.parameters, self.settings.clip or math.inf)
        if not math.isfinite(norm):
            raise self._not_finite("the gradient's norm", norm, step, rate)
        metrics |= self._refresh("before", step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        for wrapper in wrappers:
            metrics |= wrapper.after_update(self.model, step)
        metrics |= self._refresh("after", step)
        self.result.losses.append(loss)
        self.result.tokens += sum(map(target_count, micro))
        self.result.seconds += time.perf_counter() - start
        self.meter.count(micro)
        return {"loss": loss, "learning_rate": rate, "gradient_norm": norm, **metrics}

    def _gradient(self, step: int, micro: Sequence[Mapping[str, Tensor]]) -> tuple[float, dict[str, float]]:
        """Leave the gradient of one update in `.grad`; return its loss, nats a target, and metrics."""
        return self.gradients.gradient(
            Update(
                model=self.model,
                objective=self.objective,
                batches=micro,
                parameters=self.parameters,
                as_trained=lambda k: self._as_trained(step * len(micro) + k),
                step=step,
                seed=self.seed,
            )
        )

    def _as_trained(self, index: int) -> AbstractContextManager[None]:
        """Dropout and precision of micro-batch `index`."""
        return as_trained(self.model.device, self.seed, index, bf16=self.bf16)

    def _micro_batches(self, step: int) -> list[dict[str, Tensor]]:
        """Fetch the micro-batches of one update."""
        count, device = self.settings.accumulation, self.model.device
        micro = [self.batches[step * count + k] for k in range(count)]
        return [
            {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()} for batch in micro
        ]

    def _refresh(self, moment: str, step: int) -> dict[str, float]:
        """Let an optimizer that asks for it read the loss's curvature."""
        if not isinstance(self.optimizer, ReadsCurvature) or self.optimizer.refreshes(step) != moment:
            return {}
        device = self.model.device
        try:
            micro = self._micro_batches(step if moment == "before" else step + 1)
        except IndexError:
            if moment == "before" or step + 1 < self.settings.steps:
                raise
            return {}  # a list of batches ends with the run, and no update follows that would use the curvature
        generator = torch.Generator(device).manual_seed((self.seed * 1_000_003 + step) % 2**63)
        with self._as_trained(step):
            return self.optimizer.refresh(self.model, micro, self.objective, generator)

    def validate(self) -> dict[str, float]:
        """Run `evaluate` without touching the run: evaluation mode, no gradients."""
        if self.evaluate is None:
            return {}
        self.set_training(False)
        with torch.no_grad(), torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.bf16):
            self.result.validation = {name: float(value) for name, value in self.evaluate().items()}
        self.set_training(True)
        self.validated = self.result.steps
        for callback in self.callbacks:
            callback.on_evaluation(self.result.steps, dict(self.result.validation), self.model)
        return dict(self.result.validation)

    def save(self) -> None:
        """Write a checkpoint, then delete those that are neither recent nor best."""
        if self.checkpoints is None:
            return
        notes: dict[str, Any] = {
            "validation": self.result.validation,
            "validated": self.validated,
            "best": self.best,
            "callbacks": [callback.state() for callback in self.callbacks],
            "losses": self.result.losses[
                -max(1, self.settings.steps // 10) :
            ],  # all that the result's loss needs
            "tokens": self.result.tokens,
            "seconds": self.result.seconds,
            "positions": self.meter.positions,
            "last_row": self.meter.last_row,
        }
        self.saved = save_checkpoint(
            self.checkpoints, self.result.steps, self.model, self.optimizer, notes, self.frozen, self.owned
        )
        prune(self.checkpoints, self.settings.keep_last, self.settings.best)

    def restore(self) -> int | None:
        """Continue from the newest whole checkpoint, after deleting what a killed process has left; None without one."""
        assert self.checkpoints is not None
        sweep(self.checkpoints)
        self.saved = newest_checkpoint(self.checkpoints)
        if self.saved is None:
            return None
        step, notes = load_checkpoint(self.saved, self.model, self.optimizer, self.owned)
        result = self.result
        self.validated, self.best = notes["validated"], notes["best"]
        if len(notes["callbacks"]) != len(self.callbacks):
            raise LabError(
                f"{self.saved}: written with {len(notes['callbacks'])} callbacks, not {len(self.callbacks)}"
            )
        for callback, state in zip(self.callbacks, notes["callbacks"], strict=True):
            callback.load_state(state)
        result.validation, result.losses = notes["validation"], notes["losses"]
        result.tokens, result.seconds = notes["tokens"], notes["seconds"]
        self.meter.positions = notes["positions"]
        self.meter.last_row = (notes["last_row"][0], notes["last_row"][1])
        return step

    def _stop(self) -> None:
        self.save()
        where = (
            f", saved in {self.saved.name}"
            if self.saved is not None
            else ", nothing saved: no folder was given"
        )
        raise Interrupted(f"stopped at step {self.result.steps} of {self.settings.steps}{where}")

    def _due(self, every: int) -> bool:
        return every > 0 and self.result.steps % every == 0

    def _not_finite(self, what: str, value: float, step: int, rate: float) -> NotFinite:
        last = f"last good checkpoint: {self.saved}" if self.saved else "no checkpoint was written yet"
        return NotFinite(
            f"{what} is {value} at step {step + 1} with learning rate {rate:.3g}; {last}",
            "a lower learning rate or a longer warm-up may help",
        )

    def _note(self, numbers: Mapping[str, float]) -> str:
        text = f"loss {numbers['loss']:.3f}  lr {numbers['learning_rate']:.2g}"
        if "validation_loss" in self.result.validation:
            text += f"  val {self.result.validation['validation_loss']:.3f}"
        return f"{text}  {quantity(numbers['tokens_per_second'])} tok/s  MFU {numbers['mfu']:.0%}"
