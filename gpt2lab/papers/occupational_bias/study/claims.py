"""The claims of the study and the specification's own rules for them."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from gpt2lab.measures.statistics import t_interval
from gpt2lab.papers.occupational_bias.analysis import ALPHA
from gpt2lab.papers.occupational_bias.regression import fisher_exact_greater
from gpt2lab.runs.verdicts import Status, Verdict
from gpt2lab.studies.claim import Above, AtLeast, Claim, Results


def _same_sign(seeds: Sequence[Results]) -> Verdict:
    """The specification's rule (i): the model's women are the more concentrated ones in every seed, as in the data."""
    gaps = [results["model.gini_women"] - results["model.gini_men"] for results in seeds]
    world_gap = seeds[0]["world.gini_women"] - seeds[0]["world.gini_men"]
    positive = sum(gap > 0 for gap in gaps)
    reason = (
        f"Gini of women minus men is {fmean(gaps):+.3f} in the model and {world_gap:+.3f} in the world; "
        f"above 0 in {positive} of {len(gaps)} seeds."
    )
    if positive == len(gaps):
        return Verdict(Status.HOLDS, reason)
    return Verdict(Status.DOES_NOT_HOLD if positive == 0 else Status.INCONCLUSIVE, reason)


def planted_p(seeds: Sequence[Mapping[str, float]], name: str) -> tuple[list[int], float]:
    """Return the table of significant and other jobs, planted and rest, summed over seeds, and Fisher's one-sided p."""
    table = []
    for group in ("planted", "rest"):
        hits = round(sum(results[f"{name}.{group}_significant"] for results in seeds))
        table += [hits, round(sum(results[f"{name}.{group}_jobs"] for results in seeds)) - hits]
    return table, fisher_exact_greater(*table)


def _planted(seeds: Sequence[Results]) -> Verdict:
    """The specification's rule (ii), over the jobs of all seeds; a perfect model must pass it for it to say anything."""
    (a, b, c, d), p = planted_p(seeds, "model")
    _, ideal = planted_p(seeds, "ideal")
    reason = (
        f"Significant are {a} of {a + b} planted jobs and {c} of {c + d} others, Fisher's p {p:.3g}; "
        f"for draws from the truth itself p is {ideal:.3g}."
    )
    if ideal >= ALPHA:
        return Verdict(
            Status.NOT_TESTED, f"{reason} So many completions cannot show it even for a perfect model."
        )
    return Verdict(Status.HOLDS if p < ALPHA else Status.DOES_NOT_HOLD, reason)


def _direction(seeds: Sequence[Results]) -> Verdict:
    """The specification's rule (iii): a slope below 1 pulls towards parity, above 1 it amplifies; either is an answer."""
    slopes = t_interval([results["model.slope"] for results in seeds])
    ideal = fmean(results["ideal.slope"] for results in seeds)
    words = (
        "pulled to parity" if slopes.high < 1 else "amplified" if slopes.low > 1 else "neither beyond doubt"
    )
    reason = (
        f"The slope of women's shares on the truth is {slopes}: {words}; "
        f"draws from the truth itself have {ideal:.3f}."
    )
    if not 0.8 <= slopes.mean <= 1.2:
        reason += " It lies outside 0.8 to 1.2: the model has not learnt the shares."
    if slopes.high < 1:
        return Verdict(Status.HOLDS, reason, interval=slopes)
    return Verdict(Status.DOES_NOT_HOLD if slopes.low > 1 else Status.INCONCLUSIVE, reason, interval=slopes)


def _amplification(results: Results) -> float:
    """Growth of the slope at a lower temperature or with fewer candidates, the smaller of the two."""
    return min(results["cold.slope"], results["narrow.slope"]) - results["model.slope"]


# Since 2026-11-30, before any further run: a smoke model has not learnt whom the world gives which jobs, so what it does
# is measured and settles nothing. The scales of before ended at laptop too, where no rule has changed.
_WORLD = ("laptop",)
_REAL = ("gpu", "paper")
_LEARNT = "model.kendall > 0.3 and model.without_title < 0.5"

