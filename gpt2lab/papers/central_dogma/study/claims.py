"""The claims of the study, and when each can be judged."""

from gpt2lab.studies.claim import Above, AtLeast, Between, Claim

_TRAINED = ("laptop", "gpu", "paper")
_FAIR = "order.shortcut.length <= 0.55 and order.shortcut.composition <= 0.55"
"""Nothing but the order of bases and residues tells the pairs apart. Letters alone tell random proteins of the same length
in 0.60 to 0.65 (boosted trees on 600 pairs of 12 residues, five seeds), so that accuracy on them would say little."""
_SHARE = "share of pairs judged as labelled"


def _learnt(*arms: str) -> str:
    """That each arm has learnt its own task, at a rate inside what was tried."""
    return " and ".join(f"{arm}.own >= 0.8 and {arm}.at_edge < 1" for arm in arms)


CLAIMS = [
    Claim(
        "A model fine-tuned on English paraphrases alone judges DNA-protein pairs above chance: at least 60 % correct",
        name="A",
        fixed="2026-12-01",
        measure="english.order",
        quantity="accuracy on DNA with its protein or the same residues in another order, labels as they are",
        holds_if=AtLeast(0.60),
        holds_in_part_if=Above(0.5),
        needs=f"{_learnt('english')} and {_FAIR}",
        paper="abstract of the first version: 76 % accuracy",
        paper_effect=0.76,
        no_effect=0.5,
        unit=_SHARE,
        scales=_TRAINED,
    ),
    Claim(
        "Fine-tuning on paraphrases in several languages gives a higher zero-shot accuracy on DNA-protein pairs",
        name="B",
        fixed="2026-12-01",
        measure="multilingual.order - english.order",
        quantity="accuracy on the same pairs of the judge of three languages minus that of the judge of English",
        holds_if=Above(0.0),
        needs=f"{_learnt('english', 'multilingual')} and {_FAIR} and english.order + multilingual.order > 1.1",
        paper="abstracts: 81 % after several languages, 76 % after English",
        paper_effect=0.05,
        no_effect=0.0,
        unit=_SHARE,
        scales=_TRAINED,
    ),
    Claim(
        "A model that was not pre-trained on DNA and proteins stays at chance on DNA-protein pairs",
        name="C",
        fixed="2026-12-01",
        measure="text_only.dna_protein",
        quantity="accuracy of a judge without DNA and proteins in its corpus, on random proteins of the same length",
        holds_if=Between(0.45, 0.55),
        needs=_learnt("text_only"),
        paper="predecessor: 0.45 to 0.55 for every model",
        paper_effect=0.5,
        unit=_SHARE,
        scales=_TRAINED,
    ),
    Claim(
        "The setting can show it: a judge of codons and residues with labels of the target task is right in over 90 %",
        name="D",
        fixed="2026-12-01",
        kind="instrument",
        measure="control.dna_protein",
        quantity="accuracy of the supervised judge from random weights, on pairs that it was not trained on",
        holds_if=Above(0.9),
        paper="author's tutorial: 0.8575 after 3,600 pairs; a public summary: over 0.94",
        unit=_SHARE,
        scales=_TRAINED,
    ),
    Claim(
        "The labels are those of the genetic code: the frame-0 rule separates all pairs",
        name="E",
        fixed="2026-12-01",
        kind="implementation",
        measure="(order.rule.frame0 + dna_protein.rule.frame0) / 2",
        quantity="share of pairs on which the frame-0 translation agrees with the label",
        holds_if=AtLeast(1.0),
        unit=_SHARE,
    ),
]
