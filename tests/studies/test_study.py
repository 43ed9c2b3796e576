"""Studies: units, workers, resuming, failures, verdicts."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.runs.run_record import read_metrics
from gpt2lab.runs.store import Store
from gpt2lab.runs.verdicts import Status
from gpt2lab.studies.scheduler import StudyProgress
from gpt2lab.studies.study import reproduce, resume_study
from gpt2lab.studies.units import Unit

pytestmark = pytest.mark.usefixtures("tide")


def statuses(study):
    return {judged.claim.name: judged.verdict.status for judged in study.claims}


def test_a_study_runs_all_seeds_and_arms_and_judges_its_claims(home):
    study = reproduce("tide", home=home, workers=1)
    assert statuses(study) == {
        "A": Status.HOLDS,
        "B": Status.IN_PART,
        "C": Status.HOLDS,
        "D": Status.NOT_TESTED,
        "E": Status.PASSES,
    }
    assert [run.seed for run in study.runs] == [0, 1, 2]
    assert set(study.runs[0].arms) == {"base", "tide"}
    assert study.failures == []
    row = Store(home).find("tide")
    assert (row.kind, row.status, row.paper, row.scale) == ("study", "finished", "tide", "laptop")
    assert row.message == "A holds · B holds in part · C holds · D not tested at this scale"
    assert row.command == "gpt2lab reproduce tide --scale laptop --seeds 3"
    assert len(Store(home).pieces(row.id)) == 9
    assert study.report.exists()
    assert json.loads((study.folder / "verdicts.json").read_text())[0]["status"] == "holds"
    assert row.numbers["claim.A"] == pytest.approx(study.claims[0].verdict.interval.mean)
    assert json.dumps(study.to_plain())


def test_numbers_do_not_depend_on_the_number_of_workers(home):
    one = reproduce("tide", scale="smoke", home=home, workers=1)
    several = reproduce("tide", scale="smoke", home=home, workers=3)
    assert one.id != several.id
    assert [run.results for run in one.runs] == [run.results for run in several.runs]
    for name in ("results.json", "arm"):
        assert one.runs[0].arms["tide"].results == several.runs[0].arms["tide"].results, name
    steps = [read_metrics(study.folder / "seed1" / "tide" / "metrics.jsonl") for study in (one, several)]
    assert [line["loss"] for line in steps[0]] == [line["loss"] for line in steps[1]]
    assert not (several.folder / "workers.txt").exists()


def test_a_trained_model_has_the_same_bits_in_this_process_and_in_one_of_its_own(home, tide):
    import torch

    shutil.copy(Path(__file__).with_name("torch_study.py"), tide / "study.py")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        one = reproduce("tide", scale="smoke", seeds=1, home=home, workers=1)
        assert torch.get_num_threads() == 2, "the caller's threads are put back"
    finally:
        torch.set_num_threads(before)
    two = reproduce("tide", scale="smoke", seeds=1, home=home, workers=2)
    for arm in ("narrow", "wide"):
        results = [study.runs[0].arms[arm].results for study in (one, two)]
        assert results[0] == results[1]
        assert results[0]["threads"] == 1


def test_the_seeds_can_be_named_and_settings_replaced_and_the_command_says_so(home):
    overrides = {"gain": "0.0", "tuning.momentum": "0.5", "fail_in": "none"}
    study = reproduce("tide", scale="smoke", seeds=(3, 5), settings=overrides, home=home)
    assert [run.seed for run in study.runs] == [3, 5]
    name = next(iter(study.runs[1].results))
    del study.runs[0].results[name]
    assert study.values(name) == [study.runs[1].results[name]], "of the seeds that have it"
    assert study.mean(name) == study.runs[1].results[name] and math.isnan(study.mean("none"))
    command = Store(home).find("tide").command
    assert command == (
        "gpt2lab reproduce tide --scale smoke --seed-list 3,5 --set gain=0 --set fail_in=none --set tuning.momentum=0.5"
    )
    assert statuses(study)["A"] is Status.INCONCLUSIVE


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seeds": 0}, "give how many"),
        ({"seeds": (1, 1)}, "give how many"),
        ({"scale": "paper"}, "tide has no settings for paper scale"),
        ({"settings": {"gian": 1}}, "did you mean gain"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"threads": 0}, "threads must be at least 1"),
    ],
)
def test_a_mistake_is_told_before_anything_is_run(home, calls, options, words):
    with pytest.raises(LabError, match=words):
        reproduce("tide", home=home, **({"scale": "smoke"} | options))
    assert calls() == {}


@pytest.mark.parametrize("workers", [1, 3])
def test_a_failed_arm_costs_its_seed_and_no_other(home, calls, workers):
    study = reproduce(
        "tide", scale="smoke", seeds=4, settings={"fail_in": ("1/tide",)}, home=home, workers=workers
    )
    assert [run.seed for run in study.runs] == [0, 2, 3]
    assert study.failures == ["seed 1 tide: the loss is nan at step 5"]
    assert "1" not in calls(), "the seed waits for all its arms"
    row = Store(home).find("tide")
    assert (row.status, row.message) == ("failed", "seed 1 tide: the loss is nan at step 5")
    assert set(statuses(study).values()) == {Status.INCONCLUSIVE, Status.NOT_TESTED}, "it stays in the count"
    assert "1 of 4 seeds failed (seed 1)" in study.claims[0].verdict.reason
    failed = Store(home).get(f"{study.id}/seed1/tide")
    assert (failed.status, failed.message) == ("failed", "the loss is nan at step 5")
    assert "seed 1 tide: the loss is nan" in study.report.read_text()


def test_a_slip_in_the_code_is_told_with_its_type_and_the_traceback_kept(home):
    study = reproduce("tide", scale="smoke", settings={"fail_in": ("2",)}, home=home)
    assert study.failures == ["seed 2: KeyError: 'loss'"]
    assert "Traceback" in (study.folder / "seed2" / "log.txt").read_text()
    assert statuses(study)["A"] is Status.INCONCLUSIVE


@pytest.mark.parametrize("workers", [1, 2])
def test_units_that_fail_alike_before_any_has_finished_stop_the_study(home, calls, workers):
    everything = tuple(f"{seed}/{arm}" for seed in range(5) for arm in ("base", "tide"))
    with pytest.raises(LabError, match=r"no seed has finished: seed 0 .*: the loss is nan at step 5"):
        reproduce(
            "tide", scale="smoke", seeds=5, settings={"fail_in": everything}, home=home, workers=workers
        )
    assert len(calls()) <= 3
    assert "left undone, because the first ones failed alike" in Store(home).find("tide").message


def test_a_worker_that_dies_without_a_word_is_a_failure_and_its_row_says_interrupted(home):
    study = reproduce("tide", scale="smoke", seeds=2, settings={"die_in": "0/tide"}, home=home, workers=2)
    assert study.failures == ["seed 0 tide: its process ended with status 3; workers.txt says more"]
    assert Store(home).get(f"{study.id}/seed0/tide").status == "interrupted"


def test_resuming_repeats_only_what_did_not_finish(home, calls, tide):
    study = reproduce("tide", scale="smoke", settings={"fail_in": ("1/tide",)}, home=home, workers=1)
    source = (tide / "study.py").read_text()
    (tide / "study.py").write_text(source.replace("if unit in settings.fail_in", "if False"))
    for name in [name for name in sys.modules if name.startswith("tide_papers")]:
        del sys.modules[name]
    again = resume_study(Store(home).find(study.id), home=home, workers=2)
    assert again.id == study.id
    assert again.failures == []
    assert statuses(again)["A"] is Status.HOLDS
    assert calls() == {
        "0": 1,
        "0-base": 1,
        "0-tide": 1,
        "1": 1,
        "1-base": 1,
        "1-tide": 2,
        "2": 1,
        "2-base": 1,
        "2-tide": 1,
    }
    assert Store(home).find(study.id).status == "finished"
    once_more = resume_study(Store(home).find(study.id), home=home)
    assert sum(calls().values()) == 10, "nothing was left to do"
    assert [run.results for run in once_more.runs] == [run.results for run in again.runs]


def test_a_resumed_study_gives_the_numbers_of_one_that_was_not_stopped(home):
    whole = reproduce("tide", scale="smoke", home=home)
    stopped = reproduce("tide", scale="smoke", home=home, settings={"die_in": "2/base"}, workers=2)
    store = Store(home)
    about = json.loads((stopped.folder / "settings.json").read_text())
    about["settings"]["die_in"] = ""
    (stopped.folder / "settings.json").write_text(json.dumps(about))
    again = resume_study(store.find(stopped.id), home=home)
    assert [run.results for run in again.runs] == [run.results for run in whole.runs]


def test_a_stopped_unit_finds_its_checkpoints_again_but_not_those_of_other_settings(home):
    study = reproduce("tide", scale="smoke", settings={"fail_in": ("0/tide", "1/tide")}, home=home)
    store = Store(home)
    kept, lost = (home / study.id / f"seed{seed}" / "tide" / "checkpoints" for seed in (0, 1))
    for folder in (kept, lost):
        folder.mkdir()
    store.update(f"{study.id}/seed1/tide", settings_hash="of other settings")
    resume_study(store.find(study.id), home=home)
    assert (kept.exists(), lost.exists()) == (True, False)


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_stops_all_keeps_what_is_finished_and_says_how_to_go_on(home, calls, workers, tmp_path):
    _stop_and_resume(home, calls, workers, tmp_path, signal.SIGINT)


def test_a_study_that_ignores_ctrl_c_stops_its_processes_when_it_is_asked_to_end(home, calls, tmp_path):
    """A script's `gpt2lab reproduce ... &` and all that it starts ignore Ctrl-C; then SIGTERM is what comes."""
    _stop_and_resume(home, calls, 2, tmp_path, signal.SIGTERM, "signal.signal(signal.SIGINT, signal.SIG_IGN)")


