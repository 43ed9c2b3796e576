"""A run as it lies on the disk: what a study's summary and a report read."""

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2lab.base import json_files
from gpt2lab.base.errors import LabError
from gpt2lab.base.json_files import read_text
from gpt2lab.base.tables import columns_of
from gpt2lab.runs.head import Head, read_head
from gpt2lab.runs.home import is_name
from gpt2lab.runs.metrics import metric_points, metric_rows
from gpt2lab.runs.provenance import Provenance, read_provenance
from gpt2lab.runs.store import Row
from gpt2lab.runs.trial import Splits, Trial, read_splits, read_trial
from gpt2lab.runs.verdicts import JudgedClaim, read_judgements

if TYPE_CHECKING:
    from gpt2lab.measures.arrays import Array

_NUMBER = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?|inf)|nan", re.ASCII)
"""A number as Python writes it; 007, 1_000, +5 and Infinity are texts: tokens, labels, names."""

Cell = str | float
Table = list[dict[str, Cell]]


@dataclass(frozen=True)
class RunRecord:
    """One run, read-only. Files are read when they are asked for."""

    id: str
    """The run's id."""
    folder: Path
    """The run's folder."""
    results: dict[str, float]
    """Numbers by dotted name."""
    seed: int | None = None
    """The seed."""
    arm: str | None = None
    """The arm, if the run is one."""
    status: str = "finished"
    """As in the store."""
    message: str = ""
    """Why it failed or stopped."""
    seconds: float | None = None
    """How long it took."""
    arms: Mapping[str, "RunRecord"] = field(default_factory=dict)
    """The arms of a seed, by name."""

    @cached_property
    def tables(self) -> dict[str, Table]:
        """Every table by name, in the order in which they were made."""
        return {name: read_table(self.folder / "tables" / f"{name}.csv") for name in self.captions("tables")}

    @cached_property
    def texts(self) -> dict[str, str]:
        """Every text by name."""
        return {name: read_text(self.folder / "texts" / f"{name}.txt") for name in self.captions("texts")}

    @cached_property
    def figures(self) -> dict[str, Path]:
        """The file of every figure by name."""
        return {name: self.folder / "figures" / f"{name}.svg" for name in self.captions("figures")}

    @cached_property
    def arrays(self) -> "dict[str, Array]":
        """Every array by name, read-only and read from the disk as it is used."""
        from gpt2lab.measures.arrays import read_npy

        return {name: read_npy(self.folder / "arrays" / f"{name}.npy") for name in self.captions("arrays")}

    @cached_property
    def files(self) -> dict[str, Path]:
        """Every other file that was reported, by its name."""
        return {name: self.folder / "files" / name for name in self.captions("files")}

    @property
    def head(self) -> Head:
        """What a study's experiment said of it to be shown first; empty of any other run."""
        return read_head(self.folder)

    @cached_property
    def judgements(self) -> list[JudgedClaim]:
        """All that was ever said of the claims of a study; [] of any other run."""
        return read_judgements(self.folder)

    @property
    def verdicts(self) -> list[JudgedClaim]:
        """The claims of a study with the verdicts that stand."""
        return [one for one in self.judgements if not one.superseded]

    @property
    def earlier_verdicts(self) -> list[JudgedClaim]:
        """The verdicts that another took the place of: of fewer seeds, of a rule of before, of a claim that is gone."""
        return [one for one in self.judgements if one.superseded]

    @cached_property
    def trial(self) -> Trial | None:
        """What a study fixed before its first unit ran; None of any other run."""
        return read_trial(self.folder)

    @cached_property
    def splits(self) -> Splits:
        """Which splits of the data it has chosen on and judged on."""
        return read_splits(self.folder)

    @cached_property
    def provenance(self) -> Provenance:
        """The processes that computed it, and the data that they read."""
        return read_provenance(self.folder)

    def captions(self, what: str) -> dict[str, str]:
        """Return the captions of the run's `tables`, `figures`, `texts`, `arrays` or `files` by name, in order."""
        path = self.folder / "captions.json"
        found = read_json(path).get(what, {}) if path.exists() else {}
        if not isinstance(found, dict) or not all(
            isinstance(caption, str) and is_name(name) for name, caption in found.items()
        ):
            raise LabError(f"{path}: {what} must be a caption for each name")
        return found

    @property
    def metrics(self) -> list[dict[str, float]]:
        """What was logged, a dict for every call of `Run.log` with `step`, `seconds` and the numbers; all of it at once."""
        return read_metrics(self.folder / "metrics.jsonl")

    def series(self, name: str) -> tuple[list[float], list[float]]:
        """Return the steps at which `name` was logged, and its values there."""
        points = [*metric_points(self.folder / "metrics.jsonl", name)]
        return [step for step, _ in points], [value for _, value in points]

    def last_numbers(self) -> dict[str, float]:
        """Return the last value of everything that was logged."""
        last: dict[str, float] = {}
        for row in metric_rows(self.folder / "metrics.jsonl"):
            last |= row
        return {name: value for name, value in last.items() if name not in ("step", "seconds")}

    def json(self, name: str) -> dict[str, Any]:
        """Return the content of `settings.json`, `environment.json` and the like; {} if it is missing."""
        path = self.folder / name
        return read_json(path) if path.exists() else {}


def record(
    row: Row, home: Path | str | None = None, arms: Mapping[str, RunRecord] | None = None
) -> RunRecord:
    """Return the record of a run in the store."""
    return RunRecord(
        id=row.id,
        folder=row.folder(home),
        results=dict(row.numbers),
        seed=row.seed,
        arm=row.arm,
        status=row.status,
        message=row.message,
        seconds=row.seconds,
        arms=arms or {},
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; LabError if the file is damaged."""
    content = json_files.read_json(path)
    if not isinstance(content, dict):
        raise LabError(f"{path}: must hold a JSON object")
    return content


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Read metrics.jsonl; a row that was cut off by a crash is left out."""
    return list(metric_rows(path))


def read_table(path: Path) -> Table:
    """Read a table; cells that are numbers become numbers. LabError for a damaged file."""
    try:
        header, *rows = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
        return [{name: _cell(text) for name, text in zip(header, row, strict=True)} for row in rows]
    except (csv.Error, ValueError) as error:
        raise error if isinstance(error, LabError) else LabError(f"{path}: damaged ({error})") from None


def write_table(rows: list[Mapping[str, object]]) -> str:
    """Return rows as CSV; columns in order of their first appearance, a missing cell empty."""
    columns = columns_of(rows)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _cell(text: str) -> Cell:
    return float(text) if _NUMBER.fullmatch(text) else text
