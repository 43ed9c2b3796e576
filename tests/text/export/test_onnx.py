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
from gpt2lab.model.checkpoints.families import llama_config
from gpt2lab.model.rotary import RotaryScaling
from gpt2lab.text.export import export, onnx_file
from gpt2lab.text.language_model import LanguageModel
from tests.tiny import tiny, tokens


def run(path: Path, ids: Tensor, mask: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[0]


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "changes", "dtype"),
    [
        ("gpt_neo", {"n_layers": 1, "windows": (5,)}, torch.bfloat16),
        ("llama", {"n_layers": 1, "n_experts": 4}, torch.float32),
        ("gpt2", {"n_layers": 2, "attention_scale": (0.3, 0.15)}, torch.float32),
    ],
)
def test_logits_are_the_models_at_other_shapes_and_with_padding(family, changes, dtype, tmp_path) -> None:
    model, place = tiny(family, **changes).to(dtype).train(), tmp_path / "m.onnx"
    done = export(LanguageModel(model), "onnx", place)
    assert model.training and model.dtype == dtype  # as it was
    assert "no key/value cache" in done.notes[0]
    model.eval().float()
    onnx.checker.check_model(str(place))
    for batch, time in ((1, 1), (3, 17), (2, 40)):
        ids = tokens(batch, time, seed=time)
        mask = torch.ones_like(ids)
        if batch > 1:
            mask[0, :5], mask[1, 9:] = 0, 0
        expected = model(ids, attention_mask=mask)
        found = torch.from_numpy(run(place, ids, mask))
        assert found.shape == expected.shape
        assert (found - expected)[mask.bool()].abs().max() <= 1e-4 * expected.abs().max()
    assert onnx_file.is_onnx(place)
    model.embedding.weight.data[0] += (
        1  # the file no longer holds this model's numbers, and that is found out
    )
    with pytest.raises(LabError, match="logits differ from the model's by"):
        onnx_file._compare(model, place)


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
