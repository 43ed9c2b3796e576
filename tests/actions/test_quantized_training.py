"""`train` with adapters beside rounded weights (QLoRA)."""

from pathlib import Path

import pytest
import torch

import gpt2lab
from gpt2lab.actions.train import train_model
from gpt2lab.base.errors import LabError
from gpt2lab.model.adapters import Lora
from gpt2lab.model.quantization import Quantized, dequantised, quantized_layers
from gpt2lab.runs.run import Run
from gpt2lab.runs.store import Store
from gpt2lab.studies.resume import resume
from gpt2lab.text.language_model import save
from tests.actions.small_runs import base as base
from tests.actions.small_runs import home as home
from tests.actions.small_runs import small
from tests.actions.small_runs import text as text

QLORA = {"quantize.bits": "4", "quantize.scheme": "nf4", "quantize.double_scales": "true", "lora.rank": "3"}


@pytest.fixture(scope="module")
def tuned(text: Path, home: Path, base: Run) -> Run:
    return train_model(small(text, model=str(base.folder / "model"), **QLORA), name="qlora", home=home)


def test_the_run_keeps_the_rounded_model_with_its_adapter(tuned: Run, base: Run) -> None:
    lm, before = gpt2lab.load(tuned.folder / "model"), gpt2lab.load(base.folder / "model")
    rounded, lora = lm.model.architectures
    assert rounded == Quantized(scheme="nf4", double_scales=True)
    assert isinstance(lora, Lora)
    exact = gpt2lab.apply("quantize", before, scheme="nf4", double_scales=True)
    for (_, ours), (_, theirs) in zip(quantized_layers(lm.model), quantized_layers(exact.model), strict=True):
        assert torch.equal(ours.codes, theirs.codes)
    assert gpt2lab.generate(lm, "the cat", max_new_tokens=4).tokens
    assert "--set quantize.scheme=nf4" in tuned.row.command
    assert "--set lora.rank=3" in tuned.row.command


def test_the_adapter_is_the_one_that_the_written_out_weights_would_have_learnt(
    tuned: Run, base: Run, text: Path, home: Path, tmp_path: Path
) -> None:
    rounded = gpt2lab.apply("quantize", gpt2lab.load(base.folder / "model"), scheme="nf4", double_scales=True)
    plain = gpt2lab.apply("dequantize", rounded)
    save(plain, tmp_path / "plain")
    settings = small(text, model=str(tmp_path / "plain"), **{"lora.rank": 3})
    run = train_model(settings, name="plain", home=home)
    ids = torch.tensor([[5, 9, 11, 2]])
    ours, theirs = (gpt2lab.load(folder / "model").model for folder in (tuned.folder, run.folder))
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(dequantised(ours)(ids), theirs(ids), rtol=1e-4, atol=1e-4)


def test_an_interrupted_run_ends_with_the_same_bits(
    tuned: Run, base: Run, text: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small(text, model=str(base.folder / "model"), **QLORA)
    log = Run.log
    with monkeypatch.context() as patch:

        def stopping(self: Run, step: int, **numbers: float) -> None:
            log(self, step, **numbers)
            if step >= 3:
                raise KeyboardInterrupt

        patch.setattr(Run, "log", stopping)
        with pytest.raises(KeyboardInterrupt, match="gpt2lab resume"):
            train_model(settings, name="stopped", home=home)
    again = resume(Store(home).find("stopped").id, home=home)
    for name in ("model.safetensors",):
        ours, theirs = ((run.folder / "model" / name).read_bytes() for run in (again, tuned))
        assert ours == theirs


def test_training_rounded_weights_alone_is_refused(base: Run, text: Path, home: Path, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"quantize: rounded weights cannot be trained; .*lora.rank=8"):
        small(text, model="x", **{"quantize.bits": 4})
    save(gpt2lab.apply("quantize", gpt2lab.load(base.folder / "model")), tmp_path / "rounded")
    with pytest.raises(LabError, match=r"the model is quantised, and rounded weights cannot be trained"):
        train_model(small(text, model=str(tmp_path / "rounded")), home=home)
    run = train_model(small(text, model=str(tmp_path / "rounded"), **{"lora.rank": 2}), home=home)
    assert gpt2lab.load(run.folder / "model").model.architectures[0] == Quantized()
