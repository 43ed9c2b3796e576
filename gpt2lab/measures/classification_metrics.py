"""How well labels and numbers were predicted: accuracy, F1, AUROC, calibration, correlation, spans. Numpy only.

Classes are numbered; truth [n] int, probabilities [n, classes]. A metric that the data do not determine (AUROC with one
class, a correlation with no variance) is NaN. Ties in a ranking count half.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpt2lab.base.errors import LabError
from gpt2lab.base.interval import Interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Table = list[dict[str, object]]


def confusion(truth: ArrayLike, predicted: ArrayLike, classes: int) -> Ints:
    """Return counts [classes, classes]: rows are the true class, columns the predicted one."""
    table = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(table, (np.asarray(truth, np.int64), np.asarray(predicted, np.int64)), 1)
    return table


def per_class(table: Ints) -> dict[str, Floats]:
    """Return precision, recall, F1 and support of each class from a confusion table; 0 where a quotient is 0 / 0."""
    hits = np.diag(table).astype(np.float64)
    predicted, true = table.sum(0), table.sum(1)
    precision, recall = _share(hits, predicted), _share(hits, true)
    return {
        "precision": precision,
        "recall": recall,
        "f1": _share(2 * hits, predicted + true),
        "support": true.astype(np.float64),
    }


def _share(part: Floats, whole: NDArray[np.generic]) -> Floats:
    total = np.asarray(whole, np.float64)
    return np.divide(part, total, out=np.zeros_like(part), where=total > 0)


def classification_metrics(truth: ArrayLike, probabilities: ArrayLike, *, bins: int = 15) -> dict[str, float]:
    """Return the usual numbers of single-label classification, the headline first.

    accuracy, macro_f1 (over all classes; 0 where undefined), macro_f1_present (over classes that occur in truth),
    weighted_f1, balanced_accuracy (mean recall of classes that occur), top3_accuracy (from four classes on), auroc (two
    classes: of class 1; more: mean of one against the rest), average_precision and f1_best (two classes only, of
    class 1), cross_entropy (nats), brier, calibration_error (`bins` equal-width bins). LabError for what is no number.
    """
    labels, shares = np.asarray(truth, np.int64), np.asarray(probabilities, np.float64)
    if labels.ndim != 1 or shares.ndim != 2 or len(labels) != len(shares) or not len(labels):
        raise LabError(
            f"metrics need labels [n] and probabilities [n, classes], got {labels.shape}, {shares.shape}"
        )
    _need_numbers(shares)
    classes, predicted = shares.shape[1], shares.argmax(1)
    table = confusion(labels, predicted, classes)
    each = per_class(table)
    present = each["support"] > 0
    right = shares[np.arange(len(labels)), labels]
    numbers = {
        "accuracy": float((predicted == labels).mean()),
        "macro_f1": float(each["f1"].mean()),
        "macro_f1_present": float(each["f1"][present].mean()),
        "weighted_f1": float((each["f1"] * each["support"]).sum() / len(labels)),
        "balanced_accuracy": float(each["recall"][present].mean()),
        "auroc": multiclass_auroc(labels, shares),
        "cross_entropy": float(-np.log(np.maximum(right, 1e-300)).mean()),
        "brier": float(((shares - np.eye(classes)[labels]) ** 2).sum(1).mean() / (2 if classes == 2 else 1)),
        "calibration_error": calibration_error(labels, shares, bins),
    }
    if classes > 3:
        better = (shares > right[:, None]).sum(1)
        numbers["top3_accuracy"] = float((better < 3).mean())
    if classes == 2:
        numbers["average_precision"] = average_precision(labels, shares[:, 1])
        numbers["f1_best"] = best_f1(labels, shares[:, 1])
    return numbers


def _need_numbers(shares: Floats) -> None:
    if np.isnan(shares).any():
        raise LabError(
            f"{int(np.isnan(shares).sum())} of {shares.size} probabilities are NaN; no metric follows from them"
        )


def auroc(truth: ArrayLike, scores: ArrayLike) -> float:
    """Return the probability that a positive scores above a negative, ties half (Mann & Whitney 1947).

    truth [n] of 0 and 1, scores [n]. NaN for one class, and where a score is NaN.
    """
    positive = np.asarray(truth).astype(bool)
    n_positive, n = int(positive.sum()), len(positive)
    if n_positive in (0, n):
        return math.nan
    ranks = average_ranks(np.asarray(scores, np.float64))
    above = ranks[positive].sum() - n_positive * (n_positive + 1) / 2
    return float(above / (n_positive * (n - n_positive)))


def multiclass_auroc(truth: ArrayLike, probabilities: ArrayLike) -> float:
    """Return AUROC of class 1 of two, or the mean over the classes that occur of each against the rest."""
    labels, shares = np.asarray(truth, np.int64), np.asarray(probabilities, np.float64)
    if shares.shape[1] == 2:
        return auroc(labels == 1, shares[:, 1])
    found = [auroc(labels == c, shares[:, c]) for c in range(shares.shape[1])]
    kept = [value for value in found if not math.isnan(value)]
    return float(np.mean(kept)) if kept else math.nan


def average_ranks(values: ArrayLike) -> Floats:
    """Return ranks from 1 on, equal values sharing the mean of theirs; [n] → [n]. All are NaN if a value is: it has none."""
    sample = np.asarray(values, np.float64)
    if np.isnan(sample).any():
        return np.full(len(sample), np.nan)
    _, places, counts = np.unique(sample, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    mean: Floats = (last - (counts - 1) / 2)[places]
    return mean


def average_precision(truth: ArrayLike, scores: ArrayLike) -> float:
    """Return Σ (recall_k - recall_{k-1}) precision_k over falling thresholds, ties at one; NaN as `best_f1`."""
    precision, recall = _precision_recall(truth, scores)
    if not len(recall):
        return math.nan
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def best_f1(truth: ArrayLike, scores: ArrayLike) -> float:
    """Return the largest F1 that any threshold gives; NaN without a positive, and where a score is NaN."""
    precision, recall = _precision_recall(truth, scores)
    if not len(recall):
        return math.nan
    return float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-300)))


def _precision_recall(truth: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    """Precision and recall at every distinct score, from the highest down; empty where there are none."""
    positive, values = np.asarray(truth).astype(np.float64), np.asarray(scores, np.float64)
    if not positive.sum() or np.isnan(values).any():
        return np.empty(0), np.empty(0)
    order = np.argsort(-values, kind="stable")
    hits = positive[order].cumsum()
    last = np.flatnonzero(np.append(np.diff(values[order]) != 0, True))
    return hits[last] / (last + 1), hits[last] / positive.sum()


def calibration_error(truth: ArrayLike, probabilities: ArrayLike, bins: int = 15) -> float:
    """Return Σ_b share_b · |accuracy_b - confidence_b| over equal-width bins of confidence (Guo et al. 2017, eq. 5)."""
    labels, shares = np.asarray(truth, np.int64), np.asarray(probabilities, np.float64)
    confidence, right = shares.max(1), shares.argmax(1) == labels
    which = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)  # bins (a, b]
    gaps = np.bincount(which, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def multilabel_metrics(
    truth: ArrayLike, probabilities: ArrayLike, threshold: float = 0.5
) -> dict[str, float]:
    """Return micro_f1, macro_f1, exact_match, macro auroc and average_precision; truth [n, labels], NaN = unknown.

    Unknown answers are left out; exact_match counts the rows all of whose known answers are right. Means over labels
    leave out those that the data do not determine: the F1 of a label that nothing has and that is never predicted. LabError
    for a probability that is no number.
    """
    labels, shares = np.asarray(truth, np.float64), np.asarray(probabilities, np.float64)
    _need_numbers(shares)
    there, predicted = ~np.isnan(labels), shares >= threshold
    right = (labels == predicted) | ~there
    hits = ((labels == 1) & predicted).sum(0).astype(np.float64)
    either = (predicted & there).sum(0) + (labels == 1).sum(0)
    ranked = [
        (auroc(labels[here, c], shares[here, c]), average_precision(labels[here, c], shares[here, c]))
        for c in range(labels.shape[1])
        for here in [there[:, c]]
    ]
    known = there.any(1)
    return {
        "macro_f1": _mean([2 * h / e for h, e in zip(hits, either, strict=True) if e]),
        "micro_f1": float(2 * hits.sum() / either.sum()) if either.any() else math.nan,
        "exact_match": float(right[known].all(1).mean()) if known.any() else math.nan,
        "auroc": _mean([pair[0] for pair in ranked]),
        "average_precision": _mean([pair[1] for pair in ranked]),
    }


def _mean(values: Sequence[float]) -> float:
    kept = [value for value in values if not math.isnan(value)]
    return float(np.mean(kept)) if kept else math.nan


def regression_metrics(truth: ArrayLike, said: ArrayLike) -> dict[str, float]:
    """Return mse, rmse, mae, r2, pearson and spearman of numbers [n]; NaN among truth is left out.

    r2 is 1 - Σ(y - ŷ)² / Σ(y - ȳ)²; a correlation is NaN where either side does not vary.
    """
    y, x = np.asarray(truth, np.float64), np.asarray(said, np.float64)
    y, x = y[~np.isnan(y)], x[~np.isnan(y)]
    if not len(y):
        raise LabError("regression metrics need at least one number that is there")
    errors, spread = x - y, float(((y - y.mean()) ** 2).sum())
    mse = float((errors**2).mean())
    return {
        "mse": mse,
        "rmse": math.sqrt(mse),
        "mae": float(np.abs(errors).mean()),
        "r2": 1 - float((errors**2).sum()) / spread if spread > 0 else math.nan,
        "pearson": pearson(y, x),
        "spearman": pearson(average_ranks(y), average_ranks(x)),
    }


def pearson(first: ArrayLike, second: ArrayLike) -> float:
    """Return the correlation of two lists of numbers; NaN where one does not vary."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    a, b = a - a.mean(), b - b.mean()
    size = math.sqrt(float((a**2).sum()) * float((b**2).sum()))
    return float((a * b).sum()) / size if size > 0 else math.nan