def _stop_and_resume(home, calls, workers, tmp_path, how, first=""):
    """Send a study a signal and go on with it."""
    code = (
        f"import signal\n{first}\n"
        "from gpt2lab.base.signals import end_as_ctrl_c\n"
        "from gpt2lab.studies.study import reproduce\n"
        "try:\n"
        "  with end_as_ctrl_c():\n"
        f"    reproduce('tide', scale='laptop', settings={{'pause': 0.02}}, home={str(home)!r}, workers={workers})\n"
        "except KeyboardInterrupt as stop:\n"
        "    print(stop)\n"
    )
    path = os.pathsep.join([str(tmp_path / "site"), str(Path(gpt2lab.__file__).parents[1])])
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
    )
    wait_until(lambda: len(calls()) >= 4)
    process.send_signal(how)
    said, _ = process.communicate(timeout=50)  # less than the study gives processes that do not hear
    rows = {row.id: row for row in Store(home).rows(pieces=True)}
    finished = [row for row in rows.values() if row.kind != "study" and row.status == "finished"]
    assert (
        said.strip()
        == f"stopped; {len(finished)} of 9 units finished; go on with: gpt2lab resume tide-laptop-1"
    )
    assert 1 <= len(finished) < 9
    assert rows["tide-laptop-1"].status == "interrupted"
    assert "running" not in {row.status for row in rows.values()}
    before = calls()
    study = resume_study(Store(home).find("tide-laptop"), home=home, workers=2)
    assert study.failures == []
    again = {name for name, times in calls().items() if times > before.get(name, 0)}
    assert len(again) == 9 - len(finished)
    assert [len(read_metrics(study.folder / f"seed{s}" / "tide" / "metrics.jsonl")) for s in range(3)] == [
        20,
        20,
        20,
    ]


