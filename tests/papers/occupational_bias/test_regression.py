"""Fits on counts against statsmodels on rows, scipy, and searches that know no formula."""

import sys

import numpy as np
import pytest
from scipy import stats

from gpt2lab.base.errors import LabError
from gpt2lab.papers.occupational_bias import regression
from gpt2lab.papers.occupational_bias.frequency import Counts
from gpt2lab.papers.occupational_bias.prompts import identity_prompts
from gpt2lab.papers.occupational_bias.regression import (
    benjamini_hochberg,
    chi2_tail,
    design,
    fisher_exact_greater,
    fit_logistic,
    fit_penalised,
    regress,
)
from gpt2lab.papers.occupational_bias.world import make_world
from tests.papers.occupational_bias import reference

CELLS = tuple(
    p.cell
    for p in identity_prompts(intersections=("ethnicity",))
    if p.cell.category in ("base", "Asian", "Black")
)
MENTIONS = np.array([[30.0, 3], [14, 9], [12, 0], [25, 4], [9, 6], [22, 8]])
TRIALS = np.array([80.0, 90, 70, 80, 60, 85])


def counts() -> Counts:
    return Counts(CELLS, ("cook", "nurse"), MENTIONS, TRIALS, np.zeros(6))


def rows(job: int) -> dict[str, list[float]]:
    """One row a completion, with a column for each term."""
    found: dict[str, list[float]] = {
        name: [] for name in ("y", "asian", "black", "woman", "woman:asian", "woman:black")
    }
    for cell, hits, size in zip(CELLS, MENTIONS[:, job], TRIALS, strict=True):
        for at in range(int(size)):
            woman = float(cell.gender == "woman")
            found["y"].append(float(at < hits))
            found["woman"].append(woman)
            for name in ("Asian", "Black"):
                found[name.lower()].append(float(cell.category == name))
                found[f"woman:{name.lower()}"].append(woman * (cell.category == name))
    return found


def test_fits_on_counts_equal_statsmodels_logit_on_rows() -> None:
    fitted = regress(counts(), "ethnicity")[0]
    assert fitted.job == "cook" and not fitted.separated
    data = rows(0)
    for fit, columns in (
        (fitted.m0, ["asian", "black"]),
        (fitted.m1, ["asian", "black", "woman"]),
        (fitted.m2, ["asian", "black", "woman", "woman:asian", "woman:black"]),
    ):
        wanted = reference.logit_on_rows(columns, data)
        assert fit.terms == ("Intercept", *columns)
        assert fit.coefficients == pytest.approx(wanted.params, abs=1e-7)
        assert fit.errors == pytest.approx(wanted.bse, abs=1e-6)
        assert fit.p_values == pytest.approx(wanted.pvalues, abs=1e-5)
        assert fit.log_likelihood == pytest.approx(wanted.llf, abs=1e-7)
        assert fit.pseudo_r2 == pytest.approx(100 * wanted.prsquared, abs=1e-7)
    assert fitted.interaction_gain == pytest.approx(fitted.m2.pseudo_r2 - fitted.m1.pseudo_r2)
    statistic = 2 * (fitted.m2.log_likelihood - fitted.m1.log_likelihood)
    assert fitted.lr_p == pytest.approx(stats.chi2.sf(statistic, 2))


@pytest.mark.parametrize("seed", range(6))
def test_standard_errors_are_those_at_the_maximum_itself(seed: int) -> None:
    """Each iteration's errors come from the weights of the one before: stopped early, they are 1e-6 off."""
    generator = np.random.default_rng(seed)
    terms, matrix = design(["Asian", "Black"])
    trials = generator.integers(30, 9000, size=len(matrix)).astype(float)
    successes = generator.binomial(trials.astype(int), generator.uniform(0.01, 0.6, size=len(matrix))) + 0.0
    for size in (3, 4, 6):
        found = fit_logistic(matrix[:, :size], successes, trials, terms[:size])
        wanted = reference.logit_by_newton(matrix[:, :size], successes, trials)
        assert found.converged
        assert found.coefficients == pytest.approx(wanted[0], rel=1e-9, abs=1e-10)
        assert found.errors == pytest.approx(wanted[1], rel=2e-9)
        assert found.p_values == pytest.approx(2 * stats.norm.sf(np.abs(wanted[0] / wanted[1])), abs=1e-9)


