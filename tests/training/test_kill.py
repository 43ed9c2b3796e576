"""kill -9 at a random moment costs nothing but time."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gpt2lab.model import load_model

ROOT = Path(__file__).parents[2]


def start(folder: Path, how: str, what: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "tests" / "training" / "kill_target.py"), str(folder), how, what]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GPT2LAB_QUIET": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize("what", ["next token", "private", "teacher", "multiplier"])
def test_a_run_killed_at_random_moments_ends_with_the_same_bits(tmp_path: Path, what: str) -> None:
    whole = start(tmp_path / "whole", "fresh", what)
    rng = random.Random(time.time_ns())  # a moment nobody chose; the assertion must hold for all
    killed = start(tmp_path / "killed", "fresh", what)
    for stop in sorted(rng.sample(range(4, 80), 2)):
        assert killed.stdout is not None
        for line in killed.stdout:
            if int(line) >= stop:
                break
        time.sleep(rng.random() * 0.03)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert killed.returncode == -signal.SIGKILL or killed.returncode == 0
        killed = start(tmp_path / "killed", "resume", what)
    for process in (whole, killed):
        process.communicate(timeout=120)
        assert process.returncode == 0
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
