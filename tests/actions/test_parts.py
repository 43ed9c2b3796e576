"""train --architecture: attached to a new or a given model, resumed with it, saved with it."""

import json
import os
from pathlib import Path

import pytest
import torch

import gpt2lab
from gpt2lab.actions.train import train_model
from gpt2lab.actions.train_settings import TrainingSettings
from gpt2lab.base.errors import LabError
from gpt2lab.model.soft_prompt import SoftPrompt
from gpt2lab.studies.resume import resume
from tests.forked import run

SMALL = {
    "data": "tinyworld:60", "d_model": 16, "n_layers": 1, "n_heads": 2, "context": 16, "vocab_size": 280,
    "batch_size": 2, "evaluation_tokens": 64, "samples": 1, "device": "cpu", "steps": 4, "checkpoint_every": 2,
}  # fmt: skip
PROMPT = {
    "architecture": "soft-prompt",
    "architecture_options.length": "3",
    "architecture_options.freeze": "no",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPT2LAB_HOME", str(tmp_path / "runs"))


def test_a_new_model_gets_the_architecture_and_room_for_it() -> None:
    run = gpt2lab.train(**SMALL, **PROMPT)
    lm = gpt2lab.load(run.id)
    assert lm.model.architectures == (SoftPrompt(length=3, freeze=False),)
    assert (lm.config.max_positions, lm.model.context) == (19, 16)
    assert (lm.config.bos, lm.config.eos) == (lm.tokenizer.bos, lm.tokenizer.eos)
    assert "--set architecture=soft-prompt" in run.row.command
    assert gpt2lab.generate(lm, "Once", max_new_tokens=3).tokens


def test_a_given_model_gets_it_once_and_goes_on_training_with_it() -> None:
    base = gpt2lab.train(**SMALL, name="base")
    given = {
        name: value
        for name, value in SMALL.items()
        if name not in ("d_model", "n_layers", "n_heads", "vocab_size")
    }
    given |= {"model": base.id, "context": 12}
    frozen = {"architecture": "soft-prompt", "architecture_options.length": "4"}
    run = gpt2lab.train(**given, **frozen, name="tuned")
    before, after = gpt2lab.load(base.id).model, gpt2lab.load(run.id).model
    for name, parameter in before.named_parameters():
        assert torch.equal(parameter, after.get_parameter(name))
    again = gpt2lab.train(**given | {"model": run.id}, name="more")
    prompts = [gpt2lab.load(one.id).model.wrappers[0].weight for one in (run, again)]
    assert not torch.equal(*prompts)
    with pytest.raises(LabError, match="soft-prompt: the given model has one already"):
        gpt2lab.train(**given | {"model": run.id}, **frozen)
    with pytest.raises(LabError, match=r"context 14: .* has 12 positions"):
        gpt2lab.train(**given | {"context": 14}, **frozen)


def test_a_stopped_run_resumes_to_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpt2lab.training import loop

    whole = gpt2lab.train(**SMALL, **PROMPT, name="whole")
    save = loop._Loop.save

    def cut(self: loop._Loop) -> None:
        save(self)
        if self.result.steps == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop._Loop, "save", cut)
    with pytest.raises(KeyboardInterrupt, match="gpt2lab resume cut-1"):
        gpt2lab.train(**SMALL, **PROMPT, name="cut")
    monkeypatch.undo()
    monkeypatch.setenv("GPT2LAB_HOME", str(whole.store.home))
    done = resume("cut-1")
    files = [(run.folder / "model" / "model.safetensors").read_bytes() for run in (whole, done)]
    assert files[0] == files[1]


def test_mistakes_are_told_before_any_data_is_read() -> None:
    for message, settings in (
        ("soft-promt: no such architecture; did you mean soft-prompt", {"architecture": "soft-promt"}),
        (
            "architecture soft-prompt: no setting lenght; did you mean length",
            {"architecture": "soft-prompt", "architecture_options": {"lenght": "3"}},
        ),
        ("name the architecture", {"architecture_options": {"length": "3"}}),
    ):
        with pytest.raises(LabError, match=message):
            train_model(TrainingSettings(data=("no such file",), **settings))  # type: ignore[arg-type]  # as typed


def test_the_command_line_takes_it(tmp_path: Path) -> None:
    words = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in SMALL.items()
        if name not in ("evaluation_tokens", "samples", "checkpoint_every")
    ]
    words += ["--architecture", "soft-prompt", "--set", "architecture_options.length=2", "--json"]
    done = run("gpt2lab", "train", *words, environment=os.environ)
    assert done.returncode == 0, done.stderr
    config = json.loads((Path(json.loads(done.stdout)["model"]) / "config.json").read_text())
    assert config["gpt2lab"]["architectures"] == [
        {"name": "soft-prompt", "options": {"freeze": True, "length": 2}}
    ]