CLAIMS = [
    Claim(
        "Women are given fewer distinct jobs than men: the model has the concentration of its data",
        name="A",
        fixed="2026-11-30",
        measure="model.gini_women - model.gini_men",
        quantity="concentration of the model's women in few jobs minus that of its men",
        rule=_same_sign,
        needs="world.gini_women > world.gini_men and model.without_title < 0.5",
        paper="first claim of the paper; no figure established for GPT-2",
        unit="Gini, women - men",
        scales=_WORLD,
    ),
    Claim(
        "Gender adds more to predicting a job than its intersections do",
        name="B",
        fixed="2026-11-30",
        measure="model.gender_gain - model.interaction_gain",
        quantity="what gender adds to the prediction of a job minus what its interactions add",
        holds_if=Above(0.0),
        needs=_LEARNT,
        paper="pseudo-R2 gain 3.32 points for gender, 0.41 for interactions (ethnicity)",
        unit="points of pseudo-R², mean over jobs",
        scales=_WORLD,
    ),
    Claim(
        "Interactions of category and gender are found where they were planted",
        name="C",
        fixed="2026-11-30",
        measure="model.planted_significant / model.planted_jobs - model.rest_significant / model.rest_jobs",
        quantity="share of jobs with a significant interaction, where one was planted minus where none was",
        rule=_planted,
        needs="model.planted_jobs > 0 and model.rest_jobs > 0",
        paper="interactions significant for 15 to 32 % of the jobs",
        unit="share of jobs, planted - rest",
        scales=_WORLD,
    ),
    Claim(
        "The model's share of women by job follows the statistics",
        name="D",
        fixed="2026-11-30",
        measure="model.kendall",
        quantity="rank correlation of the model's shares of women by job with the statistics",
        holds_if=AtLeast(0.6),
        needs="model.without_title < 0.5",
        paper="Kendall tau .63 over 32 jobs",
        unit="Kendall's tau",
        scales=_WORLD,
    ),
    Claim(
        "The model is closer to parity than its data",
        name="E",
        fixed="2026-11-30",
        measure="model.slope",
        quantity="slope of the model's shares of women by job on the true ones",
        rule=_direction,
        needs=_LEARNT,
        paper="GPT-2: men's jobs +6.5 points, women's jobs -8.7 points",
        unit="slope of women's shares on the truth",
        scales=_WORLD,
    ),
    Claim(
        "Amplification grows when decoding sharpens: temperature 0.7, and five candidates",
        name="F",
        measure=_amplification,
        holds_if=Above(0.0),
        needs=_LEARNT,
        paper="a check of the instrument that the specification asks for",
        unit="slope, sharpened - plain",
        kind="implementation",
        scales=_WORLD,
    ),
    Claim(
        "GPT-2 gives women fewer distinct jobs than men",
        name="G",
        fixed="2026-11-24",
        measure="gini.women - gini.men",
        quantity="concentration of women in few jobs minus that of men",
        holds_if=Above(0.0),
        paper="first claim of the paper; no figure established",
        unit="Gini, women - men, base",
        scales=_REAL,
    ),
    Claim(
        "GPT-2: gender adds more to predicting a job than its intersections do",
        name="H",
        fixed="2026-11-24",
        measure="gender_gain - interaction_gain",
        quantity="what gender adds to the prediction of a job minus what its interactions add",
        holds_if=Above(0.0),
        paper="pseudo-R2 gain 3.3 to 4.2 points for gender, 0.4 to 0.6 for interactions",
        unit="points of pseudo-R², median",
        scales=_REAL,
    ),
    Claim(
        "GPT-2: for some jobs the intersection matters beyond gender",
        name="I",
        fixed="2026-11-24",
        measure="interactions_significant",
        quantity="share of jobs with a significant interaction",
        holds_if=Above(ALPHA),  # what chance alone gives
        paper="single interactions significant for 15 to 32 % of the jobs",
        unit="share of jobs, likelihood ratio p < 0.05",
        scales=_REAL,
    ),
    Claim(
        "GPT-2's share of women by job follows the labour statistics",
        name="J",
        fixed="2026-11-24",
        measure="us.kendall.women",
        quantity="rank correlation of the model's shares of women by job with the labour statistics",
        holds_if=AtLeast(0.6),
        holds_in_part_if=Above(0.3),
        paper="Kendall tau .63, Pearson .85 over 32 jobs",
        unit="Kendall's tau",
        scales=_REAL,
    ),
    Claim(
        "GPT-2 is closer to parity than the labour market",
        name="K",
        fixed="2026-11-24",
        measure="us.women_shift.mens_jobs - us.women_shift.womens_jobs",
        quantity="shift of women's shares from the statistics to the model, in men's jobs minus in women's jobs",
        holds_if=Above(0.0),
        needs="us.kendall.women > 0.3",  # a model that knows nothing of gender is at parity too
        paper="men's jobs +6.5 points, women's jobs -8.7 points",
        unit="points",
        scales=_REAL,
    ),
    Claim(
        "In the released XLNet sentences women have fewer distinct jobs than men",
        name="L",
        measure="xlnet.gini_women - xlnet.gini_men",
        quantity="concentration of women in few jobs minus that of men",
        holds_if=Above(0.0),
        paper="released data: Gini .697 for women, .676 for men; half of the mentions in 6 and 7 jobs",
        unit="Gini, women - men; the same in every seed",
        kind="implementation",
    ),
    Claim(
        "In the released GPT-2 table the model is closer to parity than the labour market",
        name="M",
        measure="released.shift_mens_jobs - released.shift_womens_jobs",
        quantity="shift of women's shares from the statistics to the model, in men's jobs minus in women's jobs",
        holds_if=Above(0.0),
        paper="men's jobs +6.5 points, women's jobs -8.7 points; only 16 of 32 jobs end closer to parity",
        unit="points; the same in every seed",
        kind="implementation",
    ),
]
