"""Recorded answers: the same ones again, and nothing that was not asked."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.decode.backends import Recorded, Recorder
from gpt2lab.measures.lab_backend import LabBackend
from gpt2lab.model import Transformer, TransformerConfig
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import byte_level


@pytest.fixture(scope="module")
def backend() -> LabBackend:
    config = TransformerConfig(vocab_size=257, d_model=24, n_layers=1, n_heads=3, max_positions=64, bos=256)
    generator = torch.Generator().manual_seed(3)
    return LabBackend(lm=LanguageModel(Transformer(config, generator=generator).eval(), byte_level()))


def asked(backend: Any) -> tuple[Any, ...]:
    return (
        backend.generate(["a", "a", "b"], max_new_tokens=5, n=2, stop=("q",), logprobs=True),
        backend.generate(["a"], max_new_tokens=5, temperature=0),
        backend.score(["The", "A"], [[" cat", " dog"], [" b"]]),
    )


def test_what_was_recorded_is_told_again(backend: LabBackend, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    first = asked(Recorder(backend=backend, path=path))
    recorded = Recorded(path=path)
    assert asked(recorded) == first == asked(backend)
    assert recorded.name == backend.name
    more = Recorder(backend=backend, path=path)  # goes on with the file
    more.generate(["c"], max_new_tokens=2)
    assert asked(Recorded(path=path)) == first
    assert Recorded(path=path).generate(["c"], max_new_tokens=2) == backend.generate(["c"], max_new_tokens=2)


def test_what_was_not_recorded_is_refused(backend: LabBackend, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    asked(Recorder(backend=backend, path=path))
    recorded = Recorded(path=path)
    for settings in ({"max_new_tokens": 6}, {"max_new_tokens": 5, "seed": 1}):
        with pytest.raises(LabError, match="no answer to the prompt 'a' with these settings"):
            recorded.generate(["a"], temperature=0.0, **settings)
    with pytest.raises(LabError, match="no answer to the context 'The'"):
        recorded.score(["The"], [[" cat"]])


def test_a_file_of_somebody_else_is_refused(backend: LabBackend, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    asked(Recorder(backend=backend, path=path))
    head, *lines = path.read_text().splitlines()
    content = json.loads(head)
    for bad, message in [
        ("", "no recorded answers"),
        ("3\n", "no recorded answers"),
        ("{", "not JSON|no JSON|cut off"),
        (json.dumps({**content, "version": 9}), "version 9, and 1 is known"),
        (head + "\n[]\n", "without request and answer"),
    ]:
        path.write_text(bad)
        with pytest.raises(LabError, match=message):
            Recorded(path=path)
    request = json.loads(lines[-1])["request"]
    for answer in (3, [3], [{"logprob": "x", "tokens": 1, "likeliest": True}], []):
        path.write_text(head + "\n" + json.dumps({"request": request, "answer": answer}) + "\n")
        with pytest.raises(LabError, match=r"damaged|an answer"):
            Recorded(path=path).score(["A"], [[" b"]])
    path.write_text(json.dumps({**content, "name": "another"}) + "\n")
    with pytest.raises(LabError, match="holds answers of another"):
        Recorder(backend=backend, path=path)
