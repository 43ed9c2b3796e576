"""The claims of the study, and when each can be judged."""

import math

from gpt2lab.studies.claim import Above, AtLeast, AtMost, Below, Claim

_TRAINED = ("laptop", "gpu", "paper")
_LEARNT = "loss.pretraining < loss.unigram - 0.1 and auc.scratch.largest > 0.9"
"""Pre-training has learnt more than the words' frequencies, and labels alone teach the network the task."""
_TUNED = "tuning.scratch.at_edge + tuning.pretrained.at_edge < 1"
"""The best learning rate of each strategy lies inside what was tried."""
FIVE, TWO = math.log10(5), math.log10(2)
_F1, _AUC = 0.80, 0.93

CLAIMS = [
    Claim(
        "With pre-training the network takes a fifth of the labelled notes or fewer for AUC 0.95",
        name="A",
        fixed="2026-12-01",
        measure="factor.log10",
        quantity="log10 of the labels that AUC 0.95 takes without pre-training over those with it; where a ladder does not "
        "say more, a lower bound",
        holds_if=AtLeast(FIVE),
        holds_in_part_if=AtLeast(TWO),
        needs=f"{_LEARNT} and {_TUNED} and factor.settled == 1",
        paper="final abstract: a factor of 10, which is 1.0",
        paper_effect=1.0,
        no_effect=0.0,
        unit="log10 of a ratio",
        scales=_TRAINED,
    ),
    Claim(
        "With pre-training AUC is no lower at any budget up to 500 labelled notes",
        name="B",
        fixed="2026-12-01",
        measure="gap.lowest",
        quantity="the lowest of the differences of AUC, with pre-training minus without, over the budgets up to 500",
        holds_if=AtLeast(0.0),
        needs=f"{_LEARNT} and {_TUNED}",
        paper="title: pre-training improves the sample efficiency; no figure established",
        no_effect=0.0,
        unit="AUC",
        scales=_TRAINED,
    ),
    Claim(
        "With 16 times more labelled notes the fully supervised network gains less than 1 % AUC",
        name="C",
        fixed="2026-12-01",
        measure="auc.scratch.long - auc.scratch.base",
        quantity="AUC without pre-training from 16 times as many labelled notes minus that from the base budget",
        holds_if=Below(0.01),
        needs="tuning.scratch.at_edge == 0 and auc.scratch.base > 0.9",
        paper="final abstract: less than 1 % AUC",
        unit="AUC",
        scales=_TRAINED,
    ),
    Claim(
        "After 120 labelled notes the pre-trained network has AUC 0.93 and F1 0.80 or more",
        name="D",
        fixed="2026-12-01",
        measure=f"min(auc.pretrained.n120 - {_AUC}, f1.pretrained.n120 - {_F1})",
        quantity="the smaller of AUC - 0.93 and F1 - 0.80 with pre-training and 120 labelled notes",
        holds_if=AtLeast(0.0),
        needs="loss.pretraining < loss.unigram - 0.1 and tuning.pretrained.at_edge == 0 and auc.tfidf.n120 < 0.93",
        paper="abstract of an earlier version: AUC 0.93 and F1 0.80 after 120 samples",
        paper_effect=0.0,
        no_effect=-0.43,
        unit="AUC or F1",
        scales=_TRAINED,
    ),
    Claim(
        "Labels alone take thousands of processed notes to AUC 0.97: 7,000 or more, repetitions counted",
        name="E",
        fixed="2026-12-01",
        measure="processed.log10",
        quantity="log10 of the notes, repetitions counted, that the fully supervised network has processed when its AUC is "
        "first at 0.97",
        holds_if=AtLeast(math.log10(7000)),
        needs="tuning.scratch.at_edge == 0 and processed.reached == 1",
        paper="abstracts of earlier versions: AUC 0.97 after 40,000 samples; another says 7,000",
        paper_effect=math.log10(40_000),
        unit="log10 of notes",
        scales=_TRAINED,
    ),
    Claim(
        "Where the text says nothing of the class, pre-training gains less than half of what it gains otherwise",
        name="F",
        kind="instrument",
        measure="control.gain - 0.5 * control.aligned",
        quantity="mean gain of AUC over the control's budgets in the control's world minus half of that in the study's",
        holds_if=Below(0.0),
        needs="control.there == 1 and loss.pretraining < loss.unigram - 0.1",
        unit="AUC",
        scales=_TRAINED,
    ),
    Claim(
        "The unlabelled notes of the control were learnt as well",
        name="G",
        kind="instrument",
        measure="loss.control - loss.control_unigram",
        quantity="loss of the control's pre-training minus that of the words' frequencies",
        holds_if=AtMost(-0.1),
        needs="control.there == 1",
        unit="nats per token",
        scales=_TRAINED,
    ),
    Claim(
        "Every subset holds the smaller ones, and no test note is trained on",
        name="H",
        kind="implementation",
        measure="subsets.nested - subsets.leaked",
        quantity="share of subsets that hold the smaller ones, minus the test notes among them",
        holds_if=Above(0.999),
    ),
]
