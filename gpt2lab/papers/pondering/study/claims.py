"""The claims of the study and the specification's rule for them."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean

from gpt2lab.measures.statistics import t_interval
from gpt2lab.runs.verdicts import Status, Verdict
from gpt2lab.studies.claim import Above, AtLeast, AtMost, Claim, Results


def _lower(name: str, words: str, least: float = 0.02) -> Callable[[Sequence[Results]], Verdict]:
    """The specification's rule for a difference of losses: above `least` and two standard errors, or not above 0."""

    def rule(seeds: Sequence[Results]) -> Verdict:
        values = [results[name] for results in seeds]
        interval = t_interval(values)
        error = interval.sd / math.sqrt(interval.n)
        flops = fmean(results["ponder.flops"] / results["vanilla.flops"] for results in seeds)
        reason = (
            f"Pondering ends {abs(interval.mean):.3f} nats {'below' if interval.mean > 0 else 'above'} {words} (gain "
            f"{interval.mean:+.3f}, standard error {error:.3f}, 95 % {interval.low:.3f} to {interval.high:.3f}), with "
            f"{flops:.1f} times vanilla's training compute."
        )
        if interval.mean <= 0:
            return Verdict(Status.DOES_NOT_HOLD, reason)
        holds = interval.mean > least and interval.mean > 2 * error
        return Verdict(Status.HOLDS if holds else Status.INCONCLUSIVE, reason)

    rule.__doc__ = (
        f"The specification's rule on the mean over seeds: above {least:g} and above two standard errors; "
        "does not hold if not above 0"
    )
    return rule


_TRAINED = ("laptop", "gpu", "paper")
_LEARNT = "vanilla.loss < vanilla.start - 1"

CLAIMS = [
    Claim(
        "At equal parameters and tokens, pondering gives a lower loss",
        name="A",
        fixed="2026-11-24",
        measure="gain",
        quantity="loss of the plain model minus that of the pondering one",
        rule=_lower("gain", "vanilla of equal size and tokens"),
        needs=_LEARNT,
        paper="Table 2: Pythia-70M, 3 extra steps: perplexity 14.16 against 16.95, 0.18 nats",
        unit="nats per token",
        scales=_TRAINED,
    ),
    Claim(
        "Feeding back the expected embedding is better than looping or feeding back the hidden state",
        name="B",
        fixed="2026-11-24",
        measure="over_variants",
        quantity="lowest loss of the other variants minus that of pondering",
        rule=_lower("over_variants", "the best of the other variants", 0.0),
        needs=_LEARNT,
        paper="Table 2: perplexity 14.16 against 15.33 (loop), 15.64 (hidden state), 16.53 (pause tokens)",
        unit="nats per token",
        scales=_TRAINED,
    ),
    Claim(
        "A pondering model is worth a plain one of twice the blocks, with equal tokens",
        name="C",
        fixed="2026-11-24",
        measure="over.vanilla_double",
        quantity="loss of a plain model of twice the blocks minus that of pondering",
        holds_if=AtLeast(0.0),
        needs=_LEARNT,
        paper="abstract and Fig. 4: vanilla of about twice the parameters",
        unit="nats per token",
        scales=("gpu", "paper"),
    ),
    Claim(
        "With equal training compute, pondering gives a lower loss than the same model trained for longer",
        name="D",
        fixed="2026-11-24",
        measure="over.vanilla_long",
        quantity="loss of the plain model trained for longer minus that of pondering",
        holds_if=Above(0.0),
        needs=_LEARNT,
        paper="Pythia-70M, vanilla trained for 4 epochs: pondering stays lower; value not established",
        unit="nats per token",
        scales=_TRAINED,
    ),
    Claim(
        "With equal training compute and tokens, pondering gives a lower loss than as many blocks as it makes passes",
        name="E",
        fixed="2026-11-24",
        measure="over.vanilla_deep",
        quantity="loss of a plain model of as many blocks as pondering makes passes minus that of pondering",
        holds_if=Above(0.0),
        needs=_LEARNT,
        paper="asked for in public reviews; no figure established",
        unit="nats per token",
        scales=("gpu", "paper"),
    ),
    Claim(
        "Pondering reaches the plain model's final loss with far fewer tokens",
        name="F",
        fixed="2026-11-24",
        measure="token_share",
        quantity="tokens after which pondering has the plain model's final loss, over all tokens",
        holds_if=AtMost(0.5),
        holds_in_part_if=AtMost(0.9),
        needs=_LEARNT,
        paper="1B on the Pile: 59 % fewer tokens (a share of 0.41), read off one schedule",
        unit="share of the tokens",
        scales=_TRAINED,
    ),
    Claim(
        "A model trained with three steps is clearly worse with none",
        name="G",
        fixed="2026-11-24",
        measure="ponder.sweep.none_minus_trained",
        quantity="loss with no steps minus that with the steps of training",
        holds_if=AtLeast(0.05),
        needs=_LEARNT,
        paper="no figure established; the specification's step sweep",
        unit="nats per token",
        scales=_TRAINED,
    ),
    Claim(
        "It is at its best with about the steps it was trained with: no other number is better by 0.01 nats",
        name="H",
        fixed="2026-11-24",
        measure="ponder.sweep.trained_minus_best",
        quantity="loss with the steps of training minus the lowest with any number of steps",
        holds_if=AtMost(0.01),
        needs=_LEARNT,
        paper="no figure established; the specification's step sweep",
        unit="nats per token",
        scales=_TRAINED,
    ),
    Claim(
        "More steps in training give a lower loss: three against one",
        name="I",
        fixed="2026-11-24",
        measure="over.ponder_one",
        quantity="loss of pondering with one step minus that with three",
        holds_if=Above(0.0),
        needs=_LEARNT,
        paper="step study: 0, 1, 2, 3, 4, 5, 10 fall one after another",
        unit="nats per token",
        scales=("gpu", "paper"),
    ),
]
