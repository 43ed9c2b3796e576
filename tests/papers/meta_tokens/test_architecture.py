"""Meta-attention against the slow reference, its two back ends, its cache, and what it refuses."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.decode import Beam, Greedy, Limits
from gpt2lab.model import KeyValueCache, Transformer, attach
from gpt2lab.model.config import TransformerConfig
from gpt2lab.model.soft_prompt import SoftPrompt
from gpt2lab.papers.contrastive_search.decoder import ContrastiveSearch
from gpt2lab.papers.meta_tokens import MetaAttention, meta_token
from gpt2lab.papers.meta_tokens.held import held_metas
from gpt2lab.papers.pondering.architecture import Pondering
from tests.papers.meta_tokens import reference
from tests.tiny import CAUSAL, tiny, tokens

META = 7
DECODERS = [Greedy(), Beam(beams=3), ContrastiveSearch(k=3, alpha=0.5)]
KINDS: dict[str, dict[str, Any]] = {
    "gathered": {"token": META},
    "dense": {"token": META, "backend": "dense"},
    "all": {"among": "all"},
}


def with_metas(family: str = "gpt2", *, dtype: torch.dtype = torch.float64, **options: Any) -> Transformer:
    """A tiny model whose second attention is strong."""
    changes = options.pop("changes", {})
    model = tiny(family, **changes).to(dtype)
    attach(model, MetaAttention(**{"token": META, "draw": "model", **options}))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for block in model.blocks:
            for matrix in (block.meta.qkv.weight, block.meta.out.weight):
                matrix.normal_(0, 0.4, generator=generator)
    return model


def sprinkled(batch: int, time: int, *, seed: int = 0) -> Tensor:
    """Random ids, about a fifth of them metas; every row at other places, the last row has none."""
    ids = tokens(batch, time, seed=seed)
    places = torch.rand(batch, time, generator=torch.Generator().manual_seed(seed + 50)) < 0.2
    places[-1] = False
    ids[ids == META] = META + 1
    return ids.masked_fill(places, META)


@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("literal", [False, True], ids=["", "literal"])
@pytest.mark.parametrize("kind", KINDS)
def test_states_and_gradients_are_those_of_the_equations(kind: str, literal: bool, positions: str) -> None:
    model = with_metas(
        changes={"positions": positions, "n_layers": 2}, literal_appendix=literal, **KINDS[kind]
    )
    row = [3, META, 9, META, META, 12, META]
    weights = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    meta = None if kind == "all" else META
    expected = reference.states(weights, row, meta, 2, 3, rotary=positions == "rotary", literal=literal)
    found = model.hidden(torch.tensor([row]))[0]
    assert torch.allclose(found, expected, atol=1e-10)
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (found * direction).sum().backward()
    (expected * direction).sum().backward()
    for name, parameter in model.named_parameters():
        if name.startswith("head"):
            continue
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, weights[name].grad, atol=1e-9), name


@pytest.mark.parametrize("family", CAUSAL)
def test_both_back_ends_give_equal_outputs_and_gradients_in_padded_rows(family: str) -> None:
    ids = sprinkled(4, 14)
    mask = torch.ones(4, 14, dtype=torch.long)
    mask[0, :5] = 0
    mask[1, 9:] = 0
    ids[0, :5] = META  # padding is no meta, whatever its token
    found = []
    for backend in ("dense", "gathered"):
        model = with_metas(family, backend=backend)
        logits = model(ids, attention_mask=mask)
        (logits.square() * mask[:, :, None]).mean().backward()
        found.append((logits.detach(), {name: p.grad for name, p in model.named_parameters()}))
    assert (found[0][0] - found[1][0])[mask.bool()].abs().max() < 1e-12
    for name, gradient in found[0][1].items():
        assert torch.allclose(gradient, found[1][1][name], atol=1e-13), name


@pytest.mark.parametrize("backend", ["gathered", "dense"])
def test_rows_without_a_key_are_exactly_0_and_their_gradient_is_clean(backend: str) -> None:
    model, ids = with_metas(backend=backend, dtype=torch.float32), sprinkled(3, 12)
    marks = ids == META
    with model.tap(read=["*.hook_meta_out"], grad=True) as tap:
        loss = model(ids).square().mean()
    for name in [f"blocks.{i}.hook_meta_out" for i in range(3)]:
        out = tap[name]
        assert torch.equal(out[~marks], torch.zeros_like(out[~marks]))
        assert out[marks].abs().min(-1).values.max() > 0
    loss.backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    alone = sprinkled(3, 12)[-1:]  # no meta at all: the second attention is not computed
    model.zero_grad()
    model(alone).square().mean().backward()
    for block in model.blocks:
        gradient = block.meta.out.weight.grad
        assert gradient is None or not gradient.any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", CAUSAL)
@torch.no_grad()
def test_a_converted_model_computes_exactly_what_it_did(family: str, kind: str) -> None:
    plain, ids = tiny(family), sprinkled(3, 16)
    converted = attach(tiny(family), MetaAttention(**KINDS[kind]))
    assert torch.equal(converted(ids), plain(ids))
    assert meta_token(converted) == KINDS[kind].get("token")
    assert len(list(converted.parameters())) > len(list(plain.parameters()))


def test_gpt2_small_gets_the_28_million_weights_of_the_paper() -> None:
    config = TransformerConfig(vocab_size=50304, d_model=768, n_layers=12, n_heads=12, max_positions=1024)
    with torch.device("meta"):
        model = Transformer(config)
        before = model.count_parameters()["total"]
        attach(model, MetaAttention(token=50257))
    added = model.count_parameters()["total"] - before
    assert (
        added - 12 * 2 * 768 == 12 * 4 * 768**2 == 28_311_552
    )  # and the gains and biases of the third norms
    assert before + added == pytest.approx(152e6, rel=0.01)


@pytest.mark.parametrize("family", CAUSAL)
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_decoding_with_the_cache_is_the_full_pass_with_padding_and_metas_anywhere(
    family: str, kind: str
) -> None:
    model = with_metas(family, **KINDS[kind])
    ids = sprinkled(4, 18, seed=4)
    for padding in ("left", "right"):
        mask = torch.ones(4, 18, dtype=torch.long)
        if padding == "left":
            mask[1, :4] = 0
        else:
            mask[1, 6:9] = 0  # padding behind a prompt, text behind it
        ids = torch.where(mask.bool(), ids, META)
        cache = model.new_cache(batch=4, length=18)
        parts = []
        for start, stop in ((0, 9), (9, 10), (10, 11), (11, 15), (15, 18)):
            part = slice(start, stop)
            parts.append(model(ids[:, part], attention_mask=mask[:, part], cache=cache))
        expected = model(ids, attention_mask=mask)
        assert (torch.cat(parts, 1) - expected)[mask.bool()].abs().max() < 1e-10


@torch.no_grad()
def test_the_cache_holds_metas_alone() -> None:
    model, ids = with_metas(dtype=torch.float32), sprinkled(3, 12)
    cache = model.new_cache(batch=3, length=20)
    model(ids, cache=cache)
    assert isinstance(cache, KeyValueCache)
    counts = (ids == META).sum(1)
    for layer in range(3):
        held = held_metas(cache, layer)
        assert held.keys is not None and held.keys.shape == (3, 3, int(counts.max()), 8)
        for row in range(3):
            there = held.slots[row][held.slots[row] >= 0]
            assert there.tolist() == (ids[row] == META).nonzero().flatten().tolist()
    model(torch.tensor([[1], [2], [3]]), cache=cache)  # ordinary tokens add nothing
    assert held_metas(cache, 0).keys.shape[2] == int(counts.max())
    assert not any(isinstance(name, tuple) and name[0] == "meta" for name in cache.tensors)
    cache.rewind(4)
    assert (held_metas(cache, 1).slots < 4).all()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("decoder", DECODERS, ids=lambda one: type(one).__name__)
def test_metas_are_written_and_read_by_every_decoder(family: str, decoder: Any) -> None:
    model, prompts = (
        with_metas(family, dtype=torch.float64),
        [[3, META, 4], [META, 6, 7, META, 9, 10, 11], [1, 2, 3]],
    )
    with torch.no_grad():
        model.embedding.weight[META] *= 2  # it is often written, too
    if hasattr(model, "head"):
        model.tie_head()
    limits = Limits(max_new_tokens=9)
    together = list(decoder.decode(model, prompts, limits))
    assert together == [decoder.decode(model, [prompt], limits)[0] for prompt in prompts]
    if isinstance(decoder, Greedy):
        for prompt, new in zip(prompts, together, strict=True):
            with torch.no_grad():
                logits = model(torch.tensor([[*prompt, *new]]))[0, len(prompt) - 1 : -1]
            assert logits.argmax(-1).tolist() == new


@torch.no_grad()
def test_alternatives_for_the_next_place_may_be_metas_and_one_is_kept() -> None:
    for family in ("gpt2", "llama"):
        model, ids = with_metas(family), sprinkled(2, 6)
        candidates = torch.tensor([[META, 3, META], [5, META, 6]])
        cache = model.new_cache(batch=2, length=9)
        model(ids, cache=cache)
        together = model.hidden(candidates, cache=cache, siblings=True)
        for index in range(3):
            alone = model.hidden(torch.cat([ids, candidates[:, index : index + 1]], 1))[:, -1]
            assert torch.allclose(together[:, index], alone, atol=1e-10)
        chosen = torch.tensor([2, 1])
        cache.keep(6, chosen)
        following = torch.tensor([[META], [META]])
        kept = torch.cat([ids, candidates.gather(1, chosen[:, None]), following], 1)
        assert torch.allclose(model(following, cache=cache), model(kept)[:, -1:], atol=1e-10)


@pytest.mark.parametrize("backend", ["gathered", "dense"])
def test_every_activation_is_read_and_replaced_alike(backend: str) -> None:
    other, model = with_metas("llama", backend="dense"), with_metas("llama", backend=backend)
    ids = sprinkled(3, 9)
    names = [
        name for name in model.activation_names() if ".meta." in name or "ln_meta" in name or "_meta" in name
    ]
    assert any(name.endswith("meta.hook_pattern") for name in names)
    with torch.no_grad():
        with model.tap(read=names) as mine:
            model(ids)
        with other.tap(read=names) as theirs:
            other(ids)
        marks = ids == META
        for name in names:
            ours, dense = mine[name], theirs[name]
            if name.endswith(("hook_q", "hook_k", "hook_v", "rot_q", "rot_k", "hook_z", "hook_result")):
                ours, dense = ours[marks], dense[marks]  # elsewhere nothing is computed
            assert torch.allclose(ours, dense, atol=1e-10), name
        pattern = mine["blocks.1.meta.hook_pattern"]  # [batch, heads, time, keys]
        sums = marks[:, None].expand(-1, 6, -1).double()
        assert torch.allclose(pattern.sum(-1), sums) and not pattern[:, :, ~marks[0]][0].any()
        plain = model(ids)
        for name in names:
            with model.tap(write={name: lambda x, name: x.new_zeros(x.shape)}):
                assert not torch.allclose(model(ids), plain, atol=1e-6), name


def test_a_prefix_passes_and_positions_are_not_mistaken_for_metas() -> None:
    for first in (True, False):
        model, ids = tiny("llama").double(), sprinkled(2, 8)
        makers = [SoftPrompt(length=3), MetaAttention(token=META, draw="model")]
        for made in makers if first else makers[::-1]:
            attach(model, made)
        model.double()
        with torch.no_grad():
            for block in model.blocks:
                block.meta.out.weight.normal_(0, 1, generator=torch.Generator().manual_seed(1))
            whole = model(ids)
            cache = model.new_cache(batch=2, length=8)
            parts = [model(ids[:, :5], cache=cache), model(ids[:, 5:], cache=cache)]
        assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-9)


@torch.no_grad()
def test_under_pondering_every_pass_has_its_own_metas() -> None:
    for feedback in ("embedding", "pause"):
        model = with_metas("gpt2")
        attach(model, Pondering(steps=2, feedback=feedback))  # type: ignore[arg-type]  # a Literal
        model.double()
        ids = sprinkled(3, 8)
        cache = model.new_cache(batch=3, length=8)
        parts = [
            model(ids[:, :4], cache=cache),
            model(ids[:, 4:5], cache=cache),
            model(ids[:, 5:], cache=cache),
        ]
        assert torch.allclose(torch.cat(parts, 1), model(ids), atol=1e-9)


@torch.no_grad()
def test_metas_may_be_named_by_position_instead_of_token() -> None:
    model, ids = with_metas(), sprinkled(3, 10)
    named = model(ids, extra_inputs={"meta_positions": ids == META})
    assert torch.equal(named, model(ids))
    nobody = model(ids, extra_inputs={"meta_positions": torch.zeros(3, 10)})
    assert not torch.allclose(nobody, model(ids), atol=1e-6)


def test_gradients_flow_through_the_cache_of_metas() -> None:
    model, ids = with_metas(), sprinkled(2, 8)
    cache = model.new_cache(batch=2, length=8, differentiable=True)
    torch.cat([model(ids[:, :5], cache=cache), model(ids[:, 5:], cache=cache)], 1).square().mean().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model(ids).square().mean().backward()
    for name, p in model.named_parameters():
        assert torch.allclose(found[name], p.grad, atol=1e-12), name


@pytest.mark.parametrize(
    ("family", "options", "words"),
    [
        ("gpt2", {}, "which token is the meta-token"),
        ("gpt2", {"token": 61}, "token 61 is outside the vocabulary of 61"),
        ("gpt2", {"token": -1}, "token -1 is outside"),
        ("bert", {"token": 3}, "needs a causal model"),
        ("llama", {"token": 3, "literal_appendix": True}, "literal_appendix needs LayerNorms"),
        ("gpt_neox", {"token": 3, "literal_appendix": True}, "literal_appendix needs LayerNorms"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_model_unchanged(
    family: str, options: dict[str, Any], words: str
) -> None:
    model = tiny(family)
    names = [name for name, _ in model.named_modules()]
    with pytest.raises(LabError, match=words):
        attach(model, MetaAttention(**options))
    assert [name for name, _ in model.named_modules()] == names and not model.architectures


def test_a_second_one_norms_after_the_sums_and_layers_without_heads_are_refused() -> None:
    with pytest.raises(LabError, match="has a second attention already"):
        attach(with_metas(), MetaAttention(token=3))
    with pytest.raises(LabError, match="norms stand before"):
        attach(tiny("gpt2", norm_placement="post"), MetaAttention(token=3))
    with pytest.raises(LabError, match="has no heads"):
        attach(tiny("gpt2", n_heads=(3, 0, 3), d_head=8), MetaAttention(token=3))
    with pytest.raises(LabError, match="among=all has no back ends"):
        MetaAttention(among="all", backend="dense")
    assert dataclasses.is_dataclass(MetaAttention)
