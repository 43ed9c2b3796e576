"""The matrices of the published form: names, shapes and values against the files that transformers writes, every family."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import nn

from gpt2lab.model import Transformer, TransformerConfig, save_model
from gpt2lab.model.adapters import Lora, adapter_parameters, load_adapter, save_adapter
from gpt2lab.model.architecture import attach
from gpt2lab.model.checkpoints.families import CONSTRUCTORS, FAMILIES
from gpt2lab.model.matrices import Matrix, matrices, stacks
from gpt2lab.model.quantization import Quantized

MORE: dict[str, dict[str, object]] = {
    "gpt_neo": {"local_window": 5},
    "gpt_neox": {"n_heads": 3},
    "llama": {"n_kv_heads": 2, "d_mlp": 40},
    "mistral": {"n_kv_heads": 2, "d_mlp": 40},
    "mixtral": {"n_kv_heads": 2, "d_mlp": 40, "n_experts": 3},
    "qwen2": {"n_kv_heads": 1, "d_mlp": 40},
    "distilbert": {"d_mlp": 50},
}


def config_of(family: str, **changes: object) -> TransformerConfig:
    """A tiny configuration of a family, matrices of awkward shapes."""
    given = {"vocab_size": 61, "d_model": 24, "n_layers": 2, "n_heads": 4, "max_positions": 20}
    make: Callable[..., TransformerConfig] = CONSTRUCTORS[family]
    return make(**{**given, **MORE.get(family, {}), **changes})


def shaken(config: TransformerConfig) -> Transformer:
    model = Transformer(config, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model


def weight_of(model: nn.Module, matrix: Matrix) -> torch.Tensor:
    weight = model.get_submodule(matrix.module).weight
    assert isinstance(weight, torch.Tensor)
    return weight.detach()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_matrices_of_a_family_are_those_in_the_files_that_transformers_writes(
    family: str, tmp_path: Path
) -> None:
    ours = shaken(config_of(family))
    save_model(ours, tmp_path / "ours")
    theirs = getattr(transformers, FAMILIES[family].architecture).from_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    files = load_file(tmp_path / "theirs" / "model.safetensors")
    expected = {name: tensor for name, tensor in files.items() if tensor.dim() >= 2}
    found = {m.published.name: m.as_published(weight_of(ours, m)) for m in matrices(ours)}
    renamed = {FAMILIES[family].head_in_model: FAMILIES[family].head}
    assert {renamed.get(name, name) for name in expected} == set(found)
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[renamed.get(name, name)]), name


@pytest.mark.parametrize("family", FAMILIES)
def test_the_matrices_cover_every_weight_once(family: str) -> None:
    model = shaken(config_of(family))
    seen = {name: torch.zeros_like(p) for name, p in model.named_parameters() if p.dim() >= 2}
    for matrix in matrices(model):
        stored = seen[f"{matrix.module}.weight"]
        matrix.of(stored).add_(1)
        assert matrix.of(stored).shape == (matrix.rows.stop - matrix.rows.start, matrix.columns)
    assert all(bool((count == 1).all()) for count in seen.values())
    assert len({matrix.name for matrix in matrices(model)}) == len(matrices(model))


def test_queries_keys_and_values_are_one_where_the_family_has_them_so() -> None:
    one = {
        family for family in FAMILIES if not stacks(shaken(config_of(family)))["blocks.0.attention.qkv"].apart
    }
    assert one == {"gpt2", "gpt_neox"}
    names = {matrix.name for matrix in matrices(shaken(config_of("mixtral", n_layers=1)))}
    assert {"blocks.0.attention.qkv.k", "blocks.0.mlp.up.2.gate", "blocks.0.mlp.down.0"} <= names


def test_layers_that_are_rounded_or_adapted_hold_the_same_matrices() -> None:
    plain = shaken(config_of("mixtral"))
    expected = matrices(plain)
    assert matrices(attach(plain, Quantized(layers=("*",), exclude=()))) == expected
    adapted = attach(shaken(config_of("llama")), Lora(rank=2))
    assert matrices(adapted) == matrices(shaken(config_of("llama")))


def test_heads_and_widths_that_differ_by_layer_are_followed() -> None:
    model = shaken(config_of("llama", n_heads=(4, 2), d_head=6, d_mlp=(40, 12)))
    rows = {m.name: m.rows for m in matrices(model)}
    assert rows["blocks.0.attention.qkv.k"] == slice(24, 36)
    assert rows["blocks.1.attention.qkv.v"] == slice(24, 36)
    assert rows["blocks.1.mlp.up.up"] == slice(12, 24)


def test_a_form_that_no_file_has_is_still_taken_apart() -> None:
    model = shaken(config_of("gpt2", gated=True, n_experts=2))
    found = {m.name: m.published.name for m in matrices(model)}
    assert found["blocks.0.mlp.up.1.gate"] == ""
    assert found["blocks.0.attention.qkv"] == "transformer.h.0.attn.c_attn.weight"


@pytest.mark.parametrize("heads", [{"n_heads": 4, "n_kv_heads": 2}, {"n_heads": 2, "n_kv_heads": 1}])
def test_grouped_heads_that_no_file_of_the_family_has_are_rounded_and_adapted_as_they_are_stored(
    heads: dict[str, int], tmp_path: Path
) -> None:
    def model() -> Transformer:
        return shaken(config_of("gpt_neox", d_head=12, rotary_fraction=0.5, **heads))

    found = {m.name: m for m in matrices(model())}["blocks.0.attention.qkv"]
    weight = weight_of(model(), found)
    assert torch.equal(found.as_published(weight), weight)
    attach(model(), Quantized(scheme="nf4", bits=4))
    adapted = attach(model(), Lora(rank=2, targets=("q", "v")))
    with torch.no_grad():
        for matrix in adapter_parameters(adapted).values():
            matrix.fill_(0.3)
    save_adapter(adapted, tmp_path / "adapter", base="base")
    again = model()
    load_adapter(again, tmp_path / "adapter")
    ids = torch.tensor([[1, 2, 3, 4]])
    assert torch.equal(again.eval()(ids), adapted.eval()(ids))


def test_a_model_inside_another_module_keeps_its_own_familys_form() -> None:
    both = nn.ModuleDict({"teacher": shaken(config_of("gpt2")), "student": shaken(config_of("llama"))})
    apart = {path: stack.apart for path, stack in stacks(both).items()}
    assert not apart["teacher.blocks.0.attention.qkv"]
    assert apart["student.blocks.0.attention.qkv"]
    assert apart["student.blocks.1.mlp.up"]
