"""`gpt2lab train --data chats.jsonl` learns the assistant's answers alone, through the command line."""

import json
from pathlib import Path

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.cli import main
from gpt2lab.model.loss import IGNORE
from gpt2lab.text.language_model import load
from gpt2lab.training.answers import Answers
from tests.cli.conftest import SMALL

TEMPLATE = (
    "{% for m in messages %}{{ '<' + m.role + '>' }}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content + eos_token }}{% endgeneration %}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def _chat(question: str, answer: str) -> str:
    said = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": said})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPT2LAB_HOME", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chat.jsonl").write_text("\n".join(_chat(f"q {i}", f"a {i % 3}") for i in range(20)))
    (tmp_path / "own.jinja").write_text(TEMPLATE)
    return tmp_path / "runs"


def test_rows_of_messages_are_learnt_by_their_answers(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *SMALL, "--name", "base"]) == 0
    more = ["--model", "base-1", "--data", "chat.jsonl", "--steps", "2", "--set", "valid_fraction=0.2"]
    assert main(["train", *more, "--name", "none"]) == 2
    assert "its folder holds no chat template; give a file of your own" in capsys.readouterr().err
    own = ["--set", "objective_options.template=own.jinja"]
    assert main(["train", *more, *own, "--name", "first"]) == 0
    results = json.loads((home / "first-1" / "results.json").read_text())
    assert (results["rows"], results["validation_rows"], results["dropped"]) == (16, 4, 0)
    assert (home / "first-1" / "model" / "chat_template.jinja").read_text() == TEMPLATE
    more[1] = "first-1"
    assert main(["train", *more, "--name", "again"]) == 0, "rows of messages are known by themselves"
    assert json.loads((home / "again-1" / "settings.json").read_text())["objective"] == "answers"
    lm = load(home / "again-1" / "model")
    sizes = {"batch_size": 4, "context": 64, "valid_fraction": 0.2, "seed": 0}
    rows = Answers().read_rows(["chat.jsonl"], lm, **sizes)
    assert lm.tokenizer is not None and lm.tokenizer.eos is not None
    for batch in [rows.batches[0], *rows.validation]:
        learnt = [row[row != IGNORE].tolist() for row in batch["targets"]]
        assert all(ids[-1] == lm.tokenizer.eos for ids in learnt)
        assert {lm.tokenizer.decode(ids) for ids in learnt} <= {"a 0", "a 1", "a 2"}
    loss, _ = Answers()(lm.model, rows.batches[0])
    logits = lm.model(rows.batches[0]["tokens"]).double().log_softmax(-1)
    there = rows.batches[0]["targets"] != IGNORE
    slow = -logits[there].gather(-1, rows.batches[0]["targets"][there][:, None]).mean()
    torch.testing.assert_close(loss.double(), slow, rtol=1e-5, atol=0)


def test_a_chat_that_the_template_refuses_is_named_with_its_line(home: Path, tmp_path: Path) -> None:
    assert main(["train", *SMALL, "--name", "base"]) == 0
    (tmp_path / "own.jinja").write_text("{{ raise_exception('no system') if messages[0].role == 'system' }}x")
    line = json.dumps({"messages": [{"role": "system", "content": "s"}]})
    (tmp_path / "chat.jsonl").write_text(_chat("q", "a") + "\n" + line)
    with pytest.raises(LabError, match=r"chat.jsonl, line 2: the chat template refuses this chat: no system"):
        Answers(template="own.jinja").read_rows(
            ["chat.jsonl"],
            load(home / "base-1" / "model"),
            batch_size=1,
            context=8,
            valid_fraction=0.5,
            seed=0,
        )
