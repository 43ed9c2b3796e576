"""Measures that need only text, of a model of the lab and of a server with the same model: the same numbers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.cli import main
from gpt2lab.decode.backends import Recorded, Recorder, Server
from gpt2lab.measures.choice import MultipleChoice
from gpt2lab.measures.cloze import Cloze
from gpt2lab.measures.text_statistics import TextStatistics
from gpt2lab.model import Transformer, TransformerConfig
from gpt2lab.runs.store import Store
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import byte_level
from tests.decode.backends.server_for_tests import TestServer, completions, serving

QUESTIONS = [
    {"question": "A cat says", "choices": ["moo", "meow", "woof"], "answer": 1},
    {"question": "Grass is", "choices": ["green", "red"], "answer": "green"},
    {"question": "Grass is", "choices": ["grey", "great"], "answer": 0},
]
PASSAGES = ["The dog ran to the house", "She ate an apple", "He went home"]


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    config = TransformerConfig(
        vocab_size=257, d_model=24, n_layers=2, n_heads=3, max_positions=400, init_std=0.3, bos=256
    )
    model = Transformer(config, generator=torch.Generator().manual_seed(3)).eval()
    unprintable = tuple(i for i in range(257) if not 32 <= i < 127)
    said = json.dumps({"suppress_tokens": unprintable}).encode()
    return LanguageModel(model, byte_level(), side_files={"generation_config.json": said})


@pytest.fixture(scope="module")
def server(lm: LanguageModel) -> Iterator[TestServer]:
    with serving(completions(lm)) as running:
        yield running


@pytest.fixture
def backend(server: TestServer) -> Server:
    return Server(address=server.address, model="tiny", pause=0.01)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPT2LAB_HOME", str(tmp_path / "runs"))
    return tmp_path / "runs"


def questions(folder: Path) -> Path:
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    return path


def passages(folder: Path) -> str:
    path = folder / "passages.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in PASSAGES))
    return str(path)


def test_multiple_choice_is_the_same_behind_a_server(
    lm: LanguageModel, backend: Server, tmp_path: Path
) -> None:
    measure = MultipleChoice(data=questions(tmp_path))
    ours, theirs = measure(lm), measure(backend)
    assert dict(theirs.numbers) == pytest.approx(dict(ours.numbers), abs=1e-4)
    assert [row["chosen"] for row in theirs.tables["questions"]] == [
        row["chosen"] for row in ours.tables["questions"]
    ]
    assert theirs.about["back_end"] == backend.name and "back_end" not in ours.about
    with pytest.raises(LabError, match="bos cannot be put before them"):
        MultipleChoice(data=measure.data, bos=True)(backend)


def test_cloze_is_the_same_behind_a_server_but_for_the_loose_rule(
    lm: LanguageModel, backend: Server, tmp_path: Path
) -> None:
    measure = Cloze(data=(passages(tmp_path),))
    ours, theirs = measure(lm), measure(backend)
    expected = {name: value for name, value in ours.numbers.items() if name != "last_token_accuracy"}
    assert dict(theirs.numbers) == pytest.approx(expected, rel=1e-3)
    assert theirs.units.keys() <= theirs.numbers.keys()
    assert [row["loss"] for row in theirs.tables["passages"]] == pytest.approx(
        [row["loss"] for row in ours.tables["passages"]], abs=1e-3
    )


def test_text_statistics_of_a_back_end_count_words(lm: LanguageModel, backend: Server) -> None:
    measure = TextStatistics(data=("tinyworld:12",), texts=4, prompt_tokens=5, new_tokens=6, decoder="greedy")
    found = measure(backend)
    assert found.about["lengths"] == "words"
    assert found.about["back_end"] == backend.name
    rows = found.tables["texts"]
    assert len(rows) == 4
    for row in rows:
        assert len(row["prompt"].split()) == 5 and len(row["real_text"].split()) == 6
        assert len(row["model"].split()) <= 6
    with pytest.raises(LabError, match="sampling or greedy, not beam"):
        TextStatistics(data=("tinyworld:12",), texts=4, prompt_tokens=5, new_tokens=6, decoder="beam")(
            backend
        )
    with pytest.raises(LabError, match="0 texts have 100005 words"):
        TextStatistics(data=("tinyworld:4",), prompt_tokens=5, new_tokens=100_000)(backend)


def test_recorded_answers_give_the_same_measurement(backend: Server, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    measures: list[Any] = [
        MultipleChoice(data=questions(tmp_path)),
        Cloze(data=(passages(tmp_path),)),
        TextStatistics(data=("tinyworld:12",), texts=3, prompt_tokens=5, new_tokens=4),
    ]
    first = [measure(Recorder(backend=backend, path=path)) for measure in measures]
    again = [measure(Recorded(path=path)) for measure in measures]
    assert [one.to_json() for one in again] == [one.to_json() for one in first]


def test_the_verb_takes_a_server_by_name_and_keeps_a_run(
    server: TestServer,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LAB_KEY", "sk-very-secret")
    data, answers = str(questions(tmp_path)), tmp_path / "answers.jsonl"
    named = f"openai:{server.address}?key=LAB_KEY&record={answers}#tiny"
    first = gpt2lab.measure("multiple-choice", named, data=data)
    again = gpt2lab.measure("multiple-choice", f"recorded:{answers}", data=data)
    assert again.to_json() == first.to_json()
    assert main(["measure", "multiple-choice", f"recorded:{answers}", "--data", data, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["numbers"]["accuracy"] == first["accuracy"]
    row = Store().find("multiple-choice-1")
    assert json.loads(row.settings)["model"] == named and row.numbers["accuracy"] == first["accuracy"]
    kept = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
    assert kept and not any(b"sk-very-secret" in content for content in [*kept, answers.read_bytes()])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("openai:", "by its address and its model"),
        ("openai:http://127.0.0.1:1/v1", "by its address and its model"),
        ("openai:#tiny", "by its address and its model"),
        ("openai:127.0.0.1#tiny", "the address of a server is needed"),
        ("openai:http://127.0.0.1:1/v1?kex=A#tiny", "kex.*key"),
        ("openai:http://127.0.0.1:1/v1?key=#tiny", "key is empty"),
        ("openai:http://127.0.0.1:1/v1?key#tiny", "is not NAME=VALUE"),
        ("openai:http://127.0.0.1:1/v1?key=NOT_SET#tiny", "NOT_SET holds no key"),
        ("recorded:/nowhere/a.jsonl", "a.jsonl"),
    ],
)
def test_a_wrong_name_of_a_back_end_is_one_sentence(model: str, message: str, home: Path) -> None:
    with pytest.raises(LabError, match=message):
        gpt2lab.measure("text-statistics", model)
    assert not Store().rows()


def test_a_measure_of_weights_refuses_a_back_end(backend: Server, home: Path) -> None:
    with pytest.raises(LabError, match="perplexity: reads a model's weights, which tiny at"):
        gpt2lab.measure("perplexity", backend)
    with pytest.raises(LabError, match="computes elsewhere; leave device and dtype out"):
        gpt2lab.measure("text-statistics", backend, device="cpu")
