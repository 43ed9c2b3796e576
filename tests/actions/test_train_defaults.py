"""What `train` takes for a given model when nobody says: a rate by its width, its own context; and the loss before."""

from pathlib import Path

import pytest

import gpt2lab
from gpt2lab.actions.train import learning_rate, training_settings
from gpt2lab.actions.train_settings import TrainingSettings
from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer, save_model
from gpt2lab.model.checkpoints.families import llama_config
from gpt2lab.runs.store import Store

LLAMA = Path(__file__).parents[3] / "shared" / "data" / "models" / "tinystories-656k-llama"
STORIES = LLAMA.parents[1] / "tinystories" / "tinystories_sample.txt"


def saved(folder: Path, *, d_model: int = 16, positions: int = 64) -> str:
    """Save a small model without a tokenizer."""
    config = llama_config(vocab_size=40, d_model=d_model, n_layers=1, n_heads=2, max_positions=positions)
    save_model(Transformer(config), folder)
    return str(folder)


@pytest.mark.parametrize(
    ("d_model", "frozen", "rate"),
    [(16, False, 5e-4), (128, False, 5e-4), (512, False, 3.1e-5), (768, False, 2e-5), (768, True, 2e-4)],
)
def test_the_rate_falls_with_the_width_within_limits(d_model: int, frozen: bool, rate: float) -> None:
    assert learning_rate(d_model, frozen=frozen) == pytest.approx(rate, rel=0.02)


def test_a_given_model_is_taken_at_its_own_context_and_a_fine_tuning_rate(tmp_path: Path) -> None:
    narrow = training_settings({"data": "x", "model": saved(tmp_path / "narrow")})
    assert (narrow.context, narrow.batch_size, narrow.train.learning_rate) == (64, 64, 5e-4)
    long = training_settings({"data": "x", "model": saved(tmp_path / "long", positions=2048)})
    assert (long.context, long.batch_size) == (512, 8)
    beside = training_settings({"data": "x", "model": saved(tmp_path / "narrow"), "lora.rank": "2"})
    assert beside.train.learning_rate == 5e-3
    prompt = {"architecture": "soft-prompt", "architecture_options.length": "4"}
    assert training_settings({"data": "x", "model": saved(tmp_path / "narrow"), **prompt}).context == 60
    new = training_settings({"data": "x"})
    assert new.train.learning_rate == TrainingSettings().train.learning_rate


def test_what_is_given_stays_and_too_long_a_context_is_refused_with_both_lengths(tmp_path: Path) -> None:
    model = saved(tmp_path / "m")
    given = {
        "data": "x",
        "model": model,
        "learning_rate": "1e-5",
        "context": "32",
        "batch_size": 3,
        "warmup": 2,
    }
    made = training_settings(given)
    assert (made.train.learning_rate, made.context, made.batch_size, made.train.warmup) == (1e-5, 32, 3, 2)
    assert training_settings({"data": "x", "model": model, "context": 16}).batch_size == 256
    with pytest.raises(LabError, match=r"context 65: .* has 64 positions"):
        training_settings({"data": "x", "model": model, "context": 65})


def test_fine_tuning_at_the_defaults_predicts_unseen_text_better_and_says_from_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT2LAB_HOME", str(tmp_path / "runs"))
    run = gpt2lab.train(data=str(STORIES), model=str(LLAMA), steps=12)
    assert run.results["validation_loss"] < run.results["before.validation_loss"]
    assert run.record.series("validation_loss")[0] == [0, 12]
    assert run.record.json("settings.json")["context"] == 512
    report = (run.folder / "report.md").read_text(encoding="utf-8")
    assert "before.validation_loss" in report


def test_a_loss_that_rises_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from gpt2lab.cli import main

    monkeypatch.setenv("GPT2LAB_HOME", str(tmp_path / "runs"))
    words = ("train", "--data", str(STORIES), "--model", str(LLAMA), "--steps", "3", "--learning-rate", "0.1")
    assert main([*words, "--set", "train.warmup=0"]) == 0
    assert "unseen text is predicted worse than before training" in capsys.readouterr().out
    run = Store().find("train")
    assert "the validation loss rose from" in (tmp_path / "runs" / run.id / "log.txt").read_text()


def test_a_model_that_is_not_there_leaves_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPT2LAB_HOME", str(tmp_path / "runs"))
    with pytest.raises(LabError, match="nowhere"):
        gpt2lab.train(data="tinyworld:9", model="nowhere")
    assert not Store().rows()
