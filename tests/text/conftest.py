import pytest

from gpt2lab.text.tokenizer import Tokenizer, train_bpe

STORY = (
    "Once upon a time there was a girl named Lily. She had a red ball. “Look!” she said — it rolled.\n\n"
    "Her dog, named Max, ran after the ball. They played all day, 12 times or 3.\n"
)


@pytest.fixture(scope="session")
def story() -> str:
    return STORY


@pytest.fixture(scope="session")
def bpe() -> Tokenizer:
    return train_bpe([STORY] * 3, 300)
