"""The claims of the study, and when each can be judged."""

from gpt2lab.studies.claim import Above, AtLeast, Claim

_TRAINED = ("laptop", "gpu", "paper")
_EDGES = "meta.at_edge + plain.at_edge + full.at_edge < 1"
_LEARNT = "meta.recall.x1 > 0.5"
"""Far above what knowing the list but not the item gives, a third at most."""
_ROOM = "rivals.recall.x1 < 0.95"
_SHARE = "share of prompts answered exactly"

CLAIMS = [
    Claim(
        "With meta-tokens a model recalls items of lists that neither a plain one nor one with a second full attention does",
        name="A",
        fixed="2026-12-01",
        measure="lead.x1",
        quantity="exact answers of the model with meta-tokens minus those of the better of plain and a second full "
        "attention of as many weights, at trained lengths",
        holds_if=Above(0.02),
        holds_in_part_if=Above(0.0),
        needs=f"max_recall.x1 > 0.5 and {_ROOM} and {_EDGES}",
        paper="list recall at length 512: 99.3 against 3.6 %",
        paper_effect=0.957,
        no_effect=0.0,
        unit=_SHARE,
        scales=_TRAINED,
    ),
    Claim(
        "The gain holds at twice the trained length",
        name="B",
        fixed="2026-12-01",
        measure="lead.x2",
        quantity="the same at prompts of 1.5 to 2 times the longest trained one",
        holds_if=Above(0.02),
        holds_in_part_if=Above(0.0),
        needs=f"max_recall.x1 > 0.5 and max_recall.x2 > 0.2 and rivals.recall.x2 < 0.95 and {_EDGES}",
        paper="8k window tuned at 4k: 85.0 / 91.2 / 98.2 / 93.9 / 31.9 % at 2k / 4k / 6k / 8k / 10k",
        no_effect=0.0,
        unit=_SHARE,
        scales=_TRAINED,
    ),
    Claim(
        "Metas need no position at test time: without it no more than a point is lost",
        name="C",
        fixed="2026-12-01",
        measure="meta.no_pos_gain",
        quantity="exact answers without the position of metas minus those with it, mean over the tested lengths",
        holds_if=AtLeast(-0.01),
        needs=_LEARNT,
        paper="medium prompts, learned positions: 77.8 to 88.9 %, on 9 to 18 items",
        paper_effect=0.111,
        no_effect=-0.05,
        unit=_SHARE,
        scales=_TRAINED,
    ),
    Claim(
        "Meta-tokens sharpen attention: its entropy is lower with their embedding than without, over the same keys",
        name="D",
        fixed="2026-12-01",
        measure="meta.entropy_drop",
        quantity="entropy of attention rows behind a meta with its embedding zeroed minus that with it, mean over heads, "
        "layers and positions",
        holds_if=Above(0.0),
        needs=_LEARNT,
        paper="sharpness analysis: 1.40 nats lower on average",
        paper_effect=1.40,
        no_effect=0.0,
        unit="nats",
        scales=_TRAINED,
    ),
    Claim(
        "Meta-attention brings the gain, and not the injected token alone",
        name="F",
        fixed="2026-12-01",
        measure="over.injected.x1",
        quantity="exact answers of the model with meta-attention minus those of one with the same metas as ordinary tokens",
        holds_if=Above(0.0),
        needs="max_recall.x1 > 0.5 and injected.recall.x1 < 0.95 and meta.at_edge + injected.at_edge < 1",
        paper="asked for in public reviews; no figure",
        no_effect=0.0,
        unit=_SHARE,
        scales=_TRAINED,
    ),
    Claim(
        "A meta-token's state tells more of the answer at equal rate than that of the ordinary token before it",
        name="G",
        fixed="2026-12-01",
        measure="meta.bottleneck_gain",
        quantity="distortion plus beta times rate of a bottleneck on the ordinary token before the last meta minus that on "
        "the meta, mean over beta",
        holds_if=Above(0.0),
        needs=_LEARNT,
        paper="Theorem 5.1 and the rate-distortion figure; values not established",
        no_effect=0.0,
        unit="nats",
        scales=_TRAINED,
    ),
]
