"""Results and settings of several runs beside each other."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt2lab.base.json_numbers import flat
from gpt2lab.base.settings import show
from gpt2lab.base.wording import count, listed
from gpt2lab.runs.kinds import WORDS, by_kind
from gpt2lab.runs.report.document import Block, DataTable, Prose
from gpt2lab.runs.run_record import RunRecord, record
from gpt2lab.runs.store import Row
from gpt2lab.runs.verdicts import Kind


def comparison_rows(rows: Sequence[Row], home: Path | str | None = None) -> dict[str, list[dict[str, Any]]]:
    """Return what a comparison shows: {"results": rows, "settings": rows that differ}, a column for each run."""
    runs = [record(row, home) for row in rows]
    results = {run.id: _numbers(run) for run in runs}
    settings = {
        run.id: flat(run.json("settings.json").get("settings") or run.json("settings.json")) for run in runs
    }
    return {"results": side_by_side(results), "settings": side_by_side(settings, only_different=True)}


def verdict_rows(rows: Sequence[Row], home: Path | str | None = None) -> dict[Kind, list[dict[str, Any]]]:
    """Return what each study of one paper said, a row for each claim or check and a column for each run, by kind.

    {} unless all are studies of the same paper: letters of two papers have nothing in common.
    """
    papers = {row.paper for row in rows if row.kind == "study"}
    if len(papers) != 1 or None in papers or any(row.kind != "study" for row in rows):
        return {}
    said = {row.id: by_kind(record(row, home).verdicts) for row in rows}
    found: dict[Kind, list[dict[str, Any]]] = {}
    for kind in WORDS:
        by_run = {
            run: {
                f"{one.claim.name}. {one.claim.sentence}": str(one.verdict.status)
                for one in kinds.get(kind, ())
            }
            for run, kinds in said.items()
        }
        if lines := side_by_side(by_run):
            found[kind] = lines
    return found


def shared(lines: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], dict[str, list[str]]]:
    """Return the settings that several runs have, and by run the names of those that it alone has.

    lines: the settings of `comparison_rows`, an empty text where a run lacks one.
    """
    several: list[Mapping[str, Any]] = []
    alone: dict[str, list[str]] = {}
    for line in lines:
        having = [run for run, cell in line.items() if run != "name" and cell != ""]
        if len(having) == 1:
            alone.setdefault(having[0], []).append(line["name"])
        else:
            several.append(line)
    return several, alone


def apart(settings: Sequence[Mapping[str, Any]]) -> list[Block]:
    """Return the settings that differ as a table; of those that one run alone has, the names."""
    both, alone = shared(settings)
    differing = [
        Prose(
            f"{count(len(names), 'setting')} that only `{run}` has: {listed([f'`{name}`' for name in names])}."
        )
        for run, names in alone.items()
    ]
    return [*([DataTable("", both)] if both else []), *differing] or [
        Prose("The runs have the same settings.")
    ]


def side_by_side(
    columns: Mapping[str, Mapping[str, Any]], *, only_different: bool = False, name: str = ""
) -> list[dict[str, Any]]:
    """Return a row for every name, a column for every run."""
    names = list(dict.fromkeys(key for values in columns.values() for key in values))
    rows = []
    for key in names:
        cells = {column: values.get(key) for column, values in columns.items()}
        if only_different and len({repr(cell) for cell in cells.values()}) == 1:
            continue
        there = {
            column: (show(cell) or "–") if key in columns[column] else "" for column, cell in cells.items()
        }
        shown = there if only_different else cells
        rows.append({name or "name": key, **shown})
    return rows


def _numbers(run: RunRecord) -> dict[str, Any]:
    """Return a run's results, else the last value of everything it logged."""
    return dict(run.results) if run.results else run.last_numbers()
