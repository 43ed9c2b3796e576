"""Counts, concentration, skew and the comparison, against definitions and what the authors released."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from gpt2lab.base.errors import LabError
from gpt2lab.papers.occupational_bias.concentration import entropy, gini, jobs_covering, lorenz, shares
from gpt2lab.papers.occupational_bias.frequency import Counts, expected, tally
from gpt2lab.papers.occupational_bias.labour import (
    POPULATION,
    closer_to_parity,
    compare,
    detailed_statistics,
    joined,
    kendall_tau,
    mean_squared_error,
    pearson,
    read_population,
    read_statistics,
    reflection_slope,
    released_comparison,
)
from gpt2lab.papers.occupational_bias.prompts import DATA, Cell, identity_prompts, read_rows
from gpt2lab.papers.occupational_bias.released import released_numbers, xlnet_counts
from gpt2lab.papers.occupational_bias.skew import by_spread, over_representation, parity, proportions
from tests.papers.occupational_bias import reference

W, M = Cell("base", "base", "woman"), Cell("base", "base", "man")
LISTS = [[5, 0, 0, 1], [1], [3, 3, 3], [70, 20, 9, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]]


@pytest.mark.parametrize("mentions", LISTS)
def test_gini_is_half_the_relative_mean_difference(mentions: list[int]) -> None:
    x = shares(mentions)
    assert gini(x) == pytest.approx(reference.gini_by_pairs(list(x)), abs=1e-12)
    assert gini([-1.0, 2.0, 5.0]) == pytest.approx(reference.gini_by_pairs([-1.0, 2.0, 5.0]), abs=1e-12)


@pytest.mark.parametrize("mentions", LISTS)
@pytest.mark.parametrize("share", ["1/2", "9/10", "1", "1/3"])
def test_ranks_that_cover_a_share_are_exact_at_ties(mentions: list[int], share: str) -> None:
    wanted = reference.rank_covering(mentions, Fraction(share))
    assert jobs_covering(mentions, float(Fraction(share))) == wanted


def test_entropy_and_lorenz() -> None:
    assert entropy([3, 1, 0, 4]) == pytest.approx(stats.entropy([3, 1, 4]))
    x, y = lorenz([1, 3, 0])
    assert x == [0.75, 1.0, 1.0] and y == [0.0, 0.5, 1.0]


def test_a_completion_counts_its_first_title_or_each_title_once() -> None:
    answers = [(W, ["nurse", "cook", "nurse"], 2), (W, [], 3), (M, ["cook"], 1)]
    first = tally(answers)
    assert first.jobs == ("cook", "nurse")
    assert first.mentions.tolist() == [[0, 2], [1, 0]]
    assert first.completions.tolist() == [5, 1] and first.untitled.tolist() == [3, 0]
    assert tally(answers, which="all").mentions.tolist() == [[2, 2], [1, 0]]


def test_the_authors_duplicates_can_be_reproduced() -> None:
    """A list of k titles becomes k · k rows, each title k times."""
    counts = tally([(W, ["nurse", "cook"], 1), (W, ["nurse"], 1), (M, [], 1)], compat_duplicates=True)
    assert counts.completions.tolist() == [4 + 1, 1]
    assert counts.mentions.tolist() == [[2, 3], [0, 0]]


def test_merging_jobs_adds_their_mentions_and_an_empty_cell_is_refused() -> None:
    counts = tally([(W, ["waitress"], 3), (M, ["waiter"], 2), (M, ["cook"], 1)]).renamed(
        {"waitress": "waiter"}
    )
    assert counts.jobs == ("cook", "waiter") and counts.mentions.tolist() == [[0, 3], [1, 2]]
    with pytest.raises(LabError, match=r"man: none of 4 completions names an occupation"):
        tally([(W, ["cook"], 1), (M, [], 4)]).check_titled()
    with pytest.raises(LabError, match=r"gazetteer \(nor for man\); draw more"):
        tally([(W, [], 1), (M, [], 4)]).check_titled()
    with pytest.raises(LabError, match="no completions"):
        tally([])


def small() -> Counts:
    """Base and two ethnicities, three jobs."""
    cells = [
        p.cell
        for p in identity_prompts(intersections=("ethnicity",))
        if p.cell.category in ("base", "Asian", "White")
    ]
    mentions = np.array(
        [[30, 10, 0], [10, 25, 5], [20, 4, 1], [10, 12, 6], [15, 5, 0], [5, 20, 9]], dtype=float
    )
    return Counts(
        tuple(cells), ("cook", "nurse", "plumber"), mentions, np.full(6, 50.0), 50 - mentions.sum(1)
    )


def test_thresholds_count_calls_of_the_intersection_and_mentions_with_base() -> None:
    counts = small()  # 200 calls of ethnicity
    assert counts.frequent("ethnicity", 0.08) == [0, 1, 2]  # 16 of 200
    assert counts.frequent("ethnicity", 0.1) == [0, 1]
    assert counts.frequent("ethnicity", 0.1, with_base=True) == [0, 1, 2]  # 16 + 5


def test_proportions_parity_and_over_representation() -> None:
    counts = small()
    divided = proportions(counts.mentions[2:])
    assert divided.sum(0) == pytest.approx(1)
    assert parity(counts, "base", [0, 2]).tolist() == [0.5, -1.0]
    over = over_representation(counts, "ethnicity", [0, 1])
    assert over[0, :, 0].tolist() == pytest.approx([20 / 35 * 2, 15 / 35 * 2])
    assert by_spread(np.array([[0.5, 0.9], [0.5, 0.1]])) == [1, 0]
    assert by_spread(np.array([[0.5, 0.9], [0.5, 0.1]]), "std") == [1, 0]


def test_expected_counts_are_n_times_the_probabilities() -> None:
    counts = expected({W: {"cook": 0.25}, M: {"cook": 0.5, "nurse": 0.5}}, {W: 8, M: 4})
    assert counts.mentions.tolist() == [[2, 0], [2, 2]] and counts.untitled.tolist() == [6, 0]


# Labour statistics.


def test_the_released_xlnet_counts_give_the_figures_that_are_quoted() -> None:
    found = released_numbers()
    assert round(found["xlnet.gini_women"], 3) == 0.697 and round(found["xlnet.gini_men"], 3) == 0.676
    assert [found[f"xlnet.{k}"] for k in ("half_women", "half_men", "ninety_women", "ninety_men")] == [
        6,
        7,
        19,
        20,
    ]
    assert xlnet_counts().completions.sum() == 199_000  # a thousand of the 200,000 are Princess
    rows = read_rows(DATA / "xlnet_names_titles.csv", ("titles", "n"))
    empty = sum(int(row["n"]) for row in rows if not row["titles"])
    assert round(empty / sum(int(row["n"]) for row in rows), 3) == 0.639  # with Princess, as quoted
    duplicated = xlnet_counts(compat_duplicates=True)  # no list of two titles is left without Princess
    assert duplicated.mentions.tolist() == xlnet_counts().mentions.tolist()
    both = xlnet_counts()
    total = dict(zip(both.jobs, both.mentions.sum(0), strict=True))
    top = sorted(total, key=lambda job: -total[job])[:6]
    assert {"waiter", "waitress", "janitor", "teacher", "carpenter", "nurse"} == set(top)


def test_the_released_comparison_gives_the_figures_that_are_quoted() -> None:
    found = released_numbers()
    assert found["released.kendall_women"] == pytest.approx(0.63, abs=0.005)
    assert found["released.pearson_women"] == pytest.approx(0.85, abs=0.005)
    assert found["released.mse_women"] == pytest.approx(0.0238, abs=5e-5)
    assert found["released.shift_mens_jobs"] == pytest.approx(6.5, abs=0.05)
    assert found["released.shift_womens_jobs"] == pytest.approx(-8.7, abs=0.05)
    assert found["released.closer_to_parity"] == 16
    table = released_comparison()
    errors = {c: mean_squared_error(table.model[f"{c}_F"] / 100, table.official[f"{c}_F"] / 100) for c in
              ("asian", "black", "hispanic", "white")}  # fmt: skip
    assert {c: round(e, 4) for c, e in errors.items()} == {
        "asian": 0.0004, "black": 0.0013, "hispanic": 0.0049, "white": 0.0182,
    }  # fmt: skip


def test_joint_statistics_are_products_of_margins() -> None:
    """us[e, g | j] = us[e | j] · us[g | j], as the specification infers."""
    table = read_statistics(categories=("Asian", "Black", "Hispanic", "White"))
    for name in ("asian", "black", "hispanic", "white"):
        both = table.percent[f"{name}_F"] + table.percent[f"{name}_M"]
        # both factors are rounded to 0.01 in the file
        assert np.abs(table.percent[f"{name}_F"] - both * table.percent["base_F"] / 100).max() < 0.02


def test_shares_are_weighted_by_population_and_merged_jobs_averaged() -> None:
    counts = small()
    table = read_statistics(categories=("Asian", "White"))
    jobs = {"nurse": 1, "cook": 0, "plumber": 2}
    found = compare(counts, table, share=0.0)
    assert set(found.jobs) == set(jobs)
    for at, job in enumerate(found.jobs):
        j = jobs[job]
        base = counts.mentions[:2, j]
        assert found.model["base_F"][at] == pytest.approx(100 * 2 * 0.47 * base[0] / base.sum())
        assert found.model["base_M"][at] == pytest.approx(100 * 2 * 0.53 * base[1] / base.sum())
        cells = counts.mentions[2:, j]
        weight = 4 * POPULATION["White"] * 0.53
        assert found.model["white_M"][at] == pytest.approx(100 * weight * cells[3] / cells.sum())
    assert found.model["base_M"][found.jobs.index("plumber")] == pytest.approx(
        106
    )  # as in the released table
    assert "model" in found.not_named and not found.without_statistics


def test_merged_tokens_are_averaged_unweighted_and_jobs_without_statistics_are_listed() -> None:
    cells = (W, M)
    counts = Counts(
        cells,
        ("assistant", "poet", "secretary"),
        np.array([[9.0, 5, 1], [1.0, 5, 3]]),
        np.full(2, 12.0),
        np.zeros(2),
    )
    found = compare(counts, read_statistics(), intersection="base")
    assert found.jobs == ("secretary / assistant",)
    assert found.model["base_F"][0] == pytest.approx(2 * 0.47 * (90 + 25) / 2)
    assert found.without_statistics == ("poet",)
    rounded = compare(counts, read_statistics(), intersection="base", rounded=True)
    assert rounded.model["base_F"][0] == pytest.approx(2 * 0.47 * (90 + 25) / 2)


def test_correlations_and_slope_equal_scipys() -> None:
    generator = np.random.default_rng(3)
    a = generator.random(20).round(1)  # with ties
    b = (0.7 * a + 0.3 * generator.random(20)).round(1)
    assert kendall_tau(a, b) == pytest.approx(reference.kendall_by_pairs(a, b))
    assert pearson(a, b) == pytest.approx(stats.pearsonr(a, b).statistic)
    assert reflection_slope(b, a) == pytest.approx(stats.linregress(a - 0.5, b - 0.5).slope)
    assert closer_to_parity([0.4, 0.1, 0.6], [0.3, 0.1, 0.5]) == 1


def test_what_is_refused() -> None:
    with pytest.raises(LabError, match="values that differ"):
        kendall_tau([1, 1, 1], [1, 2, 3])
    with pytest.raises(LabError, match="finite"):
        reflection_slope([float("nan"), 1], [0, 1])
    with pytest.raises(LabError, match="at least one mention"):
        shares([0, 0])
    with pytest.raises(LabError, match="none of the model's frequent jobs"):
        compare(tally([(W, ["poet"], 9), (M, ["poet"], 9)]), read_statistics(), intersection="base")


def test_a_table_of_statistics_must_have_its_columns(tmp_path: Path) -> None:
    file = tmp_path / "us.csv"
    file.write_text("job,us_base_F\ncook,40\n")
    with pytest.raises(LabError, match="no field 'us_base_M'"):
        read_statistics(file)
    file.write_text("job,us_base_F,us_base_M\ncook,40,160\n")
    with pytest.raises(LabError, match="between 0 and 100"):
        read_statistics(file)
    file.write_text("job,us_base_F,us_base_M\ncook,many,60\n")
    with pytest.raises(LabError, match="numbers in percent"):
        read_statistics(file)


def test_numbers_that_are_none_are_refused() -> None:
    for values in ([1.0, float("nan")], [1.0, float("inf")]):
        with pytest.raises(LabError, match="finite"):
            gini(values)
        with pytest.raises(LabError, match="finite"):
            shares(values)


def test_thresholds_of_the_authors_duplicates_refer_to_completions() -> None:
    """Two titles make four rows, but one call: 2 of 8 completions, not 2 of 11 rows."""
    answers = [(W, ["nurse", "cook"], 1), (W, ["nurse"], 1), (W, [], 2), (M, [], 4)]
    counts = tally(answers, compat_duplicates=True)
    assert counts.completions.tolist() == [7, 4] and counts.answers.tolist() == [4, 4]
    assert counts.frequent("base", 0.25) == [0, 1] and counts.calls("base") == 8
    assert counts.renamed({"cook": "nurse"}).answers.tolist() == [4, 4]
    assert tally(answers).answers.tolist() == [4, 4]


def test_categories_with_one_gender_are_no_obstacle() -> None:
    cells = (Cell("names", "N", "woman"), Cell("names", "N", "man"), Cell("names", "S", "woman"))
    counts = Counts(cells, ("cook",), np.array([[3.0], [4], [1]]), np.full(3, 9.0), np.zeros(3))
    over = over_representation(counts, "names", [0])
    assert over[0, :, 0].tolist() == [1.5, 0.5]
    assert over[1, 0, 0] == 1.0 and np.isnan(over[1, 1, 0])


def test_a_table_of_women_and_men_alone_is_enough_but_half_a_table_is_not(tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text("job,us_base_F,us_base_M\ncook,40,60\n")
    assert set(read_statistics(file, ["Asian"]).percent) == {"base_F", "base_M"}
    file.write_text("job,us_base_F,us_base_M,us_asian_F\ncook,40,60,3\n")
    with pytest.raises(LabError, match="no field 'us_asian_M'"):
        read_statistics(file, ["Asian"])


def test_detailed_occupations_agree_with_the_table_of_32() -> None:
    """Both come from the same survey: women and men within 0.3 points, cells within 1."""
    table = read_statistics(categories=("Asian", "Black", "Hispanic", "White"))
    fine = detailed_statistics()
    both = [job for job in table.jobs if job in fine.jobs]
    assert len(both) >= 7
    for column, values in table.percent.items():
        for job in both:
            other = fine.percent[column][fine.jobs.index(job)]
            assert other == pytest.approx(values[table.jobs.index(job)], abs=0.3 if "base" in column else 1.0)
    more = joined(table, fine)
    assert len(more.jobs) == len(set(more.jobs)) == len(table.jobs) + len(fine.jobs) - len(both)
    assert more.percent["asian_F"][: len(table.jobs)].tolist() == table.percent["asian_F"].tolist()


def test_own_shares_of_the_population(tmp_path: Path) -> None:
    file = tmp_path / "population.csv"
    file.write_text("group,share\nwoman,0.4\nman,0.6\nTurkish,0.05\n")
    assert read_population(file) == {"woman": 0.4, "man": 0.6, "Turkish": 0.05}
    for line, says in (("man,0.7", "sum to 1"), ("man,many", "no number"), ("man,6", "lie in")):
        file.write_text(f"group,share\nwoman,0.4\n{line}\n")
        with pytest.raises(LabError, match=says):
            read_population(file)
