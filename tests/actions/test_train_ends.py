"""How a training ends, through the command line: early, with the best weights, with an objective's own modules."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gpt2lab.actions import train as verb
from gpt2lab.cli import main
from gpt2lab.training.checkpoints import TENSORS
from tests.cli.conftest import SMALL
from tests.training.test_owned_modules import Auxiliary


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPT2LAB_HOME", str(tmp_path / "runs"))
    return tmp_path / "runs"


def test_a_run_that_ends_early_keeps_the_best_weights_and_says_so(home: Path) -> None:
    settings = ["train.evaluate_every=1", "train.keep=best", "train.keep_last=1", "train.best.mode=max"]
    settings += ["train.early_stopping.patience=2", "train.early_stopping.mode=max"]
    words = [word for setting in settings for word in ("--set", setting)]
    assert main(["train", *SMALL, *words, "--name", "worst"]) == 0
    results = json.loads((home / "worst-1" / "results.json").read_text())
    assert results["steps"] == results["kept_step"] + 2 < 6
    best = home / "worst-1" / "checkpoints" / f"step-{results['kept_step']:08d}" / TENSORS
    kept = load_file(home / "worst-1" / "model" / "model.safetensors")
    embedding = next(tensor for name, tensor in kept.items() if name.endswith("wte.weight"))
    assert torch.equal(embedding, load_file(best)["model.embedding.weight"])
    assert "stopped early at step" in (home / "worst-1" / "log.txt").read_text()
    again = json.loads((home / "worst-1" / "settings.json").read_text())["train"]
    assert again["early_stopping"]["patience"] == 2 and again["best"]["mode"] == "max"


def test_modules_that_an_objective_has_trained_lie_in_the_run(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = Auxiliary()
    monkeypatch.setattr(verb, "chosen_objective", lambda *_: objective)
    assert main(["train", *SMALL, "--name", "own"]) == 0
    saved = load_file(home / "own-1" / "objective" / "parity.safetensors")
    assert torch.equal(saved["weight"], objective.head.weight.detach())
    assert objective.prepared == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--optimizer", "sophia-g"), "SophiaG reads the data a second time for the curvature"),
        (
            ("--experts", "2"),
            "no loss for each row: the balance of the experts' load is a statistic of the whole",
        ),
        (
            ("--set", "task.kind=simcse"),
            "no loss for each row: the texts of a batch are each other's negatives",
        ),
    ],
)
def test_what_privacy_cannot_protect_is_refused_before_a_run_begins(
    home: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], sentence: str
) -> None:
    small = SMALL[: SMALL.index("--set")]
    assert main(["train", *small, *words, "--set", "train.privacy.noise=1"]) == 2
    assert sentence in capsys.readouterr().err
    assert not list(home.glob("train-*"))
