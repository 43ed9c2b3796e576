"""The rules of reading and replacing activations: order, nesting, positions, heads, and what must never be silent."""

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer, linear_cross_entropy
from tests.tiny import tiny, tokens

POST, MLP = "blocks.1.hook_resid_post", "blocks.0.hook_mlp_out"


@torch.no_grad()
def test_inner_reads_see_what_outer_blocks_write_and_inner_writes_come_last() -> None:
    model, ids = tiny("gpt2"), tokens(1, 4)
    with model.tap(write={MLP: lambda x, _: x * 0 + 1}), model.tap(read=[MLP]) as inner:
        model(ids)
    assert (inner[MLP] == 1).all()
    with (
        model.tap(read=[MLP], write={MLP: lambda x, _: x * 0 + 1}) as outer,
        model.tap(write={MLP: lambda x, _: x + 2}),
    ):
        model(ids)
    assert (outer[MLP] == 3).all()


@torch.no_grad()
def test_a_function_may_change_its_copy_in_place() -> None:
    """With no norm, what the norm shows is the residual stream itself: changing it must not reach the stream."""
    model, ids = tiny("gpt2", norm="none"), tokens(1, 5)
    name = "blocks.1.ln1.hook_normalized"
    with model.tap(write={name: lambda x, _: x.zero_()}, read=["blocks.1.hook_resid_pre"]) as tap:
        model(ids)
    with model.tap(read=["blocks.1.hook_resid_pre", "blocks.1.hook_resid_mid"]) as plain:
        model(ids)
    assert torch.equal(tap["blocks.1.hook_resid_pre"], plain["blocks.1.hook_resid_pre"])
    with model.tap(write={name: lambda x, _: x.zero_()}, read=["blocks.1.hook_resid_mid"]) as after:
        model(ids)
    bias = model.blocks[1].attention.qkv.bias[-24:] @ model.blocks[1].attention.out.weight.T
    expected = plain["blocks.1.hook_resid_pre"] + bias + model.blocks[1].attention.out.bias
    assert torch.allclose(after["blocks.1.hook_resid_mid"], expected, atol=1e-5)


@torch.no_grad()
def test_what_was_read_is_a_copy_that_keeps_nothing_else_alive() -> None:
    model, ids = tiny("gpt2"), tokens(2, 6)
    with model.tap(read=["attn.hook_v", "resid_post"], pos=slice(1, 3)) as tap:
        model(ids)
    for tensor in (tap["blocks.0.attn.hook_v"], tap[POST]):
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


@torch.no_grad()
def test_stop_after_belongs_to_its_own_block_and_later_reads_are_missed() -> None:
    model, ids = tiny("gpt2"), tokens(1, 4)
    went_on = False
    with model.tap(stop_after=MLP):
        with model.tap(read=["hook_embed"]) as inner:
            model(ids)
        went_on = True
    assert not went_on
    assert inner["hook_embed"].shape == (1, 4, 24)
    with (
        pytest.raises(LabError, match=rf"never reached in this block: {POST}; the pass stops after {MLP}"),
        model.tap(read=[POST], stop_after=MLP),
    ):
        model(ids)
    with pytest.raises(LabError, match="never reached in this block: logits"), model.tap(stop_after="logits"):
        model.hidden(ids)
    assert model.open_tap is None


@torch.no_grad()
@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("pos", [2, -1, -3, slice(1, 4), slice(None, None, 2), slice(-2, None)])
def test_positions_are_cut_on_the_axis_of_time_of_every_kind_of_tensor(family: str, pos: int | slice) -> None:
    model, ids = tiny(family), tokens(2, 6)
    with model.tap(read=["*"]) as whole:
        model(ids)
    with model.tap(read=["*"], pos=pos) as part:
        model(ids)
    index = torch.arange(6)[pos].reshape(-1)
    for name in model.activation_names():
        axis = 2 if name.endswith(("scores", "pattern")) else 1
        assert torch.equal(part[name], whole[name].index_select(axis, index)), name


@torch.no_grad()
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_heads_are_chosen_on_their_own_axis(family: str) -> None:
    model, ids = tiny(family), tokens(2, 5)
    names = [f"blocks.1.attn.hook_{kind}" for kind in ("q", "v", "z", "result", "attn_scores", "pattern")]
    with model.tap(read=names) as whole:
        model(ids)
    with model.tap(read=names, heads=(1, 0), pos=slice(1, 3)) as part:
        model(ids)
    for name in names:
        if name.endswith(("scores", "pattern")):
            assert torch.equal(part[name], whole[name][:, [1, 0], 1:3])
        else:
            assert torch.equal(part[name], whole[name][:, 1:3, [1, 0]])
    with pytest.raises(LabError, match=r"heads=\[1\], but blocks.0.hook_resid_post is not split into heads"):
        model.tap(read=["resid_post"], heads=[1])
    with (
        pytest.raises(LabError, match=r"heads=\[6\], but blocks.0.attn.hook_z has"),
        model.tap(read=["blocks.0.attn.hook_z"], heads=[6]),
    ):
        model(ids)


