"""Ctrl-C is heard while a library computes without Python."""

import signal
import threading
import time

import pytest

from gpt2lab.base.interruptible import interruptible


def test_what_is_read_and_raised_passes_through() -> None:
    seen: list[int] = []
    interruptible(seen.extend, iter(range(5)))
    assert seen == [0, 1, 2, 3, 4]

    def refuse(items: object) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        interruptible(refuse, [1])


def test_ctrl_c_is_raised_within_a_second_and_nothing_more_is_read() -> None:
    read: list[int] = []

    def slow(items: object) -> None:
        for item in items:  # type: ignore[attr-defined]  # any iterable
            read.append(item)
            time.sleep(0.3)  # as a library that lets go of Python

    timer = threading.Timer(0.5, lambda: signal.raise_signal(signal.SIGINT))
    began = time.monotonic()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        interruptible(slow, range(1000))
    assert time.monotonic() - began < 2
    time.sleep(0.7)
    count = len(read)
    time.sleep(0.7)
    assert len(read) == count < 10


def test_what_follows_the_last_item_is_told() -> None:
    told: list[int] = []

    def work(items: object) -> None:
        list(items)  # type: ignore[call-overload]  # any iterable
        time.sleep(0.5)

    interruptible(work, range(3), afterwards=lambda: told.append(1))
    assert 1 <= len(told) <= 5
