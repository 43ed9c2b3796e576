"""The paper's claims over the results of the seeds."""

from collections.abc import Callable
from typing import TypeVar

from gpt2lab.base.errors import LabError
from gpt2lab.papers.tinystories.study.real_text import WHY_NO_VERDICT
from gpt2lab.studies.claim import Above, AtLeast, AtMost, Claim, Results

LEARNT = 0.95
"""Grammar and stopping from which on a model writes grammatical text (claim A)."""
TRAINED = ("laptop", "gpu", "paper")
"""Scales whose models have seen enough stories for a verdict; at smoke scale forty updates teach nothing."""


T = TypeVar("T", float, bool)


def _in_tinyworld(measure: Callable[[Results], T]) -> Callable[[Results], T]:
    """Refuse to judge where the results are of real text, and where the grader failed its own calibration."""

    def checked(results: Results) -> T:
        if "reference.bits_per_byte" in results:
            raise LabError(WHY_NO_VERDICT)
        if results["grader.void"] or results["grader.void_nested"]:
            raise LabError("the offline grader failed its calibration, so its grades are void")
        return measure(results)

    checked.__doc__ = measure.__doc__
    return checked


@_in_tinyworld
def _lowest_above_the_bound(results: Results) -> float:
    """Of the worst model from the bound on: the lower of grammar and of the share that stops by itself."""
    return results["bound.lowest"]


@_in_tinyworld
def _octaves(results: Results) -> float:
    """Octaves of width from the one at which grammar reaches 0.9 to the one at which consistency does."""
    return results["order.octaves"]


@_in_tinyworld
def _has_grammar(results: Results) -> bool:
    """Grammar 0.9 in the best model of the grid."""
    return results["order.best_grammar"] >= 0.9


@_in_tinyworld
def _depth(results: Results) -> float:
    """Binding accuracy of the deeper model minus that of one layer, equal parameters."""
    return results["binding.difference"]


@_in_tinyworld
def _can_bind(results: Results) -> bool:
    """Grammar 0.9 at both depths, and half of the words of the deeper model repeated from those introduced."""
    return results["binding.grammar"] >= 0.9 and results["binding.deep_consistency"] >= 0.5


@_in_tinyworld
def _excess(results: Results) -> float:
    """Rouge-2 precision in the nearest training story: samples minus held-out stories."""
    return results["memory.excess"]


@_in_tinyworld
def _control_recites(results: Results) -> bool:
    """Grammar 0.9 in the grid; the control that reads few stories again and again is nearer to them by 0.1."""
    return results["order.best_grammar"] >= 0.9 and results["memory.control.excess"] > 0.1


CLAIMS = [
    Claim(
        "Models of less than a million parameters write grammatical text and stop by themselves, from a size on that the "
        "tuning seed names",
        name="A",
        fixed="2026-12-01",
        measure=_lowest_above_the_bound,
        quantity="grammar or stopping, whichever is lower, of the worst model of at least that size",
        holds_if=AtLeast(LEARNT),
        paper="headline: fluent stories below 10M parameters, or with one block; grammar 7.72 of 10 at width 256 (Fig. 4)",
        unit="share",
        scales=TRAINED,
    ),
    Claim(
        "Grammar comes before consistency: at a smaller width",
        name="B",
        fixed="2026-12-01",
        measure=_octaves,
        quantity="octaves of width between grammar 0.9 and consistency 0.9; where no width reaches it, up to the largest",
        holds_if=Above(0.0),
        needs=_has_grammar,
        paper="Fig. 4: grammar 6.19 and consistency 4.75 of 10 at width 64; 7.72 and 8.02 at width 256",
        no_effect=0.0,
        unit="octaves",
        scales=TRAINED,
    ),
    Claim(
        "Depth helps to keep track of context: with equal parameters, two layers bind better than one",
        name="C",
        fixed="2026-12-01",
        measure=_depth,
        quantity="binding accuracy of two layers minus that of one",
        holds_if=Above(0.05),
        holds_in_part_if=Above(0.0),
        needs=_can_bind,
        paper="in words: one layer fails at context tracking, depth matters more for it, width for facts",
        no_effect=0.0,
        unit="share of bindings",
        scales=TRAINED,
    ),
    Claim(
        "Models do not recite: their stories are hardly nearer to the training stories than new stories are",
        name="D",
        fixed="2026-12-01",
        measure=_excess,
        quantity="Rouge-2 precision in the nearest training story: of sampled stories minus of held-out ones",
        holds_if=AtMost(0.05),
        needs=_control_recites,
        paper="section on diversity, in words: only common short phrases are shared (ROUGE study)",
        no_effect=0.0,
        unit="Rouge-2 precision",
        scales=TRAINED,
    ),
]
"""A, B, C, D of the specification."""
