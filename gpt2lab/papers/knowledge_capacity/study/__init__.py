"""How many bits a model stores, and what that depends on: facts of known information, losses on exactly their tokens.

A curve is one setting (shape, source of facts, exposures) at several numbers of people; its peak is the bits for each
parameter at the number that was best on the tuning seed. Every model makes the same number of trials of learning rates, on
people that are not judged; then it is trained once more in every seed, on people of that seed, and asked for exactly those.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from gpt2lab.papers.knowledge_capacity.bits import available
from gpt2lab.papers.knowledge_capacity.study import pictures
from gpt2lab.papers.knowledge_capacity.study.claims import CLAIMS
from gpt2lab.papers.knowledge_capacity.study.settings import (
    JUNK,
    PRESETS,
    Cell,
    Settings,
    cells,
    curves,
)
from gpt2lab.papers.knowledge_capacity.study.training import ROUNDINGS, fit, measured, rounded
from gpt2lab.studies.graph import UnitSpec
from gpt2lab.studies.sweep import best_on_grid
from gpt2lab.training.loop import NotFinite

__all__ = [
    "CLAIMS",
    "PRESETS",
    "Cell",
    "Settings",
    "cells",
    "curves",
    "run",
    "summarise",
    "train_cell",
    "tune",
    "units",
]

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run
    from gpt2lab.studies.study import Study

TUNING, JUDGED = "people of the tuning seed", "people of each seed"
_FURTHER = 1
"""Learning rates that are tried beyond the grid."""
_KEPT = (
    *("bits_per_parameter", "bits_per_parameter_max", "bits", "bits_max", "names_bits", "values_bits"),
    *(
        "name_loss",
        "value_loss",
        "parameters",
        "bits_per_parameter_of_all",
        "exact",
        "people_by_likeliest_values",
    ),
)
"""Numbers of the measure that are results."""


def units(settings: Settings) -> list[UnitSpec]:
    """Return the tuning of every model, once for all seeds, and its training in each seed."""
    made = cells(settings)
    return [
        *(UnitSpec(_tuning(cell), partial(_with, cell, tune), tuning=True) for cell in made),
        *(UnitSpec(cell.name, partial(_with, cell, train_cell), needs=(_tuning(cell),)) for cell in made),
    ]


def _tuning(cell: Cell) -> str:
    return f"tuning.{cell.name}"


def _with(cell: Cell, work: Any, settings: Settings, run: "Run") -> None:
    work(settings, run, cell=cell)


def tune(settings: Settings, run: "Run", *, cell: Cell) -> None:
    """Choose a model's learning rate by the bits that it holds of the tuning seed's people."""
    run.chooses("learning rate, and the number of people at a curve's peak", on=TUNING)
    tried = list[dict[str, float]]()
    trials = len(settings.rates) + (_FURTHER if len(settings.rates) > 1 else 0)

    def loss_of(rate: float) -> float:
        try:
            lm, text = fit(settings, cell, run, rate, share=settings.trial, name=f"trial_{len(tried)}")
            bits = measured(settings, cell, lm, text)["bits_per_parameter"]
        except NotFinite:
            bits = -math.inf
        tried.append({"learning_rate": rate, "bits_per_parameter": bits})
        run.share(len(tried) / trials)
        return -bits

    rate, loss, at_edge = best_on_grid(settings.rates, loss_of, further=trials - len(settings.rates))
    run.table("sweep", tried, "Bits for each parameter of everything tried, on the tuning seed's people")
    run.result("learning_rate", rate)
    run.result("bits_per_parameter", -loss)
    run.result("at_edge", at_edge and trials > 1)
    run.result("trials", len(tried))


def train_cell(settings: Settings, run: "Run", *, cell: Cell) -> None:
    """Train a model at the rate that its tuning chose, and report what it holds of its own people."""
    run.judges("bits", on=JUDGED)
    chosen = run.needed[_tuning(cell)].results
    lm, text = fit(settings, cell, run, chosen["learning_rate"], log=run.log)
    found = measured(settings, cell, lm, text)
    for name in _KEPT:
        run.result(name, found[name])
    for name in ("learning_rate", "at_edge"):
        run.result(name, chosen[name])
    run.result("updates", text.batches.batches_for(cell.exposures))
    run.result("value_share", found["values_bits"] / sum(available(text.source.information).values.values()))
    run.result("rise", _rise(run, found["bits_per_parameter"]))
    run.table("components", found.tables["components"], "Bits by component")
    points = run.record.series("bits_per_parameter")
    run.table(
        "curve",
        [{"update": step, "bits for each parameter": value} for step, value in zip(*points, strict=True)],
        "Bits for each parameter while training",
    )
    if cell.name == f"many.p{settings.quantised}":
        for name, value in rounded(settings, cell, lm, text).items():
            run.result(f"{name}.bits_per_parameter", value)
        run.model(lm)


def _rise(run: "Run", last: float) -> float:
    """By which share the bits rose in the last tenth of the updates."""
    steps, values = run.record.series("bits_per_parameter")
    before = [value for step, value in zip(steps, values, strict=True) if step <= 0.92 * steps[-1]]
    return (last - before[-1]) / abs(last) if before and last else math.nan


def run(settings: Settings, run: "Run") -> None:
    """Put the models of one seed together."""
    for cell in cells(settings):
        for name, value in run.arms[cell.name].results.items():
            run.result(f"{cell.name}.{name}", value)
    results = run.results
    for name, points in curves(settings).items():
        best = max(points, key=lambda cell: run.arms[_tuning(cell)].results["bits_per_parameter"])
        for number in ("bits_per_parameter", "bits_per_parameter_max", "rise", "value_share"):
            run.result(f"peak.{name}.{number}", results[f"{best.name}.{number}"])
        run.result(f"peak.{name}.people", best.people)
        run.result(f"peak.{name}.at_edge", max(results[f"{cell.name}.at_edge"] for cell in points))
    _derive(settings, run)
    run.table("models", _rows(settings, results), "Every model: what it holds of its own facts")


def _derive(settings: Settings, run: "Run") -> None:
    """Report what claims read that is made of several models."""
    results, many = run.results, curves(settings)["many"]
    roomy = [cell for cell in many if results[f"{cell.name}.bits_per_parameter_max"] <= 1.8]
    shares = [
        results[f"{cell.name}.bits_per_parameter"] / results[f"{cell.name}.bits_per_parameter_max"]
        for cell in roomy
    ]
    run.result("roomy.models", len(roomy))
    run.result("roomy.lowest_share", min(shares, default=math.nan))
    run.result("roomy.rise", max((results[f"{cell.name}.rise"] for cell in roomy), default=math.nan))
    run.result("highest", max(results[f"{cell.name}.bits_per_parameter"] for cell in cells(settings)))
    whole = results[f"many.p{settings.quantised}.bits_per_parameter"]
    run.result("rounded.before", whole)
    run.result("rounded.value_share", results[f"many.p{settings.quantised}.value_share"])
    for name in ROUNDINGS:
        kept = results[f"many.p{settings.quantised}.{name}.bits_per_parameter"]
        run.result(f"rounded.{name}", kept / whole if whole else math.nan)
    if settings.junk_people:
        clean = results["junk.none.bits_per_parameter"]
        for kind in JUNK[1:]:
            kept = results[f"junk.{kind}.bits_per_parameter"]
            run.result(f"beside_junk.{kind}", kept / clean if clean else math.nan)


def _rows(settings: Settings, results: Mapping[str, float]) -> list[dict[str, Any]]:
    return [
        {
            "model": cell.name,
            "shape": cell.shape,
            "facts": cell.facts,
            "people": cell.people,
            "exposures": cell.exposures,
            "R": results[f"{cell.name}.bits_per_parameter"],
            "R_max": results[f"{cell.name}.bits_per_parameter_max"],
            "exact values": results[f"{cell.name}.exact"],
            "learning rate": results[f"{cell.name}.learning_rate"],
            "updates": int(results[f"{cell.name}.updates"]),
            "parameters": int(results[f"{cell.name}.parameters"]),
        }
        for cell in cells(settings)
    ]


def summarise(settings: Settings, study: "Study") -> None:
    """Add the figures over all seeds, and the table of the paper's twelve results."""
    pictures.add(settings, study)
