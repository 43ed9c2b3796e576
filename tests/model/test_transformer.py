"""Shapes, refusals and numerics of the transformer itself."""

import warnings

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer, TransformerConfig
from tests.tiny import CAUSAL, CONFIGS, tiny, tokens


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> Transformer:
    return tiny(request.param)


def test_the_same_generator_gives_the_same_weights_on_any_dtype() -> None:
    first, second = (
        Transformer(CONFIGS["gpt2"], generator=torch.Generator().manual_seed(4)) for _ in range(2)
    )
    other = Transformer(CONFIGS["gpt2"], generator=torch.Generator().manual_seed(5))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.embedding.weight, other.embedding.weight)


def test_initialisation_follows_gpt2() -> None:
    config = TransformerConfig(vocab_size=900, d_model=128, n_layers=8, n_heads=4, max_positions=300)
    model = Transformer(config)
    assert model.embedding.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert model.blocks[3].attention.qkv.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert model.blocks[3].mlp.down.weight.std().item() == pytest.approx(0.02 / 16**0.5, rel=0.02)
    assert (model.blocks[3].mlp.up.bias == 0).all()
    assert (model.final_norm.weight == 1).all()


@pytest.mark.parametrize("gated", [False, True])
def test_a_block_without_a_feed_forward_is_made_and_trained_without_a_warning(gated: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = tiny("gpt2", d_mlp=0, gated=gated)
        logits = model.train()(tokens(2, 5))
        logits.square().mean().backward()
    assert model.blocks[0].mlp.down.bias.abs().max() > 0  # `tiny` has moved it: it is added like any other
    assert model.blocks[0].mlp.down.bias.grad.abs().max() > 0
    with torch.no_grad():
        fresh = Transformer(CONFIGS["gpt2"].replace(d_mlp=0, gated=gated))
        assert not fresh.blocks[1].mlp.down.bias.any() and fresh.blocks[1].mlp.up.weight.shape[0] == 0


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    tiny("llama")(tokens(1, 3))
    assert torch.equal(before, torch.get_rng_state())


@torch.no_grad()
def test_embeddings_in_place_of_tokens_give_the_same_logits(model: Transformer) -> None:
    ids = tokens(2, 5)
    assert torch.equal(model(ids), model(embeddings=model.embed(ids)))


@torch.no_grad()
def test_an_empty_batch_gives_empty_logits(model: Transformer) -> None:
    assert model(torch.zeros(0, 4, dtype=torch.long)).shape == (0, 4, 61)


@torch.no_grad()
def test_no_row_depends_on_its_neighbours(model: Transformer) -> None:
    ids = tokens(6, 9)
    together = model(ids)
    for row in range(6):
        assert torch.allclose(model(ids[row : row + 1])[0], together[row], atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("family", CAUSAL)
def test_a_later_token_never_changes_an_earlier_logit(family: str) -> None:
    model = tiny(family)
    ids = tokens(1, 9)
    changed = ids.clone()
    changed[0, 6] = (changed[0, 6] + 1) % 61
    assert torch.equal(model(ids)[:, :6], model(changed)[:, :6])
    assert not torch.equal(model(ids)[:, 6:], model(changed)[:, 6:])


@torch.no_grad()
def test_heads_and_widths_may_differ_by_layer() -> None:
    config = TransformerConfig(
        vocab_size=61,
        d_model=24,
        n_layers=3,
        n_heads=(4, 2, 1),
        d_head=6,
        d_mlp=(96, 10, 1),
        max_positions=40,
    )
    model = Transformer(config)
    assert [block.attention.qkv.weight.shape[0] for block in model.blocks] == [72, 36, 18]
    ids = tokens(2, 7)
    cache = model.new_cache(batch=2, length=7)
    steps = torch.cat([model(ids[:, i : i + 1], cache=cache) for i in range(7)], 1)
    assert torch.allclose(model(ids), steps, atol=1e-5)


@torch.no_grad()
def test_half_rotated_heads_follow_the_formula() -> None:
    """rotary_fraction 0.5 turns pairs (i, i + 2) of the first 4 entries by position · base^(-2i/4) and no others."""
    config = TransformerConfig(
        vocab_size=9,
        d_model=8,
        n_layers=1,
        n_heads=1,
        positions="rotary",
        rotary_fraction=0.5,
        rotary_base=100.0,
    )
    model = Transformer(config)
    with model.tap(read=["hook_q", "hook_rot_q"]) as seen:
        model(torch.tensor([[1, 2, 3]]))
    q, turned = seen["blocks.0.attn.hook_q"][0, 2, 0], seen["blocks.0.attn.hook_rot_q"][0, 2, 0]
    angles = 2 * torch.tensor([1.0, 100.0**-0.5])
    cos, sin = angles.cos(), angles.sin()
    expected = torch.cat([q[:2] * cos - q[2:4] * sin, q[2:4] * cos + q[:2] * sin, q[4:]])
    assert torch.allclose(turned, expected, atol=1e-6)


def test_gradient_checkpointing_changes_no_gradient(model: Transformer) -> None:
    gradients = []
    for checkpointing in (False, True):
        model.train()
        model.gradient_checkpointing = checkpointing
        model.zero_grad()
        model(tokens(2, 6)).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_counts_are_the_sizes_of_the_tensors(model: Transformer) -> None:
    counts = model.count_parameters()
    assert counts["total"] == sum(parameter.numel() for parameter in model.parameters())
    assert counts["total"] == counts["embedding"] + counts["non_embedding"]
    tables = ("embedding.", "position_embedding.", "token_type_embedding.", "head.")
    named = dict(model.named_parameters())
    assert counts["embedding"] == sum(p.numel() for name, p in named.items() if name.startswith(tables))


@torch.no_grad()
def test_too_many_tokens_are_refused_with_the_limit() -> None:
    model = tiny("gpt2")
    with pytest.raises(LabError, match="41 tokens are more than the model's 40 positions"):
        model(tokens(1, 41))
    mask = torch.ones(1, 41)
    mask[0, :1] = 0
    assert model(tokens(1, 41), attention_mask=mask).shape == (1, 41, 61)  # 40 real tokens fit
    cache = model.new_cache(batch=1, length=3)
    with pytest.raises(LabError, match="4 tokens do not fit in its 3 slots"):
        model(tokens(1, 4), cache=cache)
    with pytest.raises(LabError, match="position 40 is beyond the model's 40"):
        model(tokens(1, 2), positions=torch.tensor([[39, 40]]))


def test_wrong_inputs_are_refused_in_a_sentence(model: Transformer) -> None:
    for message, call in {
        "either tokens or embeddings": lambda: model(),
        r"whole numbers \[batch, time\]": lambda: model(torch.randn(2, 3)),
        r"\[batch, time\], got torch.int64 \[3\]": lambda: model(torch.tensor([1, 2, 3])),
        "ids run from 0 to 61, the model's vocabulary has 61": lambda: model(torch.tensor([[0, 61]])),
        r"attention_mask is \[1, 2\], the input \[1, 3\]": lambda: model(
            tokens(1, 3), attention_mask=torch.ones(1, 2)
        ),
        r"embeddings must be \[batch, time, 24\]": lambda: model(embeddings=torch.randn(1, 3, 23)),
    }.items():
        with pytest.raises(LabError, match=message):
            call()


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        ("d_model 10 is not a multiple of n_heads 3", {"d_model": 10, "n_heads": 3}),
        ("n_heads has 1 entries for 2 layers", {"n_heads": (2,), "d_head": 2}),
        ("n_heads per layer needs d_head", {"n_heads": (2, 1)}),
        ("n_heads 4 is not a multiple of n_kv_heads 3", {"n_heads": 4, "n_kv_heads": 3}),
        ("windows must be a whole number from 1", {"windows": (None, 0)}),
        ("vocab_size must be a whole number", {"vocab_size": 0}),
        (r"attention_dropout must lie in \[0, 1\)", {"attention_dropout": 1.0}),
        ("of a head's width is odd", {"positions": "rotary", "d_model": 12, "n_heads": 4}),
    ],
)
def test_configurations_that_make_no_model_are_refused(message: str, fields: dict) -> None:
    with pytest.raises(LabError, match=message):
        TransformerConfig(**{"vocab_size": 9, "d_model": 8, "n_layers": 2, "n_heads": 2, **fields})


@torch.no_grad()
def test_the_cache_can_be_reordered_and_rewound() -> None:
    model = tiny("llama")
    ids = tokens(3, 6)
    cache = model.new_cache(batch=3, length=8)
    model(ids, cache=cache)
    cache.reorder(torch.tensor([2, 0, 0]))
    following = torch.tensor([[5], [6], [7]])
    expected = model(torch.cat([ids[[2, 0, 0]], following], 1))[:, -1:]
    assert torch.allclose(model(following, cache=cache), expected, atol=1e-5)
    cache.rewind(4)
    shorter = model(torch.cat([ids[[2, 0, 0]][:, :4], following], 1))[:, -1:]
    assert torch.allclose(model(following, cache=cache), shorter, atol=1e-5)
    with pytest.raises(LabError, match="cannot rewind to 9"):
        cache.rewind(9)
