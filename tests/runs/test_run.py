"""Runs: what they write, how they end, what a full disk does to them."""

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.base.lease import LeaseLost
from gpt2lab.runs.report.write import write_report
from gpt2lab.runs.run import Run
from gpt2lab.runs.run_record import read_metrics, record
from gpt2lab.runs.store import Store


@dataclass(frozen=True, kw_only=True)
class Settings:
    steps: int = 3
    rate: float = math.inf


@pytest.fixture
def home(tmp_path):
    return tmp_path / "runs"


def start(home, name="tide", **options):
    return Run.start("train", name, home=home, **options)


def test_a_run_leaves_a_folder_and_a_row(home):
    with start(home, settings=Settings(), command="gpt2lab train", paper="tide", seed=2) as run:
        run.log(0, loss=3.0)
        run.log(1, loss=np.float32(2.5), rate=0.1)
        run.result("loss.adamw", np.float64(2.5))
        run.result("updates", 7)
        run.table("grid", [{"d": 16, "grammar": 0.5}, {"d": 32, "layers": 2}], caption="Grammar by width")
        run.text("samples", "Once upon a time.", caption="A sample")
        run.note("half way")
    row = Store(home).find("tide")
    assert (row.status, row.numbers, row.seed) == ("finished", {"loss.adamw": 2.5, "updates": 7}, 2)
    assert row.seconds is not None
    assert json.loads(row.settings) == {"steps": 3, "rate": "inf"}
    read = {path.name: path.read_text() for path in run.folder.rglob("*") if path.suffix in (".json", ".txt")}
    assert json.loads(read["settings.json"]) == {"steps": 3, "rate": "inf"}
    assert json.loads(read["results.json"]) == {"loss.adamw": 2.5, "updates": 7}
    assert read["samples.txt"] == "Once upon a time."
    assert read["log.txt"].endswith("half way\n")
    assert (run.folder / "tables" / "grid.csv").read_text() == "d,grammar,layers\n16,0.5,\n32,,2\n"


def test_the_record_of_a_run_gives_everything_back(home):
    with start(home) as run:
        run.log(0, loss=3.0)
        run.log(5, loss=2.0, validation_loss=math.nan)
        run.result("steps", math.inf)
        run.table("grid", [{"d": 16, "word": "a"}], caption="Widths")
        run.text("samples", "Once")
    found = record(Store(home).find("tide"), home)
    assert found.results == {"steps": math.inf}
    assert found.tables == {"grid": [{"d": 16.0, "word": "a"}]}
    assert found.captions("tables") == {"grid": "Widths"}
    assert found.texts == {"samples": "Once"}
    assert found.series("loss") == ([0, 5], [3.0, 2.0])
    assert math.isnan(found.series("validation_loss")[1][0])
    assert found.json("settings.json") == {}


def test_arrays_and_files_come_back_and_the_report_lists_them(home, tmp_path):
    (tmp_path / "some").write_bytes(b"12345")
    with start(home) as run:
        run.array("scores", np.arange(6.0).reshape(2, 3), caption="By item")
        run.file("graph.dot", b"digraph {}", caption="A graph")
        run.file("copied.bin", tmp_path / "some")
        with pytest.raises(LabError, match="array words: must hold numbers"):
            run.array("words", ["a"])
        with pytest.raises(LabError, match="name"):
            run.file("../out", b"")
    found = record(Store(home).find("tide"), home)
    np.testing.assert_array_equal(found.arrays["scores"], [[0, 1, 2], [3, 4, 5]])
    assert found.captions("arrays") == {"scores": "By item"}
    assert {name: path.read_bytes() for name, path in found.files.items()} == {
        "graph.dot": b"digraph {}",
        "copied.bin": b"12345",
    }
    text = write_report("tide", home=home).read_text()
    for word in ("arrays/scores.npy", "2 × 3", "float64", "By item", "files/graph.dot", "files/copied.bin"):
        assert word in text
    (found.folder / "arrays" / "scores.npy").write_bytes(b"no array")
    with pytest.raises(LabError, match=r"scores\.npy: this is no array"):
        write_report("tide", home=home)


