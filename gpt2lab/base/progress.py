"""A progress line on stderr: how far, how fast, how long still."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from types import TracebackType
from typing import Generic, Self, TextIO, TypeVar

from gpt2lab.base.wording import visible

T = TypeVar("T")

_APPEARS_AFTER = 2.0  # seconds: what is over by then needs no line
_REDRAW = 0.1  # seconds between two drawings on a terminal
_LINE_EVERY = 10.0  # seconds between two lines in a log file


def quiet() -> bool:
    """Return whether GPT2LAB_QUIET asks for silence (any value but empty and 0)."""
    return os.environ.get("GPT2LAB_QUIET", "") not in ("", "0")


def duration(seconds: float) -> str:
    """Write seconds as `42s`, `3m05s` or `2h07m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def quantity(number: float) -> str:
    """Write a count shortly: `7.3`, `850`, `12.4k`, `3.1M`."""
    for scale, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(number) >= scale:
            return f"{number / (1e3 if suffix == 'k' else scale):.1f}{suffix}"
    return f"{number:.0f}" if abs(number) >= 100 or number == int(number) else f"{number:.1f}"


class Progress(Generic[T]):
    """An iterator over `iterable`, or a context to `advance` by hand; see `progress`."""

    def __init__(
        self,
        iterable: Iterable[T] | None = None,
        *,
        total: int | None = None,
        label: str = "",
        unit: str = "it",
        enabled: bool | None = None,
        done: int = 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if total is None and isinstance(iterable, Sized):
            total = len(iterable)
        self.total, self.label, self.unit = total, label, unit
        self.enabled = not quiet() if enabled is None else enabled
        self.done = self._before = done
        self._iterable, self._clock = iterable, clock
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._started = clock()
        self._drawn: float | None = None
        self._closed = False
        self._note = ""

    def __iter__(self) -> Iterator[T]:
        """Yield the items, one step each; the line is closed however the loop ends."""
        if self._iterable is None:
            raise TypeError("progress() without an iterable is a context: with progress(total=...) as bar")
        with self:
            for item in self._iterable:
                yield item
                self.advance()

    def __enter__(self) -> Self:
        self._started, self._closed = self._clock(), False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def advance(self, n: int = 1) -> None:
        """Count `n` more units as done."""
        self.done += n
        self._draw()

    def note(self, text: str) -> None:
        """Put `text` at the end of the line: `loss 3.21 · 5.2k tokens/s`."""
        self._note = text
        self._draw()

    def close(self) -> None:
        """End the line, with the final count and the time it took, if it ever appeared; nothing is drawn after."""
        self._closed = True
        if self._drawn is not None:
            self._write(self.line(final=True), end="\n")
            self._drawn = None

    def line(self, final: bool = False) -> str:
        """Return the line as it would be drawn now."""
        elapsed = max(self._clock() - self._started, 1e-9)
        rate = (self.done - self._before) / elapsed
        count = quantity(self.done) if self.total is None else f"{quantity(self.done)}/{quantity(self.total)}"
        parts = [f"{count} {self.unit}"]
        if self.total:
            parts.append(f"{min(self.done / self.total, 1):.0%}")
        if rate > 0:
            slow = rate < 1
            parts.append(f"{1 / rate:.1f} s/{self.unit}" if slow else f"{quantity(rate)} {self.unit}/s")
        if final:
            parts.append(duration(elapsed))
        elif self.total and rate > 0:
            parts.append(f"{duration((self.total - self.done) / rate)} left")
        if self._note:
            parts.append(self._note)
        return (f"{self.label}: " if self.label else "") + " · ".join(parts)

    def _draw(self) -> None:
        now = self._clock()
        if not self.enabled or self._closed or now - self._started < _APPEARS_AFTER:
            return
        if self._drawn is not None and now - self._drawn < (_REDRAW if self._terminal else _LINE_EVERY):
            return
        self._drawn = now
        self._write(self.line(), end="" if self._terminal else "\n")

    def _write(self, line: str, end: str) -> None:
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            line = "\r\x1b[2K" + visible(line)[:width]  # back to the first column, erase, write
        self._stream.write(line + end)
        self._stream.flush()


class Waiting(Progress[None]):
    """The line of work that does not tell how far it is: what it is, and how long it has taken."""

    def __init__(
        self,
        label: str,
        *,
        enabled: bool | None = None,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(label=label, enabled=enabled, stream=stream, clock=clock)
        self._begun = False

    def show(self) -> None:
        """Draw the line; the first call begins the time."""
        if not self._begun:
            self._begun, self._started = True, self._clock()
        self._draw()

    def line(self, final: bool = False) -> str:
        """Return the line as it would be drawn now."""
        return f"{self.label}: {duration(self._clock() - self._started)}"


def progress(
    iterable: Iterable[T] | None = None,
    *,
    total: int | None = None,
    label: str = "",
    unit: str = "it",
    enabled: bool | None = None,
    done: int = 0,
) -> Progress[T]:
    """Show how far a loop is, on stderr, once it has taken two seconds.

    `for item in progress(items, label="tokens")`, or `with progress(total=n) as bar: bar.advance(k)`.
    On a terminal one line is redrawn; elsewhere at most one line per ten seconds is written.
    `done` counts units finished before (a resumed run) without counting them as speed.
    GPT2LAB_QUIET=1 silences it unless `enabled` says otherwise.
    """
    return Progress(iterable, total=total, label=label, unit=unit, enabled=enabled, done=done)
