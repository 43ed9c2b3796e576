"""metrics.jsonl: a row of JSON for every call of `Run.log`, appended; read in pieces and cut at its end, at any size."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from gpt2lab.lab.plain import NOT_FINITE

_PIECE = 1 << 20  # bytes of rows that are parsed at a time
_BLOCK = 1 << 14  # bytes that are read at a time from the end

Row = dict[str, float]


def metric_rows(path: Path) -> Iterator[Row]:
    """Yield the rows; one that a crash cut off is left out. No more than a piece of the file is held."""
    for row in _rows(path, b""):
        yield {key: NOT_FINITE.get(value, value) for key, value in row.items()}


def metric_points(path: Path, name: str) -> Iterator[tuple[float, float]]:
    """Yield step and value of the rows that have `name`."""
    for row in _rows(path, f"{json.dumps(name, ensure_ascii=False)}:".encode()):
        if name in row:
            yield row["step"], NOT_FINITE.get(row[name], row[name])


def _rows(path: Path, needle: bytes) -> Iterator[dict[str, Any]]:
    """Yield what the lines that hold `needle` say."""
    if not path.exists():
        return
    with path.open("rb") as file:
        while lines := file.readlines(_PIECE):
            lines = [line for line in lines if needle in line]
            try:
                rows = json.loads(b"[" + b",".join(lines) + b"]")  # faster than line by line
            except ValueError:
                rows = map(_parsed, lines)
            for row in rows:
                if isinstance(row, dict) and "step" in row:
                    yield row


def cut_metrics(path: Path, step: float) -> float:
    """Cut off the rows of `step` and later from the end, and torn ones; return the seconds of the last that is left.

    Only the end is cut: a run may log several trainings one after the other, each from step 0. Only the end is read.
    """
    with path.open("r+b") as file:
        end, kept = file.seek(0, os.SEEK_END), b""
        for start, line in _from_the_end(file):
            row = _parsed(line)
            if isinstance(row, dict) and row.get("step", step) < step:
                kept = line
                break
            end = start
        file.truncate(end)
        if kept and not kept.endswith(b"\n"):
            file.seek(end)
            file.write(b"\n")
    return float(_parsed(kept).get("seconds", 0.0)) if kept else 0.0


def _parsed(line: bytes) -> Any:
    """Return what a line holds; None if a crash cut it off."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def _from_the_end(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file from the last to the first, each with its place."""
    place, rest = file.seek(0, os.SEEK_END), b""
    while place:
        size = min(_BLOCK, place)
        place -= size
        file.seek(place)
        lines = (file.read(size) + rest).splitlines(keepends=True)
        rest = lines.pop(0)  # it may begin before this block
        at = place + len(rest) + sum(map(len, lines))
        for line in reversed(lines):
            at -= len(line)
            yield at, line
    if rest:
        yield 0, rest
