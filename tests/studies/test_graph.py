"""Studies as graphs of units: order, failures, killing and resuming, and what is refused."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.runs.store import Store
from gpt2lab.runs.verdicts import Status
from gpt2lab.studies.graph import UnitSpec, in_order
from gpt2lab.studies.study import reproduce, resume_study

UNITS = {
    "pretrain", "tuned.tide", "tuned.base", "labelled.tide.10", "labelled.tide.100", "labelled.base.10", "labelled.base.100"
}  # fmt: skip


@pytest.fixture
def graph(tide, calls):
    """The toy paper with the study of units in place of its own; returns its folder."""
    shutil.copy(Path(__file__).with_name("graph_study.py"), tide / "study.py")
    return tide


def nothing(settings, run):
    """Do no work."""


def spec(name, *needs, shared=False, tuning=False):
    return UnitSpec(name, nothing, needs, shared, tuning)


def test_units_come_after_those_that_they_need_otherwise_as_listed():
    listed = [spec("c", "a", "b"), spec("d"), spec("b", "a"), spec("a")]
    assert [one.name for one in in_order(listed, "x")] == ["d", "a", "b", "c"]
    assert in_order([], "x") == []


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        ([spec("a"), spec("a")], "x: two units are called a"),
        ([spec("tuned", "pretrian"), spec("pretrain")], "x: tuned needs .*pretrian.*did you mean pretrain"),
        ([spec("z"), spec("q", "a"), spec("a", "b"), spec("b", "c"), spec("c", "a")], "a, b and c need each other"),
        ([spec("a", "a")], "x: a needs itself"),
        ([spec("all", "own", shared=True), spec("own")], "all is shared by all seeds, and needs own, of which"),
        ([spec("tune", "own", tuning=True), spec("own")], "tune is shared by all seeds, and needs own, of which"),
        ([spec("a/b")], "a/b.*: the name of a run"),
    ],
)  # fmt: skip
def test_units_that_cannot_be_ordered_are_refused(specs, words):
    with pytest.raises(LabError, match=words):
        in_order(specs, "x")


@pytest.mark.parametrize("workers", [1, 3])
def test_every_unit_begins_after_those_that_it_needs_and_reads_them(home, graph, calls, workers):
    study = reproduce("tide", scale="smoke", home=home, workers=workers)
    assert study.failures == []
    assert study.claims[0].verdict.status is Status.HOLDS
    assert set(study.runs[0].arms) == UNITS
    assert calls() == {f"{seed}-{name}": 1 for seed in range(3) for name in (*UNITS, "end")}
    ends = {row.id: row for row in Store(home).rows(pieces=True)}
    for seed in range(3):
        began = {name: ends[f"{study.id}/seed{seed}/{name}"].created for name in UNITS}
        assert began["pretrain"] < began["tuned.tide"] < began["labelled.tide.10"]
        assert began["tuned.base"] < began["labelled.base.100"]
    losses = study.runs[1].arms["labelled.tide.10"].results["loss"], study.runs[1].results["loss.tide"]
    assert losses[0] - losses[1] == pytest.approx(0.09)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_unit_that_fails_costs_what_needs_it_and_nothing_else(home, graph, calls, workers):
    settings = {"fail_in": ("1/tuned.tide",)}
    study = reproduce("tide", scale="smoke", home=home, workers=workers, settings=settings)
    assert study.failures == [
        "seed 1 tuned.tide: the loss is nan at step 5",
        "seed 1 labelled.tide.10: not begun, because it needs tuned.tide, which has failed",
        "seed 1 labelled.tide.100: not begun, because it needs tuned.tide, which has failed",
    ]
    assert [run.seed for run in study.runs] == [0, 2]
    assert {"1-labelled.base.10", "1-labelled.base.100"} <= set(calls())
    assert not {"1-labelled.tide.10", "1-end"} & set(calls())


def test_what_needs_a_unit_that_was_not_begun_is_not_begun_either(home, graph, calls):
    settings = {"fail_in": ("0/pretrain",)}
    study = reproduce("tide", scale="smoke", home=home, workers=1, settings=settings)
    assert "seed 0 tuned.base: not begun, because it needs pretrain, which has failed" in study.failures
    assert (
        "seed 0 labelled.base.10: not begun, because it needs tuned.base, which was not begun"
        in study.failures
    )
    assert [run.seed for run in study.runs] == [1, 2]
    assert [name for name in calls() if name.startswith("0-")] == ["0-pretrain"]


@pytest.mark.parametrize("workers", [1, 3])
def test_all_seeds_share_the_first_ones_shared_unit(home, graph, calls, workers):
    share_the_pretraining(graph)
    study = reproduce("tide", scale="smoke", seeds=(4, 2), home=home, workers=workers)
    assert study.failures == []
    assert [name for name in calls() if name.endswith("pretrain")] == ["4-pretrain"]
    first, second = (run.arms["tuned.tide"].results["loss"] for run in study.runs)
    assert first == second, "both are tuned from the weights of seed 4"
    assert study.runs[1].arms["pretrain"].folder == home / study.id / "seed4" / "pretrain"


def test_a_shared_unit_that_fails_costs_every_seed(home, graph, calls):
    share_the_pretraining(graph)
    with pytest.raises(LabError, match="seed 0 pretrain: the loss is nan"):
        reproduce("tide", scale="smoke", home=home, workers=2, settings={"fail_in": ("0/pretrain",)})
    assert list(calls()) == ["0-pretrain"]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_tuning_unit_runs_once_with_a_seed_that_is_not_judged(home, graph, calls, workers):
    share_the_pretraining(graph, "tuning")
    study = reproduce("tide", scale="smoke", seeds=(4, 2), home=home, workers=workers)
    assert study.failures == []
    assert [name for name in calls() if name.endswith("pretrain")] == ["1000-pretrain"]
    assert [run.seed for run in study.runs] == [4, 2]
    for run in study.runs:
        assert run.arms["pretrain"].folder == home / study.id / "tuning" / "pretrain"
    report = study.report.with_suffix(".md").read_text()
    assert "| tuning | pretrain | finished |" in report and "1000" not in report


def test_a_tuning_unit_that_fails_costs_every_seed(home, graph, calls):
    share_the_pretraining(graph, "tuning")
    with pytest.raises(LabError, match="tuning pretrain: the loss is nan"):
        reproduce("tide", scale="smoke", home=home, workers=2, settings={"fail_in": ("1000/pretrain",)})
    assert list(calls()) == ["1000-pretrain"]


def test_a_resumed_study_does_not_tune_again(home, graph, calls):
    share_the_pretraining(graph, "tuning")
    study = reproduce("tide", scale="smoke", seeds=2, home=home)
    Store(home).update(f"{study.id}/seed0/tuned.tide", status="interrupted")
    again = resume_study(Store(home).find(study.id), home=home)
    assert again.failures == [] and len(again.runs) == 2
    assert calls()["0-tuned.tide"] == 2
    assert calls()["1000-pretrain"] == 1


def test_the_tuning_seed_is_not_judged(home, graph):
    with pytest.raises(LabError, match="seed 1000: settings are chosen on it, so it cannot be judged"):
        reproduce("tide", scale="smoke", seeds=(0, 1000), home=home)


def share_the_pretraining(graph, how="shared"):
    source = (graph / "study.py").read_text()
    assert 'UnitSpec("pretrain", pretrain)' in source
    (graph / "study.py").write_text(
        source.replace('UnitSpec("pretrain", pretrain)', f'UnitSpec("pretrain", pretrain, {how}=True)')
    )


def test_a_killed_study_repeats_only_the_units_that_had_not_finished(home, graph, calls, tmp_path):
    whole = reproduce("tide", scale="smoke", seeds=2, home=home, workers=1, name="whole")
    before = calls()
    code = f"from gpt2lab.studies.study import reproduce\nreproduce('tide', seeds=2, home={str(home)!r}, workers=2)\n"
    path = os.pathsep.join([str(tmp_path / "site"), str(Path(gpt2lab.__file__).parents[1])])
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path})
    store = Store(home)

    def finished() -> set[str]:
        return {
            row.id
            for row in store.rows(pieces=True)
            if row.status == "finished" and row.id.startswith("tide-laptop")
        }

    deadline = time.monotonic() + 60
    while len(finished()) < 4:
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while "running" in {row.status for row in store.rows(pieces=True)}:
        assert time.monotonic() < deadline, "a worker goes on"
        time.sleep(0.05)
    done = finished()
    began = {name: times - before.get(name, 0) for name, times in calls().items()}
    again = resume_study(store.find("tide-laptop"), home=home, workers=2)
    assert again.failures == []
    for name, times in calls().items():
        seed, _, unit = name.partition("-")
        kept = f"{again.id}/seed{seed}" + ("" if unit == "end" else f"/{unit}") in done
        assert times - before[name] == began[name] + (0 if kept else 1), name
    for run, other in zip(again.runs, whole.runs, strict=True):
        assert run.results == other.results
        assert {name: unit.results for name, unit in run.arms.items()} == {
            name: unit.results for name, unit in other.arms.items()
        }


def test_a_study_of_before_there_were_units_goes_on_with_its_arms(home, tide):
    import json

    study = reproduce("tide", scale="smoke", home=home, settings={"fail_in": ("2/tide",)})
    about = json.loads((study.folder / "settings.json").read_text())
    about["arms"] = list(about.pop("units"))
    about["settings"]["fail_in"] = []
    (study.folder / "settings.json").write_text(json.dumps(about))
    again = resume_study(Store(home).find("tide"), home=home)
    assert again.failures == [] and len(again.runs) == 3


def test_a_study_gives_units_or_arms(home, graph):
    with (graph / "study.py").open("a") as file:
        file.write("\ndef arms(settings):\n    return []\n\n\ndef run_arm(settings, arm, run):\n    pass\n")
    with pytest.raises(
        LabError, match="give units\\(settings\\), or arms\\(settings\\) with run_arm, not both"
    ):
        reproduce("tide", scale="smoke", home=home)


def test_what_a_unit_chooses_is_not_judged_by_one_that_needs_it(home, graph):
    source = (graph / "study.py").read_text()
    source = source.replace(
        "def pretrain(settings, run):\n",
        'def pretrain(settings, run):\n    run.chooses("rate", on="validation")\n',
    ).replace(
        "        (source,) = run", '        run.judges("loss", on="validation")\n        (source,) = run'
    )
    (graph / "study.py").write_text(source)
    with pytest.raises(LabError, match=r"seed 0 tuned\.tide: validation: rate is chosen on it"):
        reproduce("tide", scale="smoke", seeds=1, home=home, workers=1)
