"""Neurons as vectors, edits that leave no trace, and files of activations."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer, save_model
from gpt2lab.model.interpret import (
    edited,
    load_activations,
    neuron_table,
    output_vectors,
    processed_unembed,
    save_activations,
)
from tests.model.interpret.models import model_of, post_norm
from tests.tiny import CONFIGS, tiny, tokens


@torch.no_grad()
@pytest.mark.parametrize("name", ["gpt2", "llama", "no norm"])
def test_the_neuron_table_is_that_of_the_formulas(name: str) -> None:
    model = model_of(name)
    table = neuron_table(model, 1, [5, 0, 17], top=4)
    head = processed_unembed(model).weight.double()
    for i, neuron in enumerate((5, 0, 17)):
        vector = model.blocks[1].mlp.down.weight[:, neuron].double()
        if model.config.norm == "layernorm":
            vector = vector - vector.mean()
        cosines = torch.stack([vector @ row / vector.norm() / row.norm() for row in head])
        assert table.norm[i] == pytest.approx(vector.norm().item(), rel=1e-5)
        assert table.cosine_variance[i] == pytest.approx(cosines.var().item(), rel=1e-4)
        assert table.entropy_score[i] == pytest.approx((vector.norm() / cosines.var()).item(), rel=1e-4)
        assert table.top_tokens[i].tolist() == (head @ vector).topk(4).indices.tolist()
    rows = table.rows(lambda token: f"<{token}>")
    assert [row["neuron"] for row in rows] == [5, 0, 17]
    assert rows[0]["top tokens"].startswith(f"'<{int(table.top_tokens[0, 0])}>'")
    ranked = neuron_table(model, 0, by_score=True)
    assert (ranked.entropy_score.diff() <= 0).all()
    assert sorted(ranked.neurons.tolist()) == list(range(model.config.layer(0).d_mlp))


@torch.no_grad()
def test_output_vectors_make_the_feed_forwards_output() -> None:
    model = model_of("llama")
    with model.tap(read=["blocks.2.mlp.hook_post", "blocks.2.hook_mlp_out"]) as seen:
        model(tokens(1, 5))
    expected = seen["blocks.2.mlp.hook_post"] @ output_vectors(model, 2)
    assert torch.allclose(expected, seen["blocks.2.hook_mlp_out"], atol=1e-6)
    with pytest.raises(LabError, match="no single output matrix"):
        output_vectors(model_of("experts"), 0)
    with pytest.raises(LabError, match="layers 0 to 2"):
        output_vectors(model, 3)
    with pytest.raises(LabError, match="neurons 0 to 39, got"):
        neuron_table(model, 0, [40])
    with pytest.raises(LabError, match="needs a pre-norm model"):
        neuron_table(post_norm(), 0)


def _bits(model: Transformer) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in model.state_dict().values()]


def _same(model: Transformer, before: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), before, strict=True))


@pytest.mark.parametrize("family", CONFIGS)
def test_every_weight_can_be_edited_under_the_name_in_its_familys_files(family: str, tmp_path: Path) -> None:
    """Each entry of their file, shifted by its own amount through `edited`, is what the saved file then holds."""
    from safetensors.torch import load_file

    model = tiny(family)
    before = _bits(model)
    save_model(model, tmp_path / "plain")
    theirs = load_file(tmp_path / "plain" / "model.safetensors")
    shifts = {name: torch.arange(tensor.numel()).view(tensor.shape) * 1e-3 for name, tensor in theirs.items()}
    names = [name for name in theirs if not (model.config.tied_head and "decoder" in name)]
    with edited(model, {name: lambda old, name=name: old + shifts[name] for name in names}) as same:
        assert same is model
        save_model(model, tmp_path / "edited")
    found = load_file(tmp_path / "edited" / "model.safetensors")
    for name in names:
        assert torch.equal(found[name], theirs[name] + shifts[name]), name
    assert _same(model, before)


def test_an_index_adds_and_a_tensor_replaces_under_either_name() -> None:
    model = tiny("gpt2")
    before = _bits(model)
    delta = torch.linspace(0, 1, 24)
    old = model.blocks[1].mlp.down.weight[:, 18].detach().clone()
    with edited(model, {"h.1.mlp.c_proj.weight": (18, delta), "transformer.ln_f.bias": torch.ones(24)}):
        assert torch.equal(model.blocks[1].mlp.down.weight[:, 18], old + delta)
        assert (model.final_norm.bias == 1).all()
        with edited(model, {"blocks.1.mlp.down.weight": ((slice(None), 18), delta)}):
            assert torch.equal(model.blocks[1].mlp.down.weight[:, 18], old + delta + delta)
        assert torch.equal(model.blocks[1].mlp.down.weight[:, 18], old + delta)
    assert _same(model, before)
    with edited(model, {"lm_head.weight": (3, delta)}):
        assert torch.equal(model.embedding.weight[3], before[0][3] + delta)
    assert _same(model, before)


def test_edits_restore_every_bit_also_after_errors_and_of_odd_values() -> None:
    model = tiny("llama").to(torch.bfloat16)
    with torch.no_grad():
        model.blocks[0].mlp.down.weight[0, :3] = torch.tensor([float("nan"), float("-inf"), -0.0])
    before = [tensor.view(torch.int16).clone() for tensor in model.state_dict().values()]
    names = {name: lambda old: old * 1.37 for name, _ in model.named_parameters()}
    with pytest.raises(ZeroDivisionError), edited(model, names):
        1 / 0
    misspelt = {**names, "blocks.0.mlp.upp.weight": torch.zeros(1)}
    with pytest.raises(LabError, match=r"did you mean blocks\.0\.mlp\.up\.weight"), edited(model, misspelt):
        pass
    for change, match in (
        (torch.zeros(2, dtype=torch.bfloat16), r"the new model.norm.weight is torch.bfloat16 \[2\]"),
        (torch.zeros(24), "is torch.float32"),
        ((99, 1.0), r"which is \[24\]"),
        ((0, torch.zeros(())), "is torch.float32"),
        (lambda old: None, "is NoneType"),
    ):
        with pytest.raises(LabError, match=match), edited(model, {"model.norm.weight": change}):
            pass
    after = [tensor.view(torch.int16) for tensor in model.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


@torch.no_grad()
def test_an_edited_model_computes_what_transformers_computes_after_the_same_edit(tmp_path: Path) -> None:
    model, ids = tiny("gpt2"), tokens(2, 6)
    save_model(model, tmp_path / "m")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "m").eval()
    delta = torch.randn(24, generator=torch.Generator().manual_seed(0))
    theirs.transformer.h[2].mlp.c_proj.weight[11] += delta
    with edited(model, {"h.2.mlp.c_proj.weight": (11, delta)}):
        assert torch.allclose(model(ids), theirs(ids).logits, atol=1e-5)


@torch.no_grad()
def test_saved_activations_come_back_with_their_types_and_their_origin(tmp_path: Path) -> None:
    model, ids = tiny("gpt2"), tokens(2, 5)
    with model.tap(read=["resid_post"]) as tap:
        model(ids)
    tensors = {
        "resid_post": tap["resid_post"],
        "rounded": tap["resid_post"].to(torch.bfloat16),
        "ids": ids,
        "one": torch.tensor(3.5, dtype=torch.float64),
    }
    path = tmp_path / "some" / "a.npz"
    save_activations(path, tensors, model=model, tokens=ids, about={"prompt": "Grüße"})
    found = load_activations(path, model=model, tokens=ids)
    for name, tensor in tensors.items():
        assert found.tensors[name].dtype is tensor.dtype
        assert torch.equal(found.tensors[name], tensor)
    assert found.header["sites"] == list(tensors)
    assert found.header["about"] == {"prompt": "Grüße"}
    with np.load(path, allow_pickle=False) as plain:  # anybody's numpy reads it
        assert json.loads(bytes(plain["header.json"]).decode())["dtypes"]["rounded"] == "bfloat16"
    with pytest.raises(LabError, match="come from other tokens"):
        load_activations(path, tokens=ids[:, :4])
    model.blocks[0].norm1.weight[3] = torch.nextafter(model.blocks[0].norm1.weight[3], torch.tensor(9.0))
    with pytest.raises(LabError, match="come from another model"):
        load_activations(path, model=model)


def test_files_that_are_no_activations_are_refused(tmp_path: Path) -> None:
    model, ids = tiny("gpt2"), tokens(1, 2)
    with pytest.raises(LabError, match="no such file"):
        load_activations(tmp_path / "none.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 not a zip")
    np.savez(tmp_path / "foreign.npz", a=np.zeros(3))
    np.savez(tmp_path / "pickled.npz", **{"header.json": np.array([{}], dtype=object)})
    for name in ("broken", "foreign", "pickled"):
        with pytest.raises(LabError, match="not a file of activations"):
            load_activations(tmp_path / f"{name}.npz")
    with pytest.raises(LabError, match=r"saved as \.npz"):
        save_activations(tmp_path / "a.pt", {"x": torch.zeros(1)}, model=model, tokens=ids)
    with pytest.raises(LabError, match="nothing to save"):
        save_activations(tmp_path / "a.npz", {}, model=model, tokens=ids)
