"""The verb runs: lists on narrow terminals, delete, clean, rebuild, and a store that cannot be written."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2lab.cli import main
from gpt2lab.runs.run import Run
from gpt2lab.runs.store import Store
from tests.cli.conftest import Done, in_process_environment

READ_ONLY = ["unshare", "--user", "--map-root-user", "--mount", "--propagation", "private"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Return a home with a training, a transform and a measurement of its model, and a study with one seed."""
    place = tmp_path / "runs"
    for name, value in in_process_environment(place).items():
        monkeypatch.setenv(name, value)
    with Run.start("train", "tide", settings={"data": ["a.txt"]}, command="gpt2lab train") as run:
        run.result("validation_loss", 3.25)
        (run.folder / "model").mkdir()
    with Run.start("apply", "round", settings={"model": "tide", "origin": "tide-1"}) as run:
        run.result("parameters", 7)
    with Run.start("measure", "ebb", settings={"model": "tide", "origin": "tide-1"}) as run:
        run.result("perplexity", 26.0)
    with Run.start("study", "moon", settings={"seeds": [0]}) as run:
        with Run.start("seed", "seed0", parent=run, seed=0) as seed:
            seed.result("loss", 1.0)
        run.result("claim.A", 1.0)
    Store().update("moon-1", message="A holds · B does not hold")
    return place


@pytest.fixture
def typed(home, capsys):
    """Type a command in this process."""

    def call(*words: str) -> Done:
        status = main(list(words))
        captured = capsys.readouterr()
        return Done(status, captured.out, captured.err)

    return call


def ids():
    return {row.id for row in Store().rows(pieces=True)}


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 160])
def test_the_results_of_a_run_can_be_read_on_any_terminal(typed, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    said = typed("runs").out
    for words in ("moon-1", "finished", "A holds · B does not hold", "validation_loss 3.25", "perplexity 26"):
        assert words in said
    assert max(map(len, said.splitlines())) <= columns


def test_a_run_is_deleted_with_its_pieces_and_its_folder(typed, home):
    said = typed("runs", "delete", "moon-1")
    assert (said.status, said.err) == (0, "")
    assert said.out.startswith("deleted moon-1 (study with 1 piece, ")
    assert ids() == {"tide-1", "round-1", "ebb-1"}
    assert not (home / "moon-1").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("tide-1",), "tide-1: round-1 built on its model; delete them too, or --force"),
        (("moon-1/seed0",), "moon-1/seed0: a piece of a study; delete all of it: moon-1"),
        (("mon-1",), "mon-1: no such run; did you mean moon-1?"),
        (("moo",), "moo: no run of this id; did you mean moon-1?"),
        ((), "runs delete takes the RUNS to delete"),
        (("ebb-1", "tide-2"), "tide-2: no such run"),
    ],
)
def test_a_mistake_in_deleting_deletes_nothing(typed, words, sentence):
    before = ids()
    said = typed("runs", "delete", *words)
    assert said.status == 2
    assert sentence in said.err
    assert ids() == before


def test_what_others_built_on_is_deleted_with_them_or_by_force_and_its_number_is_not_used_again(typed):
    assert typed("runs", "delete", "tide-1", "round-1").status == 0
    assert ids() == {"ebb-1", "moon-1", "moon-1/seed0"}
    with Run.start("train", "tide") as run:
        assert run.id == "tide-2", "ebb-1 says that it measured tide-1"


def test_a_name_of_several_runs_deletes_none(typed):
    with Run.start("train", "tide"):
        pass
    said = typed("runs", "delete", "tide")
    assert "tide: several runs have this name; give the ids of those to delete: tide-2 and tide-1" in said.err
    assert {"tide-1", "tide-2"} <= ids()


