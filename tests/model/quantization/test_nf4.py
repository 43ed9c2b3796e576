"""NF4 and double quantisation against the published rule, once more in float64: every code, every scale, every value."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer, load_model, save_model
from gpt2lab.model.architecture import attach
from gpt2lab.model.checkpoints.families import FAMILIES
from gpt2lab.model.matrices import Form, matrices
from gpt2lab.model.quantization import (
    NF4,
    Format,
    Quantized,
    QuantizedEmbedding,
    QuantizedExperts,
    QuantizedLinear,
    QuantizedMatrix,
)
from gpt2lab.model.quantization.codes import dequantise
from gpt2lab.model.quantization.nf4 import dynamic_map
from gpt2lab.model.quantization.rounding import quantise
from tests.model.quantization import reference
from tests.model.test_matrices import config_of, shaken, weight_of

LEVELS = np.array(NF4)
SHAPES = [(9, 48), (40, 64), (3, 128), (7, 33), (5, 65), (1, 33), (33, 1), (24, 12), (100, 200)]
PLAIN, DOUBLE = Format(scheme="nf4"), Format(scheme="nf4", double_scales=True)


def drawn(rows: int, columns: int, seed: int = 0) -> Tensor:
    """Weights with an outlier and a stretch of zeros longer than a block."""
    weight = 0.05 * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    flat = weight.view(-1)
    flat[3] = 1.0
    flat[70:210] = 0.0
    return weight


def nearly(found: Tensor, wanted: Any, near: float = 1e-6) -> bool:
    return np.allclose(found.double().numpy(), np.array(wanted), rtol=near, atol=0)


def test_the_levels_are_the_normal_distributions_quantiles() -> None:
    assert np.abs(reference.normal_float_4() - LEVELS).max() < 3e-7  # published from float32
    assert NF4[7] == 0.0
    assert NF4[0] == -1.0 == -NF4[-1]
    assert list(NF4) == sorted(NF4)


def test_the_dynamic_map_has_seven_decades_of_each_sign() -> None:
    found = dynamic_map(torch.device("cpu"))
    assert len(found) == 256
    assert nearly(found, reference.dynamic_map(), 1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("block", [64, 16])
def test_codes_absmax_and_values_are_those_of_the_published_rule(shape: tuple[int, int], block: int) -> None:
    how, weight = Format(scheme="nf4", group=block), drawn(*shape)
    stored = quantise(weight, how)
    codes, absmax, values = reference.normal_floats(weight.double().numpy(), LEVELS, block)
    assert stored["codes"].tolist() == reference.two_in_a_byte(codes)
    assert stored["scales"].dtype is torch.float32
    assert stored["scales"].tolist() == absmax
    assert nearly(dequantise(stored, how, shape[1], Form((shape[0],))), values)


@pytest.mark.parametrize("shape", [(40, 64), (100, 200), (7, 33), (300, 640)])
def test_double_quantisation_is_that_of_the_published_rule(shape: tuple[int, int]) -> None:
    weight = drawn(*shape)
    stored = quantise(weight, DOUBLE)
    codes, absmax, _ = reference.normal_floats(weight.double().numpy(), LEVELS)
    assert stored["codes"].tolist() == reference.two_in_a_byte(codes)  # chosen for the exact absmax
    nested, seconds, mean, scales = reference.double_quantised(absmax)
    assert float(stored["scale_mean"]) == pytest.approx(mean, rel=1e-6)
    assert nearly(stored["scale_absmax"], seconds, 1e-5)
    differ = stored["scale_codes"].numpy() != np.array(nested)
    assert differ.mean() < 0.002  # float32 and float64 may part where two entries are as near
    found = dequantise(stored, DOUBLE, shape[1], Form((shape[0],))).double().numpy().reshape(-1)
    wanted = LEVELS[codes] * np.repeat(scales, 64)[: len(codes)]
    same = ~np.repeat(differ, 64)[: len(codes)]
    assert np.allclose(found[same], wanted[same], rtol=1e-5, atol=1e-8)


def test_of_two_levels_as_near_the_lower_one_is_taken_and_a_block_of_zeros_has_the_code_of_zero() -> None:
    halfway = (NF4[3] + NF4[4]) / 2
    weight = torch.tensor([[1.0, halfway, -halfway, 0.0]])
    assert quantise(weight, PLAIN)["codes"].tolist()[0] == 0xF0 + 3
    assert quantise(torch.zeros(1, 4), PLAIN)["codes"].tolist() == [0x77, 0x77]


@pytest.mark.parametrize("how", [PLAIN, DOUBLE])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_published_matrix_of_a_family_is_rounded_by_itself(family: str, how: Format) -> None:
    model = shaken(config_of(family, n_layers=1))
    before = {m.name: m.as_published(weight_of(model, m)).clone() for m in matrices(model)}
    options = Quantized(scheme="nf4", double_scales=how.double_scales, layers=("*",), exclude=())
    attach(model, options)
    rounded = [m for m in matrices(model) if isinstance(model.get_submodule(m.module), QuantizedMatrix)]
    assert len(rounded) > 4
    for matrix in rounded:
        weight = before[matrix.name]
        upright = weight.T if matrix.published.transposed else weight  # Conv1D is rounded as [out, in]
        form = Form((len(upright),))
        wanted = dequantise(quantise(upright, how), how, upright.shape[1], form)
        found = matrix.as_published(weight_of(model, matrix))
        assert torch.equal(found.T if matrix.published.transposed else found, wanted), matrix.name


def test_rows_and_experts_are_read_back_alone_whether_or_not_a_block_ends_with_them() -> None:
    for columns in (64, 192, 12, 33):
        table = nn.Embedding(31, columns)
        small = QuantizedEmbedding.of(table, PLAIN)
        ids = torch.tensor([3, 0, 30, 3])
        assert torch.equal(small(ids), small.dequantise()[ids])
        form = Form((5, 7, 5, 7))
        weight = drawn(24, columns)
        stored = quantise(weight, DOUBLE, form)
        whole = dequantise(stored, DOUBLE, columns, form)
        parts = [
            dequantise(quantise(part, DOUBLE), DOUBLE, columns, Form((len(part),)))
            for part in weight.split([5, 7, 5, 7])
        ]
        assert torch.equal(whole, torch.cat(parts))
        assert torch.equal(dequantise(stored, DOUBLE, columns, form, slice(5, 12)), parts[1])


def test_another_weight_keeps_the_form_and_a_layer_by_itself_is_one_matrix() -> None:
    form = Form((3, 5))
    layer = nn.Linear(12, 8)
    parted = QuantizedLinear.of(layer, PLAIN, form)
    again = parted.requantised(layer.weight.detach())
    assert again.form == form
    assert torch.equal(again.dequantise(), parted.dequantise())
    assert not torch.equal(parted.dequantise(), QuantizedLinear.of(layer, PLAIN).dequantise())
    assert QuantizedExperts(3, 4, 5, PLAIN).form == Form((5, 5, 5))


def test_a_file_of_the_earlier_layout_is_refused_with_what_to_do(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = attach(Transformer(config_of("llama")), Quantized(scheme="nf4"))
    save_model(model, tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    tensors = load_file(path)
    tensors["blocks.0.attention.out.codes"] = torch.zeros(24, 12, dtype=torch.uint8)
    tensors["blocks.0.attention.out.scales"] = torch.zeros(24, 1, dtype=torch.bfloat16)
    save_file(tensors, path)
    with pytest.raises(
        LabError, match=r"codes is .* \[24, 12\].*; quantise the model that it was made from again"
    ):
        load_model(tmp_path / "model")


@pytest.mark.parametrize("shape", [(192, 576), (7, 33), (100, 128), (2304, 768)])
def test_bitsandbytes_has_the_same_bits(shape: tuple[int, int]) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = drawn(*shape)
    for how in (PLAIN, DOUBLE):
        codes, state = functional.quantize_4bit(
            weight, blocksize=64, compress_statistics=how.double_scales, quant_type="nf4"
        )
        stored = quantise(weight, how)
        # Its CPU kernel leaves another code beside a last one without a partner.
        assert torch.equal(codes.flatten()[: weight.numel() // 2], stored["codes"][: weight.numel() // 2])
        if not how.double_scales:
            assert torch.equal(state.absmax, stored["scales"])
            found = dequantise(stored, how, shape[1], Form((shape[0],)))
            assert torch.equal(functional.dequantize_4bit(codes, state), found)
            continue
        assert torch.equal(state.state2.absmax, stored["scale_absmax"])
        assert torch.equal(state.offset.view(1), stored["scale_mean"])
        # Its CPU kernel now and then takes the second nearest entry of the map.
        centred = quantise(weight, PLAIN)["scales"].double() - stored["scale_mean"].double()
        ratio = centred / stored["scale_absmax"].double().repeat_interleave(256)[: len(centred)]
        entries = dynamic_map(torch.device("cpu")).double()
        ours, theirs = ((ratio - entries[one.int()]).abs() for one in (stored["scale_codes"], state.absmax))
        assert (ours <= theirs + 1e-6).all()
        assert (state.absmax != stored["scale_codes"]).float().mean() < 0.01
    assert torch.equal(functional.create_dynamic_map(), dynamic_map(torch.device("cpu")))
