"""What one number hides of a classifier: its ROC curve, and how often it is right at each confidence. Numpy only.

Ties of a score are one point of a curve. What the data do not determine (a curve with one class) is a LabError.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpt2lab.base.errors import LabError
from gpt2lab.measures.classification_metrics import Table
from gpt2lab.plots.figures import line_chart

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
BINS = 10


def roc_curve(truth: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Return false-positive rates, true-positive rates and thresholds, from (0, 0) at infinity to (1, 1).

    truth [n] of 0 and 1, scores [n]; a text is positive whose score is at least the threshold. A point for each distinct
    score. The area under it is `auroc`. LabError for one class, and for a score that is NaN.
    """
    positive, values = np.asarray(truth).astype(bool), np.asarray(scores, np.float64)
    if positive.all() or not positive.any():
        raise LabError("a ROC curve needs texts of both classes")
    if np.isnan(values).any():
        raise LabError(f"{int(np.isnan(values).sum())} of {len(values)} scores are NaN; they have no order")
    order = np.argsort(-values, kind="stable")
    last = np.flatnonzero(np.append(np.diff(values[order]) != 0, True))
    hits = positive[order].cumsum()[last]
    misses = last + 1 - hits
    return (
        np.append(0.0, misses / (~positive).sum()),
        np.append(0.0, hits / positive.sum()),
        np.append(np.inf, values[order][last]),
    )


def reliability(truth: ArrayLike, scores: ArrayLike, bins: int = BINS) -> Table:
    """Return, for equal-width bins (a, b] of the scores, their mean and the share of texts that are positive.

    truth [n] of 0 and 1 (or whether a prediction is right), scores [n] in [0, 1] (or its confidence). Empty bins are left
    out. Σ texts/n · |share - mean| over the rows is the expected calibration error (Guo et al. 2017, eq. 5).
    """
    positive, values = np.asarray(truth).astype(np.float64), np.asarray(scores, np.float64)
    if not len(values) or bins < 1 or not ((values >= 0) & (values <= 1)).all():
        raise LabError("calibration needs scores between 0 and 1, and at least one bin")
    which = np.clip(np.ceil(values * bins).astype(np.int64) - 1, 0, bins - 1)
    return [
        {
            "above": b / bins,
            "up to": (b + 1) / bins,
            "texts": int((which == b).sum()),
            "mean score": float(values[which == b].mean()),
            "share positive": float(positive[which == b].mean()),
        }
        for b in range(bins)
        if (which == b).any()
    ]


def roc_figure(curves: Mapping[str, tuple[Floats, Floats]]) -> "Figure":
    """Draw ROC curves by name, (false-positive rates, true-positive rates), beside chance."""
    series = {name: (x.tolist(), y.tolist()) for name, (x, y) in curves.items()}
    return line_chart(
        {**series, "chance": ([0.0, 1.0], [0.0, 1.0])},
        x_label="false-positive rate", y_label="true-positive rate", dashed=("chance",), width=5.0, height=4.0,
    )  # fmt: skip


def reliability_figure(tables: Mapping[str, Table], *, x_label: str, y_label: str) -> "Figure":
    """Draw what `reliability` says of each name beside the diagonal of a calibrated one."""
    series = {
        name: (
            [float(str(row["mean score"])) for row in table],
            [float(str(row["share positive"])) for row in table],
        )
        for name, table in tables.items()
    }
    return line_chart(
        {**series, "calibrated": ([0.0, 1.0], [0.0, 1.0])},
        x_label=x_label, y_label=y_label, markers=True, dashed=("calibrated",), width=5.0, height=4.0,
    )  # fmt: skip