def test_a_run_that_still_runs_is_deleted_only_by_force(typed, home):
    code = (
        "import sys\nfrom gpt2lab.runs.run import Run\n"
        "with Run.start('train', 'long') as run:\n"
        "    run.log(1, loss=1.0)\n    print('ready', flush=True)\n    sys.stdin.readline()\n    run.log(2, loss=1.0)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    said = typed("runs", "delete", "long-1")
    assert f"long-1: still runs, as process {process.pid} on" in said.err
    assert typed("runs", "delete", "long-1", "--force").status == 0
    _, error = process.communicate("go\n", timeout=60)
    assert "its folder was moved or deleted; this process stops without writing there" in error
    assert not (home / "long-1").exists()
    assert "long-1" not in ids()


def test_a_folder_stays_where_its_row_cannot_be_deleted(home):
    dropped = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    root = os.geteuid() == 0
    if root and shutil.which("setpriv") is None:
        pytest.skip("root may write everywhere, and setpriv is not there to forbid it")
    (home / "store.sqlite").chmod(0o444)
    command = [*(dropped if root else ()), sys.executable, "-m", "gpt2lab", "runs", "delete", "ebb-1"]
    environment = in_process_environment(home) | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert "store.sqlite: cannot be used (attempt to write a readonly database)" in done.stderr
    assert (home / "ebb-1" / "record.json").exists()


def test_a_folder_that_was_removed_by_hand_is_missing_and_swept_and_never_made_again(typed, home):
    shutil.rmtree(home / "ebb-1")
    assert "missing" in next(line for line in typed("runs").out.splitlines() if "ebb-1" in line)
    said = typed("report", "ebb-1")
    assert (said.status, said.err) == (
        2,
        "gpt2lab: ebb-1: its folder is gone; gpt2lab runs clean takes it from the list\n",
    )
    assert not (home / "ebb-1").exists()
    assert "row of a run whose folder is gone" in typed("runs", "clean", "--dry-run").out
    assert "ebb-1" in ids()
    assert typed("runs", "clean").status == 0
    assert "ebb-1" not in ids()


def test_clean_sweeps_what_nobody_needs_and_says_how_much(typed, home):
    left = home / "tide-1" / "checkpoints" / ".step-00000004.abc.tmp"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"x" * 2000)
    for name in ("used", "unused"):
        (home / "tokens" / name).mkdir(parents=True)
        (home / "tokens" / name / "train.000.tokens").write_bytes(b"x" * 1000)
    (home / "tide-1" / "data.txt").write_text("used and more of the fingerprint")
    dry = typed("runs", "clean", "--dry-run")
    assert "2 things, 3.0 kB would be deleted" in dry.out
    assert left.exists()
    said = typed("runs", "clean")
    assert "tide-1/checkpoints/.step-00000004.abc.tmp" in said.out
    assert "tokens/unused" in said.out
    assert "2 things, 3.0 kB deleted" in said.out
    assert not left.exists()
    assert [path.name for path in (home / "tokens").iterdir() if path.is_dir()] == ["used"]
    assert "no things, 0 bytes deleted" in typed("runs", "clean").out


def test_what_a_living_process_writes_is_not_swept(typed, home):
    from gpt2lab.base.files import atomic_folder

    with atomic_folder(home / "tide-1" / "checkpoints" / "step-8") as place:
        (place / "weights").write_text("x")
        assert "no things" in typed("runs", "clean").out
    assert (home / "tide-1" / "checkpoints" / "step-8" / "weights").exists()


def test_a_store_is_rebuilt_on_the_command_line(typed, home):
    before = ids()
    for file in home.glob("store.sqlite*"):
        file.unlink()
    said = typed("runs")
    assert said.err.startswith("gpt2lab: ")
    assert "gpt2lab runs rebuild makes it again" in said.err
    said = typed("papers", "tinystories")
    assert (said.status, "TinyStories" in said.out) == (0, True), "what needs no run does not need the store"
    assert "the papers' last runs are not known" in said.err
    assert typed("runs", "rebuild").out == "5 runs read from their folders, 0 kept from the old store\n"
    assert ids() == before
    assert json.loads(typed("runs", "rebuild", "--json").out)["read"] == 5