def test_workers_end_when_the_process_that_started_them_is_killed(home, calls, tmp_path):
    code = (
        "from gpt2lab.studies.study import reproduce\n"
        f"reproduce('tide', scale='laptop', settings={{'pause': 0.5}}, home={str(home)!r}, workers=2)\n"
    )
    path = os.pathsep.join([str(tmp_path / "site"), str(Path(gpt2lab.__file__).parents[1])])
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path})
    wait_until(lambda: len(calls()) >= 2)
    process.kill()
    process.wait()
    store = Store(home)
    wait_until(lambda: {row.status for row in store.rows(pieces=True)} == {"interrupted"})


def test_the_summarys_slip_loses_no_verdict(home, tide):
    source = (tide / "study.py").read_text()
    head = "def summarise(settings, study):\n"
    (tide / "study.py").write_text(source.replace(head, head + "    raise ValueError('no')\n"))
    study = reproduce("tide", scale="smoke", home=home)
    assert study.failures == ["the summary: ValueError: no"]
    assert statuses(study)["A"] is Status.HOLDS


def test_the_time_left_is_reckoned_from_units_of_the_same_arm():
    units = [Unit(seed, arm) for seed in (0, 1) for arm in ("fast", "slow", None)]
    line = StudyProgress(units, [], "tide", workers=2)
    assert line.seconds_left() is None
    line.took = {Unit(0, "fast"): 10.0, Unit(0, "slow"): 100.0, Unit(0): 1.0}
    line._finished = set(line.took)
    assert line.seconds_left() == pytest.approx((10 + 100 + 1) / 2)
    line.began = {Unit(1, "slow"): time.monotonic() - 60.6}
    line.steps = {Unit(1, "slow"): 30}
    line.done = 3
    assert line.seconds_left() == pytest.approx((10 + 39.4 + 1) / 2, abs=0.2)
    assert line.line() == "tide: 3/6 units · 25s left · seed 1 slow step 30"


def test_the_time_left_is_reckoned_from_the_share_that_the_first_units_have_done():
    units = [Unit(seed, arm) for seed in (0, 1) for arm in ("fast", "slow", None)]
    line = StudyProgress(units, [], "tide", workers=1)
    line.began = {Unit(0, "fast"): time.monotonic() - 10.0}
    line.share(Unit(0, "fast"), 0.01)
    assert line.seconds_left() is None, "a hundredth says little"
    line.share(Unit(0, "fast"), 0.25)
    # 40 s a unit, which the slow arm is taken to need too; to put arms together takes no time
    assert line.seconds_left() == pytest.approx(30 + 40 + 40 + 40, abs=0.2)
    assert line.line() == "tide: 0/6 units · 2m30s left · seed 0 fast 25%"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_unit_tells_the_share_it_has_done(home, tide, workers, monkeypatch):
    heard = []
    monkeypatch.setattr(StudyProgress, "share", lambda self, unit, done: heard.append((unit.arm, done)))
    source = (tide / "study.py").read_text()
    head = "def run_arm(settings, arm, run):\n"
    assert head in source
    (tide / "study.py").write_text(source.replace(head, head + "    run.share(0.5)\n"))
    assert reproduce("tide", scale="smoke", seeds=1, home=home, workers=workers).failures == []
    assert ("tide", 0.5) in heard


def wait_until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)
