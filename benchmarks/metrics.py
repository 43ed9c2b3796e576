"""A run with a million logged rows: what its report and the first row after a resume cost.

    python benchmarks/metrics.py [ROWS]

It prints the size of metrics.jsonl, the processor time of the report, how much memory the report took at its highest beyond
what the imports took, and the time of the first `Run.log` after the run was reopened.
"""

import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from gpt2lab.plots.figures import line_chart
from gpt2lab.runs.report.write import write_report
from gpt2lab.runs.run import Run
from gpt2lab.runs.store import Store


def write_rows(path: Path, count: int) -> None:
    """Write rows as training logs them, with a validation every thousand."""
    draw = random.Random(0)
    with path.open("w") as file:
        for step in range(1, count + 1):
            row = {"step": step, "seconds": step / 100, "loss": draw.random(), "learning_rate": 1e-3}
            row |= {"gradient_norm": draw.random(), "tokens_per_second": 12345.678, "mfu": 0.1234567}
            row |= {"validation_loss": draw.random()} if step % 1000 == 0 else {}
            file.write(json.dumps(row) + "\n")


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as home:
        with Run.start("train", "long", home=home, settings={}) as run:
            run.log(1, loss=1.0)
        path = run.folder / "metrics.jsonl"
        write_rows(path, count)
        line_chart({"a": ([1], [1])}, x_label="", y_label="")  # imports matplotlib
        before, began = _peak(), time.process_time()
        write_report("long", home=home)
        seconds = time.process_time() - began
        print(f"{count:,} rows, {path.stat().st_size / 1e6:.0f} MB")
        print(f"report: {seconds:.1f} s of processor time, {_peak() - before:.0f} MB more memory")
        Store(home).update(run.id, status="interrupted")
        with Run.reopen(Store(home).find("long"), home) as again:
            began = time.perf_counter()
            again.log(count - 10, loss=1.0)
            print(f"first row after a resume: {1000 * (time.perf_counter() - began):.1f} ms")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
