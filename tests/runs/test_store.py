"""The store: several writers, many runs, files that are not what they should be."""

import contextlib
import math
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.runs.home import home_folder
from gpt2lab.runs.store import Row, Store

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(gpt2lab.__file__).parents[1])}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


def add(store, name="study", **columns):
    row, lease = store.add(Row(id="", name=name, kind=columns.pop("kind", "train"), **columns))
    lease.release()
    return row


def add_piece(store, identity, **columns):
    above, _, name = identity.rpartition("/")
    row, lease = store.add(Row(id=identity, name=name, kind="seed", parent=above, **columns))
    lease.release()
    return row


def test_a_run_gets_a_numbered_id_and_its_time(store):
    first, second = add(store), add(store)
    assert (first.id, second.id) == ("study-1", "study-2")
    assert first.created.endswith("+00:00")
    assert first.folder(store.home) == store.home / "study-1"


def test_an_id_whose_folder_is_on_the_disk_is_not_used_again(store):
    add(store)
    (store.home / "study-2").mkdir()
    assert add(store).id == "study-3"


def test_results_that_are_not_finite_survive(store):
    row = add(store)
    store.set_results(row.id, {"steps": math.inf, "loss": math.nan, "gain": -math.inf, "n": 3, "ok": True})
    numbers = store.find(row.id).numbers
    assert numbers["steps"] == math.inf
    assert math.isnan(numbers["loss"])
    assert (numbers["gain"], numbers["n"], numbers["ok"]) == (-math.inf, 3, True)


def test_a_run_is_found_by_id_by_name_and_by_the_beginning_of_its_id(store):
    one, two, other = add(store, "tide"), add(store, "tide"), add(store, "wave-long")
    piece = add_piece(store, f"{two.id}/seed0")
    assert store.find("tide-1").id == one.id
    assert store.find("tide").id == two.id, "the newest of a name"
    assert store.find("wav").id == other.id
    assert store.find("tide-2/seed0").id == piece.id
    assert store.find("tide-2/s").id == piece.id
    assert store.find("tide-2/").id == two.id
    with pytest.raises(LabError, match="several runs begin so: tide-2, tide-1"):
        store.find("ti")
    with pytest.raises(LabError, match=r"tade-1: no such run; did you mean tide-1\?"):
        store.find("tade-1")


def test_an_empty_home_says_so_and_is_not_created(tmp_path):
    store = Store(tmp_path / "none")
    assert store.rows() == []
    with pytest.raises(LabError, match="holds none yet"):
        store.find("x")
    assert not store.home.exists()


def test_the_list_is_newest_first_and_leaves_pieces_out(store):
    add(store, "a", kind="study", paper="tide")
    add_piece(store, "a-1/seed0", paper="tide")
    add(store, "b")
    assert [row.id for row in store.rows()] == ["b-1", "a-1"]
    assert [row.id for row in store.rows(paper="tide")] == ["a-1"]
    assert [row.id for row in store.rows(pieces=True, limit=2)] == ["b-1", "a-1/seed0"]
    assert [row.id for row in store.rows(kind="seed")] == ["a-1/seed0"]
    assert [row.id for row in store.pieces("a-1")] == ["a-1/seed0"]
    with pytest.raises(LabError, match=r"trains: no such kind of run; did you mean train\?"):
        store.rows(kind="trains")
    with pytest.raises(LabError, match=r"done: no such status of a run"):
        store.rows(status="done")


@pytest.mark.parametrize("name", ["", "a b", "../up", "a/b", "-x", "x..y", ".hidden"])
def test_a_name_that_cannot_be_a_folder_is_refused(store, name):
    with pytest.raises(LabError, match="the name of a run is made of letters"):
        add(store, name)


def test_the_same_piece_twice_is_refused(store):
    add(store, "a", kind="study")
    add_piece(store, "a-1/seed0")
    with pytest.raises(LabError, match="a-1/seed0: a run of this id is in"):
        add_piece(store, "a-1/seed0")


