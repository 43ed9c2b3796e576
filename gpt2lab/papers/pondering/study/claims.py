"""The claims of the study, and when each can be judged."""

from gpt2lab.studies.claim import Above, AtLeast, AtMost, Claim

_TRAINED = ("laptop", "gpu", "paper")
_LARGER = ("gpu", "paper")
_LEARNT = "vanilla.loss < unigram_loss - 1"
_PAYS = f"{_LEARNT} and control > 0.1"
"""The positive control: as many blocks as pondering makes passes lower the loss, so in this setting further compute for a
token pays at all."""


def _tuned(*arms: str) -> str:
    """That the best learning rate of each arm lies inside the grid."""
    return " + ".join(f"{arm}.at_edge" for arm in arms) + " < 1"


_NATS = "nats per token"

CLAIMS = [
    Claim(
        "At equal parameters and tokens, pondering gives a lower loss",
        name="A",
        fixed="2026-12-01",
        measure="gain",
        quantity="loss of the plain model minus that of the pondering one",
        holds_if=Above(0.02),
        holds_in_part_if=Above(0.0),
        needs=f"{_PAYS} and {_tuned('ponder', 'vanilla')}",
        paper="Table 2: Pythia-70M, 3 extra steps: perplexity 14.16 against 16.95, 0.18 nats",
        paper_effect=0.18,
        no_effect=0.0,
        unit=_NATS,
        scales=_TRAINED,
    ),
    Claim(
        "Feeding back the expected embedding is better than feeding back the hidden state",
        name="B",
        fixed="2026-12-01",
        measure="over.hidden",
        quantity="loss of the model that feeds back its hidden state minus that of pondering",
        holds_if=Above(0.0),
        needs=f"{_PAYS} and {_tuned('ponder', 'hidden')}",
        paper="Table 2: perplexity 14.16 against 15.64, 0.099 nats",
        paper_effect=0.099,
        no_effect=0.0,
        unit=_NATS,
        scales=_TRAINED,
    ),
    Claim(
        "A pondering model is worth a plain one of twice the blocks, with equal tokens",
        name="C",
        fixed="2026-12-01",
        measure="over.vanilla_double",
        quantity="loss of a plain model of twice the blocks minus that of pondering",
        holds_if=AtLeast(0.0),
        needs=f"{_LEARNT} and {_tuned('ponder', 'vanilla_double')}",
        paper="abstract and Fig. 4: vanilla of about twice the parameters",
        unit=_NATS,
        scales=_LARGER,
    ),
    Claim(
        "With equal training compute, pondering gives a lower loss than the same model trained for longer",
        name="D",
        fixed="2026-12-01",
        measure="over.vanilla_long",
        quantity="loss of the plain model trained for longer minus that of pondering",
        holds_if=Above(0.0),
        needs=f"{_PAYS} and {_tuned('ponder', 'vanilla_long')}",
        paper="Pythia-70M, vanilla trained for 4 epochs: pondering stays lower; value not established",
        no_effect=0.0,
        unit=_NATS,
        scales=_LARGER,
    ),
    Claim(
        "With equal training compute and tokens, pondering gives a lower loss than as many blocks as it makes passes",
        name="E",
        fixed="2026-12-01",
        measure="over.vanilla_deep",
        quantity="loss of a plain model of as many blocks as pondering makes passes minus that of pondering",
        holds_if=Above(0.0),
        needs=f"{_LEARNT} and {_tuned('ponder', 'vanilla_deep')}",
        paper="asked for in public reviews; no figure established",
        no_effect=0.0,
        unit=_NATS,
        scales=_TRAINED,
    ),
    Claim(
        "Pondering reaches the plain model's final loss with far fewer tokens: at least 30 % fewer",
        name="F",
        fixed="2026-12-01",
        measure="tokens_saved",
        quantity="share of its tokens that pondering saves to get to the plain model's final loss; if it never gets there, "
        "minus the share that the plain model saves to get to pondering's",
        holds_if=AtLeast(0.3),
        holds_in_part_if=Above(0.0),
        needs=f"{_PAYS} and {_tuned('ponder', 'vanilla')}",
        paper="1B on the Pile: 59 % fewer tokens, read off one schedule",
        paper_effect=0.59,
        no_effect=0.0,
        unit="share of the tokens",
        scales=_TRAINED,
    ),
    Claim(
        "A model trained with three steps is clearly worse with none",
        name="G",
        fixed="2026-12-01",
        measure="ponder.sweep.none_minus_trained",
        quantity="loss with no steps minus that with the steps of training",
        holds_if=AtLeast(0.05),
        needs=_LEARNT,
        paper="no figure established; the specification's step sweep",
        no_effect=0.0,
        unit=_NATS,
        scales=_TRAINED,
    ),
    Claim(
        "It is at its best with about the steps it was trained with: no other number is better by 0.01 nats",
        name="H",
        fixed="2026-12-01",
        measure="ponder.sweep.trained_minus_others",
        quantity="loss with the steps of training minus the lowest with any other number of steps",
        holds_if=AtMost(0.01),
        needs=f"{_LEARNT} and ponder.sweep.none_minus_trained > 0.05",
        paper="no figure established; the specification's step sweep",
        unit=_NATS,
        scales=_TRAINED,
    ),
    Claim(
        "More steps in training give a lower loss: three against one",
        name="I",
        fixed="2026-12-01",
        measure="over.ponder_one",
        quantity="loss of pondering with one step minus that with three",
        holds_if=Above(0.0),
        needs=f"{_LEARNT} and {_tuned('ponder', 'ponder_one')}",
        paper="step study: 0, 1, 2, 3, 4, 5, 10 fall one after another",
        no_effect=0.0,
        unit=_NATS,
        scales=_LARGER,
    ),
    Claim(
        "Feeding back the expected embedding is better than looping: the last state as the next input",
        name="J",
        fixed="2026-12-01",
        measure="over.loop",
        quantity="loss of the looped model minus that of pondering",
        holds_if=Above(0.0),
        needs=f"{_PAYS} and {_tuned('ponder', 'loop')}",
        paper="Table 2: perplexity 14.16 against 15.33, 0.079 nats",
        paper_effect=0.079,
        no_effect=0.0,
        unit=_NATS,
        scales=_LARGER,
    ),
]
