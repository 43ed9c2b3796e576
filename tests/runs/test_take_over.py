"""Runs that several processes want: exactly one has them, whatever happened to the one before."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.runs.run import Run
from gpt2lab.runs.store import Store
from gpt2lab.studies.resume import resume
from gpt2lab.studies.study import reproduce
from gpt2lab.text.language_model import load
from tests.forked import Forked

RUNS = 24
RESUME = """
import sys, time
from gpt2lab.base.errors import LabError
from gpt2lab.runs.run import Run
from gpt2lab.runs.store import Store
home, runs = sys.argv[1], int(sys.argv[2])
store = Store(home)
for number in range(1, runs + 1):
    row = store.find(f"tide-{number}")
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        with Run.reopen(row, home) as run:
            run.note("resumed")
            time.sleep(0.01 * (number % 3))
        print("ran", flush=True)
    except LabError as error:
        print(error, flush=True)
"""
TRAIN = [
    *(
        "train",
        "--data",
        "tinyworld:60",
        "--d-model",
        "16",
        "--n-layers",
        "1",
        "--n-heads",
        "2",
        "--context",
        "32",
    ),
    *("--batch-size", "4", "--vocab-size", "300", "--set", "samples=0", "--set", "train.checkpoint_every=5"),
]


def environment(home):
    return os.environ | {"PYTHONPATH": str(Path(gpt2lab.__file__).parents[1]), "GPT2LAB_HOME": str(home)}


def start(code, *words, home):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(home),
    )


class Typed(Forked):
    """A command line with short leases in a process of its own."""

    def __init__(self, *words, home):
        place = Path(tempfile.mkdtemp(dir=home.parent))
        self.error = place / "err"
        words = map(str, words)
        super().__init__(
            "tests.runs.short_leases",
            *words,
            environment=environment(home),
            out=place / "out",
            err=self.error,
        )

    def end(self):
        """Return the exit status and what was said to standard error."""
        return self.wait(), self.error.read_text()


def test_of_two_processes_that_resume_a_run_at_once_exactly_one_does(home):
    for _ in range(RUNS):
        with pytest.raises(KeyboardInterrupt), Run.start("train", "tide", home=home):
            raise KeyboardInterrupt
    pair = [start(RESUME, home, RUNS, home=home) for _ in range(2)]
    refusal = (
        r"tide-\d+: (still runs, as process|another process has taken it up meanwhile; now it is finished)"
    )
    for number in range(1, RUNS + 1):
        for process in pair:
            assert process.stdout.readline() == "ready\n"
        for process in pair:
            process.stdin.write("go\n")
            process.stdin.flush()
        said = sorted(process.stdout.readline().strip() for process in pair)
        assert said.count("ran") == 1, said
        assert re.match(refusal, next(words for words in said if words != "ran"))
        assert (home / f"tide-{number}" / "log.txt").read_text().count("resumed") == 1
    for process in pair:
        process.communicate(timeout=30)


def stopped_training(home, steps=4000):
    """Start a training, stop it where it stands after its first checkpoint, and return its process."""
    process = Typed(*TRAIN, "--steps", steps, home=home)
    deadline = time.monotonic() + 120
    while not any((home / "train-1" / "checkpoints").glob("step-*")):
        assert process.poll() is None, process.end()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGSTOP)
    return process


def test_a_training_that_slept_while_another_process_finished_it_changes_nothing(home):
    sleeper = stopped_training(home, steps=60)
    status, error = Typed("resume", "train-1", home=home).end()
    assert (status, "still runs, as process" in error) == (2, True)
    time.sleep(3.5)
    status, error = Typed("resume", "train-1", home=home).end()
    assert status == 0, error
    row = Store(home).find("train-1")
    files = content(home / "train-1")
    sleeper.send_signal(signal.SIGCONT)
    status, error = sleeper.end()
    assert status == 2
    assert "this process stops without writing there" in error
    assert content(home / "train-1") == files
    assert Store(home).find("train-1") == row


def test_a_training_is_taken_over_by_hand_and_ends_with_the_weights_of_an_undisturbed_one(home):
    sleeper = stopped_training(home, steps=60)
    status, error = Typed("resume", "train-1", "--take-over", home=home).end()
    assert status == 0, error
    sleeper.send_signal(signal.SIGKILL)
    sleeper.wait()
    status, error = Typed(*TRAIN, "--steps", 60, home=home).end()
    assert status == 0, error
    one, other = (load(home / name / "model").model.state_dict() for name in ("train-1", "train-2"))
    assert all(torch.equal(one[name], other[name]) for name in other)


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "--user", "--map-root-user", "--uts", "true"], check=False).returncode != 0,
    reason="this system lets no process change its host name",
)
def test_a_training_that_was_killed_is_resumed_under_another_host_name_and_in_a_copied_folder(home, tmp_path):
    sleeper = stopped_training(home, steps=60)
    sleeper.send_signal(signal.SIGKILL)
    sleeper.wait()
    shutil.copytree(home, tmp_path / "copy")
    renamed = [
        "unshare",
        "--user",
        "--map-root-user",
        "--uts",
        "sh",
        "-c",
        'hostname elsewhere && exec "$@"',
        "sh",
    ]
    for place in (home, tmp_path / "copy"):
        words = [sys.executable, "-m", "tests.runs.short_leases", "resume", "train-1"]
        done = subprocess.run(
            [*renamed, *words], env=environment(place), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert Store(place).find("train-1").status == "finished"


def content(folder):
    """Every file of a run but its lease, and but what a stopped process was writing, which it deletes when it ends."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lease"]
    return {
        path: path.read_bytes() for path in files if not any(part.endswith(".tmp") for part in path.parts)
    }


def test_a_study_whose_units_all_fail_before_any_work_leaves_no_run(home, tide):
    source = (tide / "study.py").read_text()
    head = "def run_arm(settings, arm, run):\n"
    (tide / "study.py").write_text(
        source.replace(head, head + "    raise LabError('notes.txt: no such file')\n")
    )
    for workers in (1, 2):
        with pytest.raises(LabError, match=r"^seed 0 (base|tide): notes.txt: no such file$"):
            reproduce("tide", scale="smoke", home=home, workers=workers)
    assert Store(home).rows(pieces=True) == []
    assert not list(home.glob("tide*"))


def test_a_run_whose_folder_is_gone_is_not_resumed(home):
    with pytest.raises(KeyboardInterrupt), Run.start("train", "tide", home=home) as run:
        raise KeyboardInterrupt
    shutil.rmtree(run.folder)
    with pytest.raises(LabError, match="tide-1: its folder is gone"):
        resume("tide-1", home=home)
    assert not run.folder.exists()