def test_every_comparison_has_files_of_its_own(typed, home):
    said = typed("compare", "tide-1", "round-1")
    typed("compare", "tide-1", "ebb-1")
    typed("compare", "tide-1", "moon-1/seed0")
    assert sorted(path.name for path in home.glob("*.html")) == [
        "comparison-tide-1-ebb-1.html",
        "comparison-tide-1-moon-1-seed0.html",
        "comparison-tide-1-round-1.html",
    ]
    assert "none" not in said.out
    assert "1 setting that only tide-1 has: data" in said.out
    assert "2 settings that only round-1 has: model and origin" in said.out
    many = [Run.start("train", "a" * 60) for _ in range(3)]
    for run in many:
        with run:
            run.result("loss", 1.0)
    assert typed("compare", *(run.id for run in many)).status == 0
    assert len(list(home.glob(f"comparison-{'a' * 60}-and-2-more-*.html"))) == 1


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"kind": "classification", "valid": []}, "classification tide-2 --data FILE"),
        ({"kind": "multilabel", "valid": ["a b.csv"]}, "classification tide-2 --data 'a b.csv'"),
        ({"kind": "regression", "valid": ["x.csv", "y.csv"]}, "regression tide-2 --data x.csv y.csv"),
        ({"kind": "tokens", "valid": []}, "token-classification tide-2 --data FILE"),
        ({"kind": "simcse", "valid": []}, "retrieval tide-2 --data FOLDER"),
    ],
)
def test_a_trained_head_is_followed_by_the_measure_of_its_kind(home, capsys, task, words):
    from gpt2lab.cli.train import show_training

    with Run.start("train", "tide", settings={"task": task}) as run:
        run.result("validation_examples", 8)
    show_training(run, as_json=False)
    assert capsys.readouterr().out.endswith(f"next    gpt2lab measure {words}\n")


def test_flags_of_one_action_are_refused_by_the_others(typed):
    assert "--force: goes with `gpt2lab runs delete`" in typed("runs", "--force").err
    assert "--dry-run: goes with `gpt2lab runs clean`" in typed("runs", "delete", "tide-1", "--dry-run").err
    assert "runs clean: takes no words, got tide-1" in typed("runs", "clean", "tide-1").err


def mounts_can_be_made() -> bool:
    return (
        shutil.which("unshare") is not None
        and subprocess.run([*READ_ONLY, "true"], check=False).returncode == 0
    )


@pytest.fixture
def read_only(trained, tmp_path):
    """Type a command where the home folder can only be read."""
    if not mounts_can_be_made():
        pytest.skip("this system lets no process mount anything")
    home = tmp_path / "runs"
    shutil.copytree(trained, home)
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && shift 0 && exec "$@"'

    def call(*words: str) -> Done:
        command = [*READ_ONLY, "sh", "-c", script, str(home), sys.executable, "-m", "gpt2lab", *words]
        environment = in_process_environment(home) | {"PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        return Done(done.returncode, done.stdout, done.stderr)

    return call


def test_a_home_on_a_read_only_disk_is_read(read_only):
    listed = read_only("runs", "--json", "--limit", "0")
    assert listed.status == 0, listed.err
    states = {row["id"]: row["status"] for row in listed.json}  # other tests add runs to the home they share
    assert (states["small-1"], states["small-2"]) == ("finished", "finished")
    assert read_only("papers").status == 0
    said = read_only("report", "small-1")
    assert (said.status, "the report cannot be written there (Read-only file system)" in said.err) == (
        2,
        True,
    )
    assert read_only("resume", "small-1").err.startswith("gpt2lab: small-1: this run has finished")
    text = read_only("generate", "small-1", "the", "--max-new-tokens", "3")
    assert text.status == 0, text.err
    assert "not kept among the runs" in text.err
    assert (
        "cannot be written (Read-only file system)" in read_only("runs", "delete", "small-1", "--force").err
    )


def test_what_a_killed_writer_left_in_its_log_is_read_from_a_read_only_disk(read_only, tmp_path):
    code = (
        "import os, sqlite3, sys\nfrom gpt2lab.runs.store import Row, Store\n"
        "connection = sqlite3.connect(Store().path)\nconnection.execute('SELECT id FROM runs').fetchall()\n"
        "Store().add(Row(id='', name='killed', kind='train'))\nos._exit(9)"
    )
    environment = in_process_environment(tmp_path / "runs")
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 9
    assert (tmp_path / "runs" / "store.sqlite-wal").stat().st_size > 0
    listed = read_only("runs", "--json")
    assert next((row["id"], row["status"]) for row in listed.json) == ("killed-1", "interrupted")
    (tmp_path / "runs" / "store.sqlite-shm").unlink()
    assert read_only("runs", "--json").json == listed.json
