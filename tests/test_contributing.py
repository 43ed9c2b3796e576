"""The example of CONTRIBUTING.md, taken from the page word for word, is a paper that runs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forked import run

ROOT = Path(__file__).parents[1]


def _blocks() -> dict[str, str]:
    """Return the files that the page shows, by name."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"```(?:toml|python)\n# gpt2lab/papers/lion/(\S+)\n(.*?)```", page, re.DOTALL))
    assert list(blocks) == ["paper.toml", "optimizer.py", "study.py"]
    return blocks


@pytest.fixture
def lion(tmp_path: Path) -> dict[str, str]:
    """Lay the page's files out as a package of somebody else's; return the environment that finds it."""
    package = tmp_path / "site" / "somebody" / "lion"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text('"""Somebody else\'s."""\n', encoding="utf-8")
    for name, text in _blocks().items():
        (package / name).write_text(text.replace("gpt2lab.papers.lion", "somebody.lion"), encoding="utf-8")
    info = tmp_path / "site" / "somebody-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebody\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[gpt2lab.papers]\nlion = somebody.lion\n", encoding="utf-8")
    path = os.pathsep.join([str(tmp_path / "site"), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "GPT2LAB_HOME": str(tmp_path / "runs"), "OMP_NUM_THREADS": "1"}


def _lab(environment: dict[str, str], *words: str) -> str:
    done = run("gpt2lab", *words, environment=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_paper_takes_at_most_150_lines() -> None:
    assert sum(len(text.splitlines()) for text in _blocks().values()) <= 150


def test_the_papers_of_other_packages_are_listed_run_and_trained_with(lion: dict[str, str]) -> None:
    assert "built, not run yet" in _lab(lion, "papers", "lion")
    study = json.loads(_lab(lion, "reproduce", "lion", "--scale", "smoke", "--seeds", "3", "--json"))
    assert [claim["status"] for claim in study["claims"]] != ["inconclusive"], study["claims"]
    assert {"loss.adamw", "loss.lion", "loss.uniform"} <= set(study["results"]["seed0"])
    assert Path(study["report"]).is_file()
    listed = json.loads(_lab(lion, "papers", "lion", "--json"))
    assert listed[0]["last_run"] == study["id"]
    small = "--d-model 16 --n-layers 1 --n-heads 2 --context 32 --vocab-size 280 --batch-size 2 --steps 2"
    trained = _lab(lion, "train", "--data", "tinyworld:60", *small.split(), "--optimizer", "lion", "--json")
    assert json.loads(trained)["status"] == "finished"


def test_the_example_of_an_architecture_trains_generates_and_comes_back(tmp_path: Path) -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```python\n# architecture.py\n(.*?)```", page, re.DOTALL)
    file = tmp_path / "architecture.py"
    file.write_text(text, encoding="utf-8")
    check = f"""
import sys, torch
sys.path.insert(0, {str(tmp_path)!r})
from architecture import SecondThoughts
from gpt2lab.decode import Greedy, Limits
from gpt2lab.model import attach, load_model, save_model
from gpt2lab.training import TrainSettings, train
from tests.tiny import tiny, tokens
from tests.training.data import Counting

model = attach(tiny("gpt2"), SecondThoughts(bias=True))
losses = train(model, Counting(), settings=TrainSettings(steps=30, learning_rate=3e-3)).losses
assert losses[-1] < losses[0]
save_model(model, {str(tmp_path / "model")!r})
again = load_model({str(tmp_path / "model")!r}, architectures=[SecondThoughts])
assert torch.equal(again(tokens(2, 6)), model(tokens(2, 6)))
row = [4, 5]
for _ in range(6):
    row.append(int(again(torch.tensor([row]))[0, -1].argmax()))
assert Greedy().decode(again, [[4, 5]], Limits(max_new_tokens=6))[0] == row[2:]
with again.tap(read=["first:logits", "logits"]) as tap:
    again(tokens(1, 4))
assert not torch.equal(tap["first:logits"], tap["logits"])
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    _keeps_the_style(file)


def test_the_example_keeps_the_rules(tmp_path: Path) -> None:
    folder = tmp_path / "gpt2lab" / "papers" / "lion"
    folder.mkdir(parents=True)
    for name, text in _blocks().items():
        (folder / name).write_text(text, encoding="utf-8")
    _keeps_the_style(folder)


def _keeps_the_style(path: Path) -> None:
    config = [
        "--config",
        str(ROOT / "pyproject.toml"),
        "--config",
        "lint.isort.known-first-party=['gpt2lab']",
    ]
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *config, str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
