"""Metrics of heads against scikit-learn, scipy and slow loops, on random data with ties, gaps and single classes."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as theirs

from gpt2lab.base.errors import LabError
from gpt2lab.measures import classification_metrics as ours


def drawn(n: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    shares = np.round(draw.dirichlet(np.ones(classes), n), 1) + 0.05  # rounded: ties
    return draw.integers(0, classes, n), shares / shares.sum(1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("seed", range(3))
def test_classification_numbers_equal_scikit_learns(classes: int, seed: int) -> None:
    truth, shares = drawn(60, classes, seed)
    found, told = ours.classification_metrics(truth, shares), shares.argmax(1)
    names = list(range(classes))
    expected = {
        "accuracy": theirs.accuracy_score(truth, told),
        "macro_f1": theirs.f1_score(truth, told, labels=names, average="macro", zero_division=0),
        "weighted_f1": theirs.f1_score(truth, told, labels=names, average="weighted", zero_division=0),
        "balanced_accuracy": theirs.balanced_accuracy_score(truth, told),
        "cross_entropy": theirs.log_loss(truth, shares, labels=names),
    }
    if classes == 2:
        expected["auroc"] = theirs.roc_auc_score(truth, shares[:, 1])
        expected["average_precision"] = theirs.average_precision_score(truth, shares[:, 1])
        expected["brier"] = theirs.brier_score_loss(truth, shares[:, 1])
        precision, recall, _ = theirs.precision_recall_curve(truth, shares[:, 1])
        expected["f1_best"] = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    else:
        expected["auroc"] = theirs.roc_auc_score(truth, shares, multi_class="ovr")
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-9), name
    assert (ours.confusion(truth, told, classes) == theirs.confusion_matrix(truth, told, labels=names)).all()


def test_a_class_that_never_occurs_counts_in_macro_f1_only() -> None:
    truth, shares = np.array([0, 1, 1]), np.eye(3)[[0, 1, 1]]
    found = ours.classification_metrics(truth, shares)
    assert found["macro_f1"] == pytest.approx(2 / 3) and found["macro_f1_present"] == 1.0
    assert found["balanced_accuracy"] == 1.0


def test_one_class_alone_leaves_the_ranking_undetermined() -> None:
    found = ours.classification_metrics([1, 1], [[0.2, 0.8], [0.6, 0.4]])
    assert math.isnan(found["auroc"]) and found["accuracy"] == 0.5
    assert math.isnan(ours.auroc([0, 0], [1.0, 2.0])) and math.isnan(
        ours.average_precision([0, 0], [1.0, 2.0])
    )
    assert ours.auroc([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5]) == 0.5, "ties count half"


def test_calibration_error_is_the_loop_over_bins() -> None:
    truth, shares = drawn(80, 3)
    total = 0.0
    for b in range(15):
        inside = [i for i in range(80) if b / 15 < shares[i].max() <= (b + 1) / 15]
        if inside:
            right = np.mean([shares[i].argmax() == truth[i] for i in inside])
            total += len(inside) / 80 * abs(right - np.mean([shares[i].max() for i in inside]))
    assert ours.calibration_error(truth, shares) == pytest.approx(total)


def test_multilabel_numbers_with_unknown_answers() -> None:
    draw = np.random.default_rng(0)
    truth, shares = draw.integers(0, 2, (40, 3)).astype(float), draw.random((40, 3))
    whole = ours.multilabel_metrics(truth, shares)
    told = shares >= 0.5
    assert whole["macro_f1"] == pytest.approx(theirs.f1_score(truth, told, average="macro"))
    assert whole["micro_f1"] == pytest.approx(theirs.f1_score(truth, told, average="micro"))
    assert whole["exact_match"] == pytest.approx(theirs.accuracy_score(truth, told))
    assert whole["auroc"] == pytest.approx(theirs.roc_auc_score(truth, shares, average="macro"))
    truth[:10, 0] = math.nan
    gaps = ours.multilabel_metrics(truth, shares)
    each = [theirs.f1_score(truth[10:, 0], told[10:, 0])] + [
        theirs.f1_score(truth[:, c], told[:, c]) for c in (1, 2)
    ]
    assert gaps["macro_f1"] == pytest.approx(np.mean(each))


def test_a_label_that_nothing_has_and_that_is_never_told_is_in_no_mean() -> None:
    truth = np.array([[1.0, 0.0, math.nan], [0.0, 0.0, math.nan]])
    shares = np.array([[0.9, 0.1, 0.8], [0.2, 0.3, 0.9]])
    found = ours.multilabel_metrics(truth, shares)
    assert found["macro_f1"] == 1.0 and found["micro_f1"] == 1.0 and found["exact_match"] == 1.0
    nothing = ours.multilabel_metrics(np.zeros((2, 2)), np.full((2, 2), 0.1))
    assert math.isnan(nothing["macro_f1"]) and math.isnan(nothing["micro_f1"])
    assert nothing["exact_match"] == 1.0


def test_regression_numbers_equal_scipys_and_leave_out_nan() -> None:
    draw = np.random.default_rng(0)
    y, x = np.round(draw.normal(size=30), 1), np.round(draw.normal(size=30), 1)
    found = ours.regression_metrics(np.append(y, math.nan), np.append(x, 9.0))
    assert found["pearson"] == pytest.approx(stats.pearsonr(y, x)[0])
    assert found["spearman"] == pytest.approx(stats.spearmanr(y, x)[0])
    assert found["r2"] == pytest.approx(theirs.r2_score(y, x))
    assert found["mse"] == pytest.approx(np.mean((y - x) ** 2)) and found["mae"] == pytest.approx(
        np.abs(y - x).mean()
    )
    flat = ours.regression_metrics([1.0, 1.0], [0.0, 2.0])
    assert math.isnan(flat["pearson"]) and math.isnan(flat["r2"])
    with pytest.raises(LabError, match="at least one number"):
        ours.regression_metrics([math.nan], [1.0])


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O B-A I-A O", {("A", 1, 3)}),
        ("B-A B-A", {("A", 0, 1), ("A", 1, 2)}),
        ("I-A I-A I-B", {("A", 0, 2), ("B", 2, 3)}),
        ("B-A I-B O I-B", {("A", 0, 1), ("B", 1, 2), ("B", 3, 4)}),
        ("noun noun O verb", {("noun", 0, 2), ("verb", 3, 4)}),
        ("O O", set()),
        ("", set()),
    ],
)
def test_spans_of_bio_tags(tags: str, expected: set[tuple[str, int, int]]) -> None:
    assert ours.spans(tags.split()) == expected


def test_span_f1_counts_class_and_both_ends() -> None:
    truth = [["B-A", "I-A", "O"], ["B-B", "O", "O"]]
    told = [["B-A", "O", "O"], ["B-B", "O", "B-A"]]
    counts = ours.span_counts(truth, told)
    assert counts == {"A": (0, 2, 1), "B": (1, 1, 1)}
    found = ours.span_metrics(counts)
    assert found["span_f1"] == pytest.approx(2 / 5) and found["macro_span_f1"] == pytest.approx(0.5)
    assert ours.span_metrics({}) == {
        "span_f1": 0.0,
        "span_precision": 0.0,
        "span_recall": 0.0,
        "macro_span_f1": 0.0,
    }
    with pytest.raises(LabError, match="text 0 has 1 words and 2 predicted tags"):
        ours.span_counts([["O"]], [["O", "O"]])


def test_a_class_without_an_entity_is_in_no_mean() -> None:
    assert ours.span_metrics({"A": (1, 1, 1), "B": (0, 0, 0)})["macro_span_f1"] == 1.0


def test_resampling_gives_intervals_around_and_leaves_out_what_is_undetermined() -> None:
    values = np.arange(40.0)
    found = ours.resampled(40, lambda items: {"mean": float(values[items].mean()), "never": math.nan})
    assert list(found) == ["mean"]
    assert found["mean"].low < 19.5 < found["mean"].high and found["mean"].mean == 19.5
    again = ours.resampled(40, lambda items: {"mean": float(values[items].mean())})
    assert again["mean"] == found["mean"], "the same seed, the same interval"


def test_a_score_that_is_no_number_gives_no_number() -> None:
    truth, scores = [1, 0, 1], [math.nan, 0.5, 0.2]
    for measure in (ours.auroc, ours.average_precision, ours.best_f1):
        assert math.isnan(measure(truth, scores)), measure.__name__
    told = ours.regression_metrics([1.0, 2.0, 3.0], scores)
    assert all(math.isnan(value) for value in told.values()), told
    shares = np.array([[math.nan, math.nan], [0.5, 0.5], [0.8, 0.2]])
    with pytest.raises(LabError, match="2 of 6 probabilities are NaN"):
        ours.classification_metrics(truth, shares)
    with pytest.raises(LabError, match="2 of 6 probabilities are NaN"):
        ours.multilabel_metrics([[1, 0]] * 3, shares)
