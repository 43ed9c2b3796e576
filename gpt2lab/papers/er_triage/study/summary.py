"""Figures and tables over all seeds: ladders, factors, ROC, calibration, pre-training, control."""

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt2lab.measures.classification_curves import reliability, reliability_figure, roc_curve, roc_figure
from gpt2lab.papers.er_triage.baselines import BASELINES
from gpt2lab.papers.er_triage.efficiency import factor_rows
from gpt2lab.papers.er_triage.measure import mean_ladder, points
from gpt2lab.papers.er_triage.notes import truth
from gpt2lab.papers.er_triage.pictures import ladder_figure
from gpt2lab.papers.er_triage.study.material import read_parts
from gpt2lab.papers.er_triage.study.settings import Settings
from gpt2lab.plots.figures import band_over_seeds, line_chart

if TYPE_CHECKING:
    from gpt2lab.runs.run_record import RunRecord
    from gpt2lab.studies.study import Study

_ROC_AT = 120
"""Labelled notes of the ROC and calibration figures, or the nearest budget."""


_HONEST = "The gain says how well the unlabelled text lines up with the label; in generated notes that is set (align)"


def add(settings: Settings, study: "Study", test: str) -> None:
    """Add everything to the study's report."""
    rows = [row for run in study.runs for row in run.tables["ladder"]]
    names = (*settings.strategies, *BASELINES)
    on_ladder = [row for row in rows if int(row["labels"]) in settings.budgets]
    for what, label in (("auc", "AUC"), ("f1", "F1 at 0.5")):
        study.figure(
            what,
            ladder_figure({name: points(on_ladder, name, what) for name in names}, label),
            f"{label} on the {test} against labelled notes; mean and range over {len(study.runs)} seeds. {_HONEST}",
        )
    ladders = {name: mean_ladder(on_ladder, name) for name in names if name != "majority"}
    study.table(
        "factor",
        factor_rows(ladders, settings.targets, of="scratch", over="pretrained"),
        "Labelled notes that an AUC takes, by the mean AUC over the seeds, and the factor; ≤ is there at the first rung, > "
        "not at the last, ≥ a lower bound",
    )
    study.table("ladder", _means(rows, names), "Every rung, mean over the seeds; F1 at 0.5")
    _curves(settings, study)
    _pretraining(study)
    if all("control" in run.tables for run in study.runs):
        _control(study)


def _means(rows: Sequence[Any], names: Sequence[str]) -> list[dict[str, Any]]:
    found = list[dict[str, Any]]()
    for name in names:
        for budget in sorted({int(row["labels"]) for row in rows if row["strategy"] == name}):
            own = [row for row in rows if row["strategy"] == name and int(row["labels"]) == budget]
            columns = ("auc", "f1", "f1_best", "ap", "brier", "calibration_error")
            found.append(
                {
                    "strategy": name,
                    "labels": budget,
                    **{column: fmean(float(row[column]) for row in own) for column in columns},
                    "lowest AUC": min(float(row["auc"]) for row in own),
                    "highest AUC": max(float(row["auc"]) for row in own),
                }
            )
    return found


def _curves(settings: Settings, study: "Study") -> None:
    """ROC and calibration of the first seed at one budget."""
    budget = min(settings.budgets, key=lambda n: abs(n - _ROC_AT))
    run = study.runs[0]
    answers = truth(read_parts(run.arms["pretraining"]).test)
    scores = {name: _scores(run, name, budget) for name in (*settings.strategies, "tfidf")}
    curves = {name: roc_curve(answers, own)[:2] for name, own in scores.items()}
    study.figure("roc", roc_figure(curves), f"ROC curves with {budget} labelled notes, seed {run.seed}")
    tables = {name: reliability(answers, own) for name, own in scores.items()}
    study.figure(
        "calibration",
        reliability_figure(tables, x_label="probability of trauma", y_label="share of traumatic notes"),
        f"Calibration with {budget} labelled notes, seed {run.seed}: ten bins of the probability",
    )


def _scores(run: "RunRecord", name: str, budget: int) -> "np.ndarray[Any, np.dtype[np.float64]]":
    if name in BASELINES:
        return np.asarray(run.arms["baselines"].arrays[f"{name}_n{budget}"])
    return np.asarray(run.arms[f"{name}.n{budget}"].arrays["scores"])


def _pretraining(study: "Study") -> None:
    series, bands = dict[str, Any](), dict[str, Any]()
    for unit, name in (("pretraining", "notes"), ("control", "control")):
        own = [run.arms[unit].series("validation_loss") for run in study.runs if unit in run.arms]
        if own:
            series[name], bands[name] = band_over_seeds(own)
    study.figure(
        "pretraining",
        line_chart(series, bands=bands, x_label="updates", y_label="loss (nats per token)"),
        "Loss of the pre-training on notes held out from it; mean and range over seeds",
    )


def _control(study: "Study") -> None:
    curves = dict[str, Any]()
    for column in ("scratch", "pretrained"):
        own = [run.tables["control"] for run in study.runs]
        curves[column] = [
            ([float(row["labels"]) for row in table], [float(row[column]) for row in table]) for table in own
        ]
    study.figure(
        "control",
        ladder_figure(curves, "AUC"),
        "The negative control: the text without labels says nothing of the class, so that little can be gained",
    )
