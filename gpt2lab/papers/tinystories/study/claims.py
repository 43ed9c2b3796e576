"""The paper's claims as rules over the results of the seeds; the rules are the specification's."""

import math
from collections.abc import Callable, Sequence

from gpt2lab.base.errors import LabError
from gpt2lab.papers.tinystories.study.real_text import WHY_NO_VERDICT
from gpt2lab.runs.verdicts import Status, Verdict
from gpt2lab.studies.claim import AtLeast, AtMost, Claim, Results

LEARNT = 0.95
"""Grammar and stopping from which on a model writes grammatical text (claim A)."""
SAMPLING_ERROR = 0.01
"""By how much a share of some 500 sentences near 1 is off by chance (claim B)."""
MARGIN = 0.05
"""Difference in binding accuracy that counts as one: three sampling errors of 128 stories (claim C)."""
TRAINED = ("laptop", "gpu", "paper")
"""Scales whose models have seen enough stories for a verdict; at smoke scale forty updates teach nothing."""


def _in_tinyworld(measure: Callable[[Results], float]) -> Callable[[Results], float]:
    """Refuse to judge where the results are of real text, and where the grader failed its own calibration."""

    def checked(results: Results) -> float:
        if "reference.bits_per_byte" in results:
            raise LabError(WHY_NO_VERDICT)
        if results["grader.void"]:
            raise LabError("the offline grader failed its calibration, so its grades are void")
        return measure(results)

    checked.__doc__ = measure.__doc__
    return checked


@_in_tinyworld
def _grammar_of_small(results: Results) -> float:
    """Best of the models below a million parameters: the lower of grammar and of the share that stops by itself."""
    return results["small.grammar_and_stops"]


@_in_tinyworld
def _widths_apart(results: Results) -> float:
    """Smallest width that reaches consistency 0.9, divided by the one that reaches grammar 0.9."""
    widths = results["order.width_of_consistency"], results["order.width_of_grammar"]
    return widths[0] / widths[1] if math.isfinite(widths[1]) else math.nan


def _grammar_first(seeds: Sequence[Results]) -> Verdict:
    """Hold if in every seed no model is more consistent than grammatical and grammar comes first."""
    if not any(math.isfinite(results["order.width_of_grammar"]) for results in seeds):
        return Verdict(Status.NOT_TESTED, "No model reached grammar 0.9 in any seed, so there is no order.")
    leads = [results["order.lead_of_consistency"] for results in seeds]
    first = [bool(results["order.grammar_first"]) for results in seeds]
    kept = [lead <= SAMPLING_ERROR and early for lead, early in zip(leads, first, strict=True)]
    reason = (
        f"Grammar 0.9 comes at a smaller width, or in fewer steps, in {sum(first)} of {len(seeds)} seeds; "
        f"consistency leads grammar by at most {max(leads):.3f}."
    )
    if all(kept):
        return Verdict(Status.HOLDS, reason)
    return Verdict(Status.INCONCLUSIVE if any(kept) else Status.DOES_NOT_HOLD, reason)


@_in_tinyworld
def _depth(results: Results) -> float:
    """Binding accuracy of the better deep model minus that of one layer, equal parameters."""
    return results["binding.difference"]


def _deeper_binds(seeds: Sequence[Results]) -> Verdict:
    """Hold if the deeper model wins in all seeds by more than the margin, fail if it never does."""
    differences = [results["binding.difference"] for results in seeds]
    wins = sum(difference > MARGIN for difference in differences)
    reason = f"Two or four layers bind better than one by more than {MARGIN} in {wins} of {len(seeds)} seeds"
    if wins == len(seeds):
        return Verdict(Status.HOLDS, f"{reason}.")
    if wins:
        return Verdict(Status.INCONCLUSIVE, f"{reason}: the seeds disagree.")
    return Verdict(Status.DOES_NOT_HOLD, f"{reason}, at this size and training.")


def _can_bind(results: Results) -> bool:
    """Grammar 0.9 at every depth, and half of the words repeated from those introduced."""
    return results["binding.grammar"] >= 0.9 and results["binding.consistency"] >= 0.5


@_in_tinyworld
def _excess(results: Results) -> float:
    """Rouge-2 precision in the nearest training story: samples minus held-out stories."""
    return results["memory.excess"]


CLAIMS = [
    Claim(
        "Models of less than a million parameters write grammatical text and stop by themselves",
        name="A",
        fixed="2026-11-23",
        measure=_grammar_of_small,
        holds_if=AtLeast(LEARNT),
        paper="headline: fluent stories below 10M parameters, or with one block; grammar 7.72 of 10 at width 256 (Fig. 4)",
        unit="share",
        scales=TRAINED,
    ),
    Claim(
        "Grammar comes before consistency: at a smaller width, or in fewer steps, and no model is more consistent "
        "than grammatical",
        name="B",
        fixed="2026-11-23",
        measure=_widths_apart,
        rule=_grammar_first,
        paper="Fig. 4: grammar 6.19 and consistency 4.75 of 10 at width 64; 7.72 and 8.02 at width 256",
        unit="ratio of widths",
        scales=TRAINED,
    ),
    Claim(
        "Depth helps to keep track of context: with equal parameters, two or more layers bind better than one",
        name="C",
        fixed="2026-11-23",
        measure=_depth,
        rule=_deeper_binds,
        needs=_can_bind,
        paper="in words: one layer fails at context tracking, depth matters more for it, width for facts",
        unit="share of bindings",
        scales=TRAINED,
    ),
    Claim(
        "Models do not recite: their stories are hardly nearer to the training stories than new stories are",
        name="D",
        fixed="2026-11-23",
        measure=_excess,
        holds_if=AtMost(0.05),
        needs="small.grammar_and_stops >= 0.5",
        paper="section on diversity, in words: only common short phrases are shared (ROUGE study)",
        unit="Rouge-2 precision",
        scales=TRAINED,
    ),
]
"""A, B, C, D of the specification."""
