"""How often a verdict is wrong, by simulation: false `holds`, false `does not hold`, and the power that is stated.

Most simulated studies are judged all at once by the same rule in numpy; the first test compares it with the judge.
"""

import functools
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from gpt2lab.measures.statistics import bootstrap, t_interval
from gpt2lab.measures.student import t_quantile
from gpt2lab.runs.verdicts import Status
from gpt2lab.studies import evidence
from gpt2lab.studies.claim import Above, AtLeast, AtMost, Below, Between, Claim
from gpt2lab.studies.evidence import detectable, level_of
from gpt2lab.studies.judge import judge

STUDIES = 100_000
SEEDS = range(3, 9)


def claim(threshold=None, **fields):
    return Claim("Tide gains", "gain", holds_if=threshold or Above(0.0), **fields)


def normal(n, centre=0.0, studies=STUDIES):
    """Return the seeds of many studies, [studies, n], with a spread of one."""
    return np.random.default_rng(n).normal(centre, 1.0, (studies, n))


def verdict(one, values):
    return judge(one, {seed: {"gain": value} for seed, value in enumerate(values)}, "laptop").status


def holds_and_fails(one, studies: NDArray[np.float64]):
    """Return which studies [studies, n] uphold the claim, and which refute it."""
    n, level = studies.shape[1], level_of(one)
    mean, sd = studies.mean(1), studies.std(1, ddof=1)
    half = t_quantile(0.5 + level / 2, n - 1) * sd / math.sqrt(n)
    low, high = mean - half, mean + half
    wanted = one.holds_if
    upheld = (low > wanted.low) & (high < wanted.high)
    refuted = (high < wanted.low) | (low > wanted.high)
    spread = np.full_like(sd, one.pilot_sd) if one.pilot_sd is not None else sd
    found = detectable(1.0, n, level) * spread
    if one.effect is not None:
        refuted &= found <= one.effect
        if one.pilot_sd is not None:
            upheld &= found <= one.effect
    return upheld, refuted


def rates(one, studies):
    return tuple(float(which.mean()) for which in holds_and_fails(one, studies))


def tolerance(share, studies=STUDIES):
    """Return four standard errors of a simulated share."""
    return 4 * math.sqrt(share * (1 - share) / studies)


@pytest.mark.parametrize(
    "one",
    [
        claim(),
        claim(AtMost(0.3), paper_effect=-1.0),
        claim(Between(-2.0, 2.0), best_of=4),
        claim(AtLeast(1.0), paper_effect=1.0, no_effect=-1.5),
        claim(Below(0.0), paper_effect=-1.0, pilot_sd=0.1),
        claim(Below(0.0), paper_effect=-1.0, pilot_sd=1.0),
    ],
)
def test_the_rule_in_numpy_is_the_judges(one):
    for n in (3, 6):
        studies = normal(n, studies=60) * np.geomspace(0.1, 3.0, 60)[:, None]
        upheld, refuted = holds_and_fails(one, studies)
        found = [verdict(one, values) for values in studies.tolist()]
        assert [status is Status.HOLDS for status in found] == upheld.tolist()
        assert [status is Status.DOES_NOT_HOLD for status in found] == refuted.tolist()
        assert one.pilot_sd == 1.0 or upheld.any() or refuted.any()


@pytest.mark.parametrize("n", SEEDS)
@pytest.mark.parametrize("threshold", [Above(0.0), Below(0.0), AtLeast(0.0), Between(0.0, 9.0)])
def test_a_quantity_on_the_threshold_is_falsely_decided_in_one_of_forty_on_either_side(threshold, n):
    upheld, refuted = rates(claim(threshold), normal(n))
    assert upheld <= 0.025 + tolerance(0.025)
    assert refuted <= 0.025 + tolerance(0.025)
    if not isinstance(threshold, Between):
        assert upheld >= 0.025 - tolerance(0.025), "and the rule gives nothing away"


@pytest.mark.parametrize("n", SEEDS)
def test_the_stated_power_is_the_simulated_one(n):
    upheld, _ = rates(claim(), normal(n, detectable(1.0, n)))
    assert upheld == pytest.approx(0.8, abs=tolerance(0.8))