def spans(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Return the entities (class, start, stop) that BIO tags of one text mark; stop is excluded.

    B-X begins an entity, I-X goes on with one of the same class and begins one after anything else (as the CoNLL-2000
    evaluation reads it); O is outside. Other tags are classes of their own whose runs are entities.
    """
    found: set[tuple[str, int, int]] = set()
    open_class, start = "", 0
    for place, tag in enumerate([*tags, "O"]):
        prefix, dash, name = tag.partition("-")
        if tag == "O":
            prefix, name = "O", ""
        elif not dash or prefix not in ("B", "I"):
            prefix, name = "I", tag
        if open_class and (prefix != "I" or name != open_class):
            found.add((open_class, start, place))
            open_class = ""
        if prefix != "O" and not open_class:
            open_class, start = name, place
    return found


def span_counts(
    truth: Sequence[Sequence[str]], said: Sequence[Sequence[str]]
) -> dict[str, tuple[int, int, int]]:
    """Return (right, predicted, true) numbers of entities of each class; an entity is right if class and both ends are."""
    counts: dict[str, list[int]] = {}
    for row, (true_tags, predicted_tags) in enumerate(zip(truth, said, strict=True)):
        if len(true_tags) != len(predicted_tags):
            raise LabError(f"text {row} has {len(true_tags)} words and {len(predicted_tags)} predicted tags")
        true, predicted = spans(true_tags), spans(predicted_tags)
        for place, group in enumerate((true & predicted, predicted, true)):
            for name, _, _ in group:
                counts.setdefault(name, [0, 0, 0])[place] += 1
    return {name: (right, predicted, true) for name, (right, predicted, true) in sorted(counts.items())}


def span_metrics(counts: Mapping[str, tuple[int, int, int]]) -> dict[str, float]:
    """Return span_f1, span_precision, span_recall over all entities and macro_span_f1 over classes; 0 where undefined.

    A class without an entity, true or predicted, is none: a resample of the texts may lack one.
    """
    right, predicted, true = (sum(row[i] for row in counts.values()) for i in range(3))
    each = [2 * r / (t + y) for r, t, y in counts.values() if t + y]
    return {
        "span_f1": 2 * right / (predicted + true) if predicted + true else 0.0,
        "span_precision": right / predicted if predicted else 0.0,
        "span_recall": right / true if true else 0.0,
        "macro_span_f1": float(np.mean(each)) if each else 0.0,
    }


def resampled(
    count: int,
    metrics: Callable[[Ints], Mapping[str, float]],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return percentile bootstrap intervals of several metrics at once over `count` items.

    metrics(items) computes them for the items drawn, an index array with repeats. A resample that leaves a metric
    undetermined (NaN) is left out for that metric. LabError for fewer than 100 resamples.
    """
    if resamples < 100:
        raise LabError(f"a bootstrap needs at least 100 resamples, got {resamples}")
    generator = np.random.default_rng(seed)
    whole = metrics(np.arange(count))
    draws = [metrics(generator.integers(0, count, size=count)) for _ in range(resamples)]
    found: dict[str, Interval] = {}
    for name, value in whole.items():
        kept = np.array([draw[name] for draw in draws if not math.isnan(draw.get(name, math.nan))])
        if len(kept) and not math.isnan(value):
            low, high = np.quantile(kept, [0.5 - level / 2, 0.5 + level / 2])
            found[name] = Interval(value, float(low), float(high), count, math.nan, level)
    return found
