"""Units of a study, one after the other in this process or several at a time in processes of their own."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

from gpt2lab.base.errors import LabError
from gpt2lab.base.json_numbers import encode
from gpt2lab.base.progress import Progress, duration
from gpt2lab.runs.run import Logged
from gpt2lab.studies.units import Plan, Unit, execute

_TELLING = 0.02  # share of its work from which a unit's time can be reckoned
_GRACE = 60.0  # seconds that a stopped unit has for its checkpoint


@dataclass
class Outcome:
    """What became of the units."""

    finished: list[Unit] = field(default_factory=list)
    """Done, now or before."""
    failures: dict[Unit, str] = field(default_factory=dict)
    """Why a unit failed."""
    blocked: dict[Unit, Unit] = field(default_factory=dict)
    """Units that could not begin, each with one that it needs and that has failed or was blocked itself."""
    gave_up: bool = False
    """True if the rest was left undone because the first units failed alike."""


class StudyProgress(Progress[Unit]):
    """The progress line of a study: units done, time left, where the running units are.

    The time left is reckoned from the times of units of the same arm, which differ less than those of others; of a
    unit that tells which share of its work is done, from that.
    """

    def __init__(self, units: Sequence[Unit], finished: Sequence[Unit], label: str, workers: int) -> None:
        super().__init__(total=len(units), label=label, unit="unit", done=len(finished))
        self.units, self.workers = units, workers
        self.began: dict[Unit, float] = {}
        self.steps: dict[Unit, int] = {}
        self.shares: dict[Unit, float] = {}
        self.took: dict[Unit, float] = {}
        self._finished = set(finished)

    def start(self, unit: Unit) -> None:
        """Note that a unit begins."""
        self.began[unit] = time.monotonic()
        self.show()

    def step(self, unit: Unit, step: int) -> None:
        """Note the step at which a unit is."""
        self.steps[unit] = step
        self.show()

    def share(self, unit: Unit, done: float) -> None:
        """Note which share of its work a unit has done."""
        self.shares[unit] = done
        self.show()

    def listener(self, unit: Unit) -> Logged:
        """Return what notes the steps that a unit logs in this process."""
        return lambda step, numbers: self.step(unit, step)

    def end(self, unit: Unit, well: bool = True) -> None:
        """Note that a unit has ended."""
        took = time.monotonic() - self.began.pop(unit)
        self._finished.add(unit)
        self.steps.pop(unit, None)
        self.shares.pop(unit, None)
        if well:
            self.took[unit] = took
        self.advance()

    def show(self) -> None:
        """Draw the line."""
        self.note("")

    def line(self, final: bool = False) -> str:
        """Return the line as it would be drawn now."""
        parts = [f"{self.done}/{self.total} units"]
        left = self.seconds_left()
        if left is not None and not final:
            parts.append(f"{duration(left)} left")
        running = [self._running(unit) for unit in self.began]
        if running:
            parts.append(", ".join(running))
        return f"{self.label}: " + " · ".join(parts)

    def seconds_left(self) -> float | None:
        """Return the estimated time until all units are done; None before one is, or has told a share of some size."""
        if not self.took and not any(self._projected(unit) for unit in self.began):
            return None
        total = 0.0
        for unit in self.units:
            if unit not in self._finished:
                ran = time.monotonic() - self.began[unit] if unit in self.began else 0.0
                total += max(self._usual(unit) - ran, 0.0)
        return total / self.workers

    def _running(self, unit: Unit) -> str:
        if unit in self.steps:
            return f"{unit.words} step {self.steps[unit]}"
        return f"{unit.words} {self.shares[unit]:.0%}" if unit in self.shares else unit.words

    def _usual(self, unit: Unit) -> float:
        """Return the time of a unit by what it has done; else the mean of units of the same arm, else of all arms."""
        if own := self._projected(unit):
            return own
        times = self.took | {other: time for other in self.began if (time := self._projected(other))}
        alike = [took for other, took in times.items() if other.arm == unit.arm]
        if not alike and unit.arm is None and any(other.arm for other in self.units):
            return 0.0  # it only puts its arms together
        known = alike or list(times.values())
        return sum(known) / len(known)

    def _projected(self, unit: Unit) -> float | None:
        """Return the time that a running unit will have taken, from the share it has done; None where that says little."""
        done = self.shares.get(unit, 0.0)
        return (
            (time.monotonic() - self.began[unit]) / done if done >= _TELLING and unit in self.began else None
        )


def run_units(
    plan: Plan, units: Sequence[Unit], finished: Sequence[Unit], workers: int, label: str
) -> Outcome:
    """Do the units that are not in `finished`, `workers` at a time; each waits for those that it needs.

    A unit that fails does not stop the others, unless the first two fail with the same words before any has
    finished. KeyboardInterrupt on Ctrl-C, after the running units were stopped and have saved what they can.
    """
    progress = StudyProgress(units, finished, label, workers)
    outcome = Outcome(finished=list(finished))
    waiting = [unit for unit in units if unit not in set(finished)]
    with progress:
        if workers == 1:
            _in_this_process(plan, waiting, outcome, progress)
        else:
            _Pool(plan, waiting, outcome, progress, workers).run()
    return outcome


def _in_this_process(plan: Plan, waiting: list[Unit], outcome: Outcome, progress: StudyProgress) -> None:
    with _quiet(), _threads(plan.threads):
        while unit := _next(plan, waiting, outcome):
            progress.start(unit)
            try:
                execute(plan, unit, progress.listener(unit), partial(progress.share, unit))
            except Exception as error:
                is_sentence = isinstance(error, LabError)
                outcome.failures[unit] = str(error) if is_sentence else f"{type(error).__name__}: {error}"
                progress.end(unit, well=False)
            else:
                outcome.finished.append(unit)
                progress.end(unit)


def _next(plan: Plan, waiting: list[Unit], outcome: Outcome) -> Unit | None:
    """Take the next unit that can begin from `waiting`: its turn comes when all that it needs has finished."""
    if outcome.gave_up or _alike(outcome):
        outcome.gave_up = True
        return None
    done = set(outcome.finished)
    for unit in list(waiting):
        needed = plan.needed(unit)
        lost = next((one for one in needed if one in outcome.failures or one in outcome.blocked), None)
        if lost is not None:
            waiting.remove(unit)
            outcome.blocked[unit] = lost
        elif done.issuperset(needed):
            waiting.remove(unit)
            return unit
    return None


def _alike(outcome: Outcome) -> bool:
    """Tell whether two units failed with the same words and none has finished: the rest would fail too."""
    words = list(outcome.failures.values())
    return not outcome.finished and len(words) >= 2 and len(set(words)) < len(words)


@contextlib.contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """Let an operation use so many threads during the block, as in a process of its own; None leaves it to torch."""
    if number is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the progress lines of the units; the study's own is drawn already."""
    before = os.environ.get("GPT2LAB_QUIET")
    os.environ["GPT2LAB_QUIET"] = "1"
    try:
        yield
    finally:
        os.environ.pop("GPT2LAB_QUIET", None)
        if before is not None:
            os.environ["GPT2LAB_QUIET"] = before


