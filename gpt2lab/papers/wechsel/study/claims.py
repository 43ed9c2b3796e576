"""The claims of the study, and when each can be judged."""

from gpt2lab.studies.claim import Above, AtLeast, Claim

_FIXED = "2026-12-01"
_SCALES = ("laptop", "gpu", "paper")
_NATS = "nats per token"
_ALIGNED = "alignment.precision_at_10 >= 0.2"
"""The word vectors are aligned at all: where they are not, the alignment failed and not the method."""
_LEARNT = "source.loss < source.unigram_loss - 0.5 and fullrand.loss < unigram_loss - 0.2"
"""There is knowledge to transfer, and training from scratch has learnt more than frequencies."""


def _tuned(*arms: str) -> str:
    """That the best learning rate of each arm lies inside the grid."""
    return " + ".join(f"{arm}.at_edge" for arm in arms) + " < 1"


CLAIMS = [
    Claim(
        "After a quarter of the updates, embeddings begun by meaning are where the other beginnings end",
        name="A",
        fixed=_FIXED,
        measure="quarter_gap",
        quantity="final loss of the better of random embeddings (transinner) and a random model (fullrand) minus the loss "
        "of WECHSEL after a quarter of the updates",
        holds_if=AtLeast(0.0),
        needs=f"{_ALIGNED} and {_LEARNT} and {_tuned('wechsel', 'transinner', 'fullrand')}",
        paper="abstract: up to 64 times less training effort, against a published model trained from scratch on more text",
        unit=_NATS,
        scales=_SCALES,
    ),
    Claim(
        "After equal training the transferred model is better than one trained from scratch",
        name="B",
        fixed=_FIXED,
        measure="over.fullrand",
        quantity="final loss of the model trained from scratch minus that of WECHSEL",
        holds_if=Above(0.0),
        needs=f"{_ALIGNED} and {_LEARNT} and {_tuned('wechsel', 'fullrand')}",
        paper="model card, French GPT-2: perplexity 19.71 against 20.47, 0.038 nats after 250,000 updates",
        paper_effect=0.038,
        no_effect=0.0,
        unit=_NATS,
        scales=_SCALES,
    ),
    Claim(
        "The gain over training from scratch is larger where text is scarce",
        name="C",
        fixed=_FIXED,
        measure="scarce_gain - over.fullrand",
        quantity="gain of WECHSEL over the model from scratch with a tenth of the text minus that with all of it",
        holds_if=Above(0.0),
        needs=f"{_ALIGNED} and {_LEARNT} and "
        f"{_tuned('wechsel', 'fullrand', 'wechsel_scarce', 'fullrand_scarce')}",
        paper="model card: Sundanese, 111.72 against 149.46, 0.291 nats, minus French, 0.038 nats",
        paper_effect=0.253,
        no_effect=0.0,
        unit=_NATS,
        scales=_SCALES,
    ),
    Claim(
        "The alignment translates words that the dictionary lacks",
        kind="instrument",
        name="E",
        fixed=_FIXED,
        measure="alignment.precision_at_10",
        quantity="share of unseen words whose translation is among the ten nearest",
        holds_if=AtLeast(0.2),
        paper="none: the specification's condition, without which the alignment and not the method is judged",
        scales=_SCALES,
    ),
]
