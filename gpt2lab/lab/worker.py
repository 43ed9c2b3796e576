"""A process that does one unit of a study: `python -m gpt2lab.lab.worker`, started by `gpt2lab.lab.schedule`.

It reads a job, one line of JSON, from its standard input and writes messages, one line of JSON each, to its
standard output. Its input stays open as long as the process that started it lives; when it ends, so does the
worker. Anything that an experiment prints goes to standard error.
"""

import _thread
import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, TextIO

_LOG_EVERY = 0.2  # seconds between two messages about steps


def main() -> int:
    """Do the job on standard input."""
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    os.environ["GPT2LAB_QUIET"] = "1"  # the process that started this one draws the progress line
    try:
        job = json.loads(sys.stdin.readline())
        threading.Thread(target=_end_with_parent, daemon=True).start()
        _work(job, messages)
        _send(messages, {"done": True})
    except KeyboardInterrupt as stop:
        _send(messages, {"interrupted": str(stop)})
        return 130
    except Exception as error:
        from gpt2lab.base.errors import LabError

        is_sentence = isinstance(error, LabError)
        _send(messages, {"failed": str(error) if is_sentence else f"{type(error).__name__}: {error}"})
        return 1
    return 0


def _work(job: Mapping[str, Any], messages: TextIO) -> None:
    sys.path[:] = job["path"]
    threads = job["plan"]["threads"]
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    from gpt2lab.lab.unit import Plan, Unit, execute

    last = 0.0

    def on_log(step: int, numbers: Mapping[str, float]) -> None:
        nonlocal last
        if time.monotonic() - last > _LOG_EVERY:
            last = time.monotonic()
            _send(messages, {"step": step})

    plan = Plan(**(job["plan"] | {"arms": tuple(job["plan"]["arms"])}))
    execute(plan, Unit(**job["unit"]), on_log)


def _send(messages: TextIO, message: Mapping[str, object]) -> None:
    try:
        messages.write(json.dumps(message) + "\n")
        messages.flush()
    except OSError:  # nobody listens any more; `_end_with_parent` ends the work
        pass


def _end_with_parent() -> None:
    """Interrupt the work when the process that started it is gone."""
    sys.stdin.read()
    _thread.interrupt_main()


if __name__ == "__main__":
    sys.exit(main())
