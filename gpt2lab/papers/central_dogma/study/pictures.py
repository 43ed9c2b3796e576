"""The figures and tables over all seeds."""

from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from gpt2lab.papers.central_dogma.study.settings import Settings
from gpt2lab.studies.seed_figures import seed_dots

if TYPE_CHECKING:
    from gpt2lab.studies.study import Study

_SETS = {
    "order": "DNA with its protein or the same residues in another order",
    "dna_protein": "DNA with its protein or a random one",
    "dna_dna": "DNA and DNA",
    "protein_protein": "protein and protein",
    "own": "its own task",
}
_TRANSFER = 0.6
"""Accuracy from which on a seed counts as transfer in the distribution over seeds."""


def add(settings: Settings, study: "Study") -> None:
    """Add accuracies on every set, by kind of negative, and their distribution over seeds."""
    runs = study.runs
    arms = [arm for arm in settings.arms if all(arm in run.arms for run in runs)]
    for name, words in _SETS.items():
        study.figure(
            name,
            seed_dots(
                {arm: [run.results[f"{arm}.{name}"] for run in runs] for arm in arms}, label="accuracy"
            ),
            f"Accuracy on pairs of {words}: mean over seeds with its 95 % interval, a ring a seed; chance is one half",
        )
    study.table(
        "distribution",
        [
            row
            for arm in arms
            for row in [_distribution(arm, [run.results[f"{arm}.dna_protein"] for run in runs])]
        ],
        "Accuracy on DNA and protein over all seeds; the best seed alone says nothing",
    )
    kinds = list(dict.fromkeys(row["type"] for run in runs for row in run.arms[arms[0]].tables["types"]))
    study.table(
        "types",
        [{"type": kind, **{arm: _mean(runs, arm, str(kind)) for arm in arms}} for kind in kinds],
        "Share judged as labelled by kind of pair, mean over seeds; judges that call everything a match are right on "
        "`match` and wrong elsewhere",
    )
    others = sorted(
        {name for run in runs for name in run.results if ".rule." in name or ".shortcut." in name}
    )
    study.table(
        "baselines",
        [{"baseline": name, "accuracy": fmean(run.results[name] for run in runs)} for name in others],
        "What the code table and shortcuts say of the same pairs; shortcuts learn from labels of the target task",
    )
    study.head(figure="order")


def _distribution(arm: str, values: list[float]) -> dict[str, Any]:
    return {
        "judge": arm,
        "seeds": len(values),
        "mean": fmean(values),
        "s.d.": stdev(values) if len(values) > 1 else None,
        "lowest": min(values),
        "highest": max(values),
        f"share of seeds above {_TRANSFER}": sum(value > _TRANSFER for value in values) / len(values),
    }


def _mean(runs: Any, arm: str, kind: str) -> float:
    found = [
        float(row["accuracy"]) for run in runs for row in run.arms[arm].tables["types"] if row["type"] == kind
    ]
    return fmean(found)
