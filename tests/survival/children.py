"""Processes that train and are killed: forked from one that has imported torch, so that a life costs no import."""

import contextlib
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LONGEST = 120.0  # seconds after which a life counts as hanging

CALLS = ("replace", "rename", "fsync", "chmod", "unlink", "mkdir", "rmdir", "open", "close", "ftruncate")
"""Functions of `os` at which a life may end: what stands between them is not visible on the disk."""


@dataclass
class Life:
    """How one process ended."""

    status: int
    """Exit status, or minus the signal."""
    seconds: float
    calls: int
    """Calls of `CALLS` that it made, if they were counted."""


def live(
    work: Callable[[], object],
    log: Path,
    *,
    until: Callable[[], bool] | None = None,
    how: signal.Signals = signal.SIGKILL,
    call: int | None = None,
    largest_file: int | None = None,
) -> Life:
    """Do `work` in a forked process and return how it ended: 0 done, 1 refused with a sentence, 3 a defect.

    until: asked again and again; the process gets the signal `how` once it says True. call: the process kills itself at
    its call of that number. largest_file: no file of the process can be longer, as on a full disk.
    """
    began = time.monotonic()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _be_born(log, largest_file)
        counter = _count_calls(call, writer)
        os._exit(_do(work, counter))
    os.close(writer)
    status = _watch(child, until, how, began)
    calls = os.read(reader, 64)
    os.close(reader)
    return Life(os.waitstatus_to_exitcode(status), time.monotonic() - began, int(calls or b"0"))


def _be_born(log: Path, largest_file: int | None) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115 -- the process's own
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if largest_file is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))


def _do(work: Callable[[], object], counter: list[int]) -> int:
    from gpt2lab.base.errors import LabError

    try:
        work()
    except (LabError, OSError, KeyboardInterrupt) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 3
    finally:
        os.write(counter[1], str(counter[0]).encode())
    return 0


def _count_calls(last: int | None, writer: int) -> list[int]:
    """Count calls of `CALLS` below here; kill this process before the one of number `last`."""
    counter = [0, writer]

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            counter[0] += 1
            if counter[0] == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    return counter


def _watch(child: int, until: Callable[[], bool] | None, how: signal.Signals, began: float) -> int:
    """Wait for the end of a child, and bring it about when `until` says so."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        if time.monotonic() - began > LONGEST:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise TimeoutError(f"a process did not end in {LONGEST:.0f} s")
        if until is not None and until():
            os.kill(child, how)
            until = None
        time.sleep(0.0005)


def after(seconds: float) -> Callable[[], bool]:
    """Return what says True when this time has passed."""
    deadline = time.monotonic() + seconds
    return lambda: time.monotonic() >= deadline


def when(folder: Path, pattern: str, count: int, delay: float) -> Callable[[], bool]:
    """Return what says True `delay` seconds after `count` paths below `folder` have matched `pattern`."""
    seen: list[float] = []

    def look() -> bool:
        if not seen:
            with contextlib.suppress(OSError):
                if len(list(folder.glob(pattern))) >= count:
                    seen.append(time.monotonic())
        return bool(seen) and time.monotonic() >= seen[0] + delay

    return look


def flip(path: Path, draw: random.Random) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)
