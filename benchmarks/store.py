"""The store with 10,000 runs: how long the verbs that read it take, beside one that reads nothing.

    python benchmarks/store.py [RUNS]

It makes the runs in a temporary folder, each with its folder; of every hundred one is a study with nine seeds. It prints
the median of five calls of each verb: the wall clock of a process of its own, and the processor time of the verb alone,
beyond the start of Python, which suffers less from other work on the machine.
"""

import contextlib
import dataclasses
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gpt2lab.base.json_numbers import encode
from gpt2lab.cli import main as gpt2lab
from gpt2lab.runs.database import insertion
from gpt2lab.runs.store import Row, Store

COMMANDS = (
    ("runs", "--limit", "1"),
    ("runs",),
    ("runs", "--pieces", "--limit", "0"),
    ("runs", "tide-77"),
    ("papers",),
    ("report", "tide-7777"),
    ("compare", "tide-1", "tide-7777"),
)
REPEATS = 5
WHOLE = Row(
    id="",
    name="tide",
    kind="train",
    status="finished",
    finished="2026-01-02T00:00:00+00:00",
    seconds=60.0,
    settings=encode({"data": ["docstrings"], "train": {"steps": 300}, "note": "x" * 1500}),
    results=encode({f"number_{i}": 1 / (i + 3) for i in range(12)}),
    command="gpt2lab train --data docstrings",
)


def make(home: Path, amount: int) -> None:
    """Write `amount` runs."""
    with Store(home).database.writing() as connection:
        for number in range(1, amount + 1):
            row = dataclasses.replace(row_of(number), created=f"2026-01-01T00:00:00.{number:06}+00:00")
            row.folder(home).mkdir(parents=True, exist_ok=True)
            (row.folder(home) / "settings.json").write_text(row.settings)
            connection.execute(insertion(), (*row.values, row.checksum))


def row_of(number: int) -> Row:
    """Return the run of a number: a study and its nine seeds, then trainings."""
    hundred, rest = divmod(number, 100)
    study = f"study-{hundred}"
    if hundred and rest == 0:
        return dataclasses.replace(WHOLE, id=study, name="study", kind="study", paper="tinystories")
    if hundred and rest < 10:
        seed = f"seed{rest}"
        return dataclasses.replace(WHOLE, id=f"{study}/{seed}", name=seed, kind="seed", parent=study)
    return dataclasses.replace(WHOLE, id=f"tide-{number}")


def wall(words: tuple[str, ...]) -> float:
    """Return the seconds of a command in a process of its own."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "gpt2lab", *words], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def cpu(words: tuple[str, ...]) -> float:
    """Return the processor seconds of a verb."""
    with contextlib.redirect_stdout(io.StringIO()):
        began = time.process_time()
        gpt2lab(list(words))
        return time.process_time() - began


def median(measure: Callable[[tuple[str, ...]], float], words: tuple[str, ...]) -> float:
    return statistics.median(measure(words) for _ in range(REPEATS))


def main() -> None:
    """Print the table."""
    amount = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GPT2LAB_HOME"] = folder
        make(Path(folder), amount)
        print(f"{amount:,} runs, store of {(Path(folder) / 'store.sqlite').stat().st_size / 1e6:.1f} MB")
        print("wall s  cpu s  gpt2lab")
        for words in COMMANDS:
            print(f"{median(wall, words):6.2f} {median(cpu, words):6.3f}  {' '.join(words)}")


if __name__ == "__main__":
    main()
