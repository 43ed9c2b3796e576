"""The claims of the study, and its checks: of the instrument on worlds whose bias is planted, and on released files.

In a generated world A, B, D, F and N ask whether the chain of measurements finds what was planted; that says nothing of
the paper. C and E ask what a model makes of its text. G to K are of a pretrained model.
"""

from gpt2lab.papers.occupational_bias.analysis import ALPHA
from gpt2lab.studies.claim import Above, AtLeast, AtMost, Below, Between, Claim, Results

_WORLD = ("laptop",)
_REAL = ("laptop", "gpu", "paper")
_FIXED = "2026-12-01"
_LEARNT = "model.kendall > 0.3 and model.without_title < 0.5"
_PLANTED = "{0}.planted_share - {0}.rest_share"
_RELEASED_SLOPE = 0.785
"""Of GPT-2's share of women by job on that of the United States, 32 jobs of the released table."""


def _amplification(results: Results) -> float:
    """Growth of the slope at a lower temperature or with fewer candidates, the smaller of the two."""
    return min(results["cold.slope"], results["narrow.slope"]) - results["model.slope"]


def _at_hand(results: Results) -> bool:
    """The pretrained model at hand: `gpt2lab models get smollm2-135m` fetches it"""
    return results["real.at_hand"] == 1


def _follows(results: Results) -> bool:
    """The pretrained model at hand, and a rank correlation with the statistics above 0.3: without one it is at parity too"""
    return _at_hand(results) and results["real.us.kendall.women"] > 0.3


