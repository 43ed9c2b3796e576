import os
from pathlib import Path

import pytest

from gpt2lab.text.tokenizer import Tokenizer, train_bpe

STORY = (
    "Once upon a time there was a girl named Lily. She had a red ball. “Look!” she said — it rolled.\n\n"
    "Her dog, named Max, ran after the ball. They played all day, 12 times or 3.\n"
)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    default = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("GPT2LAB_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip("the shared data folder is not on this machine (GPT2LAB_SHARED_DATA)")
    return folder


@pytest.fixture(scope="session")
def story() -> str:
    return STORY


@pytest.fixture(scope="session")
def bpe() -> Tokenizer:
    return train_bpe([STORY] * 3, 300)
