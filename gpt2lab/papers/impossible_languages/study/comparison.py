"""What the languages of one seed say beside each other: gaps to the control, the order, and how the number travels."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from gpt2lab.papers.impossible_languages.study.claims import HOPS, PAPER_RANKS, REVERSED, SHUFFLES

SUBJECT, DETERMINER = 1, 0
"""Positions in an example of the interchange interventions."""
Tables = Mapping[str, Sequence[Mapping[str, Any]]]


def compared(results: Mapping[str, float], tables: Tables, n_layers: int) -> dict[str, float]:
    """Return the quantities of the claims from the languages' results and their tables of checkpoints."""
    control, *others = HOPS
    gaps = {
        key: min(
            sign * (float(row[key]) - float(beside[key]))
            for other in others
            for row, beside in zip(tables[other], tables[control], strict=True)
        )
        for key, sign in (("marker", 1), ("difference", -1))
    }
    arrival = {
        name: fmean(_above(row, n_layers - 1, last_position(row)) for row in tables[name]) for name in HOPS
    }
    return {
        "shuffle.smallest_gap": _gap(results, "shuffle_control", SHUFFLES),
        "shuffle.order": order(results),
        "reverse.smallest_gap": _gap(results, "reverse_control", REVERSED),
        "hops.smallest_marker_gap": gaps["marker"],
        "hops.smallest_difference_gap": gaps["difference"],
        "hops.least_right": min(results[f"{name}.right"] for name in HOPS),
        "hops.least_travel": min(travel(tables[name][-1], n_layers) for name in HOPS),
        "hops.earlier": arrival[control] - max(arrival[name] for name in others),
    }


def travel(row: Mapping[str, Any], n_layers: int) -> float:
    """Return the lower of the accuracies at the subject after the first and at the last position after the last block.

    In percentage points above that at the determiner, which is the same word in both sentences: what a swap there changes
    is nothing, and its accuracy is the share of base sentences that are answered in the plural as they are.
    """
    return min(_above(row, 0, SUBJECT), _above(row, n_layers - 1, last_position(row)))


def order(results: Mapping[str, float]) -> float:
    """Return Spearman's rank correlation of the final losses with the paper's order, in which ties share a rank."""
    ours = np.argsort(np.argsort([results[f"{name}.log_perplexity"] for name in PAPER_RANKS])) + 1.0
    return float(np.corrcoef(ours, list(PAPER_RANKS.values()))[0, 1])


def last_position(row: Mapping[str, Any]) -> int:
    """Return the last position of the examples: that of the verb in the control."""
    return max(int(key.rpartition("_")[2]) for key in row if key.startswith("iia_") and row[key] != "")


def _above(row: Mapping[str, Any], layer: int, position: int) -> float:
    return float(row[f"iia_{layer}_{position}"]) - float(row[f"iia_{layer}_{DETERMINER}"])


def _gap(results: Mapping[str, float], control: str, others: Sequence[str]) -> float:
    return min(results[f"{name}.log_perplexity"] for name in others) - results[f"{control}.log_perplexity"]