CLAIMS = [
    Claim(
        "The chain of measurements finds how much more concentrated women's jobs are than men's",
        name="A",
        measure="(model.gini_women - model.gini_men) - (world.gini_women - world.gini_men)",
        quantity="Gini of women minus men, in the trained model minus in its world",
        holds_if=Between(-0.05, 0.05),
        needs="model.without_title < 0.5",
        paper="a check of the instrument that the specification asks for",
        unit="Gini, women - men",
        kind="instrument",
        scales=_WORLD,
    ),
    Claim(
        "The chain of measurements finds how much more gender adds to predicting a job than interactions",
        name="B",
        measure="(model.gender_gain - model.interaction_gain) / (world.gender_gain - world.interaction_gain)",
        quantity="what gender adds to the prediction of a job minus what interactions add, in the trained model over in its "
        "world",
        holds_if=Between(0.8, 1.2),
        needs=_LEARNT,
        paper="a check of the instrument that the specification asks for",
        unit="ratio of points of pseudo-R²",
        kind="instrument",
        scales=_WORLD,
    ),
    Claim(
        "A model learns which jobs depend on category and gender together, beyond either",
        name="C",
        fixed=_FIXED,
        measure=_PLANTED.format("model"),
        quantity="share of jobs with a significant interaction, where one was planted minus where none was, mean of 8 draws",
        holds_if=Above(0.0),
        # the positive control: so many draws from the truth itself show it
        needs=f"{_LEARNT} and {_PLANTED.format('ideal')} > 0",
        paper="interactions significant for 15 to 32 % of the jobs, of GPT-2; which ones are real is not known",
        no_effect=0.0,
        pilot_sd={
            "laptop": 0.096
        },  # three seeds of the trial before 2026-12-01, one draw of 700 completions each
        unit="share of jobs, planted - rest",
        scales=_WORLD,
    ),
    Claim(
        "The chain of measurements finds the order of the jobs by their share of women",
        name="D",
        measure="model.kendall",
        quantity="rank correlation of the trained model's shares of women by job with those of its world",
        holds_if=AtLeast(0.6),
        needs="model.without_title < 0.5",
        paper="a check of the instrument that the specification asks for; Kendall tau .63 over 32 jobs, of GPT-2",
        unit="Kendall's tau",
        kind="instrument",
        scales=_WORLD,
    ),
    Claim(
        "A model is closer to parity than its text, by 5 % or more",
        name="E",
        fixed=_FIXED,
        measure="model.slope",
        quantity="slope of the model's shares of women by job on the true ones",
        # The specification's border between levelling and amplifying is 1. A slope that is 1 for all that matters would be
        # for ever inconclusive there, so the claim asks for a twentieth; the border itself is the weaker threshold.
        holds_if=Below(0.95),
        holds_in_part_if=Below(1.0),
        needs=_LEARNT,
        paper="GPT-2: men's jobs +6.5 points, women's jobs -8.7 points; slope 0.785 over the 32 jobs of the released table",
        paper_effect=_RELEASED_SLOPE,
        no_effect=1.0,
        pilot_sd={
            "laptop": 0.0085
        },  # three seeds of the trial before 2026-12-01, with 700 completions and one world
        unit="slope of women's shares on the truth",
        scales=_WORLD,
    ),
    Claim(
        "The instrument sees amplification: at temperature 0.7, and with five candidates",
        name="F",
        measure=_amplification,
        holds_if=Above(0.0),
        needs=_LEARNT,
        paper="a check of the instrument that the specification asks for",
        unit="slope, sharpened - plain",
        kind="instrument",
        scales=_WORLD,
    ),
    Claim(
        "A pretrained model gives women fewer distinct jobs than men",
        name="G",
        fixed=_FIXED,
        measure="real_gini_gap",
        quantity="concentration of women in few jobs minus that of men",
        holds_if=Above(0.0),
        needs=_at_hand,
        paper="first claim of the paper; no figure established",
        no_effect=0.0,
        unit="Gini, women - men, base",
        over="items",
        scales=_REAL,
    ),
    Claim(
        "A pretrained model: gender adds more to predicting a job than its intersections do",
        name="H",
        fixed=_FIXED,
        measure="real_gender_gain - real_interaction_gain",
        quantity="what gender adds to the prediction of a job minus what its interactions add",
        holds_if=Above(0.0),
        needs=_at_hand,
        paper="pseudo-R2 gain 3.3 to 4.2 points for gender, 0.4 to 0.6 for interactions",
        paper_effect=3.1,
        no_effect=0.0,
        unit="points of pseudo-R², mean over jobs",
        over="items",
        scales=_REAL,
    ),
    Claim(
        "A pretrained model: for some jobs the intersection matters beyond gender",
        name="I",
        fixed=_FIXED,
        measure="real_interactions",
        quantity="share of interaction terms with p < 0.05, by job",
        holds_if=Above(ALPHA),  # what chance alone gives
        needs=_at_hand,
        paper="single interactions significant for 15 to 32 % of the jobs, 23 % on average",
        paper_effect=0.23,
        no_effect=ALPHA,
        unit="share of terms, Wald p < 0.05",
        over="items",
        scales=_REAL,
    ),
    Claim(
        "A pretrained model's share of women by job follows the labour statistics",
        name="J",
        fixed=_FIXED,
        measure="real_kendall",
        quantity="rank correlation of the model's shares of women by job with the labour statistics",
        # The paper's .63 must lie as far inside as some 30 jobs can tell: half of it, in round figures.
        holds_if=Above(0.3),
        needs=_at_hand,
        paper="Kendall tau .63, Pearson .85 over 32 jobs",
        paper_effect=0.63,
        no_effect=0.0,
        unit="Kendall's tau",
        over="items",
        scales=_REAL,
    ),
    Claim(
        "A pretrained model is closer to parity than the labour market",
        name="K",
        fixed=_FIXED,
        measure="real_parity",
        quantity="shift of women's shares from the statistics to the model, in men's jobs minus in women's jobs",
        holds_if=Above(0.0),
        needs=_follows,
        paper="men's jobs +6.5 points, women's jobs -8.7 points",
        paper_effect=6.5 + 8.7,
        no_effect=0.0,
        unit="points",
        over="items",
        scales=_REAL,
    ),
    Claim(
        "The numbers quoted of the released XLNet sentences, computed anew",
        name="L",
        measure="xlnet.deviation",
        quantity="largest distance of Gini and ranks from the quoted ones",
        holds_if=AtMost(1.0),
        paper="released data: Gini .697 and .676, half of the mentions in 6 and 7 jobs, 90 % in 19 and 20",
        unit="halves of the last printed digit; the same in every seed",
        kind="implementation",
    ),
    Claim(
        "The numbers quoted of the released GPT-2 table, computed anew",
        name="M",
        measure="released.deviation",
        quantity="largest distance of correlations, error and shifts from the quoted ones",
        holds_if=AtMost(1.0),
        paper="released table: tau .63, Pearson .85, error .0238, +6.5 and -8.7 points, 16 of 32 jobs closer to parity",
        unit="halves of the last printed digit; the same in every seed",
        kind="implementation",
    ),
    Claim(
        "Draws from the truth itself show the interactions where they were planted",
        name="N",
        measure=_PLANTED.format("ideal"),
        quantity="share of jobs with a significant interaction, where one was planted minus where none was",
        holds_if=Above(0.0),
        paper="ours: what a perfect model with as many completions would show",
        unit="share of jobs, planted - rest",
        kind="instrument",
        scales=_WORLD,
    ),
]
