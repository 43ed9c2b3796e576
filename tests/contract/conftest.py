"""Models with a tokenizer and text, for the parts that need both."""

import json
from pathlib import Path

import pytest

from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import Tokenizer, word_level
from tests.tiny import tiny

WORDS = "the a cat dog sat ran on under mat tree and then it was big small red blue ."


@pytest.fixture(scope="session")
def word_tokenizer() -> Tokenizer:
    return word_level([WORDS])


@pytest.fixture
def lm(word_tokenizer: Tokenizer) -> LanguageModel:
    return LanguageModel(tiny("gpt2"), word_tokenizer)


@pytest.fixture
def passages(tmp_path: Path) -> Path:
    """Six short passages of known words, one a line of a jsonl file."""
    texts = [
        "the cat sat on the mat and then the dog ran",
        "a big dog ran under the tree",
        "it was a small blue cat",
        "the red mat was under the big tree and it was small",
        "then a dog sat",
        "the cat and the dog ran on and on and on under the big red tree",
    ]
    file = tmp_path / "passages.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return file
