"""Which process something belongs to, and whether that process still lives, wherever it can be known."""

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

State = Literal["running", "stopped", "dead", "unknown"]


@dataclass(frozen=True)
class Process:
    """A process, named so that neither another machine nor a later process of the same id is taken for it."""

    pid: int
    """Process id, as its own namespace counts."""
    host: str
    """Name of its machine, for people: a machine may change it, and containers of one machine have several."""
    machine: str
    """Fingerprint of the running system: it changes when the machine starts anew."""
    namespace: str
    """Which processes its id is counted among; a container has a namespace of its own."""
    started: str | None
    """When it began, in the system's own ticks: a process id is used again some day. None where that is not told."""

    @classmethod
    def this(cls) -> Self:
        """Return the process that asks."""
        pid = os.getpid()
        return cls(pid, platform.node(), _machine(), _namespace(), _stat(pid)[1])

    def same_machine(self) -> bool:
        """Whether it belongs to the system that is running here, so that both read the same clock."""
        return self.machine == _machine()

    def state(self) -> State:
        """Return whether it lives; `unknown` for one of another machine, or of another container."""
        if not self.same_machine() or self.namespace != _namespace() or os.name == "nt":
            return "unknown"  # on Windows os.kill(pid, 0) would end the process
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return "dead"
        except PermissionError:
            pass
        letter, started = _stat(self.pid)
        if letter in ("Z", "X") or (None not in (self.started, started) and started != self.started):
            return "dead"
        return "stopped" if letter in ("T", "t") else "running"


def uptime() -> float:
    """Return the seconds since this machine started, those in which it slept included, where the system counts them."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def _machine() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return platform.node()


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _stat(pid: int) -> tuple[str, str | None]:
    """Return the letter of a process's state and when it began, in ticks since the start; ("", None) if it is not told."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", None
    return fields[0], fields[19]  # fields 3 and 22; the name before them may hold blanks and brackets
