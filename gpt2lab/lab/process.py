"""Which process a run belongs to, and whether that process still lives."""

import os
import platform
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """Return the columns that name this process."""
    pid = os.getpid()
    return {"pid": pid, "host": platform.node(), "process_started": _process_started(pid)}


def _process_started(pid: int) -> str | None:
    """Return when a process began, in clock ticks since boot; None where the system does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]  # field 22; the name before it may hold blanks and brackets


def is_alive(pid: int | None, host: str | None, started: str | None) -> bool:
    """Tell whether a process still lives; of another machine's process nothing is known, so it counts as alive."""
    if pid is None or host != platform.node() or os.name == "nt":
        return True  # on Windows os.kill(pid, 0) would end the process
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return started in (None, _process_started(pid))