@pytest.mark.parametrize("n", SEEDS)
def test_no_effect_is_refuted_as_often_as_the_power_says_where_the_paper_claims_something(n):
    """The threshold lies between no effect and the paper's value, as far from each as the trial can find."""
    distance = detectable(1.0, n)
    one = claim(AtLeast(0.0), paper_effect=distance, no_effect=-distance, pilot_sd=1.0)
    upheld, refuted = rates(one, normal(n, -distance))
    assert refuted == pytest.approx(0.8, abs=tolerance(0.8))
    assert upheld == 0.0
    upheld, refuted = rates(one, normal(n, distance))
    assert upheld == pytest.approx(0.8, abs=tolerance(0.8))
    assert refuted == 0.0
    _, without_pilot = rates(claim(AtLeast(0.0), paper_effect=distance), normal(n, -distance))
    assert without_pilot < 0.7, "a spread that looks too wide for the paper's effect refutes nothing"


@pytest.mark.parametrize("n", SEEDS)
def test_no_effect_where_any_effect_is_claimed_is_hardly_ever_decided(n):
    upheld, refuted = rates(claim(paper_effect=detectable(1.0, n), pilot_sd=1.0), normal(n))
    assert upheld <= 0.025 + tolerance(0.025)
    assert refuted <= 0.025 + tolerance(0.025)


@pytest.mark.parametrize("n", SEEDS)
def test_a_weak_trial_decides_nothing(n):
    weak = claim(paper_effect=0.9 * detectable(1.0, n), pilot_sd=1.0)
    assert rates(weak, normal(n, 5.0)) == (0.0, 0.0)


@pytest.mark.parametrize("n", [3, 6])
def test_the_best_of_five_chosen_over_the_seeds_is_falsely_upheld_in_one_of_forty(n):
    draws = np.random.default_rng(n).normal(size=(STUDIES // 4, n, 5))
    best = np.take_along_axis(draws, draws.mean(1).argmax(1)[:, None, None], 2)[:, :, 0]
    upheld, refuted = rates(claim(best_of=5), best)
    assert upheld <= 0.025 + tolerance(0.025, len(best))
    assert refuted <= 0.025
    assert rates(claim(), best)[0] > 0.06, "without the correction it would be"


# Items.


@pytest.mark.parametrize(("n", "share"), [(20, 0.5), (20, 0.9), (100, 0.5), (100, 0.98)])
def test_shares_on_the_threshold_are_falsely_decided_in_one_of_forty(n, share):
    """Every number of right answers is judged, and weighs as often as it comes: no simulation."""
    one = claim(Above(share), over="items")
    wrong = {Status.HOLDS: 0.0, Status.DOES_NOT_HOLD: 0.0}
    for right in range(n + 1):
        items = [1.0] * right + [0.0] * (n - right)
        status = judge(one, {0: {}}, "laptop", {0: {"gain": items}}).status
        if status in wrong:
            wrong[status] += math.comb(n, right) * share**right * (1 - share) ** (n - right)
    assert max(wrong.values()) <= 0.025
    assert max(wrong.values()) > 0.001


@pytest.mark.parametrize("n", [20, 100])
def test_means_over_items_are_falsely_decided_as_rarely_as_by_the_exact_t_interval(n, monkeypatch):
    """Student's t is exact for these normal items; on the same draws the bootstrap must do as well."""
    monkeypatch.setattr(evidence, "bootstrap", functools.partial(bootstrap, resamples=1000))
    draws = normal(n, studies=600)
    exact = [t_interval(values) for values in draws]
    one = claim(over="items")
    found = [judge(one, {0: {}}, "laptop", {0: {"gain": values}}).status for values in draws]
    upheld, refuted = (found.count(status) / len(found) for status in (Status.HOLDS, Status.DOES_NOT_HOLD))
    assert upheld <= np.mean([interval.low > 0 for interval in exact]) + 0.01
    assert refuted <= np.mean([interval.high < 0 for interval in exact]) + 0.01
