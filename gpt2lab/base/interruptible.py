"""Long work of a library that hears no Ctrl-C, done where Ctrl-C is heard."""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class _Stopped(Exception):
    """Ends the reading of a thread whose result nobody waits for any more."""


def interruptible(
    work: Callable[[Iterable[T]], object],
    items: Iterable[T],
    *,
    afterwards: Callable[[], object] = lambda: None,
) -> None:
    """Call work(items) in a thread and wait for it; Ctrl-C is raised here at once, whatever the thread is busy with.

    After Ctrl-C the thread reads no further item; what it computes without Python ends with it, or with the process.
    `afterwards` is called ten times a second from when the last item was read until the work ends.
    What `work` raises is raised here.
    """
    stopped, all_read = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def read() -> Iterator[T]:
        for item in items:
            yield item
            if stopped.is_set():
                raise _Stopped
        all_read.set()

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
            if all_read.is_set():
                afterwards()
    finally:
        stopped.set()
    if failures:
        raise failures[0]