def test_the_full_model_is_saturated() -> None:
    fitted = regress(counts(), "ethnicity")[0]
    _, matrix = design(["Asian", "Black"])
    p = MENTIONS[:, 0] / TRIALS
    assert matrix @ fitted.m2.coefficients == pytest.approx(np.log(p / (1 - p)), abs=1e-7)


def test_an_empty_cell_is_flagged_and_its_test_stays_sound() -> None:
    """Job 1 was never named for Asian women: Wald says nothing, the likelihood ratio and the penalised fit do."""
    fitted = regress(counts(), "ethnicity")[1]
    assert fitted.separated and not fitted.sound
    at = fitted.m2.terms.index("woman:asian")
    assert fitted.m2.p_values[at] > 0.9
    assert abs(fitted.m2.coefficients[at]) > 10
    assert abs(fitted.penalised.coefficients[at]) < 5
    p = MENTIONS[:, 1] / TRIALS
    with np.errstate(divide="ignore", invalid="ignore"):
        exact = np.nansum(MENTIONS[:, 1] * np.log(p)) + ((TRIALS - MENTIONS[:, 1]) * np.log1p(-p)).sum()
    assert fitted.m2.log_likelihood == pytest.approx(exact)
    assert 0 < fitted.lr_p < 0.5


@pytest.mark.parametrize("job", [0, 1])
def test_the_penalised_fit_maximises_the_penalised_likelihood(job: int) -> None:
    terms, matrix = design(["Asian", "Black"])
    found = fit_penalised(matrix, MENTIONS[:, job], TRIALS, terms)
    wanted = reference.firth_by_search(matrix, MENTIONS[:, job], TRIALS)
    assert found.coefficients == pytest.approx(wanted, abs=2e-4)
    p = 1 / (1 + np.exp(-(matrix @ wanted)))
    errors = np.sqrt(np.diag(np.linalg.inv(matrix.T @ np.diag(TRIALS * p * (1 - p)) @ matrix)))
    assert found.errors == pytest.approx(errors, rel=1e-3)
    assert found.p_values == pytest.approx(2 * stats.norm.sf(np.abs(wanted / errors)), abs=1e-3)


def test_tails_and_adjusted_p_values_equal_scipys() -> None:
    for value, df in ((0.0, 1), (3.84, 1), (9.5, 4), (80.0, 3)):
        assert chi2_tail(value, df) == pytest.approx(stats.chi2.sf(value, df), rel=1e-9)
    p = [0.001, 0.04, 0.03, 0.2, 0.9, 0.03]
    assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))
    for table in ((6, 2, 1, 15), (0, 3, 2, 2), (3, 0, 0, 4)):
        wanted = stats.fisher_exact([table[:2], table[2:]], alternative="greater").pvalue
        assert fisher_exact_greater(*table) == pytest.approx(wanted)
    chosen = reference.all_tables(4, 3, 3)
    assert fisher_exact_greater(2, 2, 1, 2) == pytest.approx(sum(k >= 2 for k in chosen) / len(chosen))


def test_pseudo_r2_does_not_depend_on_how_many_completions_stand_for_the_shares() -> None:
    """So the exact mode has gains without noise, for any n."""
    world = make_world(0)
    few, many = (regress(world.expected(n), "ethnicity") for n in (100, 1000))
    assert [f.gender_gain for f in few] == pytest.approx([f.gender_gain for f in many], abs=1e-6)


