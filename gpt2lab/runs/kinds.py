"""What a study's lines speak of: claims of the paper, which get verdicts, and three kinds of checks, which do not."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, get_args

from gpt2lab.runs.verdicts import JudgedClaim, Kind


class KindWords(NamedTuple):
    """What a reader is told of a kind."""

    title: str
    """Its heading."""
    meaning: str
    """What its lines say, and what they do not say."""


WORDS: Mapping[Kind, KindWords] = {
    "claim": KindWords(
        "Claims of the paper", "Each gets a verdict from its interval over the seeds, or over the test items."
    ),
    "instrument": KindWords(
        "Checks of the instrument",
        "Does the measure find what was planted where the truth is known? Each passes if its quantity lies in its range in "
        "every seed; that says whether a measurement can be trusted, and nothing of the paper.",
    ),
    "implementation": KindWords(
        "Checks of the implementation",
        "Identities, unbiased estimators, one way of computing against another: none can fail if the code is right. Each "
        "passes if its quantity lies in its range in every seed, and says nothing of the paper.",
    ),
    "engineering": KindWords(
        "Our own engineering",
        "Speed and memory of this lab's code on this machine, not of the paper's. Each passes if its quantity lies in its "
        "range in every seed.",
    ),
}  # fmt: skip
"""The words of every kind, in the order in which they are shown."""


def by_kind(judged: Iterable[JudgedClaim]) -> dict[Kind, list[JudgedClaim]]:
    """Return the lines of every kind that there is, claims first."""
    every = list(judged)
    found = {kind: [one for one in every if one.claim.kind == kind] for kind in get_args(Kind)}
    return {kind: ones for kind, ones in found.items() if ones}
