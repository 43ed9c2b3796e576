"""Long work of a library that hears no Ctrl-C, done where Ctrl-C is heard."""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class _Stopped(Exception):
    """Ends the reading of a thread whose result nobody waits for any more."""


def interruptible(work: Callable[[Iterable[T]], object], items: Iterable[T]) -> None:
    """Call work(items) in a thread and wait for it; Ctrl-C is raised here at once, whatever the thread is busy with.

    After Ctrl-C the thread reads no further item; what it computes without Python ends with it, or with the process.
    What `work` raises is raised here.
    """
    stopped = threading.Event()
    failures: list[BaseException] = []

    def read() -> Iterator[T]:
        for item in items:
            if stopped.is_set():
                raise _Stopped
            yield item

    def run() -> None:
        try:
            work(read())
        except BaseException as error:  # raised again where it is waited for
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.1)  # a wait without an end would hold signals back on some systems
    finally:
        stopped.set()
    if failures:
        raise failures[0]
