import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from gpt2lab.base.errors import LabError
from gpt2lab.base.registry import part
from gpt2lab.decode.greedy import Greedy
from gpt2lab.decode.interface import Limits
from gpt2lab.model import Transformer, load_model, save_model
from gpt2lab.model.adapters import Lora
from gpt2lab.model.architecture import attach
from gpt2lab.model.checkpoints.native import named_tensors
from gpt2lab.model.experts import MixtureOfExperts
from gpt2lab.model.quantization import (
    Dequantize,
    Quantized,
    QuantizedExperts,
    QuantizedLinear,
    dequantised,
    quantized_layers,
    refuse_full_training,
)
from gpt2lab.training import default_objective
from tests.tiny import CAUSAL, CONFIGS, tiny, tokens

HOW = {
    "int8": {"bits": 8},
    "int4": {},
    "qlora": {"scheme": "nf4", "double_scales": True},
    "all": {"layers": ("*",), "group": 9},
    "int3": {"bits": 3, "layers": ("*",), "group": 9},
    "uint8": {"bits": 8, "scheme": "asymmetric", "group": 16},
}


@dataclass
class Holder:
    model: Transformer


def small(family: str, how: str = "int4", **changes: object) -> Transformer:
    return attach(tiny(family, **changes), Quantized(**HOW[how]))


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("how", HOW)
@torch.no_grad()
def test_every_family_computes_with_the_rounded_weights(family: str, how: str, tmp_path: Path) -> None:
    exact, model = tiny(family), small(family, how)
    ids = tokens(2, 9)
    written_out = dequantised(model)
    assert torch.equal(model(ids), written_out(ids))
    assert 0 < (model(ids) - exact(ids)).norm() < (1.2 if how == "int3" else 0.6) * exact(ids).norm()
    assert model.count_parameters() == exact.count_parameters()
    assert not written_out.architectures
    assert {n: t.shape for n, t in named_tensors(written_out).items()} == {
        n: t.shape for n, t in named_tensors(exact).items()
    }
    save_model(model, tmp_path / "model")
    again = load_model(tmp_path / "model")
    assert torch.equal(again(ids), model(ids))
    assert again.architectures == model.architectures == (Quantized(**HOW[how]),)
    for name, tensor in named_tensors(again).items():
        assert torch.equal(tensor, named_tensors(model)[name])
        assert tensor.dtype is named_tensors(model)[name].dtype
    save_model(written_out, tmp_path / "plain", layout="huggingface")
    assert torch.equal(load_model(tmp_path / "plain")(ids), model(ids))


@pytest.mark.parametrize("family", CAUSAL)
def test_generation_is_the_same_after_reload(family: str, tmp_path: Path) -> None:
    model, prompts, limits = small(family, "all"), [[5, 9, 11], [7]], Limits(max_new_tokens=12)
    save_model(model, tmp_path / "model")
    wanted = Greedy().decode(model, prompts, limits).tokens
    assert Greedy().decode(load_model(tmp_path / "model"), prompts, limits).tokens == wanted
    assert Greedy().decode(dequantised(model), prompts, limits).tokens == wanted


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7])
def test_the_file_holds_so_many_bits_a_weight(bits: int, tmp_path: Path) -> None:
    model = tiny("gpt2", d_model=192)
    save_model(model, tmp_path / "plain")
    save_model(attach(model, Quantized(bits=bits, layers=("*",))), tmp_path / "model")  # type: ignore[arg-type]
    plain, rounded = ((tmp_path / n / "model.safetensors").stat().st_size for n in ("plain", "model"))
    assert rounded < plain * (bits + 0.34 + 1.0) / 32  # biases, norms and positions stay float32
    content = json.loads((tmp_path / "model" / "config.json").read_text())["gpt2lab"]
    assert [row["name"] for row in content["architectures"]] == ["quantized"]


@torch.no_grad()
def test_bfloat16_keeps_codes_and_scales(tmp_path: Path) -> None:
    model, ids = small("llama", "qlora"), tokens(2, 9)
    exact = model(ids)
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model", dtype=torch.bfloat16)
    moved = model.to(torch.bfloat16)
    assert loaded.dtype is moved.dtype is torch.bfloat16
    assert torch.equal(loaded(ids), moved(ids))
    assert loaded(ids).dtype is torch.bfloat16
    assert (loaded(ids) - exact).norm() < 0.03 * exact.norm()
    for name, layer in quantized_layers(loaded):
        assert torch.equal(layer.dequantise(), model.get_submodule(name).dequantise())
    assert dequantised(loaded).blocks[0].mlp.up.weight.dtype is torch.bfloat16


@torch.no_grad()
def test_a_bfloat16_table_gives_bfloat16_states() -> None:
    model = small("gpt2", "all").to(torch.bfloat16)
    assert model(tokens(2, 5)).dtype is torch.bfloat16


def test_a_tied_head_is_rounded_with_its_table_and_tied_again() -> None:
    for layers in (("head",), ("embedding",), ("embedding", "head")):
        model = attach(tiny("gpt2"), Quantized(layers=layers))
        assert [name for name, _ in quantized_layers(model)] == ["embedding"]
        assert torch.equal(model.head.weight, model.embedding.weight)
        again = dequantised(model)
        assert again.head.weight is again.embedding.weight
    free = attach(tiny("gpt_neox"), Quantized(layers=("head",)))
    assert [name for name, _ in quantized_layers(free)] == ["head"]


