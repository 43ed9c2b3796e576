"""Ctrl-C ends the making of a tokenizer at once, in each of its phases, and both are shown."""

import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import in_process_environment


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words that nearly all differ: 16 MB to count for seconds, and to merge for half a minute."""
    letters = random.Random(0).randbytes(16_000_000).translate(bytes(97 + i % 26 for i in range(256)))
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    words = [letters[i : i + 8] for i in range(0, len(letters), 8)]
    path.write_bytes(b"\n".join(b" ".join(words[i : i + 100]) for i in range(0, len(words), 100)))
    return path


def _until(log: Path, pattern: str, process: subprocess.Popen[bytes]) -> str:
    """Wait until the log matches, and return what does."""
    for _ in range(2400):
        if found := re.search(pattern, log.read_text()):
            return found[0]
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(log.read_text())


@pytest.mark.parametrize(
    "phase",
    [
        r"tokenizer \(counting words, then merging\): \S+M/1\d\.\dM bytes · \d+% · .* left",
        r"tokenizer \(merging pairs, 30,000 ids at most\): \d+s",
    ],
)
def test_ctrl_c_ends_a_tokenizer_s_training_within_three_seconds(
    phase: str, corpus: Path, tmp_path: Path
) -> None:
    command = ["train", "--data", str(corpus), "--vocab-size", "30000"]
    log = tmp_path / "said"
    environment = in_process_environment(tmp_path / "runs") | {"GPT2LAB_QUIET": "0"}
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "gpt2lab", *command],
            stdout=subprocess.DEVNULL,
            stderr=said,
            env=environment,
        )
    try:
        _until(log, phase, process)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert time.monotonic() - began < 3
    finally:
        process.kill()
        process.wait()
    assert log.read_text().splitlines()[-1] == (
        "gpt2lab: stopped outside of the updates; go on with: gpt2lab resume train-1"
    )
