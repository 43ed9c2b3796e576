"""Damage small valid files of every kind and read them: is each answer right, or one sentence, soon, in little memory?

    python -m tests.fuzz.loaders --inputs 100000 --seed 1 --seconds 3000

Four faults are counted: an exception that is no LabError, more than 5 s of computing, memory above 1 GiB, and a changed
folder that silently reads differently (from what it held, and from what `transformers` makes of it). Counted apart are
other weights in a file without checksum, whose header is whole: nothing in the folder denies them. Every case follows
from the seed, its kind and its number alone: `--only KIND:NUMBER` runs one again and shows where it fails.
"""

import argparse
import collections
import contextlib
import json
import logging
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import torch

from gpt2lab.base.errors import LabError
from tests.fuzz.kinds import kinds, same
from tests.fuzz.mutations import mutate

SECONDS = 5
"""Of computing that a case may take."""
MEMORY = 2**30
"""Bytes above what the process holds before its first case."""
LONGEST = 2000
"""Characters of a sentence; it may list the settings there are, but not what a file holds."""
ASLEEP = 30
"""Seconds after which a case that neither computes nor ends, or does not hear its alarm, is ended from outside."""
TURN = 2000
"""Cases of one process: libraries keep a little of each."""
FAULTS = ("no LabError", "too long", "too much memory", "silently different")
UNDETECTABLE = "undetectable: weight bytes without checksum"
"""No fault of a reader."""


class TooLong(BaseException):
    """Raised by the alarm; no LabError handler may catch it."""


@dataclass(frozen=True)
class Fault:
    """A case that went wrong."""

    kind: str
    number: int
    what: str
    """One of FAULTS, or UNDETECTABLE."""
    sentence: str
    """Of the exception, with the last place in the lab; what was different."""


class Bench:
    """The valid folders of all kinds, and the place where damaged copies are read."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.seed, self.kinds = seed, kinds()
        self.place, self.valid = folder / "case", folder / "valid"
        self.results: dict[str, object] = {}
        for name, kind in self.kinds.items():
            (self.valid / name).mkdir(parents=True)
            kind.make(self.valid / name)
            self.results[name] = kind.load(self.valid / name)
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
        for kind in self.kinds.values():  # imports what it needs, before memory is limited
            if kind.oracle is not None and kind.weight > 1:
                kind.oracle(self.valid / next(name for name, one in self.kinds.items() if one is kind))
        self.files = {name: _files(self.valid / name) for name in self.kinds}
        self.others = [data for files in self.files.values() for data in files.values()]

    def at(self, folder: Path) -> "Bench":
        """Return the same bench with a place of its own for the damaged copies."""
        copy = object.__new__(Bench)
        copy.__dict__ = {**self.__dict__, "place": folder}
        return copy

    def schedule(self, inputs: int) -> Iterator[tuple[str, int]]:
        """Yield (kind, number), every kind as often as its weight says, the kinds in turn."""
        turns = [name for name, kind in self.kinds.items() for _ in range(kind.weight)]
        for index in range(inputs):
            yield turns[index % len(turns)], index

    def write(self, name: str, number: int) -> str:
        """Write the damaged folder of a case and return which file was damaged."""
        rng = random.Random(f"{self.seed} {name} {number}")
        shutil.rmtree(self.place, ignore_errors=True)
        files = self.files[name]
        victim = rng.choice(sorted(files))
        for file, data in files.items():
            path = self.place / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(mutate(data, file, self.others, rng) if file == victim else data)
        return victim

    def judge(self, name: str, number: int) -> Fault | None:
        """Read one damaged folder."""
        victim = self.write(name, number)
        kind = self.kinds[name]
        before = _peak()
        try:
            with _alarm():
                found = kind.load(self.place)
        except LabError as error:
            wordy = "\n" in str(error) or len(str(error)) > LONGEST
            fault = Fault(name, number, "no LabError", f"a wordy one: {str(error)[:200]}") if wordy else None
        except TooLong as error:
            fault = Fault(name, number, "too long", _where(error))
        except MemoryError as error:
            fault = Fault(name, number, "too much memory", _where(error))
        except BaseException as error:
            huge = "allocate memory" in str(error)
            fault = Fault(name, number, "too much memory" if huge else "no LabError", _where(error))
        else:
            fault = None if found is None else self._compare(name, number, victim, found)
        if fault is None and _peak() - before > MEMORY:
            return Fault(name, number, "too much memory", f"{(_peak() - before) / 2**30:.1f} GiB")
        return fault

    def _compare(self, name: str, number: int, victim: str, found: object) -> Fault | None:
        if same(found, self.results[name]):
            return None
        theirs = self._theirs(name)
        silent = self._weights_alone(name, victim)
        if same(found, theirs) or (silent and _overflows(found, theirs)):
            return Fault(name, number, UNDETECTABLE, victim) if silent else None
        said = (
            theirs
            if isinstance(theirs, str)
            else "transformers reads something else"
            if theirs is not None
            else ""
        )
        return Fault(name, number, "silently different", said)

    def _theirs(self, name: str) -> object:
        """What the other program makes of the damaged folder, or its exception in words; None where there is none."""
        oracle = self.kinds[name].oracle
        if oracle is None:
            return None
        try:
            with _alarm(30):
                return oracle(self.place)
        except BaseException as error:
            return f"{type(error).__name__}: {str(error)[:80]}"

    def _weights_alone(self, name: str, victim: str) -> bool:
        """Whether the damage is in the numbers of a safetensors file, its header being what it was."""
        if not victim.endswith(".safetensors"):
            return False
        old, new = self.files[name][victim], (self.place / victim).read_bytes()
        head = 8 + int.from_bytes(old[:8], "little")
        return len(old) == len(new) and old[:head] == new[:head]


def _overflows(found: object, theirs: object) -> bool:
    """Whether weights near float32's end make one of the two run over, which depends on the order of the sums."""
    both = [one for one in (found, theirs) if isinstance(one, torch.Tensor)]
    return len(both) == 2 and not all(bool(one.isfinite().all()) for one in both)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextlib.contextmanager
