"""ONNX graphs against the model: other shapes than the traced one, padding on either side, what is refused."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.model.families import llama_config
from gpt2lab.model.rotary import RotaryScaling
from gpt2lab.text.export import export, onnx_file
from gpt2lab.text.language_model import LanguageModel
from tests.tiny import tiny, tokens


def run(path: Path, ids: Tensor, mask: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[0]


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "changes"),
    [("gpt_neo", {"n_layers": 1, "windows": (5,)}), ("llama", {"n_layers": 1, "n_experts": 4})],
)
def test_logits_are_the_models_at_other_shapes_and_with_padding(family, changes, tmp_path) -> None:
    model = tiny(family, **changes)
    model.train()
    done = export(LanguageModel(model), "onnx", tmp_path / "m.onnx")
    assert model.training  # as it was
    assert "no key/value cache" in done.notes[0]
    model.eval()
    onnx.checker.check_model(str(tmp_path / "m.onnx"))
    for batch, time in ((1, 1), (3, 17), (2, 40)):
        ids = tokens(batch, time, seed=time)
        mask = torch.ones_like(ids)
        if batch > 1:
            mask[0, :5], mask[1, 9:] = 0, 0
        expected = model(ids, attention_mask=mask)
        found = torch.from_numpy(run(tmp_path / "m.onnx", ids, mask))
        assert found.shape == expected.shape
        assert (found - expected)[mask.bool()].abs().max() <= 1e-4 * expected.abs().max()


def test_a_bf16_model_is_computed_in_float32_and_stays_as_it_is(tmp_path) -> None:
    model = tiny("gpt2", n_layers=1).bfloat16()
    export(LanguageModel(model), "onnx", tmp_path / "m.onnx")
    assert model.dtype == torch.bfloat16
    ids = tokens(2, 9)
    with torch.no_grad():
        expected = model.float()(ids)
    found = torch.from_numpy(run(tmp_path / "m.onnx", ids, torch.ones_like(ids)))
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert onnx_file.is_onnx(tmp_path / "m.onnx")
    model.embedding.weight.data[0, 0] += (
        1  # the file no longer holds this model's numbers, and that is found out
    )
    with pytest.raises(LabError, match="logits differ from the model's by"):
        onnx_file._compare(model, tmp_path / "m.onnx")


def test_what_a_graph_cannot_carry_is_refused_in_a_sentence(tmp_path, monkeypatch) -> None:
    dynamic = RotaryScaling(kind="dynamic", factor=2.0, original_positions=20)
    config = llama_config(vocab_size=61, d_model=24, n_layers=1, n_heads=2, rotary_scaling=dynamic)
    with pytest.raises(LabError, match="dynamic rotary scaling depends on the length"):
        export(LanguageModel(Transformer(config)), "onnx", tmp_path / "m.onnx")
    monkeypatch.setattr(onnx_file, "_LARGEST", 1000)
    with pytest.raises(LabError, match="a file holds at most"):
        export(LanguageModel(tiny("gpt2")), "onnx", tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_looks_at_values_cannot_be_traced(tmp_path) -> None:
    class Odd(Transformer):
        def unembed(self, hidden: Tensor) -> Tensor:
            return super().unembed(hidden * 2 if float(hidden.sum()) > 0 else hidden)

    with pytest.raises(LabError, match="this model cannot be traced"):
        export(LanguageModel(Odd(tiny("gpt2", n_layers=1).config)), "onnx", tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []
