"""A store that is damaged, lost or old: what is whole is shown, and it is made again from the runs' folders."""

import dataclasses
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.runs.database import insertion
from gpt2lab.runs.rebuild import rebuild
from gpt2lab.runs.run import Run
from gpt2lab.runs.store import Store
from gpt2lab.runs.tidy import delete

VERSION_1 = """
CREATE TABLE runs (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, paper TEXT, scale TEXT, seed INTEGER, arm TEXT,
    status TEXT NOT NULL, message TEXT NOT NULL, created TEXT NOT NULL, finished TEXT, parent TEXT,
    settings TEXT NOT NULL, settings_hash TEXT NOT NULL, results TEXT NOT NULL, command TEXT NOT NULL,
    pid INTEGER, host TEXT, process_started TEXT
);
PRAGMA application_id = 1194478658;
PRAGMA user_version = 1;
"""


@pytest.fixture
def store(home):
    """Return a store with a training, a study of one seed with one arm, and a measurement, in this order."""
    for kind, name, settings in (
        ("train", "tide", {}),
        ("study", "moon", {}),
        ("measure", "ebb", {"origin": "tide-1"}),
    ):
        with Run.start(kind, name, home=home, settings=settings, command=f"gpt2lab {kind}") as run:
            run.result("loss", 1.5)
            if kind == "study":
                with Run.start("arm", "low", home=home, parent=f"{run.id}/seed0", seed=0, arm="low") as arm:
                    arm.result("loss", 2.5)
                with Run.start("seed", "seed0", home=home, parent=run, seed=0) as seed:
                    seed.result("loss", 3.5)
    return Store(home)


def everything(store):
    return [row.values for row in store.rows(pieces=True)]


def change(store, column, value, identity="tide-1"):
    with sqlite3.connect(store.path) as connection:
        connection.execute(f"UPDATE runs SET {column} = ? WHERE id = ?", (value, identity))


def test_a_lost_store_is_noticed_and_made_again(store, home):
    before = everything(store)
    assert len(before) == 5
    for file in home.glob("store.sqlite*"):
        file.unlink()
    for ask in (store.rows, lambda: store.find("tide"), lambda: Run.start("train", "tide", home=home)):
        with pytest.raises(
            LabError, match=r"store.sqlite: lost, but its runs are here; gpt2lab runs rebuild"
        ):
            ask()
    done = rebuild(home)
    assert (done.read, done.kept, done.unread, done.aside) == (5, 0, (), None)
    assert everything(store) == before
    assert store.rows(origins=["tide-1"])[0].id == "ebb-1"


def test_an_emptied_store_is_noticed_too(store, home):
    for file in home.glob("store.sqlite-*"):
        file.unlink()
    store.path.write_bytes(b"")
    with pytest.raises(LabError, match="lost, but its runs are here"):
        store.rows()


def test_a_store_without_its_table_is_lost_and_not_empty(store, home):
    before = everything(store)
    with sqlite3.connect(store.path) as connection:
        connection.execute("DROP TABLE runs")
    with pytest.raises(LabError, match="lost, but its runs are here"):
        store.rows()
    rebuild(home)
    assert everything(store) == before


def test_a_run_without_settings_is_found_by_its_record(store, home):
    before = everything(store)
    (home / "tide-1" / "settings.json").unlink()
    store.path.unlink()
    assert rebuild(home).read == 5
    assert everything(store) == before


def test_one_record_that_cannot_be_written_again_keeps_no_other_run_out(store, home):
    before = everything(store)
    (home / "tide-1" / "record.json").unlink()
    (home / "tide-1" / "record.json").mkdir()
    with pytest.warns(UserWarning, match=r"tide-1: record.json cannot be written again \(Is a directory\)"):
        assert rebuild(home).kept == 1
    assert everything(store) == before


def test_a_file_in_the_place_of_a_run_is_a_missing_run_that_can_be_deleted(store, home):
    shutil.rmtree(home / "tide-1")
    (home / "tide-1").touch()
    assert store.find("tide").status == "missing"
    assert [gone.name for gone in delete(["tide-1"], home=home, force=True)] == ["tide-1"]
    assert store.get("tide-1") is None


def test_rebuilding_a_sound_store_changes_nothing(store, home):
    before = everything(store)
    assert rebuild(home).aside is None
    assert everything(store) == before
    assert not store.path.with_name("store.sqlite.old").exists()


@pytest.mark.parametrize("column", ["settings", "results"])
@pytest.mark.parametrize("cell", ['{"loss": 1.', "", b"\xff\xfe", "[1]", "null", '{"loss": 1.6}'])
def test_a_damaged_cell_is_one_row_that_says_so_and_the_rest_is_shown(store, home, column, cell):
    before = everything(store)
    change(store, column, cell)
    rows = {row.id: row for row in store.rows()}
    assert {name: row.status for name, row in rows.items()} == {
        "tide-1": "damaged",
        "moon-1": "finished",
        "ebb-1": "finished",
    }
    assert "gpt2lab runs rebuild" in rows["tide-1"].message
    assert rows["tide-1"].numbers == {}
    rebuild(home)
    assert everything(store) == before


