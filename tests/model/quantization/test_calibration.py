"""GPTQ on whole models: which inputs each matrix is rounded for, and what that gains."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer, load_model, save_model
from gpt2lab.model.architecture import attach
from gpt2lab.model.matrices import forms, matrices
from gpt2lab.model.quantization import (
    GPTQ,
    Quantized,
    QuantizedLinear,
    calibrate,
    dequantised,
    quantized_layers,
)
from gpt2lab.model.quantization.gptq import add_inputs
from gpt2lab.model.soft_prompt import SoftPrompt
from gpt2lab.text.language_model import LanguageModel, load
from tests.tiny import CONFIGS, tiny, tokens

HOW = Quantized(bits=3, group=8)


def given_to(model: Transformer, name: str, batches: list[Tensor]) -> list[Tensor]:
    """What the layer `name` of a model is given for each batch of a text, [tokens, columns]."""
    found: list[Tensor] = []
    hook = model.get_submodule(name).register_forward_pre_hook(
        lambda _, given: found.append(given[0].detach())
    )
    with torch.no_grad():
        for ids in batches:
            model.hidden(ids)
    hook.remove()
    return [x.flatten(0, -2) for x in found]


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "bert"])
def test_each_block_is_rounded_for_what_the_rounded_blocks_before_it_hand_on(family: str) -> None:
    exact, batches = tiny(family), [tokens(3, 20), tokens(2, 20, seed=1)]
    model = calibrate(copy.deepcopy(exact), HOW, batches)
    assert model.architectures == (HOW,)
    names = [name for name, _ in quantized_layers(model)]
    half = copy.deepcopy(exact)  # blocks before i are rounded, block i is not
    for i in range(exact.config.n_layers):
        own = [name for name in names if name.startswith(f"blocks.{i}.")]
        made = {}
        for name in own:
            linear = half.get_submodule(name)
            hessian = torch.zeros(linear.in_features, linear.in_features, dtype=torch.float64)
            for x in given_to(half, name, batches):
                add_inputs(hessian, x)
            made[name] = QuantizedLinear.of(linear, HOW, forms(exact)[name], GPTQ().rounding([hessian]))
            assert torch.equal(made[name].codes, model.get_submodule(name).codes), name
        for name, layer in made.items():
            half.set_submodule(name, layer)


@pytest.mark.parametrize("family", CONFIGS)
def test_every_family_is_saved_with_its_codes(family: str, tmp_path: Path) -> None:
    how = Quantized(bits=5, layers=("*",), group=9)
    model = calibrate(tiny(family), how, [tokens(2, 30)])
    nearest, ids = attach(tiny(family), how), tokens(2, 9)
    save_model(model, tmp_path / "model")
    again = load_model(tmp_path / "model")
    with torch.no_grad():
        states = model.hidden(ids)
        assert torch.equal(again.hidden(ids), states)
        assert torch.equal(dequantised(model).hidden(ids), states)
    ours, theirs = dict(quantized_layers(model)), dict(quantized_layers(nearest))
    assert ours.keys() == theirs.keys()
    assert torch.equal(ours["embedding"].codes, theirs["embedding"].codes)  # outside of the blocks: no inputs
    assert not torch.equal(ours["blocks.2.mlp.down"].codes, theirs["blocks.2.mlp.down"].codes)
    assert not model.training and not any(module._forward_pre_hooks for module in model.modules())


def test_each_expert_is_rounded_for_its_own_rows() -> None:
    exact = tiny("llama", n_experts=4)
    ids = tokens(1, 1)  # too few for all experts to get one
    model = calibrate(copy.deepcopy(exact), HOW, [ids])
    nearest = attach(copy.deepcopy(exact), HOW)
    up, plain = model.blocks[0].mlp.up, nearest.blocks[0].mlp.up
    counts: list[list[int]] = []
    hook = exact.blocks[0].mlp.up.register_forward_pre_hook(lambda _, given: counts.append(list(given[1])))
    # The router of the first block sees the same states: what is before it there is not rounded yet.
    with torch.no_grad():
        exact.hidden(ids)
    hook.remove()
    assert 0 in counts[0]
    for expert, count in enumerate(counts[0]):
        same = torch.equal(up.weight[expert], plain.weight[expert])
        assert same == (count == 0)


@pytest.fixture(scope="module")
def stories(shared_data: Path) -> LanguageModel:
    return load(shared_data / "models" / "stories260k-llama")


@pytest.fixture(scope="module")
def texts(stories: LanguageModel, shared_data: Path) -> list[Tensor]:
    whole = (shared_data / "tinystories" / "tinystories_sample.txt").read_text(encoding="utf-8")
    assert stories.tokenizer is not None
    ids = stories.tokenizer.encode(whole[:9_000].replace("<|endoftext|>", ""))
    return list(torch.tensor(ids[: len(ids) // 256 * 256]).view(-1, 256).split(4))


@pytest.mark.parametrize("bits", [2, 4])
def test_every_matrix_of_a_trained_model_errs_less_than_to_the_nearest_level(
    stories: LanguageModel, texts: list[Tensor], bits: int
) -> None:
    how = Quantized(bits=bits)  # type: ignore[arg-type]  # one of them
    model = calibrate(copy.deepcopy(stories.model), how, texts)
    nearest = attach(copy.deepcopy(stories.model), how)
    rows = [matrix for matrix in matrices(stories.model) if matrix.module.startswith("blocks.")]
    assert len(rows) == 35
    half = copy.deepcopy(stories.model).requires_grad_(False)
    layers, plain = dict(quantized_layers(model)), dict(quantized_layers(nearest))
    for i in range(len(half.blocks)):
        own = [matrix for matrix in rows if matrix.module.startswith(f"blocks.{i}.")]
        given = {name: torch.cat(given_to(half, name, texts)) for name in {matrix.module for matrix in own}}
        for matrix in own:
            x, exact = given[matrix.module], half.get_parameter(f"{matrix.module}.weight")
            ours, theirs = (
                float(((matrix.of(layer.dequantise()) - matrix.of(exact)) @ x.T).norm())
                for layer in (layers[matrix.module], plain[matrix.module])
            )
            assert ours < theirs, matrix.name
        for name in given:
            half.set_submodule(name, layers[name])


def test_what_cannot_be_calibrated_is_refused() -> None:
    with pytest.raises(LabError, match="gptq needs text"):
        calibrate(tiny("gpt2"), HOW, [])
    with pytest.raises(LabError, match="an architecture around the pass"):
        calibrate(attach(tiny("gpt2"), SoftPrompt()), HOW, [tokens(2, 5)])
    with pytest.raises(LabError, match="quantised already"):
        calibrate(attach(tiny("gpt2"), HOW), HOW, [tokens(2, 5)])
    with pytest.raises(LabError, match=r"blocks.0.attention.qkv: gptq needs whole steps"):
        calibrate(tiny("gpt2"), Quantized(scheme="nf4"), [tokens(2, 5)])
