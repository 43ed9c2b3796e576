"""Lens, decomposition and attribution against the equations, written slowly in float64."""

import pytest
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.model.adapters.lora import Lora
from gpt2lab.model.architecture import attach
from gpt2lab.model.backbone import Architecture
from gpt2lab.model.interpret import (
    ablate,
    decompose,
    direct_effect,
    dla,
    logit_bias,
    logit_lens,
    nmae,
    processed_unembed,
)
from gpt2lab.model.quantization.quantized import Quantized
from gpt2lab.model.soft_prompt import SoftPrompt
from tests.model.interpret.models import PRE_NORM, model_of, post_norm
from tests.tiny import tiny, tokens


@pytest.fixture(params=PRE_NORM)
def model(request: pytest.FixtureRequest) -> Transformer:
    return model_of(request.param)


def slow_logits(model: Transformer, x: Tensor) -> Tensor:
    """Final norm and head by their formulas, in float64."""
    x, norm = x.double(), model.final_norm
    if norm.kind == "layernorm":
        x = x - x.mean(-1, keepdim=True)
    if norm.kind != "none":
        x = x / (x.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight.double()
    if norm.kind == "layernorm":
        x = x + norm.bias.double()
    return x @ model.head.weight.double().T


@torch.no_grad()
def test_parts_sum_to_the_last_residual(model: Transformer) -> None:
    ids = tokens(2, 9)
    parts = decompose(model, ids)
    last = f"blocks.{model.config.n_layers - 1}.hook_resid_post"
    with model.tap(read=[last]) as seen:
        logits = model(ids)
    assert (parts.values.sum(0) - seen[last]).abs().max() <= 1e-5 * seen[last].abs().max()
    assert torch.allclose(parts.total, seen[last], atol=1e-5)
    assert torch.allclose(slow_logits(model, parts.values.sum(0)).float(), logits, atol=1e-4)
    config = model.config
    heads = sum(config.layer(i).n_heads for i in range(config.n_layers))
    biases = config.n_layers if config.attention_out_bias else 0
    learned = config.positions == "learned"
    assert len(parts.names) == 1 + learned + heads + biases + config.n_layers
    assert len(set(parts.names)) == len(parts.names)
    cut = decompose(model, ids, pos=slice(3, 5))
    assert torch.equal(cut.values, parts.values[:, :, 3:5])


@torch.no_grad()
def test_each_head_of_the_sum_is_the_one_named() -> None:
    model, ids = model_of("llama"), tokens(1, 5)
    parts = decompose(model, ids)
    with model.tap(read=["blocks.1.attn.hook_z", "blocks.2.hook_mlp_out"]) as seen:
        model(ids)
    weight = model.blocks[1].attention.out.weight
    by_hand = seen["blocks.1.attn.hook_z"][:, :, 4] @ weight[:, 16:20].T
    assert torch.allclose(parts["L1H4"], by_hand, atol=1e-6)
    assert torch.allclose(parts["L2 MLP"], seen["blocks.2.hook_mlp_out"], atol=1e-5)
    with pytest.raises(LabError, match="no part L9H0"):
        parts["L9H0"]


@torch.no_grad()
def test_padding_and_training_mode_do_not_change_the_parts() -> None:
    training = model_of("gpt2", training=True)
    training.blocks[1].eval()
    ids = tokens(2, 6)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    modes = [module.training for module in training.modules()]
    parts = decompose(training, ids, attention_mask=mask)
    assert [module.training for module in training.modules()] == modes
    alone = decompose(training, ids[:1, 2:])
    assert torch.allclose(parts.values[:, :1, 2:], alone.values, atol=1e-5)
    assert not parts.values.requires_grad


@torch.no_grad()
@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("centre", [True, False])
def test_the_processed_unembedding_gives_the_models_logits(
    model: Transformer, fold: bool, centre: bool
) -> None:
    ids = tokens(2, 6)
    parts = decompose(model, ids)
    head = processed_unembed(model, fold=fold, centre=centre)
    logits = model(ids).double()
    if fold:
        states = parts.total.double() / parts.scale.double()  # not centred: the folded weights see to it
    else:
        states = model.hidden(ids).double()
    found = states @ head.weight.double().T + head.bias.double()
    expected = logits - logits.mean(-1, keepdim=True) if centre else logits
    assert torch.allclose(found, expected, atol=1e-4)
    if centre:
        assert head.weight.mean(0).abs().max() < 1e-6


@torch.no_grad()
def test_the_lens_at_the_last_residual_gives_the_logits(model: Transformer) -> None:
    ids = tokens(2, 6)
    parts = decompose(model, ids)
    logits = model(ids)
    assert torch.allclose(logit_lens(model, parts.total), logits, atol=1e-5)
    assert torch.allclose(logit_lens(model, parts.total, norm="cached", scale=parts.scale), logits, atol=1e-4)
    own = logit_lens(model, parts.values)
    assert own.shape == (*parts.values.shape[:-1], 61)
    assert torch.allclose(own.double(), slow_logits(model, parts.values), atol=1e-4)


@torch.no_grad()
def test_an_open_tap_does_not_see_the_lens() -> None:
    model, ids = tiny("gpt2"), tokens(1, 4)
    with model.tap(read=["logits"]) as seen:
        logits = model(ids)
        logit_lens(model, torch.randn(3, 24))
    assert torch.equal(seen["logits"], logits)


@torch.no_grad()
def test_attributions_add_up_to_the_logit(model: Transformer) -> None:
    ids, targets, against = tokens(2, 6), tokens(2, 6, seed=1), tokens(2, 6, seed=2)
    parts, logits = decompose(model, ids), model(ids)
    one = dla(model, parts.values, targets, scale=parts.scale)
    assert one.shape == (len(parts.names), 2, 6)
    centred = (logits - logits.mean(-1, keepdim=True)).gather(-1, targets[..., None])[..., 0]
    assert torch.allclose(one.sum(0) + logit_bias(model, targets), centred, atol=1e-4)
    two = dla(model, parts.values, targets, scale=parts.scale, against=against)
    difference = (logits.gather(-1, targets[..., None]) - logits.gather(-1, against[..., None]))[..., 0]
    assert torch.allclose(two.sum(0) + logit_bias(model, targets, against), difference, atol=1e-4)


@torch.no_grad()
def test_the_direct_effect_is_the_fall_of_the_logit(model: Transformer) -> None:
    ids, targets = tokens(2, 5), tokens(2, 5, seed=1)
    parts = decompose(model, ids)
    found = direct_effect(model, parts.values, parts.total, targets)

    def logit(x: Tensor) -> Tensor:
        logits = slow_logits(model, x)
        return (logits - logits.mean(-1, keepdim=True)).gather(-1, targets[..., None])[..., 0]

    for part, effect in zip(parts.values, found, strict=True):
        assert torch.allclose(effect.double(), logit(parts.total) - logit(parts.total - part), atol=1e-4)
    direct = dla(model, parts.values, targets, scale=parts.scale)
    if model.config.norm == "none":
        assert nmae(direct, found) < 1e-3
    else:
        assert nmae(direct, found) > 1


def test_nmae_by_hand() -> None:
    direct, effect = torch.tensor([[1.0, 2.0], [0.0, -4.0]]), torch.tensor([[2.0, 2.0], [1.0, -5.0]])
    assert nmae(direct, effect) == pytest.approx(100 * 0.75 / 2.5)
    assert nmae(direct, effect, dim=0).tolist() == pytest.approx([100 * 1 / 1.5, 100 * 0.5 / 3.5])
    with pytest.raises(LabError, match="nmae"):
        nmae(direct, effect[0])


@torch.no_grad()
def test_ablating_all_heads_and_feed_forwards_leaves_the_embeddings_logits(model: Transformer) -> None:
    ids = tokens(2, 5)
    embedded = model.embed(ids)
    if model.config.positions == "learned":
        embedded = embedded + model.position_embedding.weight[:5]
    with ablate(model, "attn_out"), ablate(model, "mlp_out"):
        logits = model(ids)
    assert torch.allclose(logits.double(), slow_logits(model, embedded), atol=1e-5)


@torch.no_grad()
def test_bf16_models_decompose_too() -> None:
    model = model_of("gpt2").to(torch.bfloat16)
    parts = decompose(model, tokens(2, 5))
    assert parts.values.dtype is torch.bfloat16
    found = dla(model, parts.values, tokens(2, 5), scale=parts.scale)
    assert found.dtype is torch.float32
    assert found.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("architecture", [Lora(), Quantized(), SoftPrompt()])
def test_adapted_rounded_and_prompted_models_decompose_too(architecture: Architecture) -> None:
    model, ids = tiny("gpt2"), tokens(2, 5)
    attach(model, architecture)
    for name, parameter in model.named_parameters():
        if not name.startswith(("blocks.", "head", "embedding", "final")) or not parameter.any():
            parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    parts, logits = decompose(model, ids, pos=-1), model(ids)[:, -1:]
    targets = tokens(2, 1, seed=3)
    found = dla(model, parts.values, targets, scale=parts.scale).sum(0) + logit_bias(model, targets)
    centred = (logits - logits.mean(-1, keepdim=True)).gather(-1, targets[..., None])[..., 0]
    assert torch.allclose(found, centred, atol=1e-4)


def test_what_has_no_meaning_is_refused_in_one_sentence() -> None:
    bert, gpt2 = post_norm(), tiny("gpt2")
    with pytest.raises(LabError, match="decomposition of the residual needs a pre-norm model"):
        decompose(bert, tokens(1, 4))
    with pytest.raises(LabError, match="unembedding of the residual stream needs a pre-norm model"):
        processed_unembed(bert)
    assert logit_lens(bert, torch.randn(2, 24)).shape == (2, 61)
    with pytest.raises(LabError, match="needs scale"):
        logit_lens(gpt2, torch.randn(2, 24), norm="cached")
    with pytest.raises(LabError, match="finds its own"):
        logit_lens(gpt2, torch.randn(2, 24), scale=torch.ones(2, 1))
    with pytest.raises(LabError, match=r"states are \[..., 24\]"):
        logit_lens(gpt2, torch.randn(2, 5))
    with pytest.raises(LabError, match="targets run from 99"):
        dla(gpt2, torch.randn(1, 2, 24), torch.tensor([99, 99]), scale=torch.ones(2, 1))


def test_a_stream_that_something_else_writes_into_is_not_decomposed() -> None:
    model = tiny("gpt2")

    class Loud(type(model.blocks[1])):  # type: ignore[misc]  # the class of the model's own blocks
        def forward(self, x: Tensor, run: object) -> Tensor:
            return super().forward(x, run) + 1

    model.blocks[1].__class__ = Loud
    with pytest.raises(LabError, match="do not add up"):
        decompose(model, tokens(1, 4))
