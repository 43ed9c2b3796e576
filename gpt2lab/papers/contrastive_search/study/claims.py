"""The paper's claims as rules over the results of the seeds; the rules are the specification's."""

from collections.abc import Sequence

from gpt2lab.measures.statistics import t_interval
from gpt2lab.runs.verdicts import Status, Verdict
from gpt2lab.studies.claim import Above, AtLeast, Between, Claim, Results

TRAINED = ("laptop", "gpu", "paper")


def _best_in_the_band(seeds: Sequence[Results]) -> Verdict:
    """Compare within people's diversity: nobody there of one kind decides the claim without an interval."""
    with_search = [results["band.contrastive"] > 0 for results in seeds]
    with_sampler = [results["band.samplers"] > 0 for results in seeds]
    if not all(with_search):
        return Verdict(
            Status.DOES_NOT_HOLD,
            f"In {len(seeds) - sum(with_search)} of {len(seeds)} seeds no setting of contrastive search comes within 5 "
            "points of people's diversity.",
        )
    if not all(with_sampler):
        return Verdict(
            Status.NOT_TESTED,
            f"In {len(seeds) - sum(with_sampler)} of {len(seeds)} seeds no sampler comes within 5 points of people's "
            "diversity.",
        )
    differences = [results["band.difference"] for results in seeds]
    interval = t_interval(differences)
    reason = (
        f"Among settings as diverse as people, contrastive search is {interval.mean:+.2f} nats a token from the best "
        f"sampler (95 % {interval.low:.2f} to {interval.high:.2f})."
    )
    status = Status.INCONCLUSIVE
    if interval.low > 0:
        status = Status.HOLDS
    elif interval.high < 0:
        status = Status.DOES_NOT_HOLD
    return Verdict(status, reason, interval=interval)


def _repetition(results: Results) -> float:
    """Diversity of contrastive search (5, 0.6) minus the higher of greedy's and beam search's."""
    return results["contrastive_5_60.diversity"] - max(
        results["greedy.diversity"], results["beam_4.diversity"]
    )


CLAIMS = [
    Claim(
        "Among decoders that write about as diversely as people, contrastive search has the highest coherence",
        name="A",
        fixed="2026-11-24",
        measure="band.difference",
        quantity="coherence of contrastive search minus that of the best sampler within people's diversity",
        rule=_best_in_the_band,
        paper="gpt2-large, result files: contrastive diversity 92.54 %, coherence -1.56; nucleus 93.61 % and -2.94",
        unit="nats per token over the best sampler",
        scales=TRAINED,
    ),
    Claim(
        "With the paper's setting, k 5 and alpha 0.6, diversity is within 10 points of people's",
        name="B",
        fixed="2026-11-24",
        measure="contrastive_5_60.diversity - people.diversity",
        quantity="diversity of contrastive search with k 5 and alpha 0.6 minus that of people",
        holds_if=Between(-10.0, 10.0),
        paper="gpt2-large, result files: 92.54 % against 93.62 %",
        unit="points",
        scales=TRAINED,
    ),
    Claim(
        "Language models trained from scratch are isotropic: above 0.5 at three sizes",
        name="C",
        fixed="2026-11-24",
        measure="isotropy.lowest",
        quantity="lowest isotropy of the three sizes",
        holds_if=Above(0.5),
        needs="learnt > 0.3",
        paper="README: 0.70 and above for most of 38 models; 0.10 and 0.25 for GPT-2 small and medium",
        unit="isotropy, weighting pairs",
        scales=("laptop",),
    ),
    Claim(
        "Some setting of contrastive search is more coherent than nucleus sampling at 0.95",
        name="D",
        fixed="2026-11-24",
        measure="over_nucleus",
        quantity="coherence of the best setting of contrastive search minus that of nucleus sampling at 0.95",
        holds_if=Above(0.0),
        paper="gpt2-large, result files: -1.56 against -2.94",
        unit="nats per token",
        scales=TRAINED,
    ),
    Claim(
        "Greedy and beam search repeat themselves where contrastive search does not",
        name="E",
        fixed="2026-11-24",
        measure=_repetition,
        holds_if=Above(0.0),
        paper="gpt2-large, result files: diversity 5.38 % and 4.04 % against 92.54 %",
        unit="points of diversity",
        scales=TRAINED,
    ),
    Claim(
        "One cache and no copies: the tokens of the published loop in at most half of its time",
        name="F",
        measure="speed.ratio",
        quantity="time of the published loop over that of this one",
        holds_if=AtLeast(2.0),
        needs="speed.identical == 1",
        paper="ours, not the paper's",
        unit="times faster, batch 4, k 5, 256 tokens",
        kind="implementation",
        scales=TRAINED,
    ),
]
