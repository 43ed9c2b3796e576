"""The Python of docs/guide/activations.md runs, on a small model in GPT-2's place."""

import re
from pathlib import Path

import pytest
import torch

import gpt2lab
from gpt2lab.text.generators.stories import documents
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import word_level
from tests.tiny import tiny

GUIDE = Path(__file__).parents[3] / "docs" / "guide" / "activations.md"


def test_the_python_of_the_guide_runs_and_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = word_level(documents(0, 60))
    lm = LanguageModel(tiny("gpt2", vocab_size=tokenizer.vocab_size), tokenizer)
    before = [tensor.clone() for tensor in lm.model.state_dict().values()]
    monkeypatch.setattr(gpt2lab, "load", lambda name: lm, raising=False)
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    assert names["parts"].names[:2] == ("embed", "positions")
    assert lm.model.open_tap is None
    assert all(torch.equal(a, b) for a, b in zip(lm.model.state_dict().values(), before, strict=True))
