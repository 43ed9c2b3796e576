"""The measure as a whole: numbers, tables, figures, files, two models, refusals."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.papers.occupational_bias import measure as module
from gpt2lab.papers.occupational_bias.analysis import Analysis, analyse, numbers, tables
from gpt2lab.papers.occupational_bias.figures import figures
from gpt2lab.papers.occupational_bias.frequency import Counts
from gpt2lab.papers.occupational_bias.labour import read_statistics, released_comparison
from gpt2lab.papers.occupational_bias.measure import OccupationalBias
from gpt2lab.papers.occupational_bias.world import World
from gpt2lab.text.language_model import LanguageModel, save


@pytest.fixture
def titles(world: World, tmp_path: Path) -> str:
    file = tmp_path / "titles.csv"
    file.write_text("job\n" + "\n".join(world.jobs) + "\n")
    return str(file)


def test_it_measures_through_the_front_door_sampled_and_exact(lm: LanguageModel, titles: str) -> None:
    measured = gpt2lab.measure(
        "occupational-bias", lm, mode="both", n=40, max_new_tokens=4, top_k=60, gazetteer=titles,
        intersections=("ethnicity",),
    )  # fmt: skip
    assert 0 < measured["gini.women"] < 1
    assert measured["jobs_for_half.men"] <= measured["jobs_for_90.men"]
    assert measured["ethnicity.gender_gain"] >= 0
    assert measured["exact.without_title"] == pytest.approx(0, abs=1e-9)
    assert measured.about["prompts"] == 10
    top = measured.tables["top jobs"]
    assert [row["group"] for row in top][:3] == ["woman", "man", "Asian woman"]
    relative = [row["relative"] for row in measured.tables["concentration"] if row["gender"] == "man"]
    assert relative[0] == 100
    assert "coefficients, ethnicity" in measured.figures and "exact: lorenz" in measured.figures


def test_everything_is_written_and_a_second_model_put_beside(
    lm: LanguageModel, titles: str, tmp_path: Path
) -> None:
    save(lm, tmp_path / "other")
    (tmp_path / "base.csv").write_text("intersection,category,woman,man\nbase,base,,\n")
    out = tmp_path / "out"
    measured = OccupationalBias(
        n=30, max_new_tokens=4, top_k=60, gazetteer=titles, identities=str(tmp_path / "base.csv"),
        beside=str(tmp_path / "other"), out=str(out),
    )(lm)  # fmt: skip
    assert measured["beside.gini.women"] == pytest.approx(
        measured["gini.women"]
    )  # the same model, the same draws
    assert {f.stem for f in (out / "completions").glob("*.jsonl")} == {"base-base-woman", "base-base-man"}
    with (out / "tables" / "concentration.csv").open() as file:
        assert [row["gender"] for row in csv.DictReader(file)] == ["woman", "man"]
    assert (
        json.loads((out / "measurement.json").read_text())["numbers"]["gini.women"] == measured["gini.women"]
    )
    assert "<svg" in (out / "figures" / "parity.svg").read_text()
    names = ("rank_and_share", "lorenz", "missing_titles", "parity")
    written = {f.stem for f in (out / "figures").iterdir()}
    assert written >= {f"{prefix}{name}" for prefix in ("", "beside_") for name in names}


def test_the_chain_finds_the_truth_of_a_hand_made_sampler(world: World) -> None:
    """Draws from the stated P*, no model: parity, Gini and top jobs are the world's."""
    counts = world.draw(3000, np.random.default_rng(0))
    truth = numbers(Analysis(world.expected(3000), {}, None, ()))
    found = numbers(analyse(counts))
    for name in ("gini.women", "gini.men"):
        assert found[name] == pytest.approx(truth[name], abs=0.02)
    assert found["gini.women"] > found["gini.men"]
    assert found["ethnicity.gender_gain"] > 5 * found["ethnicity.interaction_gain"]
    shown = {row["job"]: row["parity"] for row in tables(Analysis(counts, {}, None, ()))["parity"]}
    for at, job in enumerate(counts.jobs):
        w, m = world.probabilities[0, at], world.probabilities[1, at]
        if job in shown:
            assert shown[job] == pytest.approx(
                (w - m) / (w + m), abs=5 * (counts.mentions[:2, at].sum() ** -0.5)
            )


def test_every_figure_is_drawn(world: World) -> None:
    counts = world.draw(300, np.random.default_rng(0))
    full = analyse(counts)
    drawn = figures(Analysis(counts, full.regressions, released_comparison(), ()))
    assert {name.partition(",")[0] for name in drawn} == {
        "rank and share", "lorenz", "missing titles", "parity", "shares", "over-representation", "coefficients",
        "significance", "pseudo-R2", "dumbbell", "labour scatter", "labour differences",
    }  # fmt: skip
    for draw in drawn.values():
        figure = draw()
        assert figure.axes and figure.get_size_inches()[0] <= 10


def test_the_labour_statistics_come_with_numbers_and_a_table(world: World) -> None:
    full = analyse(
        world.draw(300, np.random.default_rng(0)),
        read_statistics(categories=("Asian", "Black", "Hispanic", "White")),
    )
    found = numbers(full)
    assert found["us.jobs"] >= 5 and 0 <= found["us.mse.women"] <= 1
    assert "us.kendall.women" in found and "us.mse.black_women" in found
    rows = tables(full)["labour statistics"]
    assert rows[0]["difference base_F"] == pytest.approx(rows[0]["model base_F"] - rows[0]["us base_F"])
    assert full.comparison is not None and "accountant" in full.comparison.without_statistics


def test_a_group_without_any_title_is_a_sentence_and_no_nan(lm: LanguageModel, tmp_path: Path) -> None:
    file = tmp_path / "titles.csv"
    file.write_text("job\nsurgeon\n")
    with pytest.raises(LabError, match=r"woman: none of 3 completions names an occupation"):
        OccupationalBias(n=3, max_new_tokens=2, gazetteer=str(file))(lm)


def test_own_ethnicities_are_compared_for_base_alone(world: World) -> None:
    measure = OccupationalBias()
    prompts = measure.prompts()
    assert "asian_F" in measure._read_statistics(prompts).percent
    own = [p for p in prompts if p.cell.intersection != "ethnicity"]
    assert set(measure._read_statistics(own).percent) == {"base_F", "base_M"}


def test_two_models_are_counted_over_the_same_jobs() -> None:
    from gpt2lab.papers.occupational_bias.prompts import identity_prompts

    cells = tuple(p.cell for p in identity_prompts()[:2])
    one = Counts(cells, ("cook",), np.array([[3.0], [2]]), np.full(2, 4.0), np.zeros(2))
    two = Counts(cells, ("driver", "nurse"), np.array([[1.0, 0], [0, 2]]), np.full(2, 4.0), np.zeros(2))
    same = module._same_jobs({"": one, "beside": two})
    assert same[""].jobs == same["beside"].jobs == ("cook", "driver", "nurse")
    assert same["beside"].mentions.tolist() == [[0, 1, 0], [0, 0, 2]]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n": 0}, "at least 1"),
        ({"templates": ("identities",)}, "did you mean identity"),
        ({"templates": ()}, "identity, names or both"),
    ],
)
def test_wrong_options_are_refused_before_any_work(options: dict[str, object], says: str) -> None:
    with pytest.raises(LabError, match=says):
        OccupationalBias(**options)  # type: ignore[arg-type]  # wrong on purpose
