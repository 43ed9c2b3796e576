"""The one training loop."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import sweep
from gpt2lab.base.progress import Progress, progress, quantity
from gpt2lab.base.signals import on_end
from gpt2lab.model import Transformer, Wrapper
from gpt2lab.training.checkpoints import (
    fingerprints,
    load_checkpoint,
    newest_checkpoint,
    prune,
    save_checkpoint,
)
from gpt2lab.training.micro_batches import Batch, Totals, added, target_count, target_shares
from gpt2lab.training.objectives import (
    Divisible,
    LossFunction,
    Objective,
    as_objective,
    next_token,
    part,
    refuse_parts,
)
from gpt2lab.training.optimizers import ChecksObjective, ReadsCurvature, adamw
from gpt2lab.training.schedules import learning_rate_share
from gpt2lab.training.settings import TrainResult, TrainSettings
from gpt2lab.training.throughput import done_share, flops_per_token, peak_flops, timed_peak


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
    evaluate: Callable[[], Mapping[str, float]] | None = None,
    log: Callable[..., None] | None = None,
    checkpoints: Path | None = None,
    resume: bool = False,
    seed: int = 0,
    label: str = "train",
) -> TrainResult:
    """Update `model` in place for `settings.steps` optimizer steps.

    batches: see `Batches`; update s uses micro-batches s·accumulation … (s+1)·accumulation - 1. optimizer: any
    torch optimizer over the model's parameters (default AdamW by the settings); the schedule scales each group's own
    learning rate. evaluate() returns numbers, of which "validation_loss" decides the best checkpoint; it runs in
    evaluation mode without gradients. log(step, **numbers) gets a row every `log_every` updates. checkpoints: folder
    for training state; with resume=True the newest whole one there is continued, bit for bit: weights, the rows that
    follow and the result are those of a run that was never stopped (times aside). seed: of dropout only.

    NotFinite if the loss or the gradient is, before the update that would spread it. Interrupted on Ctrl-C, SIGTERM
    or SIGHUP after the running update, with a checkpoint written if there is a folder for it.
    """
    if model.config.norm != "none" and model.config.norm_eps > 1:
        raise LabError(
            f"norm_eps {model.config.norm_eps:g} switches this model's norms off, with gains to match, which training "
            "would move; fold them into the weights first"
        )
    objective = as_objective(objective)
    refuse_parts(objective, settings.accumulation)
    loop = _Loop(model, batches, settings, objective, optimizer or adamw(model, settings), seed)
    if isinstance(optimizer, ChecksObjective):
        optimizer.check_objective(objective)
    loop.evaluate, loop.log, loop.checkpoints = evaluate, log, checkpoints
    if checkpoints is not None:
        loop.frozen = fingerprints(model)
    first = loop.restore() if resume and checkpoints is not None else 0
    model.train()
    model.gradient_checkpointing = settings.gradient_checkpointing
    try:
        with _deferred_interrupt() as interrupted:
            loop.run(first, label, interrupted)
    finally:
        model.eval()
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
        optimizer: torch.optim.Optimizer,
        seed: int,
    ) -> None:
        self.model, self.batches, self.settings, self.seed = model, batches, settings, seed
        self.objective, self.optimizer = objective, optimizer
        self.evaluate: Callable[[], Mapping[str, float]] | None = None
        self.log: Callable[..., None] | None = None
        self.checkpoints: Path | None = None
        self.saved: Path | None = None
        self.frozen: Mapping[str, str] = {}
        """Fingerprints of what is not trained, as the run began."""
        self.result = TrainResult()
        self.positions, self.time_steps = 0, 0
        """Positions trained on, padding included, and how many in a row of the last batch."""
        self._counted = (0, 0.0)
        self.peak = 0.0
        """Operations per second that the machine was seen to do."""
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", float(group["lr"]))
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.bf16 = _use_bf16(settings.precision, model.device.type)
        counts = model.count_parameters()
        self.parameter_count = counts.get("active", counts["total"])
        if settings.compile:
            for block in model.blocks:
                block.compile(dynamic=False)

    def run(self, first: int, label: str, interrupted: Callable[[], bool]) -> None:
        """Make all updates from number `first` on."""
        settings = self.settings
        self.result.steps = first
        line: Progress[int] = progress(total=settings.steps, label=label, unit="step", done=first)
        with line:
            if first == 0 and settings.evaluate_start:
                self._before(line)
            for step in range(first, settings.steps):
                numbers = self.update(step)
                self.result.steps = step + 1
                line.advance()
                last = step + 1 == settings.steps
                if self._due(settings.evaluate_every) or last:
                    numbers |= self.validate()
                # Logged before it is saved: a run that dies in between makes this update again and logs it again.
                if step == 0 or self._due(settings.log_every) or last or "validation_loss" in numbers:
                    numbers |= self._throughput()
                    line.note(self._note(numbers))
                    if self.log is not None:
                        self.log(step + 1, **numbers)
                if self._due(settings.checkpoint_every) or last:
                    self.save()
                if interrupted() and not last:
                    self._stop()

    def _before(self, line: Progress[int]) -> None:
        """Evaluate the model as it was given, as step 0."""
        numbers = self.validate()
        if "validation_loss" in numbers:
            line.note(f"before training: val {numbers['validation_loss']:.3f}")
        if numbers and self.log is not None:
            self.log(0, **numbers)

    def update(self, step: int) -> dict[str, float]:
        """Make one optimizer update and return its numbers."""
        start = time.perf_counter()
        wrappers = cast("list[Wrapper]", list(self.model.wrappers))
        for wrapper in wrappers:
            wrapper.before_update(self.model, step)
        share = learning_rate_share(step, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * share
        micro = self._micro_batches(step)
        loss, metrics = self._gradient(step, micro)
        rate = self.optimizer.param_groups[0]["lr"]
        if not math.isfinite(loss):
            raise self._not_finite("the loss", loss, step, rate)
        limit = self.settings.clip or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, limit))
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
        read = [tensor for batch in micro for name, tensor in batch.items() if name.endswith("tokens")]
        self.positions += sum(tensor.numel() for tensor in read)
        self.time_steps = max((tensor.shape[-1] for tensor in read), default=0)
        return {"loss": loss, "learning_rate": rate, "gradient_norm": norm, **metrics}

    def _gradient(self, step: int, micro: Sequence[Batch]) -> tuple[float, dict[str, float]]:
        """Accumulate the gradient of one update, that of one large batch; return its loss, nats a target, and metrics."""
        whole = self._totals(step, micro)
        loss, metrics = 0.0, dict[str, float]()
        for k, (batch, share) in enumerate(zip(micro, target_shares(micro), strict=True)):
            if whole is None and not share:
                continue  # without targets its mean may be NaN
            with self._as_trained(step * len(micro) + k):
                own, numbers = part(self.objective, self.model, batch, share, whole)
            own.backward()
            loss += float(own.detach())
            for name, value in numbers.items():
                metrics[name] = metrics.get(name, 0.0) + value
        return loss, metrics

    def _totals(self, step: int, micro: Sequence[Batch]) -> Totals | None:
        """What the parts must know of all micro-batches; None for a single one and for a mean over targets."""
        if len(micro) == 1 or not isinstance(self.objective, Divisible):
            return None
        found = []
        for k, batch in enumerate(micro):
            with torch.no_grad(), self._as_trained(step * len(micro) + k):
                found.append(self.objective.totals(self.model, batch))
        return added(found)

    @contextlib.contextmanager
    def _as_trained(self, index: int) -> Iterator[None]:
        """Dropout and precision of micro-batch `index`."""
        device = self.model.device
        with (
            _dropout_seed(device, self.seed, index),
            torch.autocast(device.type, torch.bfloat16, enabled=self.bf16),
        ):
            yield

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
        self.model.eval()
        with torch.no_grad(), torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.bf16):
            self.result.validation = {name: float(value) for name, value in self.evaluate().items()}
        self.model.train()
        return dict(self.result.validation)

    def save(self) -> None:
        """Write a checkpoint, then delete those that are neither recent nor best."""
        if self.checkpoints is None:
            return
        notes: dict[str, Any] = {
            "validation": self.result.validation,
            "losses": self.result.losses[
                -max(1, self.settings.steps // 10) :
            ],  # all that the result's loss needs
            "tokens": self.result.tokens,
            "seconds": self.result.seconds,
            "positions": self.positions,
            "last_row": self._counted,
        }
        self.saved = save_checkpoint(
            self.checkpoints, self.result.steps, self.model, self.optimizer, notes, self.frozen
        )
        prune(self.checkpoints, self.settings.keep_last)

    def restore(self) -> int:
        """Continue from the newest whole checkpoint, after deleting what a killed process has left; 0 if there is none."""
        assert self.checkpoints is not None
        sweep(self.checkpoints)
        self.saved = newest_checkpoint(self.checkpoints)
        if self.saved is None:
            return 0
        step, notes = load_checkpoint(self.saved, self.model, self.optimizer)
        result = self.result
        result.validation, result.losses = notes["validation"], notes["losses"]
        result.tokens, result.seconds = notes["tokens"], notes["seconds"]
        self.positions, self._counted = notes["positions"], tuple(notes["last_row"])
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
        last = (
            f"last good checkpoint: {self.saved}"
            if self.saved is not None
            else "no checkpoint was written yet"
        )
        return NotFinite(
            f"{what} is {value} at step {step + 1} with learning rate {rate:.3g}; {last}",
            "a lower learning rate or a longer warm-up may help",
        )

    def _note(self, numbers: Mapping[str, float]) -> str:
        text = f"loss {numbers['loss']:.3f}  lr {numbers['learning_rate']:.2g}"
        if "validation_loss" in self.result.validation:
            text += f"  val {self.result.validation['validation_loss']:.3f}"
        return f"{text}  {quantity(numbers['tokens_per_second'])} tok/s  MFU {numbers['mfu']:.0%}"

    def _throughput(self) -> dict[str, float]:
        """Positions per second since the last time this was asked, and which share of the machine's peak they need."""
        positions, seconds = self.positions - self._counted[0], self.result.seconds - self._counted[1]
        self._counted = (self.positions, self.result.seconds)
        rate = positions / seconds
        flops = flops_per_token(self.model.config, self.time_steps, self.parameter_count)
        for wrapper in cast("list[Wrapper]", list(self.model.wrappers)):
            flops = wrapper.training_flops(self.model, self.time_steps, flops)
        needed = rate * flops * done_share(self.model, self.time_steps)
        device, dtype = str(self.model.device), torch.bfloat16 if self.bf16 else self.model.dtype
        self.peak = max(self.peak, peak_flops(device, dtype, torch.get_num_threads()))
        if needed > self.peak:
            self.peak = max(self.peak, timed_peak(device, dtype))
        return {"tokens_per_second": rate, "mfu": needed / self.peak}


def _use_bf16(precision: str, device: str) -> bool:
    if precision == "auto":
        return device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bf16"


@contextlib.contextmanager
def _dropout_seed(device: torch.device, seed: int, index: int) -> Iterator[None]:
    """Make dropout a pure function of (seed, micro-batch): torch's dropout knows only the global generator.

    The global state is put back afterwards, so nothing outside sees it, and a resumed run needs no saved state.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed((seed * 1_000_003 + index) % 2**63)
        yield


@contextlib.contextmanager
def _deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C, SIGTERM and SIGHUP wait for the end of the running update; a second one interrupts at once."""
    asked = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    with on_end(note):
        yield lambda: asked
