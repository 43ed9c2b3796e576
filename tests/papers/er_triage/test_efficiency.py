"""Labels that a target takes, and their ratio, against the specification's words."""

import math
from itertools import product

import numpy as np
import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.papers.er_triage.efficiency import Labels, factor, factor_rows, labels_needed, running_maximum
from tests.papers.er_triage.reference import labels_for

DRAW = np.random.default_rng(4)
DRAWN = [DRAW.random(5).tolist() for _ in range(6)]
LADDERS = [
    dict(zip((15, 30, 60, 250, 1000), sorted(values) if place < 2 else values, strict=True))
    for place, values in enumerate(DRAWN)
]


@pytest.mark.parametrize(("ladder", "target"), list(product(LADDERS, (0.05, 0.4, 0.6, 0.8, 0.99))))
def test_the_labels_of_a_target_are_the_reference_s(ladder: dict[int, float], target: float) -> None:
    found, (count, how) = labels_needed(ladder, target), labels_for(ladder, target)
    assert found.count == pytest.approx(count) and found.found == how


def test_between_two_rungs_the_auc_is_linear_in_log_n() -> None:
    found = labels_needed({10: 0.6, 1000: 0.8}, 0.7)
    assert found.count == pytest.approx(100) and found.reached and str(found) == "100"
    assert labels_needed({10: 0.6, 20: 0.9, 40: 0.5, 80: 0.95}, 0.925).count == pytest.approx(
        40 * math.sqrt(2)
    )
    assert running_maximum([0.6, 0.9, 0.5]) == [0.6, 0.9, 0.9]
    exact = labels_needed({10: 0.6, 20: 0.9}, 0.9)
    assert exact.count == pytest.approx(20) and exact.found == "read"


def test_what_is_not_on_the_ladder_is_bounded_and_never_extrapolated() -> None:
    never, at_once = labels_needed({15: 0.5, 2000: 0.9}, 0.95), labels_needed({15: 0.96, 30: 0.97}, 0.95)
    assert (str(never), never.reached, str(at_once)) == ("> 2e+03", False, "≤ 15")
    bound = factor(never, at_once)
    assert (
        bound is not None
        and bound.bounded
        and bound.value == pytest.approx(2000 / 15)
        and str(bound) == "≥ 133"
    )
    assert factor(never, never) is None and factor(at_once, never) is None
    assert factor(at_once, Labels(30, "read")) is None  # it may be any number below 1/2
    exact = factor(Labels(300, "read"), Labels(30, "read"))
    assert exact is not None and (exact.value, exact.bounded) == (10, False)


def test_the_table_has_a_row_for_each_target() -> None:
    ladders = {
        "scratch": {15: 0.5, 150: 0.9},
        "pretrained": {15: 0.9, 150: 0.99},
        "tfidf": {15: 0.6, 150: 0.7},
    }
    high, low = factor_rows(ladders, (0.995, 0.9), of="scratch", over="pretrained")
    assert high["scratch / pretrained"] == "not determined"
    assert low == {
        "AUC": 0.9, "labels, scratch": "150", "labels, pretrained": "≤ 15", "labels, tfidf": "> 150",
        "scratch / pretrained": "≥ 10",
    }  # fmt: skip


@pytest.mark.parametrize("ladder", [{}, {0: 0.5}, {15: math.nan}])
def test_ladders_without_numbers_are_refused(ladder: dict[int, float]) -> None:
    with pytest.raises(LabError, match="a ladder needs a rung"):
        labels_needed(ladder, 0.9)
