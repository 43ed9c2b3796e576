"""metrics.jsonl: a row of JSON for every call of `Run.log`, appended; read in pieces and cut at its end, at any size."""

import json
import os
from collections.abc import Iterator, Set
from pathlib import Path
from typing import IO, Any

from gpt2lab.base.json_numbers import NOT_FINITE

_PIECE = 1 << 20  # bytes of rows that are parsed at a time
_BLOCK = 1 << 14  # bytes that are read at a time from the end

Row = dict[str, float]


def metric_rows(path: Path) -> Iterator[Row]:
    """Yield the rows; one that a crash cut off, or that holds what is no number, is left out.

    No more than a piece of the file is held.
    """
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
            except (ValueError, RecursionError):
                rows = map(_parsed, lines)
            for row in rows:
                if _is_row(row) and all(map(_is_number, row.values())):
                    yield row


def _is_row(row: object) -> bool:
    """Whether a line held a row: values by name, among them the number of a step."""
    return isinstance(row, dict) and isinstance(row.get("step"), int | float)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and value in NOT_FINITE)


def cut_metrics(path: Path, step: float, names: Set[str]) -> float:
    """Cut off the rows of `step` and later of a training that logs these names; return the seconds of the last row left.

    Such rows stand behind the last one of an earlier step that has one of the names; nothing before it is read. Rows
    between them that share no name are another training's and stay; torn ones go.
    """
    with path.open("r+b") as file:
        others: list[tuple[int, int]] = []  # where rows of other trainings begin and end, the last first
        cut, behind = None, 0
        for start, line in _from_the_end(file):
            row = _parsed(line)
            if _is_row(row):
                if names and not names & row.keys():
                    stop = (
                        others.pop()[1]
                        if others and others[-1][0] == start + len(line)
                        else start + len(line)
                    )
                    others.append((start, stop))
                    continue
                if row["step"] < step:
                    break
            cut, behind = start, len(others)
        if cut is not None:
            # One write, then the end: a process that dies in between leaves rows that the next one cuts off.
            kept = b"".join(_read(file, *place) for place in reversed(others[:behind]))
            file.seek(cut)
            file.write(kept)
            file.truncate()
        _, last = next(_from_the_end(file), (0, b""))
        if last and not last.endswith(b"\n"):
            file.seek(0, os.SEEK_END)
            file.write(b"\n")
    row = _parsed(last)
    seconds = row.get("seconds") if _is_row(row) else None
    return float(seconds) if isinstance(seconds, int | float) else 0.0


def _read(file: IO[bytes], start: int, stop: int) -> bytes:
    file.seek(start)
    return file.read(stop - start)


def _parsed(line: bytes) -> Any:
    """Return what a line holds; None if a crash cut it off."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
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