def test_processes_that_write_at_once_lose_nothing(tmp_path):
    script, times, workers = Path(__file__).with_name("hammer_store.py"), 40, 4
    command = [sys.executable, str(script), str(tmp_path / "runs")]
    hammers = [
        subprocess.Popen(
            [*command, str(worker), str(times)], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
        )
        for worker in range(workers)
    ]
    for hammer in hammers:
        _, error = hammer.communicate(timeout=120)
        assert hammer.returncode == 0, error
    rows = Store(tmp_path / "runs").rows()
    assert sorted(row.id for row in rows) == sorted(f"hammer-{i + 1}" for i in range(times * workers))
    written = {(row.numbers["worker"], row.numbers["i"]) for row in rows}
    assert written == {(float(worker), float(i)) for worker in range(workers) for i in range(times)}
    assert {row.status for row in rows} == {"finished"}


def test_a_running_run_whose_process_is_dead_reads_interrupted(store):
    code = (
        "import sys, time; from gpt2lab.runs.store import Row, Store;"
        "row, lease = Store(sys.argv[1]).add(Row(id='', name='long', kind='train'));"
        "print(row.id, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(store.home)], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    assert process.stdout is not None
    identity = process.stdout.readline().strip()
    assert store.find(identity).status == "running"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert store.find(identity).status == "interrupted"
    assert [row.id for row in store.rows(status="interrupted")] == [identity]
    assert store.rows(status="running") == []


def test_a_newer_store_is_refused_with_a_sentence(store):
    add(store)
    with sqlite3.connect(store.path) as connection:
        connection.execute("PRAGMA user_version = 7")
    with pytest.raises(
        LabError, match=r"written by a newer gpt2lab \(store version 7, this one reads up to 2\)"
    ):
        store.rows()


def test_a_damaged_store_is_refused_with_a_sentence(store):
    store.home.mkdir()
    store.path.write_bytes(b"this was a store once " * 100)
    with pytest.raises(LabError, match=r"damaged, or not a run store .*gpt2lab runs rebuild makes it again"):
        store.rows()
    store.path.write_bytes(b"")
    assert store.rows() == [], "an empty file is what a crash before the first write leaves"


def test_a_truncated_store_is_refused_with_a_sentence(store):
    for _ in range(50):
        add(store, settings='"' + "x" * 500 + '"')
    content = store.path.read_bytes()
    store.path.write_bytes(content[: len(content) // 2])
    with pytest.raises(LabError, match="damaged, or not a run store"):
        store.rows()


def test_another_programs_database_is_refused(store):
    store.home.mkdir()
    with sqlite3.connect(store.path) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    with pytest.raises(LabError, match="an SQLite file, but not a run store of gpt2lab"):
        add(store)


def test_a_home_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "runs").write_text("not a folder")
    store = Store(tmp_path / "runs")
    for ask in (store.rows, Store(tmp_path / "runs" / "deeper").rows, lambda: add(store)):
        with pytest.raises(LabError, match="a file, where the folder of the runs is to be"):
            ask()


def test_the_home_folder_comes_from_the_argument_then_the_environment(monkeypatch):
    monkeypatch.setenv("GPT2LAB_HOME", "/somewhere")
    assert home_folder() == Path("/somewhere")
    monkeypatch.setenv("GPT2LAB_HOME", "~/runs")  # as a file of settings has it, which no shell reads
    assert home_folder() == Path.home() / "runs"
    assert home_folder("here") == Path("here")
    monkeypatch.delenv("GPT2LAB_HOME")
    assert home_folder() == Path("runs")


def test_a_store_whose_maker_died_before_its_tables_is_empty_and_is_filled(store):
    store.home.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(store.home / "store.sqlite")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA user_version = 0")
    assert (store.home / "store.sqlite").stat().st_size > 0
    assert store.rows() == []
    store.add(Row(id="", name="a", kind="train"))
    assert [row.id for row in store.rows()] == ["a-1"]