def test_a_damaged_row_whose_record_is_damaged_too_is_left_out_and_named(store, home):
    change(store, "results", "{")
    record = home / "tide-1" / "record.json"
    record.write_text(record.read_text().replace("1.5", "1.6"))
    done = rebuild(home)
    assert [row.id for row in store.rows()] == ["ebb-1", "moon-1"]
    assert done.unread == (f"{record}: damaged: it does not match its checksum",)


def test_a_damaged_record_does_not_matter_while_the_store_is_whole(store, home):
    before = everything(store)
    (home / "tide-1" / "record.json").write_text("{")
    done = rebuild(home)
    assert (done.read, done.kept, done.unread) == (4, 1, ())
    assert everything(store) == before
    assert (home / "tide-1" / "record.json").read_text() != "{", "it is written again"


@pytest.mark.parametrize("damage", ["header", "half", "middle", "text"])
def test_a_damaged_file_is_moved_aside_and_made_again(store, home, damage):
    before = everything(store)
    for file in home.glob("store.sqlite-*"):
        file.unlink()
    content = store.path.read_bytes()
    store.path.write_bytes(
        {
            "header": b"x" * 100 + content[100:],
            "half": content[: len(content) // 2],
            "middle": content[:4096] + b"\xaa" * (len(content) - 4096),
            "text": b"this was a store once " * 100,
        }[damage]
    )
    with pytest.raises(LabError, match="gpt2lab runs rebuild makes it again"):
        everything(store)
    done = rebuild(home)
    assert everything(store) == before
    assert done.aside == store.path.with_name("store.sqlite.old")
    assert done.aside.exists()


def test_a_log_beside_a_damaged_store_is_not_taken_for_the_new_one_s(store, home):
    before = everything(store)
    store.path.write_bytes(b"damaged" * 1000)
    store.path.with_name("store.sqlite-wal").write_bytes(b"a log of what was" * 1000)
    rebuild(home)
    assert everything(store) == before


def test_a_run_folder_copied_in_is_listed_under_its_own_name(store, home):
    shutil.copytree(home / "moon-1", home / "moon-of-marsha")
    rebuild(home)
    assert store.find("moon-of-marsha").numbers == {"loss": 1.5}
    assert [row.id for row in store.pieces("moon-of-marsha")] == [
        "moon-of-marsha/seed0/low",
        "moon-of-marsha/seed0",
    ]
    assert store.get("moon-of-marsha/seed0/low").parent == "moon-of-marsha/seed0"


def test_a_store_of_an_older_version_is_brought_up_to_date(home):
    folder = home / "tide-1"
    folder.mkdir(parents=True)
    with sqlite3.connect(home / "store.sqlite") as connection:
        connection.executescript(VERSION_1)
        connection.execute(
            "INSERT INTO runs VALUES ('tide-1', 'tide', 'train', NULL, NULL, 0, NULL, 'finished', '', "
            "'2026-01-01T00:00:00+00:00', '2026-01-01T00:01:00+00:00', NULL, '{}', '', '{\"loss\": 2.0}', '', 1, '', '')"
        )
    with pytest.raises(
        LabError, match=r"written by an older gpt2lab \(store version 1\); gpt2lab runs rebuild"
    ):
        Store(home).rows()
    assert rebuild(home).kept == 1
    row = Store(home).find("tide")
    assert (row.numbers, row.seconds, row.status) == ({"loss": 2.0}, 60.0, "finished")
    assert (folder / "record.json").exists()


@pytest.mark.parametrize("identity", ["../outside", "/tmp/outside", "a//b", "", ".", "tide-1/.."])
def test_a_row_that_leads_out_of_the_home_folder_is_damaged_and_deletes_nothing_there(store, home, identity):
    outside = home.parent / "outside"
    outside.mkdir()
    row = dataclasses.replace(store.find("tide-1"), id=identity)
    with store.database.writing() as connection:
        connection.execute(insertion(), (*row.values, row.checksum))
    assert store.get(identity).status == "damaged"
    store.remove(identity)
    assert outside.exists()
    assert (home / "tide-1").exists()
    assert rebuild(home).kept == 0
    assert len(store.rows(pieces=True)) == 5


def test_a_run_that_begins_while_the_store_is_rebuilt_is_not_lost(store, home):
    code = (
        "import sys\nfrom gpt2lab.runs.run import Run\nprint('go', flush=True)\n"
        "for _ in range(20):\n    with Run.start('train', 'wave', home=sys.argv[1]) as run: run.result('loss', 1.0)\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(home)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(gpt2lab.__file__).parents[1])},
    )
    assert writer.stdout.readline() == "go\n"
    while writer.poll() is None:
        rebuild(home)
    assert writer.returncode == 0
    assert sum(row.name == "wave" and row.status == "finished" for row in store.rows()) == 20


def test_rebuilding_where_nothing_is_is_a_sentence(tmp_path):
    with pytest.raises(LabError, match="no such folder"):
        rebuild(tmp_path / "none")