@torch.no_grad()
@pytest.mark.parametrize("pos", [3, 6, -1, slice(2, 8), slice(5, None)])
def test_positions_count_from_the_beginning_of_a_cached_sequence(pos: int | slice) -> None:
    ids = tokens(2, 9)
    chosen = torch.arange(9)[pos].reshape(-1) if pos != -1 else torch.arange(3, 9)
    for family, names in (("llama", [POST, "logits"]), ("gpt2", ["hook_pos_embed"]), ("gpt2", ["logits"])):
        model = tiny(family)
        with model.tap(read=names) as whole:
            model(ids)
        with model.tap(read=names, pos=pos) as steps:
            _in_steps(model, ids, prompt=4)
        for name in names:
            assert torch.allclose(steps[name], whole[name][:, chosen], atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("place", [2, 6, slice(5, None), slice(0, 3), torch.tensor([6]), [1, 2], slice(None)])
def test_writes_meet_the_same_positions_with_and_without_a_cache(place: object) -> None:
    model, ids = tiny("gpt2"), tokens(2, 9)
    write = {MLP: ((slice(None), place), torch.full((24,), 0.5))}
    with model.tap(write=write):
        whole = model(ids)
    with model.tap(write=write):
        steps = _in_steps(model, ids, prompt=4)
    assert torch.allclose(steps, whole, atol=1e-5)

    def by_function(x: torch.Tensor, name: str) -> torch.Tensor:
        chosen = torch.zeros(9, dtype=torch.bool).index_fill_(0, torch.arange(9)[place].reshape(-1), True)
        x[:, chosen[tap.positions.start : tap.positions.stop]] = 0.5
        return x

    with model.tap(write={MLP: by_function}) as tap:
        steps = _in_steps(model, ids, prompt=4)
    assert torch.allclose(steps, whole, atol=1e-5)


def _in_steps(model: Transformer, ids: torch.Tensor, *, prompt: int) -> torch.Tensor:
    cache = model.new_cache(batch=len(ids), length=ids.shape[1])
    parts = [model(ids[:, :prompt], cache=cache)]
    parts += [model(ids[:, i : i + 1], cache=cache) for i in range(prompt, ids.shape[1])]
    return torch.cat(parts, dim=1)


@torch.no_grad()
def test_a_position_that_no_pass_computes_is_missed() -> None:
    model, ids = tiny("gpt2"), tokens(1, 5)
    with (
        pytest.raises(LabError, match=f"never reached in this block: {MLP}; .* positions 0 to 4"),
        model.tap(read=[MLP], pos=5),
    ):
        model(ids)
    with (
        pytest.raises(LabError, match=f"never reached in this block: {MLP}; .* positions 0 to 4"),
        model.tap(write={MLP: ((slice(None), 5), 0.0)}),
    ):
        model(ids)


@torch.no_grad()
def test_passes_that_do_not_continue_each_other_are_not_joined() -> None:
    model, ids = tiny("gpt2"), tokens(2, 5)
    with model.tap(read=[MLP, "blocks.0.attn.hook_pattern"]) as tap:
        model(ids)
        model(ids[:, :3])
    with pytest.raises(LabError, match="computed by 2 forward passes that do not continue each other"):
        tap[MLP]
    assert [part.shape[1] for part in tap.passes(MLP)] == [5, 3]
    with model.tap(read=["blocks.0.attn.hook_pattern"]) as tap:
        _in_steps(model, ids, prompt=3)
    with pytest.raises(LabError, match="computed 3 times with growing keys"):
        tap["blocks.0.attn.hook_pattern"]
    assert [part.shape[3] for part in tap.passes("blocks.0.attn.hook_pattern")] == [3, 4, 5]


@torch.no_grad()
def test_writes_that_do_not_fit_are_refused() -> None:
    model, ids = tiny("gpt2"), tokens(1, 4)

    def refused(change: object, match: str, name: str = MLP) -> None:
        with pytest.raises(LabError, match=match), model.tap(write={name: change}):
            model(ids)

    refused(torch.zeros(1, 4, 24, dtype=torch.float64), r"is torch.float64 .* the model has torch.float32")
    refused(((0, 1), torch.zeros(24, dtype=torch.bfloat16)), r"values .* torch.bfloat16")
    refused(((0, 1), torch.zeros(7)), r"which is \[1, 4, 24\]")
    refused(((5, 1), torch.zeros(24)), r"which is \[1, 4, 24\]")
    refused(3.0, "is float; give a function")
    with pytest.raises(LabError, match=f"two writes name {MLP}"):
        model.tap(write={MLP: torch.zeros(1, 4, 24), "hook_mlp_out": torch.zeros(1, 4, 24)})
    tap = model.tap(read=[MLP])
    with tap:
        model(ids)
    with pytest.raises(LabError, match="was open before"), tap:
        pass


def test_gradients_begin_at_the_activation_when_all_weights_are_frozen() -> None:
    model, ids = tiny("gpt2").requires_grad_(False), tokens(2, 5)
    free = tiny("gpt2")
    with model.tap(read=[MLP, POST], grad=True, pos=slice(1, 3)) as frozen:
        model(ids).square().sum().backward()
    with free.tap(read=[MLP, POST], grad=True) as whole:
        free(ids).square().sum().backward()
    for name in (MLP, POST):
        assert torch.allclose(frozen.grad[name], whole.grad[name][:, 1:3], rtol=1e-5, atol=1e-4)
        assert torch.equal(frozen[name], whole[name][:, 1:3])


def test_gradients_are_refused_where_there_are_none() -> None:
    model, ids = tiny("gpt2"), tokens(1, 3)
    with (
        pytest.raises(LabError, match=f"grad=True, but {MLP} is computed inside torch.no_grad"),
        model.tap(read=[MLP], grad=True),
        torch.no_grad(),
    ):
        model(ids)
    with pytest.raises(LabError, match="reduce keeps no gradients"):
        model.tap(read=[MLP], grad=True, reduce=lambda old, new, name: new)


@pytest.mark.parametrize("backwards", [1, 2])
def test_under_gradient_checkpointing_writes_are_repeated_and_reads_are_not(backwards: int) -> None:
    ids, seen = tokens(2, 6), []

    def run(checkpointing: bool) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
        model = tiny("llama").train()
        model.gradient_checkpointing = checkpointing

        def half(x: torch.Tensor, name: str) -> torch.Tensor:
            seen.append(name)
            return x / 2

        with model.tap(read=[MLP, POST], write={"blocks.1.hook_attn_out": half}, grad=True) as tap:
            loss = linear_cross_entropy(model.hidden(ids), model.head.weight, ids)
        for i in range(backwards):
            loss.backward(retain_graph=i + 1 < backwards)
        assert len(tap.passes(POST)) == 1
        return tap.grad, [parameter.grad for parameter in model.parameters()]

    plain, weights = run(False)
    assert len(seen) == 1
    again, weights_again = run(True)
    assert len(seen) == 2 + backwards
    for name in plain:
        assert torch.allclose(plain[name], again[name], atol=1e-6)
    for one, two in zip(weights, weights_again, strict=True):
        assert torch.allclose(one, two, atol=1e-6)


def test_compiled_models_fall_back_to_eager_inside_a_block_and_compute_the_same() -> None:
    model, ids = tiny("gpt2"), tokens(2, 6)
    with torch.no_grad():
        plain = model(ids)
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        graphs.append(graph)
        return graph.forward

    for block in model.blocks:
        block.compile(backend=backend, dynamic=False)
    with torch.no_grad():
        assert torch.allclose(model(ids), plain, atol=1e-5)
        compiled = len(graphs)
        assert compiled > 0
        with model.tap(read=[POST], write={MLP: lambda x, _: x * 0}) as tap:
            changed = model(ids)
        assert tap[POST].shape == (2, 6, 24)
        assert len(graphs) == compiled
        with tiny("gpt2").tap(write={MLP: lambda x, _: x * 0}) as other:
            expected = other.model(ids)
        assert torch.allclose(changed, expected, atol=1e-5)
        assert torch.allclose(model(ids), plain, atol=1e-5)
        assert len(graphs) == compiled


@torch.no_grad()
def test_open_and_fused_attention_agree_with_padding_and_windows() -> None:
    for family in ("gpt2", "gpt_neo", "gpt_neox", "llama"):
        model, ids = tiny(family), tokens(3, 11)
        mask = torch.ones(3, 11, dtype=torch.int64)
        mask[0, :4], mask[1, 8:] = 0, 0
        plain = model(ids, attention_mask=mask)
        with model.tap(read=["hook_pattern"]):
            opened = model(ids, attention_mask=mask)
        assert torch.allclose(opened[mask.bool()], plain[mask.bool()], atol=1e-5)
