"""kill -9 at a random moment costs nothing but time."""

import os
import random
import signal
import tempfile
import time
from pathlib import Path

import pytest
import torch

from gpt2lab.model import load_model
from tests.forked import Forked

ROOT = Path(__file__).parents[2]


class Trained(Forked):
    """kill_target.py in a process of its own, whose steps can be read as they are made."""

    def __init__(self, folder: Path, how: str, what: str) -> None:
        pipe = Path(tempfile.mkdtemp(dir=folder.parent)) / "steps"
        os.mkfifo(pipe)
        super().__init__(
            "tests.training.kill_target",
            *(str(folder), how, what),
            environment={**os.environ, "PYTHONPATH": str(ROOT), "GPT2LAB_QUIET": "1"},
            out=pipe,
            err=pipe.with_name("errors"),
        )
        self.steps = pipe.open()

    def end(self) -> int:
        """Read what is left, and return the exit status."""
        with self.steps:
            self.steps.read()
        return self.wait()


@pytest.mark.parametrize("what", ["next token", "private", "teacher", "multiplier"])
def test_a_run_killed_at_random_moments_ends_with_the_same_bits(tmp_path: Path, what: str) -> None:
    whole = Trained(tmp_path / "whole", "fresh", what)
    rng = random.Random(time.time_ns())  # a moment nobody chose; the assertion must hold for all
    killed = Trained(tmp_path / "killed", "fresh", what)
    for stop in sorted(rng.sample(range(4, 80), 2)):
        for line in killed.steps:
            if int(line) >= stop:
                break
        time.sleep(rng.random() * 0.03)
        os.kill(killed.pid, signal.SIGKILL)
        assert killed.end() in (-signal.SIGKILL, 0)
        killed = Trained(tmp_path / "killed", "resume", what)
    assert (whole.end(), killed.end()) == (0, 0)
    first, second = (load_model(tmp_path / name / "final") for name in ("whole", "killed"))
    for (name, a), b in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b), name
    for file in (tmp_path / "whole" / "modules").glob("*.safetensors"):
        assert file.read_bytes() == (tmp_path / "killed" / "modules" / file.name).read_bytes()
    assert (tmp_path / "whole" / "modules").is_dir() == (what == "multiplier")


@pytest.mark.parametrize("leftover", [".step-00000030.abc.tmp", ".step-00000030.old-1"])
def test_half_written_folders_are_never_taken_for_checkpoints(tmp_path: Path, leftover: str) -> None:
    from gpt2lab.training.checkpoints import newest_checkpoint

    (tmp_path / leftover).mkdir()
    (tmp_path / leftover / "state.json").write_text("{}")
    assert newest_checkpoint(tmp_path) is None
