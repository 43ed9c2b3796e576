"""The signals that ask a process to end: Ctrl-C, SIGTERM (kill, a batch system, a shutdown), SIGHUP (a lost terminal)."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # Windows has no SIGHUP


@contextlib.contextmanager
def on_end(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Call `handler` for every ending signal during the block, and put back what was done with them before.

    A signal that the process was started to ignore, as nohup does with SIGHUP, stays ignored. Outside the main thread
    nothing changes: signals reach the main thread only.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, handler)
        for number in ENDING
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old or signal.SIG_DFL)  # None: set by a program around Python


def end_as_ctrl_c() -> contextlib.AbstractContextManager[None]:
    """Raise KeyboardInterrupt on every ending signal during the block, so that runs are closed and can be resumed."""
    return on_end(signal.default_int_handler)


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C, SIGTERM and SIGHUP wait until the caller asks for them; a second one interrupts at once."""
    asked = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    with on_end(note):
        yield lambda: asked