def _alarm(seconds: float = SECONDS) -> Iterator[None]:
    """Raise TooLong after so many seconds of computing."""

    def ring(*_: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _where(error: BaseException) -> str:
    """Say what was raised, and the last line of the lab that was running."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "gpt2lab/" in frame.filename]
    place = (
        f"{frames[-1].filename.rpartition('gpt2lab/')[2]}:{frames[-1].lineno}"
        if frames
        else "outside the lab"
    )
    return f"{type(error).__name__} at {place}: {str(error)[:120]}"


def _work(
    bench: Bench, cases: list[tuple[str, int]], at: "Synchronized[int]", out: Connection, limited: bool
) -> None:
    """Judge cases one after the other; `at` says which is in hand, `out` gets the faults and the end."""
    _quiet()
    if limited:
        held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    with contextlib.ExitStack() as stack:
        bench = bench.at(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "case")
        for index in range(at.value, min(at.value + TURN, len(cases))):
            at.value = index
            try:
                fault = bench.judge(*cases[index])
            except BaseException as error:
                fault = Fault(*cases[index], "no LabError", f"in the bench: {_where(error)}")
            if fault is not None:
                out.send(fault)
            at.value = index + 1
        out.send(None)


def _quiet() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)  # Rust's panics and onig's notes are not ours to read


class Worker:
    """A process that judges a share of the cases, begun again behind a case that ended it."""

    def __init__(self, bench: Bench, cases: list[tuple[str, int]], limited: bool) -> None:
        self.bench, self.cases, self.limited = bench, cases, limited
        self.at: Synchronized[int] = multiprocessing.get_context("fork").Value("q", 0)
        self.faults: list[Fault] = []
        self.begin()

    def begin(self) -> None:
        """Fork a process that goes on at `at`."""
        context = multiprocessing.get_context("fork")
        self.inbox, out = context.Pipe(duplex=False)
        self.process = context.Process(
            target=_work, args=(self.bench, self.cases, self.at, out, self.limited)
        )
        self.process.start()
        out.close()
        self.seen, self.since = -1, time.monotonic()

    def step(self) -> bool:
        """Take what the process has said; False once all its cases are judged."""
        try:
            while self.inbox.poll():
                fault = self.inbox.recv()
                if fault is None:
                    return self._next_turn()
                self.faults.append(fault)
        except EOFError:
            self._died()
            return self.at.value < len(self.cases)
        if self.at.value != self.seen:
            self.seen, self.since = self.at.value, time.monotonic()
        elif time.monotonic() - self.since > ASLEEP:
            self.process.kill()
        return True

    def _next_turn(self) -> bool:
        self.process.join()
        if self.at.value == len(self.cases):
            return False
        self.begin()
        return True

    def _died(self) -> None:
        self.process.join()
        name, number = self.cases[self.at.value]
        killed = self.process.exitcode == -signal.SIGKILL
        what = (
            "too long"
            if killed
            else "too much memory"
            if self.process.exitcode == -signal.SIGABRT
            else "no LabError"
        )
        self.faults.append(Fault(name, number, what, f"the process ended with {self.process.exitcode}"))
        self.at.value += 1
        if self.at.value < len(self.cases):
            self.begin()


def run(
    bench: Bench,
    inputs: int,
    *,
    seconds: float = float("inf"),
    workers: int = 2,
    only: str = "",
    limited: bool = True,
) -> tuple[int, list[Fault]]:
    """Judge `inputs` cases, or as many as `seconds` allow; return how many it were and what was found among them."""
    cases = [case for case in bench.schedule(inputs) if case[0].startswith(only)]
    crew = [Worker(bench, cases[share::workers], limited) for share in range(workers)]
    end = time.monotonic() + seconds
    busy = list(crew)
    while busy and time.monotonic() < end:
        wait([worker.inbox for worker in busy], timeout=1.0)
        busy = [worker for worker in busy if worker.step()]
    for worker in busy:
        worker.process.kill()
        worker.process.join()
    return sum(worker.at.value for worker in crew), [fault for worker in crew for fault in worker.faults]


def main() -> int:
    """Run from the command line; exit status 1 if there was a fault."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kind", default="", help="only kinds whose names begin so")
    parser.add_argument(
        "--only", metavar="KIND:NUMBER", help="one case again, its folder kept and the traceback shown"
    )
    parser.add_argument("--out", type=Path, help="write the faults there as JSON lines")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), arguments.seed)
        if arguments.only:
            return _again(bench.at(Path(tempfile.mkdtemp()) / "case"), arguments.only)
        begun = time.monotonic()
        count, faults = run(
            bench, arguments.inputs, seconds=arguments.seconds, workers=arguments.workers, only=arguments.kind
        )
    print(f"{count:,} inputs in {time.monotonic() - begun:,.0f} s, seed {arguments.seed}")
    _tell(faults)
    if arguments.out:
        arguments.out.write_text("".join(json.dumps(fault.__dict__) + "\n" for fault in faults))
    return 1 if any(fault.what in FAULTS for fault in faults) else 0


def _tell(faults: list[Fault]) -> None:
    """Print how many faults there are of each sort, and of each an example."""
    for what in (*FAULTS, UNDETECTABLE):
        print(f"  {what}: {sum(fault.what == what for fault in faults)}")
    groups: dict[Any, list[Fault]] = collections.defaultdict(list)
    for fault in faults:
        groups[fault.kind, fault.what, fault.sentence[:70]].append(fault)
    for (kind, what, _), some in sorted(groups.items(), key=lambda item: -len(item[1])):
        print(f"{len(some):6}  {what}  {kind}:{some[0].number}  {some[0].sentence}")


def _again(bench: Bench, case: str) -> int:
    name, _, number = case.partition(":")
    print(f"{bench.place}: {bench.write(name, int(number))} is damaged")
    try:
        found = bench.kinds[name].load(bench.place)
    except BaseException:
        traceback.print_exc()
        return 1
    fault = None if found is None else bench.judge(name, int(number))
    print(
        "read as it was, or as transformers reads it" if fault is None else f"{fault.what}: {fault.sentence}"
    )
    return 1 if fault is not None and fault.what in FAULTS else 0


if __name__ == "__main__":
    sys.exit(main())
