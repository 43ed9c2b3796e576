"""The short form of `python -m tests.survival.kills`: a round of every variant."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(
    sys.platform != "linux", reason="the rounds fork and count calls into the file system of Linux"
)
def test_a_run_killed_in_any_way_ends_as_one_that_nobody_disturbed() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "tests.survival.kills", "--rounds", "18", "--seed", "1"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=420,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "18 rounds over 18 variants" in done.stdout
    assert "ended otherwise than one that was left alone: 0" in done.stdout
