"""The claims of the study, and when each can be judged."""

from gpt2lab.studies.claim import Above, AtLeast, Claim

SHUFFLES = (
    *("shuffle_local3", "shuffle_even_odd", "shuffle_local10"),
    *("shuffle_deterministic21", "shuffle_nondeterministic"),
)
"""The shuffled languages that are compared, in the paper's order."""
PAPER_RANKS = {
    "shuffle_control": 1.0, "shuffle_local3": 2.5, "shuffle_even_odd": 2.5, "shuffle_local10": 4.0,
    "shuffle_deterministic21": 5.5, "shuffle_nondeterministic": 5.5,
}  # fmt: skip
"""Ranks of final perplexity in Fig. 2; neighbours that the paper's curves do not part share one."""
REVERSED = ("reverse_partial", "reverse_full")
HOPS = ("hop_control", "hop_tokens4", "hop_words4")

_SCALES = ("laptop", "gpu", "paper")
_FIXED = "2026-12-01"


def _tuned(*languages: str) -> str:
    """That the best learning rate of each language lies inside its grid."""
    return " + ".join(f"{name}.at_edge" for name in languages) + " < 1"


_LEARNT = "shuffle_control.log_perplexity < unigram_loss - 0.5"
_MARKED = "hop_control.marker < 2"
"""The control has learnt that a verb's lemma is followed by a marker."""
_NUMBER = "hops.least_right > 0.6"
"""In each of the three languages the right marker is likelier than the other one: there is a number to carry."""

CLAIMS = [
    Claim(
        "Unshuffled English reaches a lower perplexity than every shuffled language",
        name="A",
        fixed=_FIXED,
        measure="shuffle.smallest_gap",
        quantity="log perplexity of the best shuffled language minus that of the control, at the end",
        holds_if=Above(0.0),
        needs=f"{_LEARNT} and {_tuned('shuffle_control', *SHUFFLES)}",
        paper="Fig. 2, curves only: lowest at all times after about 500 steps",
        no_effect=0.0,
        unit="nats per token",
        scales=_SCALES,
    ),
    Claim(
        "Perplexity grows with the disorder of the shuffle",
        name="B",
        fixed=_FIXED,
        measure="shuffle.order",
        quantity="rank correlation (Spearman, ties shared) of final perplexity with the paper's order of six languages",
        holds_if=AtLeast(0.8),
        holds_in_part_if=Above(0.0),
        needs=f"{_LEARNT} and {_tuned('shuffle_control', *SHUFFLES)}",
        paper="Fig. 2, curves only; the paper's own order, in which two pairs are tied, gives 0.97",
        paper_effect=0.97,
        no_effect=0.0,
        scales=_SCALES,
    ),
    Claim(
        "The control without reversal is learnt best in its family",
        name="C",
        fixed=_FIXED,
        measure="reverse.smallest_gap",
        quantity="log perplexity of the better reversed language minus that of the control, at the end",
        holds_if=Above(0.0),
        needs=f"{_LEARNT} and {_tuned('reverse_control', *REVERSED)}",
        paper="Fig. 2, curves only: partial reversal slightly better than full, all close",
        no_effect=0.0,
        unit="nats per token",
        scales=_SCALES,
    ),
    Claim(
        "A marker beside its verb is less surprising than one four tokens or words later, at every checkpoint",
        name="D",
        fixed=_FIXED,
        measure="hops.smallest_marker_gap",
        quantity="surprisal of the marker in the better hopped language minus that in the control, least of all checkpoints",
        holds_if=Above(0.0),
        needs=f"{_MARKED} and {_tuned(*HOPS)}",
        paper="bars of test 1, values not in the text: lowest at every step shown",
        no_effect=0.0,
        unit="bits",
        scales=_SCALES,
    ),
    Claim(
        "A missing marker is more surprising beside its verb than four tokens or words later, at every checkpoint",
        name="E",
        fixed=_FIXED,
        measure="hops.smallest_difference_gap",
        quantity="difference of test 2 in the control minus that in the better hopped language, least of all checkpoints",
        holds_if=Above(0.0),
        needs=f"{_MARKED} and {_tuned(*HOPS)}",
        paper="bars of test 2, values not in the text: largest at every step shown",
        no_effect=0.0,
        unit="bits",
        scales=_SCALES,
    ),
    Claim(
        "In all three marker languages the number travels from the subject to the last position",
        name="F",
        fixed=_FIXED,
        measure="hops.least_travel",
        quantity="interchange accuracy at the subject after the first block or at the last position after the last one, the "
        "lower of both, above that at the determiner; smallest over languages",
        holds_if=Above(26.0),
        holds_in_part_if=Above(0.0),
        needs=f"{_NUMBER} and {_tuned(*HOPS)}",
        paper="3000 steps, subject at layer 0: 87.8, 60.8 and 52.3 %, last position at layer 11: 98.8, 87.4 and 84.6 %, "
        "determiner 0.8 %; the threshold is half of the lowest",
        paper_effect=51.5,
        no_effect=0.0,
        unit="percentage points",
        scales=_SCALES,
    ),
    Claim(
        "The control moves the number to the last position earlier than the other two",
        name="G",
        fixed=_FIXED,
        measure="hops.earlier",
        quantity="interchange accuracy at the last position after the last block above that at the determiner, mean over "
        "checkpoints: control minus the better of the others",
        holds_if=Above(0.0),
        needs=f"{_NUMBER} and {_tuned(*HOPS)}",
        paper="control about step 1500, others later",
        no_effect=0.0,
        unit="percentage points",
        scales=_SCALES,
    ),
    Claim(
        "A model of a deterministic shuffle has its lowest perplexity on its own shuffle",
        name="H",
        fixed=_FIXED,
        measure="shuffle_deterministic21.own_gap",
        quantity="log perplexity of the best other shuffle (57, 84, random) minus that of its own, at the end",
        holds_if=Above(0.0),
        needs=f"{_LEARNT} and {_tuned('shuffle_deterministic21')}",
        paper="Appendix E: so for each of the three",
        no_effect=0.0,
        unit="nats per token",
        scales=_SCALES,
    ),
]
