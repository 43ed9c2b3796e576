"""LoRA against the equations, written out by loops in float64; patterns, several adapters, merging, saving."""

from pathlib import Path

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.model import load_model, save_model
from gpt2lab.model.adapters import (
    AdaptedLinear,
    Lora,
    activate,
    adapter_parameters,
    adapters,
    combine,
    count_trainable,
    merge,
    merged,
    remove,
    sites,
    train_only,
    unmerge,
)
from gpt2lab.model.architecture import attach
from gpt2lab.model.quantization import Quantized, QuantizedLinear, dequantised
from gpt2lab.training import next_token
from tests.model.adapters.models import adapted_model, dense, model_of, shake
from tests.tiny import tiny, tokens

FAMILIES = ("gpt2", "gpt_neo", "gpt_neox", "llama")
PARTS = ("q", "k", "v", "o", "gate", "up", "down")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("targets", [("all-linear",), ("q", "v", "o", "up"), ("k", "down", "head")])
@pytest.mark.parametrize("rslora", [False, True])
@torch.no_grad()
def test_logits_are_those_of_the_dense_sum(family: str, targets: tuple[str, ...], rslora: bool) -> None:
    lora = Lora(rank=3, alpha=5.0, targets=targets, rslora=rslora)
    free = {"tied_head": False} if "head" in targets else {}  # test_a_tied_head_is_untied has the other case
    model = adapted_model(family, lora, **free).double()
    expected = dense(model, family, scale=5 / 3**0.5 if rslora else 5 / 3, **free)
    ids = tokens(2, 8)
    mask = torch.ones(2, 8, dtype=torch.long)
    mask[0, :3] = 0
    for given in (None, mask):
        found = model(ids, attention_mask=given) - expected(ids, attention_mask=given)
        assert found[mask.bool()].abs().max() < 1e-10
    assert torch.allclose(model(ids[:, :1]), expected(ids[:, :1]), atol=1e-10)
    assert model(ids[:0]).shape == (0, 8, 61)


@pytest.mark.parametrize(
    "rank", [1, 2]
)  # 24 inputs: two parts of rank 1 go through one product, of rank 2 through two
@torch.no_grad()
def test_few_and_many_ranks_beside_each_other_give_the_dense_sum(rank: int) -> None:
    lora = Lora(rank=rank, alpha=2.0, targets=("q", "v", "up", "gate"))
    model = adapted_model("llama", lora).double()
    expected = dense(model, "llama", scale=2.0 / rank)
    assert torch.allclose(model(tokens(2, 8)), expected(tokens(2, 8)), atol=1e-10)


@torch.no_grad()
def test_an_embedding_adapter_adds_to_the_tokens_rows() -> None:
    model = adapted_model("llama", Lora(rank=2, alpha=3.0, targets=("embedding",))).double()
    parameters = {key.rpartition(".")[2]: tensor for key, tensor in adapter_parameters(model).items()}
    plain = model_of("llama").double()
    for token in range(61):
        for channel in range(24):
            products = [parameters["B"][channel, r] * parameters["A"][r, token] for r in range(2)]
            plain.embedding.weight[token, channel] += 1.5 * sum(products)
    assert torch.allclose(model(tokens(2, 5)), plain(tokens(2, 5)), atol=1e-10)
    assert torch.allclose(model.embedding.weight, plain.embedding.weight, atol=1e-12)


