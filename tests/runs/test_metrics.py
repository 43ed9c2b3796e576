"""metrics.jsonl: rows appended, read in pieces, cut at the end."""

import json
import math
import tracemalloc
from pathlib import Path

import pytest

from gpt2lab.runs import metrics
from gpt2lab.runs.metrics import cut_metrics, metric_points, metric_rows
from gpt2lab.runs.report import curves


def written(folder: Path, *lines: str) -> Path:
    path = folder / "metrics.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    return path


def row(step: int, **numbers: object) -> str:
    return json.dumps({"step": step, "seconds": step / 10, **numbers}) + "\n"


def test_rows_are_read_whatever_a_crash_has_torn(tmp_path: Path) -> None:
    path = written(
        tmp_path, row(1, loss=2.0), '{"step": 2, "lo', row(3, loss=1.0), "\n", row(4, loss="nan"), '{"st'
    )
    assert [found["step"] for found in metric_rows(path)] == [1, 4]
    assert [step for step, _ in metric_points(path, "loss")] == [1, 4]
    assert math.isnan([*metric_points(path, "loss")][-1][1])
    assert [*metric_rows(tmp_path / "none.jsonl")] == []


@pytest.mark.parametrize("step", ["null", '"a"', "[1]", "{}"])
def test_a_row_whose_step_is_no_number_is_torn(step: str, tmp_path: Path) -> None:
    odd = f'{{"step": {step}, "seconds": "q", "loss": 1.0}}\n'
    path = written(tmp_path, row(1, loss=2.0), odd, "[1]\n", '"x"\n')
    assert [found["step"] for found in metric_rows(path)] == [1]
    assert [step for step, _ in metric_points(path, "loss")] == [1]
    assert cut_metrics(path, 5, {"loss"}) == 0.1
    assert path.read_text(encoding="utf-8") == row(1, loss=2.0)


def test_seconds_that_are_no_number_are_none(tmp_path: Path) -> None:
    path = written(tmp_path, '{"step": 1, "seconds": "q", "loss": 1.0}\n')
    assert cut_metrics(path, 5, {"loss"}) == 0.0


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 14])
@pytest.mark.parametrize("step", [0, 1, 5, 9, 99])
def test_the_end_is_cut_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, step: int
) -> None:
    monkeypatch.setattr(metrics, "_BLOCK", block)
    rows = [row(i, loss=float(i), läßt="größe") for i in range(1, 8)]
    path = written(tmp_path, *rows, '{"step": 8, "lo')
    inode = path.stat().st_ino
    assert cut_metrics(path, step, {"loss"}) == max(0, min(step - 1, 7)) / 10
    assert path.read_text(encoding="utf-8") == "".join(rows[: max(0, step - 1)])
    assert path.stat().st_ino == inode


def test_a_last_row_without_its_line_break_is_kept_and_gets_one(tmp_path: Path) -> None:
    path = written(tmp_path, row(1, loss=1.0), row(2, loss=2.0).rstrip("\n"))
    assert cut_metrics(path, 3, {"loss"}) == 0.2
    assert path.read_text() == row(1, loss=1.0) + row(2, loss=2.0)


def test_only_the_end_is_cut_where_steps_begin_again(tmp_path: Path) -> None:
    path = written(tmp_path, *(row(i) for i in (1, 2, 3, 4, 1, 2, 3)))
    cut_metrics(path, 3, set())
    assert [found["step"] for found in metric_rows(path)] == [1, 2, 3, 4, 1, 2]


def test_rows_of_other_trainings_stay(tmp_path: Path) -> None:
    a, b = ([row(i, **{name: float(i)}) for i in range(1, 5)] for name in ("a.loss", "b.loss"))
    path = written(tmp_path, *a, *b, '{"st')
    cut_metrics(path, 1, {"b.loss"})
    assert path.read_text() == "".join(a), "the first training had finished, the second begins again"
    path = written(tmp_path, *a, *b)
    cut_metrics(path, 1, {"a.loss"})
    assert path.read_text() == "".join(b), "the first training begins again, then the second"
    both = [line for pair in zip(a, b, strict=True) for line in pair]
    path = written(tmp_path, *both)
    cut_metrics(path, 3, {"a.loss"})
    assert path.read_text() == "".join([*both[:4], b[2], b[3]])
    cut_metrics(path, 3, {"b.loss"})
    assert path.read_text() == "".join(both[:4])


def test_reading_holds_a_piece_and_cutting_reads_the_end_alone(tmp_path: Path) -> None:
    path = written(tmp_path, *(row(i, loss=1.0, gradient_norm=2.0) for i in range(100_000)))
    tracemalloc.start()
    assert sum(1 for _ in metric_rows(path)) == 100_000
    cut_metrics(path, 99_990, {"loss"})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 6e6
    assert peak < 16e6


def test_of_a_long_curve_the_extremes_are_drawn() -> None:
    values = [0.0] * 100_000
    values[12_345], values[70_001] = 9.0, -9.0
    places = curves._extremes((list(range(100_000)), values))
    assert len(places) <= 2002
    assert {0, 12_345, 70_001, 99_999} <= set(places)
    assert curves._extremes(([1, 2], [3, 4])) == [0, 1]
