"""How many labels a target takes: read off ladders of AUC by number of labelled texts, and the ratio of two of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gpt2lab.base.errors import LabError

Found = Literal["read", "at most", "above"]


@dataclass(frozen=True)
class Labels:
    """Labelled texts that a target takes, as far as a ladder tells."""

    count: float
    """Their number; of what is not reached, the last rung."""
    found: Found
    """read between two rungs, at most the first rung, or above the last."""

    @property
    def reached(self) -> bool:
        """Whether the ladder reaches the target."""
        return self.found != "above"

    def __str__(self) -> str:
        sign = {"read": "", "at most": "≤ ", "above": "> "}[self.found]
        return f"{sign}{self.count:.3g}"


@dataclass(frozen=True)
class Factor:
    """The ratio of the labels that two ladders take for one target."""

    value: float
    """Labels of the first over those of the second."""
    bounded: bool
    """Whether it is only a lower bound: the first never gets there, or the second is there at its first rung."""

    def __str__(self) -> str:
        return f"{'≥ ' if self.bounded else ''}{self.value:.3g}"


def running_maximum(values: Sequence[float]) -> list[float]:
    """Return the highest value up to each place."""
    found, best = list[float](), -math.inf
    for value in values:
        best = max(best, value)
        found.append(best)
    return found


def labels_needed(ladder: Mapping[int, float], target: float) -> Labels:
    """Return how many labels an AUC takes; ladder: number of labels → AUC (its mean over the seeds).

    Of the running maximum along the ladder, the first rung at or above the target counts, and between it and the rung
    before the AUC is taken as linear in log n. Nothing is fitted or extrapolated. LabError for a ladder without a rung, with
    one of no label, or with a value that is no number.
    """
    rungs = sorted(ladder)
    if not rungs or rungs[0] < 1 or any(math.isnan(value) for value in ladder.values()):
        raise LabError("a ladder needs a rung, each of one label or more and with a number")
    best = running_maximum([ladder[n] for n in rungs])
    first = next((place for place, value in enumerate(best) if value >= target), None)
    if first is None:
        return Labels(rungs[-1], "above")
    if first == 0:
        return Labels(rungs[0], "at most")
    low, high = best[first - 1], best[first]
    share = (target - low) / (high - low)
    between = math.log(rungs[first - 1]) + share * math.log(rungs[first] / rungs[first - 1])
    return Labels(math.exp(between), "read")  # N(a)


def factor(first: Labels, second: Labels) -> Factor | None:
    """Return N_A(a) / N_B(a), a lower bound where only that is known; None where the second never gets there.

    Also None where the first is there at its first rung: then the ratio has no lower bound.
    """
    if not second.reached or first.found == "at most":
        return None
    return Factor(first.count / second.count, not first.reached or second.found == "at most")  # N_A / N_B


def factor_rows(
    ladders: Mapping[str, Mapping[int, float]], targets: Sequence[float], *, of: str, over: str
) -> list[dict[str, object]]:
    """Return a row for each target: the labels that every ladder takes, and the factor of `of` over `over`."""
    rows = list[dict[str, object]]()
    for target in targets:
        needed = {name: labels_needed(ladder, target) for name, ladder in ladders.items()}
        ratio = factor(needed[of], needed[over])
        rows.append(
            {
                "AUC": target,
                **{f"labels, {name}": str(labels) for name, labels in needed.items()},
                f"{of} / {over}": str(ratio) if ratio is not None else "not determined",
            }
        )
    return rows
