"""The measure as a whole: numbers, tables, figures, files, two models, refusals."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.papers.occupational_bias import measure as module
from gpt2lab.papers.occupational_bias.analysis import Analysis, analyse, numbers, tables
from gpt2lab.papers.occupational_bias.figures import figures
from gpt2lab.papers.occupational_bias.frequency import Counts, tally
from gpt2lab.papers.occupational_bias.labour import read_statistics, released_comparison
from gpt2lab.papers.occupational_bias.measure import OccupationalBias
from gpt2lab.papers.occupational_bias.prompts import Cell
from gpt2lab.papers.occupational_bias.world import World
from gpt2lab.text.language_model import LanguageModel, save
from tests.tiny import tiny


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
    assert "exact.without_title" not in measured.numbers  # nothing is missing by construction
    assert 0 < measured["exact.title_mass"] < 1
    assert measured.units["exact.title_mass"].startswith("probability")
    assert {"group", "probability of a title"} == set(measured.tables["exact: titles"][0])
    assert measured.about["titles the tokenizer cannot say"] == "0"
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


@pytest.mark.parametrize(
    "options",
    [
        {"statistics": "TITLES"},
        {"beside": "nowhere"},
        {"population": "TITLES"},
        {"identities": "TITLES"},
    ],
)
def test_wrong_files_are_refused_before_anything_is_drawn(
    lm: LanguageModel, titles: str, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "sample", lambda *_, **__: pytest.fail("drawn"))
    given = {name: titles if value == "TITLES" else value for name, value in options.items()}
    with pytest.raises(LabError, match=r"titles\.csv, line 1: no field|nowhere: no such"):
        OccupationalBias(gazetteer=titles, **given)(lm)  # type: ignore[arg-type]  # all are text


def test_missing_statsmodels_is_told_before_anything_is_drawn(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "sample", lambda *_, **__: pytest.fail("drawn"))
    monkeypatch.setitem(sys.modules, "statsmodels.genmod.families", None)
    with pytest.raises(LabError, match=r"\[bias\]"):
        OccupationalBias()(lm)


def test_a_model_that_reads_both_ways_is_refused_by_name(world: World, tmp_path: Path) -> None:
    for mode in ("sampled", "exact"):
        with pytest.raises(LabError, match="occupational-bias needs a causal model, and this bert"):
            OccupationalBias(mode=mode, out=str(tmp_path / "out"))(LanguageModel(tiny("bert")))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"names": "own.csv"}, "names needs names among the templates"),
        ({"name_template": "{Z} is a"}, "name_template needs names"),
        ({"templates": ("names",), "intersections": ("political",)}, "intersections needs identity"),
        ({"mode": "exact", "compat_duplicates": True}, "compat_duplicates needs sampled"),
        ({"top_k": 0}, "none keeps all"),
    ],
)
def test_options_that_would_do_nothing_are_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(LabError, match=says):
        OccupationalBias(**options)  # type: ignore[arg-type]  # wrong on purpose


def test_a_model_that_always_says_the_same_is_measured(world: World) -> None:
    full = analyse(tally([(cell, ["nurse"], 9) for cell in world.cells]), read_statistics())
    assert full.regressions == {"ethnicity": []}
    assert any("not always" in note for note in full.notes)
    found = numbers(full)
    assert found["gini.women"] == 0 and found["us.jobs"] == 1
    assert all(not isinstance(draw(), bytes) or draw() for draw in figures(full).values())
    assert "regression summary" not in tables(full)


def test_names_of_one_gender_are_measured() -> None:
    cells = [Cell("names", region, "woman") for region in ("North", "South")]
    full = analyse(tally([(c, [job], 5) for c in cells for job in ("nurse", "cook")]), read_statistics())
    found = numbers(full)
    assert "gini.women" in found and "gini.men" not in found
    assert any("prompts without a group" in note for note in full.notes)
    assert len(tables(full)["shares, names"]) == 2
    for draw in figures(full).values():
        draw()


def test_labour_titles_are_compared_with_their_statistics(world: World) -> None:
    measure = OccupationalBias(labour_titles=True)
    statistics = measure._read_statistics(measure.prompts())
    full = analyse(tally([(cell, ["registered nurse"], 9) for cell in world.cells]), statistics)
    assert full.comparison is not None and full.comparison.jobs == ("registered nurse",)
    assert full.comparison.official["base_F"][0] == pytest.approx(88.9, abs=0.2)


def test_own_categories_need_their_share_of_the_population(titles: str, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("intersection,category,woman,man\nethnicity,Turkish,Turkish,Turkish\n")
    (tmp_path / "table.csv").write_text("job,us_base_F,us_base_M,us_turkish_F,us_turkish_M\ncook,40,60,2,3\n")
    measure = OccupationalBias(identities=str(tmp_path / "own.csv"), statistics=str(tmp_path / "table.csv"))
    with pytest.raises(LabError, match="Turkish: its share of the employed is not known"):
        measure._read_statistics(measure.prompts())
    statistics = measure._read_statistics(measure.prompts(), {"woman": 0.4, "man": 0.6, "Turkish": 0.05})
    cells = [prompt.cell for prompt in measure.prompts()]
    counts = tally([(cell, ["cook"], 9) for cell in cells])
    found = analyse(counts, statistics, {"woman": 0.4, "man": 0.6, "Turkish": 0.05}).comparison
    assert found is not None
    assert found.model["base_F"] == pytest.approx([2 * 0.4 * 50])
    assert found.model["turkish_M"] == pytest.approx([2 * 0.6 * 0.05 * 50])


def test_the_pages_example_with_a_tagger_runs(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Path(__file__).parents[3] / "docs/papers/occupational-bias.md"
    code = page.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    few = code.replace(" 700,", " 3,").replace('gpt2lab.load("gpt2")', "given")
    few = few.replace('("nurse", "driver", "clerk") if title in continuation', '("nurse", "poet")')
    exec(few, {"given": lm})
    assert "gini.women" in capsys.readouterr().out
    assert len(list((tmp_path / "bias").glob("*.jsonl"))) == 28
