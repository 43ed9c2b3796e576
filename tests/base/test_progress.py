"""The progress line: silent when short, one line per ten seconds in a log, exact about rate and time left."""

import io

import pytest

from gpt2lab.base.progress import Progress, Waiting, duration, progress, quantity


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _run(stream: io.StringIO, steps: int, seconds: float, **options: object) -> str:
    clock = Clock()
    bar: Progress[None] = Progress(
        total=steps, label="train", unit="step", stream=stream, clock=clock, enabled=True, **options
    )
    with bar:
        for _ in range(steps):
            clock.now += seconds
            bar.advance()
    return stream.getvalue()


def test_nothing_is_shown_for_work_under_two_seconds() -> None:
    assert _run(io.StringIO(), 10, 0.1) == ""


def test_a_log_gets_at_most_one_line_per_ten_seconds() -> None:
    lines = _run(io.StringIO(), 240, 0.125).splitlines()
    assert lines[0] == "train: 16/240 step · 7% · 8 step/s · 28s left"
    assert lines[-1] == "train: 240/240 step · 100% · 8 step/s · 30s"
    assert len(lines) == 4  # at 2, 12 and 22 s, and the end


def test_a_terminal_line_is_redrawn_in_place_and_closed_once() -> None:
    text = _run(Terminal(), 60, 0.1)
    assert text.count("\n") == 1 and text.count("\r") > 20


def test_units_done_before_do_not_count_as_speed() -> None:
    clock = Clock()
    bar: Progress[None] = Progress(
        total=100, done=90, unit="step", stream=io.StringIO(), clock=clock, enabled=True
    )
    clock.now += 5
    bar.advance(5)
    assert bar.line() == "95/100 step · 95% · 1 step/s · 5s left"


def test_slow_work_is_shown_as_seconds_per_unit_and_the_note_comes_last() -> None:
    clock = Clock()
    bar: Progress[None] = Progress(unit="seed", stream=io.StringIO(), clock=clock, enabled=True)
    clock.now += 8
    bar.advance(2)
    bar.note("loss 1.5")
    assert bar.line() == "2 seed · 4.0 s/seed · loss 1.5"


def test_nothing_is_drawn_after_the_end() -> None:
    stream, clock = io.StringIO(), Clock()
    bar: Progress[None] = Progress(total=9, stream=stream, clock=clock, enabled=True)
    with bar:
        clock.now += 3
        bar.advance()
    said = stream.getvalue()
    clock.now += 30
    bar.advance()  # by a thread that has not heard of it
    assert stream.getvalue() == said != ""


def test_work_that_does_not_tell_how_far_it_is_shows_its_time_from_the_first_call() -> None:
    stream, clock = io.StringIO(), Clock()
    with Waiting("merging", stream=stream, clock=clock, enabled=True) as bar:
        clock.now += 60
        for _ in range(130):
            bar.show()
            clock.now += 0.125
    assert stream.getvalue().splitlines() == ["merging: 2s", "merging: 12s", "merging: 16s"]


def test_iterating_yields_every_item_and_takes_the_length_as_total() -> None:
    bar = progress([3, 1, 2])
    assert list(bar) == [3, 1, 2] and bar.total == 3 and bar.done == 3


def test_a_bar_without_iterable_is_a_context_only() -> None:
    with pytest.raises(TypeError, match="is a context"):
        iter(progress(total=3)).__next__()


def test_the_environment_silences_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPT2LAB_QUIET", "1")
    assert not progress().enabled and progress(enabled=True).enabled
    monkeypatch.setenv("GPT2LAB_QUIET", "0")
    assert progress().enabled


@pytest.mark.parametrize(("seconds", "text"), [(4.4, "4s"), (65, "1m05s"), (7620, "2h07m")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(7.34, "7.3"), (850, "850"), (9999, "9999"), (12400, "12.4k"), (3.1e6, "3.1M"), (2e9, "2.0G")],
)
def test_quantities(number: float, text: str) -> None:
    assert quantity(number) == text