class _Pool:
    """Units in processes of their own, each of which does one unit after the other."""

    def __init__(
        self, plan: Plan, waiting: list[Unit], outcome: Outcome, progress: StudyProgress, workers: int
    ) -> None:
        self.plan, self.waiting, self.outcome, self.progress = plan, waiting, outcome, progress
        self.workers = workers
        self.processes: list[subprocess.Popen[str]] = []
        self.units: dict[int, Unit] = {}
        """What each busy process does, by its pid."""
        self.messages: queue.Queue[tuple[subprocess.Popen[str], dict[str, Any] | None]] = queue.Queue()

    def run(self) -> None:
        """Do all units."""
        errors = Path(self.plan.home) / self.plan.study / "workers.txt"
        try:
            with errors.open("a", encoding="utf-8") as stderr:
                self._fill(stderr)
                while self.units:
                    self._take_message(stderr)
            self._dismiss()
        except BaseException:
            self._stop()
            raise
        finally:
            if errors.exists() and errors.stat().st_size == 0:
                errors.unlink()

    def _fill(self, stderr: IO[str]) -> None:
        """Give out units until `workers` processes are busy or no unit can begin."""
        while len(self.units) < self.workers and (unit := _next(self.plan, self.waiting, self.outcome)):
            process = next((one for one in self.processes if one.pid not in self.units), None)
            process = process or self._start(stderr)
            self.units[process.pid] = unit
            self.progress.start(unit)
            job = encode({"plan": asdict(self.plan), "unit": asdict(unit), "path": sys.path})
            with contextlib.suppress(BrokenPipeError):  # it died at once; its silence will tell
                assert process.stdin is not None
                process.stdin.write(job + "\n")
                process.stdin.flush()

    def _start(self, stderr: IO[str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "gpt2lab.studies.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            encoding="utf-8",
            env=self._environment(),
            start_new_session=True,  # Ctrl-C reaches this process alone, which then stops each unit once
        )
        self.processes.append(process)
        threading.Thread(target=self._read_messages, args=(process,), daemon=True).start()
        return process

    def _environment(self) -> dict[str, str]:
        """Return the environment of a worker: this one's, and its import path, so that it finds gpt2lab."""
        path = os.pathsep.join(entry for entry in sys.path if entry)
        environment = os.environ | {"PYTHONPATH": path, "GPT2LAB_QUIET": "1"}
        if self.plan.threads is not None:
            environment["OMP_NUM_THREADS"] = str(self.plan.threads)
        return environment

    def _read_messages(self, process: subprocess.Popen[str]) -> None:
        """Pass on what a worker says; None when it has ended."""
        assert process.stdout is not None
        for line in process.stdout:
            with contextlib.suppress(ValueError):
                self.messages.put((process, json.loads(line)))
        process.wait()
        self.messages.put((process, None))

    def _take_message(self, stderr: IO[str]) -> None:
        """Take one message, or let half a second pass."""
        try:
            process, message = self.messages.get(timeout=0.5)
        except queue.Empty:
            self.progress.show()
            return
        unit = self.units.get(process.pid)
        if message is None:
            self.processes.remove(process)
            message = {"failed": _silent_end(process.returncode)}
        if unit is None:
            return  # it ended after its unit
        if "step" in message:
            self.progress.step(unit, message["step"])
            return
        if "share" in message:
            self.progress.share(unit, message["share"])
            return
        if "done" in message:
            self.outcome.finished.append(unit)
        else:
            self.outcome.failures[unit] = message.get("failed") or message.get("interrupted") or "interrupted"
        del self.units[process.pid]
        self.progress.end(unit, well="done" in message)
        self._fill(stderr)

    def _dismiss(self) -> None:
        """Let the idle processes end."""
        for process in self.processes:
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
        for process in self.processes:
            process.wait()

    def _stop(self) -> None:
        """Interrupt the running units once and wait for their checkpoints; a second Ctrl-C ends them at once."""
        for process in self.processes:
            with contextlib.suppress(OSError):
                process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + _GRACE
        try:
            for process in self.processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(deadline - time.monotonic(), 0.1))
        finally:
            for process in self.processes:
                with contextlib.suppress(OSError):
                    process.kill()


def _silent_end(code: int) -> str:
    """Say how a worker ended that said nothing."""
    if code == -signal.SIGKILL:
        return "its process was killed, perhaps for want of memory; --workers 1 needs less"
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}; workers.txt may say more"
    return f"its process ended with status {code}; workers.txt says more"
