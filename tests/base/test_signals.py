"""A process that is asked to end is stopped as Ctrl-C stops it."""

import os
import signal
import threading

import pytest

from gpt2lab.base.signals import ENDING, end_as_ctrl_c, on_end


@pytest.mark.parametrize("number", ENDING)
def test_every_ending_signal_is_as_ctrl_c_and_what_was_before_is_put_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), end_as_ctrl_c():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with end_as_ctrl_c():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_innermost_block_decides() -> None:
    heard: list[int] = []
    with end_as_ctrl_c():
        with on_end(lambda number, frame: heard.append(number)):
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert heard == [signal.SIGTERM]


def test_outside_of_the_main_thread_nothing_changes() -> None:
    seen: list[object] = []

    def look() -> None:
        with end_as_ctrl_c():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]
