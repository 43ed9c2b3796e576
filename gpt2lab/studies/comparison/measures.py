"""Every built measure on the same models: a table by model.

A measure with a `seed` is taken once a seed; any other gives the same numbers again and is taken at the first seed
only. A measure that needs what was not given, such as labelled data, or a model of another kind, is left out with
its reason.
"""

import math
from dataclasses import dataclass, fields
from statistics import fmean
from typing import TYPE_CHECKING, Any

from gpt2lab.actions.models import load, model_config, with_models
from gpt2lab.actions.record import result_names
from gpt2lab.base.errors import LabError
from gpt2lab.base.settings import build
from gpt2lab.base.wording import count, listed, number
from gpt2lab.studies.claim import Claim
from gpt2lab.studies.entries import Entry, chosen_entries, labels, report_left_out
from gpt2lab.studies.seed_figures import interval_columns, seed_dots
from gpt2lab.text import sources

if TYPE_CHECKING:
    from gpt2lab.measures.measurement import Measurement
    from gpt2lab.runs.run import Run
    from gpt2lab.studies.study import Study

CLAIMS: list[Claim] = []
_SHOWN = 12  # numbers of a measure that its table shows


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The models, the measures, and their data."""

    models: tuple[str, ...] = ()
    """Folders, hub ids or runs."""
    only: tuple[str, ...] = ()
    """Measures to compare, with options if needed, `perplexity limit=5000`; none: all that are built."""
    data: tuple[str, ...] = ()
    """Text of the measures that read any; labelled rows are given to a measure that `only` names."""
    first_seed: int = 0
    """Seed at which deterministic measures run."""


PRESETS: dict[str, Settings] = {
    "smoke": Settings(
        only=("perplexity limit=500", "text-statistics texts=4 prompt_tokens=8 new_tokens=8"),
        data=("docstrings:100000",),
    ),
    "laptop": Settings(data=("docstrings:300000",)),
    "gpu": Settings(data=("docstrings:3000000",)),
}


def arms(settings: Settings) -> list[str]:
    """Return the measures. LabError if there is no model to measure, or one is named twice."""
    if not settings.models:
        raise LabError("compare measures: name the models, such as `gpt2lab compare measures gpt2 train-1`")
    if len(set(settings.models)) < len(settings.models):
        raise LabError(f"compare measures: a model is named twice among {', '.join(settings.models)}")
    return [entry.arm for entry in chosen_entries("measure", settings.only)]


def check(settings: Settings) -> None:
    """LabError for a model or data that are not there."""
    for model in settings.models:
        model_config(model)
    sources.files(list(settings.data))


def run_arm(settings: Settings, arm: str, run: "Run") -> None:
    """Take one measure of every model; the results are MODEL.NUMBER, models counted from m1."""
    entry = next(one for one in chosen_entries("measure", settings.only) if one.arm == arm)
    left_out: list[dict[str, str]] = []
    units: dict[str, str] = {}
    for place, model in enumerate(settings.models, start=1):
        try:
            measured = _measure(entry, settings, model, run)
        except LabError as error:
            left_out.append({"model": model, "reason": str(error)})
            continue
        if measured is None:
            return
        units |= {name: measured.units.get(name, "") for name in measured.numbers}
        names = result_names(units)
        for name, value in measured.numbers.items():
            run.result(f"m{place}.{names[name]}", value)
    run.table("left_out", left_out)
    run.table(
        "numbers",
        [
            {"number": name, "result": known, "unit": units[name]}
            for name, known in result_names(units).items()
        ],
    )


def _measure(entry: Entry, settings: Settings, model: str, run: "Run") -> "Measurement | None":
    """Return what a measure says of a model; None if an earlier seed has said it."""
    cls = entry.load()
    own = {field.name: field.default for field in fields(cls)}
    if "seed" not in own and run.seed != settings.first_seed:
        return None
    options: dict[str, object] = dict(entry.options)
    takes_text = isinstance(own.get("data"), tuple) and own["data"]  # labelled rows have no default
    if settings.data and (takes_text or ("data" in own and settings.only)):
        options.setdefault("data", settings.data)
    if "seed" in own:
        options.setdefault("seed", run.seed)
    made = with_models(build(cls, options, f"measure {entry.name}"))
    measured: Measurement = made(load(model, device=run.device))
    return measured


def run(settings: Settings, run: "Run") -> None:
    """Put the measures of one seed together."""
    for arm, record in run.arms.items():
        for name, value in record.results.items():
            run.result(f"{arm}.{name}", value)


def summarise(settings: Settings, study: "Study") -> None:
    """Add a table by model with the first number of every measure, one table a measure, and a figure of each."""
    entries = chosen_entries("measure", settings.only)
    names = labels(entries)
    headline: list[dict[str, Any]] = [{"model": model} for model in settings.models]
    for entry in entries:
        numbers = _numbers(study, entry.arm)
        for row, place in zip(headline, range(1, len(headline) + 1), strict=True):
            for first in numbers[:1]:
                values = study.values(f"{entry.arm}.m{place}.{first['result']}")
                row[_column(names[entry.arm], first)] = fmean(values) if values else None
    study.table("measures", headline, "The first number of every measure, mean over seeds")
    drawn: set[str] = set()
    for entry in entries:
        numbers = _numbers(study, entry.arm)
        if not numbers:
            continue
        rows = [_row(study, entry.arm, place, model, numbers) for place, model in _places(settings)]
        study.table(entry.arm, rows, names[entry.arm])
        points = {
            model: study.values(f"{entry.arm}.m{place}.{numbers[0]['result']}")
            for place, model in _places(settings)
        }
        finite = {
            model: values for model, values in points.items() if values and all(map(math.isfinite, values))
        }
        if finite:
            drawn.add(entry.arm)
            study.figure(
                entry.arm,
                seed_dots(finite, label=_column(names[entry.arm], numbers[0])),
                f"{names[entry.arm]}, by model; a ring a seed, the line is the 95 % interval",
            )
    _head(settings, study, headline, next((entry.arm for entry in entries if entry.arm in drawn), ""))
    report_left_out(study, _left_out(study, names))


def _head(settings: Settings, study: "Study", headline: list[dict[str, Any]], figure: str) -> None:
    """Say what the first measure that has numbers gave for each model."""
    columns = [
        name for name in headline[0] if name != "model" and any(row[name] is not None for row in headline)
    ]
    first = columns[0] if columns else ""
    said = [f"{row['model']} {number(row[first])}" for row in headline] if first else []
    study.head(
        asked=f"What do {count(len(headline[0]) - 1, 'measure')} say of {listed(settings.models)}?",
        found=f"{first}: {listed(said)}." if first else "",
        means="A measure without a seed is taken once and has no interval: a small difference between two models may be one "
        "of these texts alone.",
        figure=figure,
    )


def _places(settings: Settings) -> list[tuple[int, str]]:
    return list(enumerate(settings.models, start=1))


def _numbers(study: "Study", arm: str) -> list[dict[str, Any]]:
    """Return name, result and unit of what a measure gave, in its order."""
    found = (run.arms[arm].tables.get("numbers", []) for run in study.runs)
    return list(next((rows for rows in found if rows), []))


def _row(study: "Study", arm: str, place: int, model: str, numbers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one model's line: the numbers, and intervals where seeds give them."""
    row: dict[str, Any] = {"model": model}
    for one in numbers[:_SHOWN]:
        values = study.values(f"{arm}.m{place}.{one['result']}")
        column = _column(str(one["number"]), one, named=False)
        row[column] = fmean(values) if values else None
        row |= interval_columns(column, values)
    return row


def _column(label: str, number: dict[str, Any], *, named: bool = True) -> str:
    """Return the name of a column: the measure or number, with the unit."""
    words = f"{label}: {number['number']}" if named and number["number"] != label else label
    return f"{words} ({number['unit']})" if number["unit"] else words


def _left_out(study: "Study", names: dict[str, str]) -> dict[str, str]:
    """Return what was not measured, and why: a line for a measure, or for one model."""
    found: dict[str, str] = {}
    for run in study.runs:
        for arm, label in names.items():
            rows = run.arms[arm].tables.get("left_out", [])
            reasons = {str(row["reason"]) for row in rows}
            if len(reasons) == 1 and not _numbers(study, arm):
                found[label] = reasons.pop()
            else:
                found |= {f"{label}, {row['model']}": str(row["reason"]) for row in rows}
    return found
