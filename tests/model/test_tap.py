"""Reading and replacing activations."""

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer, linear_cross_entropy
from tests.tiny import CAUSAL, CONFIGS, tiny, tokens


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> Transformer:
    return tiny(request.param)


@torch.no_grad()
def test_reading_everything_changes_no_logit_and_fits_together(model: Transformer) -> None:
    ids = tokens(2, 9)
    plain = model(ids)
    with model.tap(read=["*"]) as seen:
        logits = model(ids)
    assert (logits - plain).abs().max() <= 1e-5 * plain.abs().max()
    assert set(seen.values) == set(model.activation_names())
    post = model.config.norm_placement == "post"
    for i in range(model.config.n_layers):
        block = f"blocks.{i}"
        middle = seen[f"{block}.hook_resid_pre"] + seen[f"{block}.hook_attn_out"]
        if not model.config.parallel_residual:
            assert torch.allclose(middle, seen[f"{block}.hook_resid_mid"], atol=1e-6)
        if post:
            middle = seen[f"{block}.ln1.hook_normalized"]
            following = f"blocks.{i + 1}.hook_resid_pre" if i < 2 else "ln_final.hook_normalized"
            assert torch.equal(seen[f"{block}.ln2.hook_normalized"], seen[following])
        assert torch.allclose(
            middle + seen[f"{block}.hook_mlp_out"], seen[f"{block}.hook_resid_post"], atol=1e-5
        )
        pattern = seen[f"{block}.attn.hook_pattern"]
        assert torch.allclose(pattern.sum(-1), torch.ones(pattern.shape[:-1]), atol=1e-5)
        assert (pattern.triu(1) == 0).all() == model.config.causal
        scores = seen[f"{block}.attn.hook_attn_scores"]
        assert torch.allclose(scores.softmax(-1), pattern, atol=1e-6)
        layer = model.config.layer(i)
        shared = seen[f"{block}.attn.hook_v"].repeat_interleave(layer.n_heads // layer.n_kv_heads, dim=2)
        mixed = torch.einsum("bhqk,bkhd->bqhd", pattern, shared)
        assert torch.allclose(mixed, seen[f"{block}.attn.hook_z"], atol=1e-5)
        bias = model.blocks[i].attention.out.bias
        summed = seen[f"{block}.attn.hook_result"].sum(2) + (bias if bias is not None else 0)
        assert torch.allclose(summed, seen[f"{block}.hook_attn_out"], atol=1e-5)
    assert torch.equal(seen["logits"], logits)


@torch.no_grad()
def test_the_window_of_a_local_layer_is_seen_in_its_pattern() -> None:
    model = tiny("gpt_neo")
    with model.tap(read=["pattern"]) as seen:
        model(tokens(1, 12))
    local, spread = seen["blocks.1.attn.hook_pattern"][0], seen["blocks.0.attn.hook_pattern"][0]
    assert (local.tril(-5) == 0).all()  # window 5: a query sees itself and 4 before it
    assert (local.tril(-4)[:, 4:].sum(-1) > 0).all()
    assert (spread[:, 1:].tril()[..., 0] > 0).all()


@torch.no_grad()
def test_norm_parts_match_their_formula(model: Transformer) -> None:
    stream = "blocks.1.hook_resid_mid" if model.config.norm_placement == "post" else "blocks.1.hook_resid_pre"
    with model.tap(read=[stream, "blocks.1.ln1.hook_scale", "blocks.1.ln1.hook_normalized"]) as seen:
        model(tokens(2, 5))
    x, norm = seen[stream].double(), model.blocks[1].norm1
    if model.config.norm == "layernorm":
        x = x - x.mean(-1, keepdim=True)
    scale = (x.pow(2).mean(-1, keepdim=True) + model.config.norm_eps).sqrt()
    expected = x / scale * norm.weight.double() + (
        norm.bias.double() if model.config.norm == "layernorm" else 0
    )
    assert torch.allclose(seen["blocks.1.ln1.hook_scale"].double(), scale, atol=1e-6)
    assert torch.allclose(seen["blocks.1.ln1.hook_normalized"].double(), expected, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    "name", ["blocks.0.hook_resid_pre", "blocks.1.attn.hook_z", "blocks.2.mlp.hook_post"]
)
def test_patching_with_the_runs_own_activation_changes_nothing(model: Transformer, name: str) -> None:
    ids = tokens(2, 7)
    with model.tap(read=[name]) as seen:
        plain = model(ids)
    with model.tap(write={name: seen[name]}):
        assert torch.equal(model(ids), plain)


@torch.no_grad()
def test_patching_the_first_residual_reproduces_the_other_run(model: Transformer) -> None:
    clean, corrupt = tokens(2, 7), tokens(2, 7, seed=9)
    with model.tap(read=["blocks.0.hook_resid_pre"]) as seen:
        expected = model(clean)
    with model.tap(write={"blocks.0.hook_resid_pre": lambda x, name: seen[name]}):
        assert torch.equal(model(corrupt), expected)
    assert not torch.equal(model(corrupt), expected)  # nothing stays behind


@torch.no_grad()
def test_a_written_pattern_is_what_mixes(model: Transformer) -> None:
    """Looking only at oneself makes z the own value."""
    name = "blocks.1.attn.hook_pattern"
    with model.tap(read=["blocks.1.attn.hook_z", "blocks.1.attn.hook_v"], write={name: _only_self}) as seen:
        model(tokens(2, 6))
    layer = model.config.layer(1)
    own = seen["blocks.1.attn.hook_v"].repeat_interleave(layer.n_heads // layer.n_kv_heads, dim=2)
    assert torch.allclose(seen["blocks.1.attn.hook_z"], own, atol=1e-6)


def _only_self(x: torch.Tensor, name: str) -> torch.Tensor:
    return torch.eye(x.shape[-1]).expand_as(x).clone()


@torch.no_grad()
def test_indexed_writes_touch_only_their_place(model: Transformer) -> None:
    ids = tokens(2, 6)
    name = "blocks.0.hook_resid_post"
    plain = model(ids)
    with model.tap(write={name: ((slice(None), 3), torch.zeros(24))}):
        patched = model(ids)
    assert torch.allclose(patched[:, :3], plain[:, :3], atol=1e-6) == model.config.causal
    assert (patched[:, 3:] - plain[:, 3:]).abs().amax(-1).min() > 1e-4


def test_gradients_are_those_of_finite_differences(model: Transformer) -> None:
    model = model.double()
    ids, name = tokens(1, 5), "blocks.1.hook_resid_post"

    def metric(shift: torch.Tensor | None = None) -> torch.Tensor:
        with model.tap(write={name: lambda x, _: x if shift is None else x + shift}):
            return model(ids)[0, -1, :7].square().sum()

    with model.tap(read=[name], grad=True) as seen:
        model(ids)[0, -1, :7].square().sum().backward()
    direction = torch.randn(1, 5, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        difference = (metric(1e-6 * direction) - metric(-1e-6 * direction)) / 2e-6
    assert torch.allclose((seen.grad[name] * direction).sum(), difference, rtol=1e-5)


def test_gradients_flow_through_written_values() -> None:
    model = tiny("gpt2")
    steering = torch.zeros(24, requires_grad=True)
    with model.tap(write={"blocks.0.hook_mlp_out": lambda x, name: x + steering}):
        model(tokens(2, 4)).sum().backward()
    assert steering.grad is not None
    assert steering.grad.abs().max() > 0


@torch.no_grad()
def test_short_names_stack_layers_and_positions_are_cut(model: Transformer) -> None:
    ids = tokens(2, 8)
    with model.tap(read=["resid_post", "attn.hook_pattern"], pos=-1, dtype=torch.float64) as seen:
        model(ids)
    assert seen["resid_post"].shape == (3, 2, 1, 24)
    assert seen["resid_post"].dtype is torch.float64
    assert seen["attn.hook_pattern"].shape[3:] == (1, 8)
    with model.tap(read=["blocks.2.hook_resid_post"], pos=slice(2, 5)) as part:
        model(ids)
    assert part["blocks.2.hook_resid_post"].shape == (2, 3, 24)


@torch.no_grad()
def test_a_reduction_keeps_one_running_value() -> None:
    model = tiny("gpt2")
    with model.tap(
        read=["hook_embed"], reduce=lambda old, new, _: new.sum((0, 1)) + (0 if old is None else old)
    ) as seen:
        model(tokens(2, 5))
        model(tokens(3, 4, seed=2))
    expected = model.embed(tokens(2, 5)).sum((0, 1)) + model.embed(tokens(3, 4, seed=2)).sum((0, 1))
    assert torch.allclose(seen["hook_embed"], expected, atol=1e-5)


@torch.no_grad()
def test_stop_after_runs_nothing_later(model: Transformer) -> None:
    with model.tap(read=["blocks.0.hook_resid_post"], stop_after="blocks.0.hook_resid_post") as seen:
        model(tokens(1, 4))
        pytest.fail("the forward pass went on")
    assert seen["blocks.0.hook_resid_post"].shape == (1, 4, 24)
    assert model.open_tap is None


@torch.no_grad()
@pytest.mark.parametrize("family", CAUSAL)
def test_a_block_around_cached_decoding_joins_the_steps(family: str) -> None:
    model = tiny(family)
    ids = tokens(1, 9)
    with model.tap(read=["blocks.1.hook_resid_post"]) as whole:
        model(ids)
    cache = model.new_cache(batch=1, length=9)
    with model.tap(read=["blocks.1.hook_resid_post"]) as steps:
        model(ids[:, :4], cache=cache)
        for i in range(4, 9):
            model(ids[:, i : i + 1], cache=cache)
    name = "blocks.1.hook_resid_post"
    assert torch.allclose(steps[name], whole[name], atol=1e-5)


@torch.no_grad()
def test_nested_taps_compose() -> None:
    model = tiny("gpt2")
    ids, name = tokens(1, 4), "blocks.0.hook_mlp_out"
    with model.tap(read=[name]) as outer, model.tap(write={name: lambda x, _: x * 0}):
        model(ids)
    assert (outer[name] == 0).all()


def test_mistakes_are_named() -> None:
    model = tiny("gpt2")
    with pytest.raises(LabError, match=r"resid_pots names no activation .* did you mean resid_post\?"):
        model.tap(read=["resid_pots"])
    with pytest.raises(LabError, match="hook_rot_q names no activation"):
        model.tap(read=["hook_rot_q"])
    with (
        pytest.raises(LabError, match=r"hook_mlp_out returned NoneType"),
        model.tap(write={"blocks.0.hook_mlp_out": lambda x, n: None}),
    ):
        model(tokens(1, 3))
    with pytest.raises(LabError, match=r"float32 \[1, 2, 24\].* the model has torch.float32 \[1, 3, 24\]"):
        _with_write(model, {"blocks.0.hook_mlp_out": torch.zeros(1, 2, 24)})
    with (
        pytest.raises(LabError, match="never reached in this block: hook_embed"),
        model.tap(read=["hook_embed"]),
    ):
        pass
    with pytest.raises(LabError, match="grad=True inside"), torch.no_grad():
        model.tap(read=["hook_embed"], grad=True)
    with pytest.raises(LabError, match="got no gradient"):
        with model.tap(read=["hook_embed"], grad=True) as seen:
            model(tokens(1, 3))
        seen.grad  # the property raises
    assert model.open_tap is None


def _with_write(model: Transformer, write: dict) -> None:
    with model.tap(write=write):
        model(tokens(1, 3))


def test_an_error_inside_the_block_closes_the_tap() -> None:
    model = tiny("gpt2")
    with pytest.raises(ZeroDivisionError), model.tap(read=["hook_embed"]):
        1 / 0
    assert model.open_tap is None


def test_activations_can_be_read_while_training() -> None:
    model = tiny("llama").train()
    model.gradient_checkpointing = False
    ids = tokens(2, 6)
    with model.tap(read=["blocks.1.attn.hook_pattern"]) as seen:
        loss = linear_cross_entropy(model.hidden(ids), model.head.weight, ids)
    loss.backward()
    assert not seen["blocks.1.attn.hook_pattern"].requires_grad
    assert model.embedding.weight.grad is not None


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_writing_what_a_feed_forward_reads_back_into_it_changes_no_bit(family: str) -> None:
    model, ids = tiny(family, d_mlp=20), tokens(2, 9)
    names = [name for name in model.activation_names() if ".mlp." in name]
    with torch.no_grad():
        plain = model(ids)
        for name in names:
            with model.tap(write={name: lambda x, name: x}):
                assert torch.equal(model(ids), plain), name