def test_the_environment_names_versions_and_no_place(home):
    with start(home) as run:
        pass
    environment = json.loads((run.folder / "environment.json").read_text())
    assert {"gpt2lab", "python", "torch", "cpu", "cores", "system"} <= set(environment)
    assert all(name.startswith("gpt2lab/") for name in environment.pop("changed", []))
    assert "/" not in json.dumps({**environment, "cpu": "", "gpu": ""})


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (LabError("the loss is nan at step 3"), "failed", "the loss is nan at step 3"),
        (KeyError("x"), "failed", "KeyError: 'x'"),
        (KeyboardInterrupt("stopped at step 3 of 9"), "interrupted", "stopped at step 3 of 9"),
        (KeyboardInterrupt(), "interrupted", "stopped by the user"),
    ],
)
def test_how_a_run_ends_is_kept_with_the_reason(home, error, status, message):
    with pytest.raises(type(error)), start(home) as run:
        run.result("loss", 1.0)
        raise error
    row = Store(home).find("tide")
    assert (row.status, row.message, row.numbers) == (status, message, {"loss": 1.0})
    if status == "failed":
        assert "Traceback" in (run.folder / "log.txt").read_text()


@pytest.mark.parametrize("name", ["loss-adamw", "loss.", "5.loss", "a.5", "", "a b", "größe"])
def test_a_result_that_no_claim_could_name_is_refused(home, name):
    with start(home) as run, pytest.raises(LabError, match="a result is named by words with dots between"):
        run.result(name, 1.0)


@pytest.mark.parametrize("value", ["3", None, [1.0], np.zeros(2)])
def test_a_result_that_is_no_number_is_refused(home, value):
    with start(home) as run, pytest.raises(TypeError, match="loss must be one number"):
        run.result("loss", value)


def test_a_table_outside_the_folder_is_refused(home):
    with start(home) as run, pytest.raises(LabError, match="made of letters"):
        run.table("../../x", [])


def test_a_full_disk_is_one_sentence(home):
    with pytest.raises(LabError, match="no space is left on this disk"), start(home) as run:
        run.log(0, loss=1.0)
        run._metrics = open("/dev/full", "w")  # noqa: SIM115 -- the run closes it
        run.log(1, loss=1.0)
    assert Store(home).find("tide").status == "failed"


def test_a_full_disk_anywhere_in_a_run_is_one_sentence(home):
    with (
        pytest.raises(LabError, match="no space is left on this disk"),
        start(home),
        open("/dev/full", "w") as file,
    ):
        file.write("x")
        file.flush()
    assert "no space" in Store(home).find("tide").message


def test_a_reopened_run_logs_on_from_its_checkpoint(home):
    with pytest.raises(KeyboardInterrupt), start(home) as run:
        for step in range(1, 8):
            run.log(step, loss=float(step))
        raise KeyboardInterrupt
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')  # a crash in the middle of a line
    assert len(read_metrics(run.folder / "metrics.jsonl")) == 7
    with Run.reopen(Store(home).find("tide"), home) as again:
        for step in range(5, 10):
            again.log(step, loss=step * 10.0)
    row = Store(home).find("tide")
    assert row.status == "finished"
    assert record(row, home).series("loss") == ([*range(1, 10)], [1, 2, 3, 4, 50, 60, 70, 80, 90])


def test_a_reopened_run_keeps_an_earlier_training_that_counted_from_zero_too(home):
    with start(home) as run:
        for step in range(1, 5):
            run.log(step, teacher=float(step))
        for step in range(1, 4):
            run.log(step, student=float(step))
    with Run.reopen(Store(home).find("tide"), home) as again:
        again.log(3, student=30.0)
    metrics = record(Store(home).find("tide"), home)
    assert metrics.series("teacher")[0] == [1, 2, 3, 4]
    assert metrics.series("student") == ([1, 2, 3], [1, 2, 30])


def test_a_second_training_that_begins_again_keeps_the_rows_of_the_first(home):
    with start(home) as run:
        for way in ("a", "b"):
            for step in range(1, 5):
                run.log(step, **{f"{way}.loss": float(step)})
    with Run.reopen(Store(home).find("tide"), home) as again:  # "a" had finished, "b" has no checkpoint
        for step in range(1, 5):
            again.log(step, **{"b.loss": 10.0 * step})
    metrics = record(Store(home).find("tide"), home)
    assert metrics.series("a.loss") == ([1, 2, 3, 4], [1, 2, 3, 4])
    assert metrics.series("b.loss") == ([1, 2, 3, 4], [10, 20, 30, 40])
    with Run.reopen(Store(home).find("tide"), home) as again:  # both begin again
        for way in ("a", "b"):
            for step in range(1, 5):
                again.log(step, **{f"{way}.loss": 100.0 * step})
    assert [(row["step"], row.get("a.loss"), row.get("b.loss")) for row in metrics.metrics] == [
        *((step, 100.0 * step, None) for step in range(1, 5)),
        *((step, None, 100.0 * step) for step in range(1, 5)),
    ]


