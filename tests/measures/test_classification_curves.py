"""ROC curves and calibration beside scikit-learn's, with ties, one class and nothing."""

import math

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import auc
from sklearn.metrics import roc_curve as sklearn_roc_curve

from gpt2lab.base.errors import LabError
from gpt2lab.measures.classification_curves import reliability, reliability_figure, roc_curve, roc_figure
from gpt2lab.measures.classification_metrics import auroc, calibration_error

DRAW = np.random.default_rng(3)
TRUTH = DRAW.random(300) < 0.3
SCORES = np.clip(0.3 * TRUTH + DRAW.random(300) * 0.7, 0, 1)


@pytest.mark.parametrize("digits", [1, 8])  # many ties, none
def test_the_curve_is_scikit_learn_s_and_its_area_the_auroc(digits: int) -> None:
    scores = SCORES.round(digits)
    found, wanted = roc_curve(TRUTH, scores), sklearn_roc_curve(TRUTH, scores, drop_intermediate=False)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.tolist() == pytest.approx(theirs.tolist())
    assert auc(found[0], found[1]) == pytest.approx(auroc(TRUTH, scores))
    assert roc_figure({"a": found[:2]}).axes


def test_one_score_for_all_is_a_line_from_corner_to_corner() -> None:
    x, y, thresholds = roc_curve([0, 1, 1], [0.5, 0.5, 0.5])
    assert (x.tolist(), y.tolist(), thresholds.tolist()) == ([0, 1], [0, 1], [math.inf, 0.5])


@pytest.mark.parametrize("bins", [5, 10])
def test_calibration_is_scikit_learn_s(bins: int) -> None:
    table = reliability(TRUTH, SCORES, bins)
    share, mean = calibration_curve(TRUTH, SCORES, n_bins=bins)
    assert [row["share positive"] for row in table] == pytest.approx(share.tolist())
    assert [row["mean score"] for row in table] == pytest.approx(mean.tolist())
    assert sum(int(str(row["texts"])) for row in table) == 300
    assert reliability_figure({"a": table}, x_label="x", y_label="y").axes


def test_the_gaps_add_up_to_the_calibration_error() -> None:
    shares = np.stack([1 - SCORES, SCORES], 1)
    table = reliability(shares.argmax(1) == TRUTH, shares.max(1), 15)
    gaps = [
        abs(float(str(row["share positive"])) - float(str(row["mean score"]))) * int(str(row["texts"])) / 300
        for row in table
    ]
    assert sum(gaps) == pytest.approx(calibration_error(TRUTH, shares))


def test_what_the_data_do_not_determine_is_refused() -> None:
    for truth in ([1, 1], [0, 0], []):
        with pytest.raises(LabError, match="both classes"):
            roc_curve(truth, [0.1] * len(truth))
    with pytest.raises(LabError, match="1 of 2 scores are NaN"):
        roc_curve([0, 1], [0.1, math.nan])
    for scores in ([], [1.5], [math.nan]):
        with pytest.raises(LabError, match="between 0 and 1"):
            reliability([1] * len(scores), scores)