@pytest.mark.parametrize("init", ["kaiming", "gaussian"])
def test_a_fresh_adapter_changes_nothing_and_follows_its_generator(init: str) -> None:
    base, ids = tiny("gpt2")(tokens(2, 6)), tokens(2, 6)
    lora = Lora(rank=16, init=init, targets=("all-linear", "embedding"))  # type: ignore[arg-type]  # a Literal
    drawn = [
        adapter_parameters(attach(tiny("gpt2"), lora, generator=torch.Generator().manual_seed(seed)))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(attach(tiny("gpt2"), lora)(ids), base)
    for name, tensor in drawn[0].items():
        assert torch.equal(tensor, drawn[1][name])
        zero = name.endswith(".A") if name.startswith("embedding") else name.endswith(".B")
        assert bool((tensor == 0).all()) == zero
        assert zero or not torch.equal(tensor, drawn[2][name])
    A = drawn[0]["blocks.0.mlp.down.adapters.default.all.A"]  # 16 × 96
    if init == "kaiming":
        bound = 96**-0.5
        assert 0.97 * bound < A.abs().max() <= bound
        assert abs(A.std() - bound / 3**0.5) < 0.03 * bound
    else:
        assert abs(A.std() - 1 / 16) < 0.004


def test_only_the_adapter_trains_and_its_gradient_is_that_of_the_dense_sum() -> None:
    lora = Lora(rank=3, alpha=6.0, targets=("qkv", "down"))
    model = adapted_model("gpt2", lora).double()
    batch = {"tokens": tokens(2, 7), "targets": tokens(2, 7, seed=1)}
    next_token(model, batch)[0].backward()
    own = adapter_parameters(model)
    assert {name for name, p in model.named_parameters() if p.grad is not None} == set(own)
    count = count_trainable(model)
    assert count.trainable == sum(tensor.numel() for tensor in own.values())
    assert (
        str(count)
        == f"{count.trainable:,} of {count.total:,} weights train ({count.trainable / count.total:.2%})"
    )
    plain = dense(model, "gpt2", scale=2.0).requires_grad_()
    next_token(plain, batch)[0].backward()
    for name, A in own.items():
        if name.endswith(".A"):
            path = name.partition(".adapters.")[0]
            gradient, B = plain.get_parameter(f"{path}.weight").grad, own[name[:-1] + "B"]
            assert torch.allclose(A.grad, 2 * B.T @ gradient, atol=1e-10)  # ∂/∂A of W + 2 B A
            assert torch.allclose(B.grad, 2 * gradient @ A.T, atol=1e-10)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = adapted_model("llama", Lora(rank=2, targets=PARTS)).train()
        model.gradient_checkpointing = checkpointing
        next_token(model, {"tokens": tokens(2, 7), "targets": tokens(2, 7, seed=1)})[0].backward()
        gradients.append([p.grad for p in adapter_parameters(model).values()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_dropout_acts_on_the_adapters_input_in_training_only() -> None:
    model = adapted_model("gpt2", Lora(rank=2, targets=("up",), dropout=0.5, alpha=2.0))
    layer = model.get_submodule("blocks.1.mlp.up")
    assert isinstance(layer, AdaptedLinear)
    x = torch.randn(4, 24)
    exact = layer(x)
    layer.train()
    torch.manual_seed(5)
    found = layer(x)
    torch.manual_seed(5)
    kept = (torch.nn.functional.dropout(torch.ones(4, 24), 0.5) * x).detach()
    part = layer.parts("default")["all"]
    assert torch.allclose(found, layer.base(x) + kept @ part.A.T @ part.B.T, atol=1e-5)
    assert not torch.allclose(found, exact, atol=1e-3)
    assert torch.equal(layer.eval()(x), exact)


def test_bf16_models_keep_their_adapters_in_float32_and_stay_near_the_exact_logits() -> None:
    exact = adapted_model("llama", Lora(rank=2, alpha=2.0, targets=PARTS))
    rough = attach(model_of("llama").to(torch.bfloat16), Lora(rank=2, alpha=2.0, targets=PARTS))
    for name, tensor in adapter_parameters(rough).items():
        assert tensor.dtype is torch.float32
        tensor.data.copy_(exact.get_parameter(name))
    a, b = exact(tokens(3, 9)), rough(tokens(3, 9))
    assert b.dtype is torch.bfloat16
    assert (a - b).norm() < 0.03 * a.norm()
    next_token(rough, {"tokens": tokens(2, 7), "targets": tokens(2, 7)})[0].backward()
    assert all(torch.isfinite(p.grad).all() for p in adapter_parameters(rough).values())
    with torch.autocast("cpu", torch.bfloat16):
        assert (exact(tokens(3, 9)) - a).norm() < 0.03 * a.norm()


# Patterns.


@pytest.mark.parametrize(
    ("family", "patterns", "expected"),
    [
        ("gpt2", ("blocks.*.attention.qkv",), {"attention.qkv"}),
        ("gpt2", ("q", "up", "o"), {"attention.qkv.q", "mlp.up", "attention.out"}),
        ("gpt2", ("c_attn", "mlp.c_proj"), {"attention.qkv", "mlp.down"}),
        ("gpt_neox", ("query_key_value", "dense_h_to_4h"), {"attention.qkv", "mlp.up"}),
        ("llama", ("*.mlp.up",), {"mlp.up.gate", "mlp.up.up"}),
        ("llama", ("qkv",), {"attention.qkv.q", "attention.qkv.k", "attention.qkv.v"}),
        (
            "llama",
            ("q_proj", "self_attn.v_proj", "up_proj"),
            {"attention.qkv.q", "attention.qkv.v", "mlp.up.up"},
        ),
        ("llama", ("up", "gate"), {"mlp.up.up", "mlp.up.gate"}),
        ("gpt2", ("all-linear",), {"attention.qkv", "attention.out", "mlp.up", "mlp.down"}),
        (
            "llama",
            ("all-linear",),
            {
                *(f"attention.qkv.{part}" for part in "qkv"),
                *("attention.out", "mlp.up.gate", "mlp.up.up", "mlp.down"),
            },
        ),
        ("llama", ("mlp.down",), {"mlp.down"}),
    ],
)
def test_patterns_reach_these_layers_in_every_block(
    family: str, patterns: tuple[str, ...], expected: set[str]
) -> None:
    model = attach(tiny(family), Lora(rank=2, targets=patterns))
    found = {name.partition(".adapters.") for name in adapter_parameters(model)}
    places = {
        path if rest.split(".")[1] == "all" else f"{path}.{rest.split('.')[1]}" for path, _, rest in found
    }
    assert places == {f"blocks.{i}.{name}" for i in range(3) for name in expected}


def test_exclusions_and_patterns_of_single_layers() -> None:
    lora = Lora(targets=("blocks.[02].*",), exclude=("down", "blocks.2.attention.*"), rank_pattern={"out": 3})
    model = attach(tiny("gpt2"), lora)
    shapes = {
        name.partition(".adapters.")[0]: tensor.shape[0]
        for name, tensor in adapter_parameters(model).items()
        if name.endswith(".A")
    }
    assert shapes == {
        "blocks.0.attention.qkv": 8,
        "blocks.0.attention.out": 3,
        "blocks.0.mlp.up": 8,
        "blocks.2.mlp.up": 8,
    }


def test_queries_keys_and_values_have_ranks_of_their_own() -> None:
    lora = Lora(
        exclude=("k_proj", "down"),
        rank_pattern={"q_proj": 3, "blocks.1.attention.qkv": 5, "up": 2, "blocks.0.mlp.up": 4},
    )
    model = attach(tiny("llama"), lora)
    ranks = {
        name.removesuffix(".A").replace(".adapters.default", ""): tensor.shape[0]
        for name, tensor in adapter_parameters(model).items()
        if name.endswith(".A") and not name.startswith("blocks.2")
    }
    assert ranks == {
        "blocks.0.attention.qkv.q": 3, "blocks.0.attention.qkv.v": 8, "blocks.0.attention.out.all": 8,
        "blocks.0.mlp.up.gate": 4, "blocks.0.mlp.up.up": 2,
        "blocks.1.attention.qkv.q": 3, "blocks.1.attention.qkv.v": 5, "blocks.1.attention.out.all": 8,
        "blocks.1.mlp.up.gate": 8, "blocks.1.mlp.up.up": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": ("blocks.*.atention.qkv",)}, "did you mean blocks.\\*.attention.qkv"),
        ({"targets": ("q_proj",)}, "stands for no linear or embedding of this model; did you mean q"),
        ({"targets": ("gate",)}, "gate stands for no linear"),
        (
            {"targets": ("qkv", "q")},
            "blocks.0.attention.qkv.q and all of blocks.0.attention.qkv are both chosen|both",
        ),
        ({"targets": ("q",), "exclude": ("q",)}, "nothing of the model is left"),
        (
            {"exclude": ("q",)},
            "exclude: blocks.0.attention.qkv.q is a part of blocks.0.attention.qkv, which is one matrix here",
        ),
        (
            {"targets": ("q",), "rank_pattern": {"down": 3}},
            "rank_pattern: down stands for nothing that is adapted",
        ),
        ({"targets": ("q",), "alpha_pattern": {"zzz": 3.0}}, "alpha_pattern: zzz"),
        ({"targets": ("head",), "dropout": 0.1}, "no dropout on head"),
        ({"rank": 0}, "rank must be at least 1"),
        ({"dropout": 1.0}, "dropout must lie in"),
        ({"alpha": float("nan")}, "finite numbers"),
        ({"name": "a.b"}, "must be letters"),
        ({"targets": ()}, "names no layer"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_the_model_as_it_was(options: dict, message: str) -> None:  # type: ignore[type-arg]  # any options
    model = tiny("gpt2")
    names = list(model.state_dict())
    with pytest.raises(LabError, match=message):
        attach(model, Lora(**options))
    assert list(model.state_dict()) == names
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.architectures == ()


# Several at once.


def two(family: str = "llama"):  # type: ignore[no-untyped-def]
    """A model with two adapters, on whole matrices and on parts of them."""
    model = adapted_model(family, Lora(name="one", rank=2, alpha=4.0, targets=("q", "up", "down")))
    attach(model, Lora(name="two", rank=3, alpha=3.0, targets=("q", "v", "o"), strength=0.5))
    shake(list(adapter_parameters(model, ["two"]).values()), 0.3, seed=9)
    return model.double()


@torch.no_grad()
def test_adapters_add_up_and_can_be_switched() -> None:
    model, ids = two(), tokens(2, 7)
    both = model(ids)
    one = dense(model, "llama", scale=2.0, name="one")
    expected = dense(model, "llama", scale=1.0, name="two", strength=0.5)
    plain = model_of("llama").double()
    for a, b, c in zip(one.parameters(), expected.parameters(), plain.parameters(), strict=True):
        b += a - c
    assert torch.allclose(both, expected(ids), atol=1e-10)
    activate(model, {"one": 1.0})
    assert torch.allclose(model(ids), one(ids), atol=1e-10)
    assert adapters(model)["two"].strength == 0
    activate(model, {})
    assert torch.equal(model(ids), plain(ids))
    activate(model, {"one": 1.0, "two": 0.5})
    assert torch.equal(model(ids), both)
    remove(model, "two")
    assert torch.allclose(model(ids), one(ids), atol=1e-10)
    assert isinstance(model.get_submodule("blocks.0.attention.out"), torch.nn.Linear)
    remove(model, "one")
    assert list(model.state_dict()) == list(plain.state_dict())
    assert model.architectures == ()


def test_the_newest_adapter_trains_until_told_otherwise() -> None:
    model = two()
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(
        adapter_parameters(model, ["two"])
    )
    train_only(model, "one")
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(
        adapter_parameters(model, ["one"])
    )
    with pytest.raises(LabError, match="has an adapter named one"):
        attach(model, Lora(name="one"))
    with pytest.raises(LabError, match="thre: no such adapter of this model"):
        train_only(model, "thre")


@torch.no_grad()
def test_a_combination_is_the_weighted_sum() -> None:
    model, ids = two(), tokens(2, 7)
    activate(model, {"one": 0.7, "two": -0.4})
    expected = model(ids)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    combine(model, {"one": 0.7, "two": -0.4}, "both")
    assert torch.allclose(model(ids), expected, atol=1e-10)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == trained
    assert adapter_parameters(model, ["both"])["blocks.0.attention.qkv.adapters.both.q.A"].shape == (5, 24)
    with pytest.raises(LabError, match="has an adapter named one"):
        combine(model, {"two": 1.0}, "one")


# Merging.


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_merged_logits_are_the_same_and_unmerging_gives_back_the_bits(family: str) -> None:
    model, ids = adapted_model(family, Lora(rank=3, targets=("q", "o", "mlp.up"))), tokens(2, 8)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = model(ids)
    merge(model)
    assert (model(ids) - before).abs().max() < 1e-5
    assert not torch.equal(model(ids), before)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(LabError, match="unmerge"):
        activate(model, {"default": 0.0})
    unmerge(model)
    assert torch.equal(model(ids), before)
    new = merged(model)
    assert (new(ids) - before).abs().max() < 1e-5
    assert list(new.state_dict()) == list(tiny(family).state_dict())
    assert all(parameter.requires_grad for parameter in new.parameters())
    assert new.architectures == ()
    assert torch.equal(model(ids), before)
    with pytest.raises(LabError, match="without adapters"):
        merge(new)


def test_a_merged_model_refuses_training() -> None:
    model = adapted_model("gpt2", Lora(rank=2))
    merge(model)
    with pytest.raises(LabError, match=r"no gradient reaches them; unmerge\(model\)"):
        model.train()(tokens(1, 3))


@pytest.mark.parametrize("target", ["head", "embedding"])
@torch.no_grad()
def test_a_tied_head_is_untied_by_merging(target: str, tmp_path: Path) -> None:
    model, ids = adapted_model("gpt2", Lora(rank=2, targets=(target,))), tokens(2, 5)
    table = model_of("gpt2").embedding.weight
    base = model_of("gpt2")
    delta = list(adapter_parameters(model).values())
    update = (delta[1] @ delta[0]) * 8
    if target == "head":
        expected = base.hidden(ids) @ (table + update).T
    else:
        expected = base.hidden(embeddings=(table + update.T)[ids]) @ table.T
    assert torch.allclose(model(ids), expected, atol=1e-5)
    new = merged(model)
    assert not new.config.tied_head
    assert (new(ids) - model(ids)).abs().max() < 1e-5
    save_model(new, tmp_path / "new")
    assert torch.equal(load_model(tmp_path / "new")(ids), new(ids))
    assert merged(attach(model_of("gpt2"), Lora(targets=("q",)))).config.tied_head


# On disk, and in the rest of the house.


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_is_saved_and_loaded_with_its_adapters(family: str, tmp_path: Path) -> None:
    model = adapted_model(family, Lora(rank=2, name="one", targets=("q", "embedding"), rank_pattern={"q": 3}))
    attach(model, Lora(name="two", targets=("head", "down"), strength=0.25))
    shake(list(adapter_parameters(model, ["two"]).values()), 0.3)
    save_model(model, tmp_path / "model")
    with pytest.raises(
        LabError,
        match=r"what the architecture lora changes; make an ordinary model of it.*merge-lora MODEL --out DIR$",
    ):
        save_model(model, tmp_path / "hf", layout="huggingface")
    again = load_model(tmp_path / "model")
    assert adapters(again) == adapters(model)
    assert torch.equal(again(tokens(2, 6)), model(tokens(2, 6)))
    assert count_trainable(again) == count_trainable(model)
    trained = [name for name, parameter in again.named_parameters() if parameter.requires_grad]
    assert trained == list(adapter_parameters(again, ["two"]))


@torch.no_grad()
def test_decoding_through_the_cache_equals_one_pass() -> None:
    model, ids = adapted_model("llama", Lora(rank=2, targets=PARTS)), tokens(2, 8)
    cache = model.new_cache(batch=2, length=8)
    steps = [model(ids[:, i : i + 1], cache=cache) for i in range(8)]
    assert torch.allclose(torch.cat(steps, 1), model(ids), atol=1e-5)


def quantised_model(**options: object):  # type: ignore[no-untyped-def]
    """A 4-bit base with an adapter beside it."""
    base = attach(model_of("llama"), Quantized(group=8))
    model = attach(base, Lora(rank=2, alpha=2.0, targets=PARTS, **options))  # type: ignore[arg-type]  # options of Lora
    shake(list(adapter_parameters(model).values()), 0.2)
    return model


def test_an_adapter_trains_beside_a_quantised_base_as_beside_the_same_weights_written_out() -> None:
    model = quantised_model()
    plain = dequantised(model)
    gradients = []
    for one in (model, plain):
        loss, _ = next_token(one, {"tokens": tokens(2, 7), "targets": tokens(2, 7, seed=1)})
        loss.backward()
        gradients.append([loss.detach(), *(p.grad for p in adapter_parameters(one).values())])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))
    assert {n for n, p in model.named_parameters() if p.grad is not None} == set(adapter_parameters(model))


@torch.no_grad()
def test_a_quantised_base_is_merged_only_if_rounding_again_is_asked_for(tmp_path: Path) -> None:
    model, ids = quantised_model(), tokens(2, 6)
    for call in (merge, merged):
        with pytest.raises(LabError, match=r"blocks.0.attention.qkv: its base is quantised.*requantise=true"):
            call(model)
    new = merged(model, requantise=True)
    assert not adapters(new)
    assert isinstance(new.get_submodule("blocks.0.mlp.up"), QuantizedLinear)
    exact = merged(dequantised(model))
    assert torch.allclose(exact(ids), model(ids), atol=1e-5)
    again = attach(exact, Quantized(group=8))
    assert torch.equal(again(ids), new(ids))
    save_model(model, tmp_path / "model")
    assert torch.equal(load_model(tmp_path / "model")(ids), model(ids))


@torch.no_grad()
def test_readers_of_weights_see_the_adapter() -> None:
    model, ids = adapted_model("gpt2", Lora(rank=2, targets=("o",))), tokens(1, 6)
    with model.tap(read=["blocks.1.attn.hook_result", "blocks.1.hook_attn_out"]) as tap:
        model(ids)
    bias = model.blocks[1].attention.out.bias
    total = tap["blocks.1.attn.hook_result"].sum(2) + bias
    assert torch.allclose(total, tap["blocks.1.hook_attn_out"], atol=1e-5)
    assert model.device.type == "cpu" and model.dtype is torch.float32


def test_every_site_has_a_name_of_its_own() -> None:
    for family in FAMILIES:
        names = [site.name for site in sites(tiny(family))]
        assert len(names) == len(set(names))
        assert names == [site.name for site in sites(attach(tiny(family), Lora()))]
