"""The paper's claims as rules over the results of the seeds, and over passages where the model is a fixed one."""

from gpt2lab.studies.claim import Above, AtLeast, Between, Claim, Results

_TRAINED = ("laptop",)
_REAL = ("laptop", "gpu", "paper")
_FIXED = "2026-12-01"
_LEARNT = "learnt > 0.3"
_REACH = 3.0
"""Points of diversity by which people may lie beyond the judged settings of a side."""


def _at_hand(results: Results) -> bool:
    """The pretrained model at hand: `gpt2lab models get smollm2-135m` fetches it"""
    return results["real.at_hand"] == 1


def _matched(results: Results) -> bool:
    """The pretrained model at hand, and both its decoders within 3 points of people's diversity"""
    if not _at_hand(results):
        return False
    return max(results["real.contrastive.outside"], results["real.sampler.outside"]) <= _REACH


def _trained_isotropy(results: Results) -> bool:
    """The pretrained model at hand, and its untrained twin not isotropic by the same measure"""
    return _at_hand(results) and results["real.isotropy_untrained"] < 0.5


# Coherence in the paper's table is under OPT-2.7B, which rates contrastive search -1.56 at a diversity of 92.5 %, and of all
# samplers top-k 50 (-2.42 at 91.3 %) comes nearest. Nothing there is matched more closely.
_PAPER_GAIN = 2.42 - 1.56

# Spreads at laptop scale: seeds 0 to 2 of the trial before 2026-12-01, with the same models and text, by its rules.
# The seeds that are judged are others.
_PILOT = {"A": 0.055, "B": 0.46, "C": 0.0062, "E": 1.9}

CLAIMS = [
    Claim(
        "At people's diversity contrastive search is more coherent than the best sampler",
        name="A",
        fixed=_FIXED,
        measure="contrastive.matched - sampler.matched",
        quantity="coherence of contrastive search minus that of the best sampler, both at people's diversity",
        holds_if=Above(0.0),
        needs=f"{_LEARNT} and max(contrastive.outside, sampler.outside) <= {_REACH:g}",
        paper="gpt2-large, result files: contrastive diversity 92.54 %, coherence -1.56; top-k 50 91.33 % and -2.42",
        paper_effect=_PAPER_GAIN,
        no_effect=0.0,
        pilot_sd={"laptop": _PILOT["A"]},
        unit="nats per token",
        scales=_TRAINED,
    ),
    Claim(
        "With the paper's setting, k 5 and alpha 0.6, diversity is within 10 points of people's",
        name="B",
        fixed=_FIXED,
        measure="contrastive_5_60.diversity - people.diversity",
        quantity="diversity of contrastive search with k 5 and alpha 0.6 minus that of people",
        holds_if=Between(-10.0, 10.0),
        needs=_LEARNT,
        paper="gpt2-large, result files: 92.54 % against 93.62 %",
        paper_effect=92.54 - 93.62,
        pilot_sd={"laptop": _PILOT["B"]},
        unit="points",
        scales=_TRAINED,
    ),
    Claim(
        "Training does not make the states of a text more alike: isotropy falls at none of three sizes",
        name="C",
        fixed=_FIXED,
        measure="isotropy.lowest_change",
        quantity="isotropy after training minus that before, the lowest of three sizes",
        holds_if=AtLeast(0.0),
        holds_in_part_if=Above(
            -0.35
        ),  # from 0.87 to 0.98 before training: stays above the specification's 0.5
        needs=_LEARNT,
        paper="README: 0.70 and above for most of 38 models; 0.10 and 0.25 for GPT-2 small and medium",
        no_effect=0.0,
        pilot_sd={"laptop": _PILOT["C"]},
        unit="isotropy, weighting pairs",
        scales=_TRAINED,
    ),
    Claim(
        "Greedy and beam search repeat themselves where contrastive search does not",
        name="E",
        fixed=_FIXED,
        measure="contrastive_5_60.diversity - max(greedy.diversity, beam_4.diversity)",
        quantity="diversity of contrastive search (5, 0.6) minus the higher of greedy's and beam search's",
        holds_if=Above(0.0),
        needs=_LEARNT,
        paper="gpt2-large, result files: diversity 5.38 % and 4.04 % against 92.54 %",
        paper_effect=92.54 - 5.38,
        no_effect=0.0,
        pilot_sd={"laptop": _PILOT["E"]},
        unit="points of diversity",
        scales=_TRAINED,
    ),
    Claim(
        "One cache and no copies: at most half of the time of the published loop",
        name="F",
        measure="speed.ratio",
        quantity="time of the published loop over that of this one",
        holds_if=AtLeast(2.0),
        paper="ours, not the paper's",
        unit="times faster, batch 4, k 5, 256 tokens",
        kind="engineering",
        scales=_REAL,
    ),
    Claim(
        "One cache and no copies: the tokens of the published loop",
        name="M",
        measure="speed.identical_in_float64",
        quantity="share of equal tokens of both loops in float64",
        holds_if=AtLeast(1.0),
        paper="ours, not the paper's",
        unit="share of tokens, batch 4, k 5",
        kind="implementation",
    ),
    Claim(
        "A pretrained model: at people's diversity contrastive search is more coherent than the best sampler",
        name="I",
        fixed=_FIXED,
        measure="real_contrastive - real_sampler",
        quantity="coherence of contrastive search minus that of the best sampler, both at people's diversity",
        holds_if=Above(0.0),
        needs=_matched,
        paper="gpt2-large, result files: contrastive diversity 92.54 %, coherence -1.56; top-k 50 91.33 % and -2.42",
        paper_effect=_PAPER_GAIN,
        no_effect=0.0,
        unit="nats per token",
        over="items",
        scales=_REAL,
    ),
    Claim(
        "A pretrained model: with k 5 and alpha 0.6 diversity is within 10 points of people's",
        name="J",
        fixed=_FIXED,
        measure="real_contrastive_diversity - real_people_diversity",
        quantity="diversity of contrastive search with k 5 and alpha 0.6 minus that of people, by passage",
        holds_if=Between(-10.0, 10.0),
        needs=_at_hand,
        paper="gpt2-large, result files: 92.54 % against 93.62 %",
        paper_effect=92.54 - 93.62,
        unit="points",
        over="items",
        scales=_REAL,
    ),
    Claim(
        "A pretrained model is isotropic: above 0.5",
        name="K",
        fixed=_FIXED,
        measure="real_isotropy",
        quantity="isotropy of the last states, by text",
        holds_if=Above(0.5),
        needs=_trained_isotropy,
        paper="README: gpt2-large 0.70; 0.10 and 0.25 for GPT-2 small and medium",
        paper_effect=0.70,
        unit="isotropy, weighting texts",
        over="items",
        scales=_REAL,
    ),
    Claim(
        "A pretrained model: greedy and beam search repeat themselves where contrastive search does not",
        name="L",
        fixed=_FIXED,
        measure="real_contrastive_diversity - max(real_greedy_diversity, real_beam_diversity)",
        quantity="diversity of contrastive search (5, 0.6) minus the higher of greedy's and beam search's, by passage",
        holds_if=Above(0.0),
        needs=_at_hand,
        paper="gpt2-large, result files: diversity 5.38 % and 4.04 % against 92.54 %",
        paper_effect=92.54 - 5.38,
        no_effect=0.0,
        unit="points of diversity",
        over="items",
        scales=_REAL,
    ),
]