def test_a_clean_reopening_forgets_what_was_reported_but_no_checkpoint(home):
    with start(home) as run:
        run.table("grid", [{"a": 1}])
        run.result("loss", 1.0)
        run.checkpoints.mkdir()
    with Run.reopen(Store(home).find("tide"), home, clean=True) as again:
        assert again.results == {}
    assert not (run.folder / "tables").exists()
    assert run.checkpoints.exists()
    assert Store(home).find("tide").numbers == {}


def test_a_piece_of_a_run_lies_in_its_folder(home):
    with start(home) as study, Run.start("seed", "seed0", home=home, parent=study, seed=0) as seed:
        assert seed.id == "tide-1/seed0"
        assert seed.folder == study.folder / "seed0"
        assert (seed.seed, seed.arm) == (0, None)


def test_a_mistake_found_before_any_work_leaves_no_run_and_uses_no_number(home):
    for _ in range(3):
        with pytest.raises(LabError, match="no such optimizer"), start(home) as run:
            run.note("reading the data")
            raise LabError("no such optimizer")
    assert Store(home).rows() == []
    assert not run.folder.exists()
    with start(home) as run:
        pass
    assert run.id == "tide-1"


def test_a_file_that_the_system_refuses_is_a_mistake_like_others(home):
    denied = PermissionError(13, "Permission denied", "secret.txt")
    with pytest.raises(PermissionError), start(home) as run:
        raise denied
    assert Store(home).rows() == []
    with pytest.raises(PermissionError), start(home) as run:
        run.log(1, loss=3.0)
        raise denied
    assert Store(home).get(run.id).message == "secret.txt: permission denied"


def test_a_mistake_found_after_some_work_leaves_the_run(home):
    with pytest.raises(LabError), start(home) as run:
        run.log(1, loss=3.0)
        raise LabError("the loss is nan at step 2")
    assert Store(home).find("tide").status == "failed"


def test_a_defect_before_any_work_leaves_its_traceback(home):
    with pytest.raises(KeyError), start(home) as run:
        raise KeyError("x")
    assert "Traceback" in (run.folder / "log.txt").read_text()


def test_a_run_that_was_taken_over_writes_nothing_more_and_does_not_end_it(home):
    with pytest.raises(LeaseLost, match="taken it over"), start(home) as run:
        run.log(1, loss=3.0)
        row = Store(home).find("tide")
        with Run.reopen(row, home, take_over=True) as again:
            again.result("loss", 2.0)
        run.log(2, loss=9.0)
    assert (Store(home).find("tide").status, Store(home).find("tide").numbers) == ("finished", {"loss": 2.0})
    assert len(read_metrics(run.folder / "metrics.jsonl")) == 1


def test_a_run_whose_folder_is_deleted_stops_and_does_not_make_it_again(home):
    with pytest.raises(LeaseLost, match="moved or deleted"), start(home) as run:
        run.log(1, loss=3.0)
        Store(home).remove(run.id)
        run.table("grid", [{"a": 1}])
    assert not run.folder.exists()
    assert Store(home).rows() == []


def test_a_run_that_another_process_has_taken_up_and_ended_meanwhile_is_not_run_again(home):
    with pytest.raises(KeyboardInterrupt), start(home) as run:
        raise KeyboardInterrupt
    row = Store(home).find("tide")
    with Run.reopen(row, home):
        pass
    with pytest.raises(
        LabError, match="tide-1: another process has taken it up meanwhile; now it is finished"
    ):
        Run.reopen(row, home)
    assert Store(home).find("tide").status == "finished"
    assert run.id == "tide-1"


def test_the_time_of_a_run_is_that_of_its_work_and_no_clock_can_make_it_negative(home, monkeypatch):
    with pytest.raises(KeyboardInterrupt), start(home):
        monkeypatch.setattr("gpt2lab.runs.run.now", lambda: "2001-01-01T00:00:00+00:00")
        raise KeyboardInterrupt
    row = Store(home).find("tide")
    assert 0 <= row.seconds < 60
    Store(home).update(row.id, seconds=100.0)
    with Run.reopen(Store(home).find("tide"), home):
        pass
    assert 100 <= Store(home).find("tide").seconds < 160


def test_texts_that_are_not_unicode_are_written_with_escapes(home):
    half = "caf\udce9"
    with start(home, settings={"data": half}) as run:
        run.table("names", [{"name": half}], caption=half)
        run.text("sample", half)
        run.note(half)
    kept = record(run.row, home)
    assert kept.tables["names"][0]["name"] == kept.texts["sample"].rstrip() == r"caf\udce9"
    assert kept.captions("texts") == {"sample": ""}
    assert r"caf\udce9" in (run.folder / "log.txt").read_text(encoding="utf-8")
