"""A small text and a small trained model, which the tests of adapters start from."""

import random
from pathlib import Path

import pytest

from gpt2lab.actions.train import train_model
from gpt2lab.actions.train_settings import TrainingSettings
from gpt2lab.base.settings import update
from gpt2lab.runs.run import Run

WORDS = [
    "the",
    "a",
    "small",
    "old",
    "cat",
    "dog",
    "ship",
    "sea",
    "house",
    "ran",
    "saw",
    "found",
    "lost",
    "near",
]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty short documents."""
    folder, draw = tmp_path_factory.mktemp("text"), random.Random(0)
    for i in range(40):
        (folder / f"{i:02}.txt").write_text(" ".join(draw.choice(WORDS) for _ in range(60)) + ".")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def small(text: Path, **changes: object) -> TrainingSettings:
    settings = TrainingSettings(
        data=(str(text),), family="llama", d_model=16, n_layers=2, n_heads=2, context=16, vocab_size=300,
        batch_size=4, valid_fraction=0.2, evaluation_tokens=64, samples=1, device="cpu",
    )  # fmt: skip
    usual = {"train.steps": 6, "train.warmup": 2, "train.checkpoint_every": 2}
    return update(settings, usual | changes, "test")


@pytest.fixture(scope="module")
def base(text: Path, home: Path) -> Run:
    return train_model(small(text), name="base", home=home)
