"""The section of a report on a model's lineage: training and every transform, with what was measured after each."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gpt2lab.base import wording
from gpt2lab.base.errors import LabError
from gpt2lab.base.json_numbers import flat
from gpt2lab.base.progress import duration
from gpt2lab.base.registry import part
from gpt2lab.base.settings import options, show
from gpt2lab.runs.lineage import lineage, settings_of
from gpt2lab.runs.report.document import DataTable, Passage, Prose, Section
from gpt2lab.runs.run_record import record
from gpt2lab.runs.store import Row, Store

_MADE_A_MODEL = ("train", "apply")
_NUMBERS = 16  # of one measure; its own report has them all
_TRAINING = ("data", "family", "optimizer", "train.steps", "train.learning_rate")
_RESULTS = ("parameters", "parameters.total", "validation_loss", "perplexity", "masked_perplexity")


def lineage_sections(row: Row, store: Store) -> list[Section]:
    """Return the sections of a run whose model has gone through several; [] for a run without a predecessor."""
    steps = lineage(row, store)
    if len(steps) < 2:
        return []
    models = [step for step in steps if step.kind in _MADE_A_MODEL]
    blocks: list[Any] = [
        Prose("The runs that led here: " + ", then ".join(f"`{step.id}`" for step in steps) + "."),
        DataTable("", [_step(step) for step in steps]),
    ]
    blocks += _measured(models, store)
    blocks += _written(models, store)
    return [Section("Lineage", blocks)]


def _step(row: Row) -> dict[str, Any]:
    """Return one line: what the run did, and the numbers that say how the model was after it."""
    results = row.numbers
    shown = [f"{name} {wording.number(results[name])}" for name in _RESULTS if name in results]
    return {
        "run": row.id,
        "step": f"{row.kind} {row.name}" if row.kind in ("apply", "measure") else row.kind,
        "how": ", ".join(f"{name} {show(value)}" for name, value in _chosen(row).items()),
        "results": ", ".join(shown),
        "took": duration(row.seconds) if row.seconds is not None else "",
    }


def _chosen(row: Row) -> Mapping[str, Any]:
    """Return what a reader wants to know of a run's settings: of training the essentials, else what is no default."""
    settings = settings_of(row)
    if row.kind == "train":
        plain = flat(settings)
        return {name: plain[name] for name in _TRAINING if name in plain}
    if row.kind == "generate":
        return {"decoder": settings["decoder"], **settings.get("options", {})}
    given = flat(settings.get("options", {}))
    with contextlib.suppress(LabError):  # a part that is not installed any more
        usual = {option.name: option.default for option in options(part(_kind(row), row.name))}
        given = {name: value for name, value in given.items() if show(usual.get(name)) != show(value)}
    return given


def _kind(row: Row) -> str:
    return "transform" if row.kind == "apply" else "measure"


def _measured(models: Sequence[Row], store: Store) -> Iterator[DataTable]:
    """Yield a table for every measure of several models, a column for each; of equal options the newest run counts."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for run in _runs_on(models, store, "measure"):
        how = ", ".join(f"{name} {show(value)}" for name, value in _chosen(run).items())
        found.setdefault((run.name, how), {}).setdefault(run.origin or "", run)
    for (name, how), runs in reversed(found.items()):  # in the order in which they were first measured
        if len(runs) < 2:
            continue
        numbers = list(dict.fromkeys(number for run in runs.values() for number in run.numbers))
        lines = []
        for number in numbers[:_NUMBERS]:
            values = {model.id: runs[model.id].numbers.get(number) for model in models if model.id in runs}
            lines.append(_line(number, models, values))
        more = len(numbers) - len(lines)
        left = f"; {more} more numbers in its own reports" if more else ""
        yield DataTable(f"{name} on the way{f' ({how})' if how else ''}{left}", lines)


def _line(number: str, models: Sequence[Row], values: Mapping[str, float | None]) -> dict[str, Any]:
    known = [value for value in values.values() if value is not None]
    line: dict[str, Any] = {"number": number, **{model.id: values.get(model.id) for model in models}}
    line["change"] = known[-1] - known[0] if len(known) > 1 else None
    return line


def _written(models: Sequence[Row], store: Store) -> Iterator[Passage]:
    """Yield the newest texts of every model, in the order of the lineage."""
    runs = _runs_on(models, store, "generate")
    for model in models:
        own = next((run for run in runs if run.origin == model.id), None)
        if own is None:
            continue
        texts = record(own, store.home).texts
        if texts.get("texts"):  # none was asked for: an empty list of prompts
            yield Passage(f"{model.id} writes, by {settings_of(own)['decoder']} ({own.id})", texts["texts"])


def _runs_on(models: Sequence[Row], store: Store, kind: str) -> list[Row]:
    """Return the finished runs of a kind that worked on one of the models, newest first."""
    return store.rows(kind=kind, status="finished", origins=[model.id for model in models])
