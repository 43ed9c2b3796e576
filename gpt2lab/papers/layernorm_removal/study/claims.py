"""The claims of the study and how they are judged."""

from collections.abc import Sequence
from statistics import fmean

from gpt2lab.runs.verdicts import Status, Verdict
from gpt2lab.studies.claim import Above, AtLeast, AtMost, Claim, Results


def _headline(seeds: Sequence[Results]) -> Verdict:
    """The specification's rule on means over seeds: a rise of at most 0.05 nats, where freezing alone costs 0.3."""
    rise, original, instant = (
        fmean(results[name] for results in seeds) for name in ("rise", "rise_over_original", "rise_instant")
    )
    reason = (
        f"The model without norms ends {rise:+.4f} nats from the one trained on with them and {original:+.4f} from the "
        f"pre-trained one; frozen without training, it loses {instant:.3f} nats."
    )
    if rise <= 0.05 and instant >= 0.3:
        return Verdict(Status.HOLDS, reason)
    return Verdict(Status.DOES_NOT_HOLD if rise > 0.15 else Status.INCONCLUSIVE, reason)


_TRAINED = ("laptop", "gpu", "paper")

CLAIMS = [
    Claim(
        "LayerNorm can be taken out for a small rise of the loss",
        name="A",
        fixed="2026-11-24",
        measure="rise",
        quantity="loss after removal one by one minus that of the same fine-tuning with the norm",
        rule=_headline,
        paper="README, loss table: +0.0671 nats for GPT-2 small against fine-tuning with the norm, +0.0253 for XL",
        unit="nats per token",
        scales=_TRAINED,
    ),
    Claim(
        "Without the norm, direct logit attribution equals the direct effect",
        name="B",
        measure="attribution_error.sequential",
        quantity="distance of direct logit attribution from the direct effect, without the norm",
        holds_if=AtMost(0.1),
        needs="attribution_error.control > 5",
        paper="error 49.07 % in GPT-2 small before, 0.00 % after",
        unit="% of the mean effect",
        # Logits are linear in what each head writes once no norm divides them: it cannot be otherwise.
        kind="implementation",
        scales=_TRAINED,
    ),
    Claim(
        "Attribution patching does not become more accurate without the norm",
        name="C",
        fixed="2026-11-24",
        measure="patching_ratio",
        quantity="error of attribution patching without the norm over that with it",
        holds_if=Above(0.8),
        paper="mean improvement -0.026, sd 0.082; the exact definition is not established",
        unit="error without the norm / with it",
        scales=_TRAINED,
    ),
    Claim(
        "Removing all norms at once does harm that removing them one by one does not",
        name="D",
        fixed="2026-11-24",
        measure="loss.at_once - loss.sequential",
        quantity="loss after removal at once minus that after removal one by one",
        holds_if=AtLeast(0.15),
        holds_in_part_if=AtLeast(0.01),
        paper="removing everything at once breaks the model; no figure established",
        unit="nats per token",
        scales=_TRAINED,
    ),
    Claim(
        "Confidence neurons stop working without the norm",
        name="E",
        fixed="2026-11-24",
        measure="neuron_effect.sequential / neuron_effect.control",
        quantity="effect of confidence neurons on the loss without the norm over that with it",
        holds_if=AtMost(0.5),
        needs="neuron_effect.control > 0.0005",
        paper="confidence-neuron study; no figure established",
        unit="median change of the loss without the norm / with it",
        scales=_TRAINED,
    ),
    Claim(
        "Folding the frozen norms into the weights changes no logit",
        name="F",
        measure="export.folded.float64",
        quantity="largest difference between the logits before and after folding, in float64",
        holds_if=AtMost(1e-9),
        paper="follows from the equations; the authors' own export keeps norms with an eps of 1e12",
        unit="largest difference of logits",
        kind="implementation",
    ),
]
