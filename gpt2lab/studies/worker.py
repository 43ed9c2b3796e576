"""A process that does units of a study: `python -m gpt2lab.studies.worker`, started by `gpt2lab.studies.scheduler`.

It reads jobs, one line of JSON each, from its standard input, does one after the other, and writes messages, one line
of JSON each, to its standard output. Its input stays open as long as the process that started it has work for it; when
it ends in the middle of a job, so does the worker. Anything that an experiment prints goes to standard error.

One process does many jobs because importing torch takes longer than a small unit.
"""

import _thread
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, TextIO

from gpt2lab.base.signals import end_as_ctrl_c

_LOG_EVERY = 0.2  # seconds between two messages about steps


def main() -> int:
    """Do the jobs on standard input."""
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    os.environ["GPT2LAB_QUIET"] = "1"  # the process that started this one draws the progress line
    jobs: queue.Queue[Mapping[str, Any] | None] = queue.Queue()
    busy = threading.Event()
    threading.Thread(target=_read, args=(jobs, busy), daemon=True).start()
    # Also where the shell that started all this has Ctrl-C ignored (`&` in a script): a study stops its units by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with end_as_ctrl_c():
            while (job := jobs.get()) is not None:
                busy.set()
                _send(messages, _outcome(job, messages))
                busy.clear()
    except KeyboardInterrupt as stop:
        _send(messages, {"interrupted": str(stop)})
        return 130
    return 0


def _outcome(job: Mapping[str, Any], messages: TextIO) -> dict[str, object]:
    """Do one job and say what became of it."""
    try:
        _work(job, messages)
        return {"done": True}
    except Exception as error:
        from gpt2lab.base.errors import LabError

        is_sentence = isinstance(error, LabError)
        return {"failed": str(error) if is_sentence else f"{type(error).__name__}: {error}"}


def _work(job: Mapping[str, Any], messages: TextIO) -> None:
    sys.path[:] = job["path"]
    threads = job["plan"]["threads"]
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    from gpt2lab.studies.units import Plan, Unit, execute

    sent = {"step": 0.0, "share": 0.0}

    def report(what: str, value: float) -> None:
        if time.monotonic() - sent[what] > _LOG_EVERY:
            sent[what] = time.monotonic()
            _send(messages, {what: value})

    def on_log(step: int, numbers: Mapping[str, float]) -> None:
        report("step", step)

    needs = {name: tuple(needed) for name, needed in job["plan"]["needs"].items()}
    sequences = {name: tuple(job["plan"][name]) for name in ("shared", "tuning", "seeds")}
    plan = Plan(**(job["plan"] | {"needs": needs} | sequences))
    execute(plan, Unit(**job["unit"]), on_log, lambda done: report("share", done))


def _send(messages: TextIO, message: Mapping[str, object]) -> None:
    try:
        messages.write(json.dumps(message) + "\n")
        messages.flush()
    except OSError:  # nobody listens any more; `_read` ends the work
        pass


def _read(jobs: "queue.Queue[Mapping[str, Any] | None]", busy: threading.Event) -> None:
    """Hand on the jobs; at the end of the input, interrupt the one that is under way: whoever wanted it is gone."""
    for line in sys.stdin:
        jobs.put(json.loads(line))
    jobs.put(None)
    if busy.is_set():
        _thread.interrupt_main()


if __name__ == "__main__":
    sys.exit(main())
