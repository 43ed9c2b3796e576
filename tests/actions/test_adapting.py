"""`train` with an adapter: what is kept, that it opens everywhere, and that it resumes to the same bits."""

from pathlib import Path

import peft
import pytest
import torch
import transformers

import gpt2lab
from gpt2lab.actions.train import train_model
from gpt2lab.base.errors import LabError
from gpt2lab.model.adapters import adapter_parameters, adapters
from gpt2lab.runs.run import Run
from gpt2lab.runs.store import Store
from gpt2lab.studies.resume import resume
from tests.actions.small_runs import base as base
from tests.actions.small_runs import home as home
from tests.actions.small_runs import small
from tests.actions.small_runs import text as text

LORA = {
    "lora.rank": "3",
    "lora.targets": "q,v,down",
    "lora.dropout": "0.1",
    "lora.rank_pattern.blocks.*.mlp.down": "2",
}


@pytest.fixture(scope="module")
def tuned(text: Path, home: Path, base: Run) -> Run:
    return train_model(small(text, model=str(base.folder / "model"), **LORA), name="tuned", home=home)


def test_the_run_keeps_an_adapter_that_every_verb_opens(
    tuned: Run, base: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT2LAB_HOME", str(home))
    kept = {path.name for path in (tuned.folder / "model").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= kept
    assert not {"config.json", "model.safetensors"} & kept
    lm, plain = gpt2lab.load("tuned", device="cpu"), gpt2lab.load("base", device="cpu")
    (lora,) = adapters(lm.model).values()
    assert (lora.rank, lora.dropout) == (3, 0.1)
    assert adapter_parameters(lm.model)["blocks.1.mlp.down.adapters.default.all.A"].shape == (2, 48)
    count = sum(tensor.numel() for tensor in adapter_parameters(lm.model).values())
    assert tuned.results["parameters.trainable"] == count
    assert f"lora: {count:,} of" in (tuned.folder / "log.txt").read_text()
    state = plain.model.state_dict()
    for name, tensor in lm.model.state_dict().items():
        if ".adapters." not in name:
            assert torch.equal(tensor, state[name.replace(".base.", ".")])
    assert any(
        (tensor != 0).any() for name, tensor in adapter_parameters(lm.model).items() if name[-1] == "B"
    )
    text = gpt2lab.generate("tuned", "the old cat", max_new_tokens=3, device="cpu")
    assert text.text


def test_the_run_opens_in_peft_with_the_same_logits(tuned: Run, base: Run) -> None:
    theirs = transformers.AutoModelForCausalLM.from_pretrained(base.folder / "model")
    theirs = peft.PeftModel.from_pretrained(theirs, str(tuned.folder / "model")).eval()
    ids = torch.arange(12)[None]
    ours = gpt2lab.load(tuned.folder / "model", device="cpu").model(ids)
    assert (ours - theirs(input_ids=ids).logits).abs().max() < 1e-5


def test_merge_lora_makes_an_ordinary_model_of_it(tuned: Run) -> None:
    lm = gpt2lab.load(tuned.folder / "model", device="cpu")
    new = gpt2lab.apply("merge-lora", lm)
    ids = torch.arange(12)[None]
    assert (new.model(ids) - lm.model(ids)).abs().max() < 1e-5
    assert not new.model.architectures
    with pytest.raises(LabError, match="without adapters"):
        gpt2lab.apply("merge-lora", new)


def test_a_stopped_run_ends_with_the_same_bits(
    text: Path, home: Path, base: Run, tuned: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpt2lab.actions import train

    class Stop(Exception):
        pass

    def stopped(*_: object) -> None:
        raise Stop

    monkeypatch.setattr(
        train, "_keep_adapter", stopped
    )  # after the last checkpoint, before the model is saved
    with pytest.raises(Stop):
        train_model(small(text, model=str(base.folder / "model"), **LORA), name="again", home=home)
    monkeypatch.undo()
    row = Store(home).find("again")
    resume(row.id, home=home)
    files = [folder / "model" / "adapter_model.safetensors" for folder in (row.folder(home), tuned.folder)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_second_adapter_on_top_is_saved_as_a_whole_model(text: Path, home: Path, tuned: Run) -> None:
    settings = small(text, model=str(tuned.folder / "model"), **{"lora.name": "second", "lora.rank": "2"})
    run = train_model(settings, name="second", home=home)
    lm = gpt2lab.load(run.folder, device="cpu")
    assert list(adapters(lm.model)) == ["default", "second"]
    before = adapter_parameters(gpt2lab.load(tuned.folder, device="cpu").model)
    after = adapter_parameters(lm.model)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_the_command_repeats_the_adapter(tuned: Run) -> None:
    command = Store(tuned.store.home).find("tuned").command
    assert "--set lora.rank=3" in command
    assert "--set lora.targets=q,v,down" in command
    assert "--set 'lora.rank_pattern.blocks.*.mlp.down=2'" in command.replace("'=2", "=2'") or (
        "'lora.rank_pattern.blocks.*.mlp.down'=2" in command
    )


def test_mistakes_are_one_sentence(text: Path, home: Path, base: Run, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="give one with --model"):
        small(text, **{"lora.rank": 4})
    with pytest.raises(LabError, match=r"no setting lora.rnak; did you mean lora.rank"):
        small(text, model="x", **{"lora.rnak": 4})
    with pytest.raises(LabError, match="did you mean down"):
        train_model(small(text, model=str(base.folder / "model"), **{"lora.targets": "dwn"}), home=home)
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(LabError, match="does not name the base model"):
        gpt2lab.load(folder)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "./gone"}')
    with pytest.raises(
        LabError, match=r"the base model of this adapter cannot be had: ./gone: no such folder"
    ):
        gpt2lab.load(folder)


def test_a_base_beside_the_adapter_is_found_first(tuned: Run, base: Run, tmp_path: Path) -> None:
    lm = gpt2lab.load(tuned.folder, device="cpu")
    from gpt2lab.text.language_model import save, save_adapter

    save_adapter(lm, tmp_path / "adapter", base="base")
    save(gpt2lab.load(base.folder, device="cpu"), tmp_path / "adapter" / "base")
    ids = torch.arange(9)[None]
    assert torch.equal(gpt2lab.load(tmp_path / "adapter", device="cpu").model(ids), lm.model(ids))
