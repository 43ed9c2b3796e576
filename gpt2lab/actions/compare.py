"""The verb `compare`, of runs: results and differing settings side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpt2lab.runs.store import Store


def compare(names: Sequence[str], *, out: Path | str | None = None) -> dict[str, Any]:
    """Put runs side by side: {"results": rows, "settings": rows that differ, "verdicts": ..., "html": path of the report}.

    verdicts: of studies of one paper, rows by kind, `claim` and the kinds of checks; {} of other runs.
    LabError if there are fewer than two runs, or one of them does not exist.
    """
    from gpt2lab.runs.report.side_by_side import comparison_rows, verdict_rows
    from gpt2lab.runs.report.write import write_comparison

    html = write_comparison(names, out=out)
    rows = list({row.id: row for row in map(Store().find, names)}.values())
    return {**comparison_rows(rows), "verdicts": verdict_rows(rows), "html": html}
