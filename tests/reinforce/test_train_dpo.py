"""`gpt2lab train --objective dpo`: pairs from a file, validation, a saved model, resume to the bit, refusals."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import gpt2lab
from gpt2lab.actions.train import resume_training, train_model, training_settings
from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.reinforce.preference import DPO
from gpt2lab.runs.run import Run
from gpt2lab.runs.store import Store
from gpt2lab.text.language_model import LanguageModel, save
from gpt2lab.text.tokenizer import byte_level


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that has learnt nothing, and pairs in which the better answer is "good"."""
    folder, tokenizer = tmp_path_factory.mktemp("dpo"), byte_level()
    config = gpt2_config(
        vocab_size=tokenizer.vocab_size,
        d_model=32,
        n_layers=1,
        n_heads=2,
        max_positions=32,
        eos=tokenizer.eos,
    )
    model = Transformer(config, generator=torch.Generator().manual_seed(0))
    save(LanguageModel(model, tokenizer), folder / "base")
    rows = [{"prompt": f"Case {i}: ", "chosen": "good", "rejected": "bad"} for i in range(40)]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def _settings(place: Path, **changes: Any) -> Any:
    return training_settings(
        {
            "data": (str(place / "pairs.jsonl"),),
            "model": str(place / "base"),
            "objective": "dpo",
            "steps": 12,
            "learning_rate": 5e-3,
            "batch_size": 8,
            "valid_fraction": 0.2,
            "device": "cpu",
            "train.evaluate_every": 6,
            "train.checkpoint_every": 4,
            **changes,
        }
    )


def _weights(run: Run) -> list[torch.Tensor]:
    return list(gpt2lab.load(run.folder / "model").model.state_dict().values())


@pytest.mark.parametrize("lora", [{}, {"lora.rank": 4}])
def test_a_model_comes_to_prefer_the_better_answers_of_pairs_it_has_not_seen(
    place: Path, tmp_path: Path, lora: dict[str, int]
) -> None:
    run = train_model(_settings(place, **lora), name="dpo", home=tmp_path)
    assert run.results["before.validation_loss"] == pytest.approx(0.6931, abs=1e-4)
    assert run.results["before.validation_accuracy"] == 0.5
    assert run.results["validation_accuracy"] == 1.0
    assert run.results["validation_loss"] < 0.6
    assert (run.results["rows"], run.results["validation_rows"], run.results["dropped"]) == (32, 8, 0)
    assert "anchor" not in str(run.results)
    assert _weights(run)


def test_a_run_that_was_broken_off_keeps_its_reference_and_ends_with_the_same_bits(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_model(_settings(place), name="whole", home=tmp_path)
    calls, usual = 0, DPO.__call__

    def broken(self: DPO, model: Any, batch: Any, totals: Any = None) -> Any:
        nonlocal calls
        calls += model.training
        if calls == 7:
            raise KeyboardInterrupt
        return usual(self, model, batch, totals)

    with monkeypatch.context() as patch:
        patch.setattr(DPO, "__call__", broken)
        with pytest.raises(KeyboardInterrupt, match="gpt2lab resume cut-1"):
            train_model(_settings(place), name="cut", home=tmp_path)
    again = resume_training(Store(tmp_path).find("cut-1"), home=tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(_weights(whole), _weights(again), strict=True))
    assert again.results["validation_margin"] == whole.results["validation_margin"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "objective dpo: starts from a model that writes text already"),
        ({"objective_options.beta": "0"}, "beta must be positive"),
        ({"objective_options.bta": "1"}, "did you mean beta"),
        ({"samples": 2}, "samples would be ignored: this objective reads rows with fields of its own"),
        ({"field": "x"}, "field would be ignored"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_read(
    place: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(LabError, match=message):
        _settings(place, **changes)


def test_rows_without_their_fields_are_refused_by_file_and_line(place: Path, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"pairs\.jsonl, line 1: .*'better'"):
        train_model(_settings(place, **{"objective_options.chosen": "better"}), home=tmp_path)
