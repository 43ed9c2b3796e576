"""One small trained run that the tests of the command line share."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gpt2lab.cli import main
from tests.forked import run

SMALL = [
    *("--data", "tinyworld:80", "--steps", "6", "--d-model", "16", "--n-layers", "1", "--n-heads", "2"),
    *("--context", "32", "--vocab-size", "300", "--batch-size", "4"),
    *("--set", "train.checkpoint_every=2", "--set", "samples=1"),
]


@dataclass(frozen=True)
class Done:
    """What a command said."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The JSON it printed."""
        return json.loads(self.out)


Lab = Callable[..., Done]


def in_process_environment(home: Path) -> dict[str, str]:
    quiet = {"GPT2LAB_QUIET": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}
    return {**os.environ, **quiet, "GPT2LAB_HOME": str(home)}


def typed(home: Path, *words: str) -> Done:
    """Type a command in a process of its own."""
    done = run("gpt2lab", *words, environment=in_process_environment(home))
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home folder of two finished runs, small-1 and small-2, the second with another seed."""
    home = tmp_path_factory.mktemp("home") / "runs"
    first = subprocess.run(  # as a person does: by an interpreter that has imported nothing
        [sys.executable, "-m", "gpt2lab", "train", *SMALL, "--name", "small", "--json"],
        capture_output=True,
        text=True,
        env=in_process_environment(home),
        check=False,
    )
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["id"] == "small-1"
    with pytest.MonkeyPatch.context() as patch:  # in this process, which is quicker
        for name, value in in_process_environment(home).items():
            patch.setenv(name, value)
        assert main(["train", *SMALL, "--name", "small", "--seed", "1"]) == 0
    return home


@pytest.fixture
def lab(trained: Path) -> Lab:
    """Type a command in the home folder of the trained runs."""
    return lambda *words: typed(trained, *words)


@pytest.fixture
def said(trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lab:
    """Call a command in this process, which is quicker: for the many errors."""
    for name, value in in_process_environment(trained).items():
        monkeypatch.setenv(name, value)

    def call(*words: str) -> Done:
        status = main(list(words))
        captured = capsys.readouterr()
        return Done(status, captured.out, captured.err)

    return call