def test_taps_read_a_quantised_model() -> None:
    model = small("gpt2")
    names = ["blocks.1.attn.hook_result", "blocks.2.mlp.hook_post"]
    for kind in (torch.float32, torch.bfloat16):
        with torch.no_grad(), model.to(kind).tap(read=names) as ours:
            model(tokens(2, 5))
        plain = dequantised(model)
        with torch.no_grad(), plain.tap(read=names) as theirs:
            plain(tokens(2, 5))
        for name in names:
            assert (ours[name] - theirs[name]).norm() <= 0.02 * theirs[name].norm()


@torch.no_grad()
def test_experts_are_rounded_and_routers_are_not(tmp_path: Path) -> None:
    model = attach(tiny("llama", n_experts=4), Quantized())
    kinds = {type(model.blocks[0].mlp.up), type(model.blocks[0].mlp.router)}
    assert isinstance(model.blocks[0].mlp, MixtureOfExperts)
    assert kinds == {QuantizedExperts, nn.Linear}
    assert model.count_parameters() == tiny("llama", n_experts=4).count_parameters()
    save_model(model, tmp_path / "model")
    ids = tokens(2, 9)
    assert torch.equal(load_model(tmp_path / "model")(ids), model(ids))
    assert torch.equal(dequantised(model)(ids), model(ids))


def loss_of(model: Transformer) -> torch.Tensor:
    batch = {"tokens": tokens(3, 12), "targets": tokens(3, 12, seed=1)}
    return default_objective(model.config)(model, batch)[0]


@pytest.mark.parametrize("how", ["qlora", "int3"])
@pytest.mark.parametrize("family", CONFIGS)
def test_adapters_on_a_rounded_base_get_the_gradient_of_the_written_out_one(family: str, how: str) -> None:
    model = small(family, how).double()
    plain = dequantised(model)
    grads = []
    for base in (model, plain):
        attach(base, Lora(rank=3), generator=torch.Generator().manual_seed(5)).double()
        trained = {n: p for n, p in base.named_parameters() if p.requires_grad}
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in trained.values():
                parameter.add_(
                    torch.randn(parameter.shape, generator=generator, dtype=torch.float64), alpha=0.1
                )
        base.train()
        loss_of(base).backward()
        grads.append({name: parameter.grad for name, parameter in trained.items()})
    assert grads[0].keys() == grads[1].keys()
    for name, gradient in grads[0].items():
        torch.testing.assert_close(gradient, grads[1][name], rtol=0, atol=1e-10)
        assert gradient.any()


def test_an_adapter_on_a_rounded_base_learns_with_checkpointing_and_bf16(tmp_path: Path) -> None:
    model = attach(small("gpt2", "qlora"), Lora(rank=4))
    codes = {name: layer.codes.clone() for name, layer in quantized_layers(model)}
    refuse_full_training(model)
    model.train()
    model.gradient_checkpointing = True
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(25):
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5
    assert all(torch.equal(layer.codes, codes[name]) for name, layer in quantized_layers(model))
    save_model(model.eval(), tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "model")(tokens(2, 5)), model(tokens(2, 5)))


def test_rounded_weights_alone_are_not_trained() -> None:
    with pytest.raises(
        LabError, match=r"cannot be trained; train an adapter beside them \(--set lora.rank=8\)"
    ):
        refuse_full_training(small("gpt2"))
    refuse_full_training(tiny("gpt2"))


def test_the_model_that_is_written_out_stays_as_it_is() -> None:
    lm = Holder(small("gpt2"))
    before = {name: tensor.clone() for name, tensor in named_tensors(lm.model).items()}
    ordinary = Dequantize()(lm)
    assert type(ordinary.model.blocks[0].mlp.up) is nn.Linear
    assert type(lm.model.blocks[0].mlp.up) is QuantizedLinear
    assert all(torch.equal(t, before[name]) for name, t in named_tensors(lm.model).items())


def test_transformers_layout_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(
        LabError, match=r"no place for what the architecture quantized.*apply dequantize MODEL"
    ):
        save_model(small("gpt2"), tmp_path / "model", layout="huggingface")


def test_mistakes_are_refused() -> None:
    with pytest.raises(LabError, match="quantised already"):
        attach(small("gpt2"), Quantized())
    with pytest.raises(LabError, match="not quantised"):
        Dequantize()(Holder(tiny("gpt2")))
    with pytest.raises(LabError, match=r"layers: block.* stands for no matrix"):
        attach(tiny("gpt2"), Quantized(layers=("block.*",)))
    with pytest.raises(LabError, match="nothing is left"):
        attach(tiny("gpt2"), Quantized(exclude=("*",)))
    sick = tiny("gpt2")
    with torch.no_grad():
        sick.blocks[1].mlp.up.weight[0, 0] = float("nan")
    with pytest.raises(LabError, match=r"blocks.1.mlp.up: the weight holds NaN"):
        attach(sick, Quantized())
    assert type(sick.blocks[0].attention.qkv) is nn.Linear


def test_the_parts_are_found_by_name() -> None:
    assert part("architecture", "quantized") is Quantized
    assert part("transform", "dequantize") is Dequantize