def test_planted_interactions_are_found_and_absent_ones_are_not() -> None:
    """Ground truth: a world with strong interactions in 8 jobs, and one with none."""
    generator = np.random.default_rng(0)
    strong = make_world(1, interaction=1.5, skew=0.3)
    fits = regress(strong.draw(2000, generator), "ethnicity")
    planted = [fit.lr_p < 0.05 for fit in fits if fit.job in strong.planted]
    assert sum(planted) >= 7
    nothing = make_world(1, planted=0, skew=0.0)
    fits = regress(nothing.draw(2000, generator), "ethnicity")
    assert sum(fit.lr_p < 0.05 for fit in fits) <= 4  # 24 tests at 5 %
    assert np.mean([fit.gender_gain for fit in fits]) < 0.1


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LabError, match="compares base"):
        regress(counts(), "base")
    with pytest.raises(LabError, match="both outcomes"):
        regression.fit_logistic(np.ones((2, 1)), np.zeros(2), np.ones(2), ["Intercept"])
    monkeypatch.setitem(sys.modules, "statsmodels.genmod.families", None)
    with pytest.raises(LabError, match=r"\[bias\]"):
        regress(counts(), "ethnicity")


RELEASED = {
    # women and men: base, gay, straight. The counts are whole to 1e-4; the rows are those of k · k for k titles.
    "photographer": (
        [20, 106, 128, 135, 98, 148],
        [-4.288260074, 0.261586506, 0.331703053, -1.671971770, 1.574413347, 1.256372134],
    ),
    "security guard": (
        [223, 657, 93, 402, 143, 277],
        [-2.389976915, -0.509611498, -0.922961183, -1.132286597, -0.416201100, 0.456758783],
    ),
}
"""Two jobs of the authors' released regressions of sexuality, in which every term is significant, and their counts."""


def test_the_authors_released_coefficients_come_out_of_their_counts() -> None:
    cells = tuple(p.cell for p in identity_prompts(intersections=("sexuality",)))
    size = np.array([7774.0, 7827, 8041, 7705, 7861, 7885])
    mentions = np.array([hits for hits, _ in RELEASED.values()], dtype=float).T
    fits = regress(Counts(cells, tuple(RELEASED), mentions, size, np.zeros(6)), "sexuality")
    for fit, (_, wanted) in zip(fits, RELEASED.values(), strict=True):
        assert fit.m2.terms == ("Intercept", "gay", "straight", "woman", "woman:gay", "woman:straight")
        assert fit.m2.coefficients == pytest.approx(wanted, abs=1e-6)
        assert (fit.m2.p_values < 0.05).all() and fit.sound


@pytest.mark.parametrize("empty", ["men", "a category", "all but one cell"])
def test_likelihoods_of_separated_models_are_their_limits(empty: str) -> None:
    """Where a whole margin is empty M1 and M0 run away too; the limits are known in closed form."""
    mentions = np.full(6, 9.0)
    if empty == "men":
        mentions[1::2] = 0
    elif empty == "a category":
        mentions[2:4] = 0
    else:
        mentions[:] = [0, 0, 7, 0, 0, 0]
    fit = regress(Counts(CELLS, ("cook",), mentions[:, None], np.full(6, 90.0), np.zeros(6)), "ethnicity")[0]

    def best(groups: list[list[int]]) -> float:
        """The log-likelihood of one probability a group of cells."""
        total = 0.0
        for group in groups:
            y, n = mentions[group].sum(), 90.0 * len(group)
            total += sum(k * np.log(k / n) for k in (y, n - y) if k > 0)
        return total

    pairs, cells = [[0, 1], [2, 3], [4, 5]], [[at] for at in range(6)]
    assert fit.separated
    assert fit.m0.log_likelihood == pytest.approx(best(pairs), abs=1e-6)
    assert fit.m2.log_likelihood == pytest.approx(best(cells), abs=1e-6)
    m1 = (
        best(pairs) if empty == "a category" else best(cells)
    )  # equal shares: woman adds nothing, or all there is
    assert fit.m1.log_likelihood == pytest.approx(m1, abs=1e-6)
    assert fit.lr_p == pytest.approx(1.0, abs=1e-3)


def test_a_job_that_every_completion_names_is_left_out() -> None:
    size = np.full(6, 5.0)
    table = Counts(CELLS, ("cook", "nurse"), np.stack([size, [1, 2, 3, 0, 1, 2]], 1), size, np.zeros(6))
    assert [fit.job for fit in regress(table, "ethnicity")] == ["nurse"]
