"""The figures of the study, and the table of the paper's twelve results."""

import math
from collections import defaultdict
from statistics import fmean
from typing import TYPE_CHECKING, Any

from gpt2lab.papers.knowledge_capacity.study.claims import RESULTS
from gpt2lab.papers.knowledge_capacity.study.settings import JUNK, Cell, Settings, cells, curves
from gpt2lab.papers.knowledge_capacity.study.training import ROUNDINGS
from gpt2lab.plots.bars import stacked_bars
from gpt2lab.plots.figures import line_chart
from gpt2lab.plots.over_seeds import mean_curves
from gpt2lab.studies.seed_figures import seed_dots

if TYPE_CHECKING:
    from gpt2lab.studies.study import Study


def add(settings: Settings, study: "Study") -> None:
    """Add R by people with the lines of one and two bits, bits by parameters, components, roundings, junk, and the table."""
    _capacity(settings, study)
    _by_parameters(settings, study)
    _components(settings, study)
    _while_training(settings, study)
    _shares(settings, study)
    study.table(
        "twelve_results", _results(study), "The paper's twelve results and what this study says of each"
    )


def _capacity(settings: Settings, study: "Study") -> None:
    """R against what there is to learn for each parameter: the diagonal is a perfect model."""
    lines: dict[str, Any] = {}
    offered = [0.0]
    for name, points in curves(settings).items():
        known = [(study.mean(f"{cell.name}.bits_per_parameter_max"), cell) for cell in points]
        offered += [most for most, _ in known]
        lines[name] = (
            [most for most, _ in known],
            [study.mean(f"{cell.name}.bits_per_parameter") for _, cell in known],
        )
    most = max(offered)
    lines["R_max"] = ([0.0, most], [0.0, most])
    for bits in (1.0, 2.0):
        if most > bits / 2:
            lines[f"{bits:g} bit"] = ([0.0, most], [bits, bits])
    study.figure(
        "capacity",
        line_chart(
            lines, x_label="bits in the facts for each parameter (R_max)", y_label="bits learned for each parameter (R)",
            markers=True, dashed=("R_max", "1 bit", "2 bit"), height=4.2,
        ),
        "Learned bits against those there are, mean over seeds; a perfect model lies on the line of R_max",
    )  # fmt: skip


def _by_parameters(settings: Settings, study: "Study") -> None:
    """Learned bits against parameters, both logarithmic, with the lines of one and two bits for each."""
    lines: dict[str, Any] = {}
    sizes = list[float]()
    for name, points in curves(settings).items():
        of = [(study.mean(f"{cell.name}.parameters"), study.mean(f"{cell.name}.bits")) for cell in points]
        sizes += [size for size, _ in of]
        lines[name] = ([size for size, _ in of], [bits if bits > 0 else math.nan for _, bits in of])
    ends = [min(sizes) / 1.5, max(sizes) * 1.5]
    for bits in (1.0, 2.0):
        lines[f"{bits:g} bit"] = (ends, [bits * end for end in ends])
    study.figure(
        "bits_by_parameters",
        line_chart(
            lines, x_label="parameters", y_label="bits learned", log_x=True, log_y=True, markers=True,
            dashed=("1 bit", "2 bit"), height=4.2,
        ),
        "Learned bits against parameters, mean over seeds; bits below 0 are left out",
    )  # fmt: skip


def _components(settings: Settings, study: "Study") -> None:
    """Bits for each parameter by component of the models of the two GPT-2 curves."""
    rows: dict[str, dict[str, float]] = {}
    wanted = [cell for cell in cells(settings) if cell.curve in ("many", "few")]
    for cell in sorted(wanted, key=lambda cell: (cell.curve, cell.people)):
        sums: defaultdict[str, list[float]] = defaultdict(list)
        for run in study.runs:
            for row in run.arms[cell.name].tables["components"]:
                sums[str(row["component"])].append(float(row["bits for each parameter"]))
        rows[cell.name] = {name: fmean(values) for name, values in sums.items()}
    study.figure(
        "components",
        stacked_bars(rows, label="bits for each parameter", reference={"1": 1.0, "2": 2.0}),
        "Learned bits by component, mean over seeds; what is worse than chance lies left of 0",
    )


def _while_training(settings: Settings, study: "Study") -> None:
    curves_: dict[str, list[Any]] = {}
    for cell in cells(settings):
        if cell.curve in ("many", "few"):
            curves_[cell.name] = [_seen(run.arms[cell.name].tables["curve"], cell) for run in study.runs]
    study.figure(
        "while_training",
        mean_curves(curves_, x_label="exposures", y_label="bits for each parameter"),
        "R while training, mean over seeds; the learning rate falls to a tenth along every curve",
    )


def _seen(rows: Any, cell: Cell) -> Any:
    last = max(float(row["update"]) for row in rows)
    exposures = [cell.exposures * float(row["update"]) / last for row in rows]
    return exposures, [float(row["bits for each parameter"]) for row in rows]


def _shares(settings: Settings, study: "Study") -> None:
    """What rounding and junk leave of R."""
    study.figure(
        "rounded",
        seed_dots(
            {name: study.values(f"rounded.{name}") for name in ROUNDINGS},
            label="share of R that is left", reference={"before": 1.0},
        ),
        "What is left after rounding the matrices of the blocks, a ring a seed",
    )  # fmt: skip
    if settings.junk_people:
        study.figure(
            "junk",
            seed_dots(
                {kind: study.values(f"junk.{kind}.bits_per_parameter") for kind in JUNK},
                label="bits for each parameter",
            ),
            f"R with no junk and beside {settings.junk_ratio} times as much, {settings.junk_exposures} exposures",
        )


def _results(study: "Study") -> list[dict[str, Any]]:
    """A row for each of the twelve results, by claim."""
    by_name = {judged.claim.name: judged for judged in study.claims}
    rows: list[dict[str, Any]] = []
    for result in RESULTS:
        for letter in result.claims:
            judged = by_name[letter]
            values = [value for _, value in judged.verdict.values if math.isfinite(value)]
            rows.append(
                {
                    "result": result.number,
                    "the paper": result.words,
                    "claim": letter,
                    "measured, mean": fmean(values) if values else "",
                    "verdict": str(judged.verdict.status),
                }
            )
    return rows
