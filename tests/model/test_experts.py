"""Mixture of experts against a slow reference in float64, written from the equations, and its awkward cases."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MixtralForCausalLM
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from gpt2lab.base.errors import LabError
from gpt2lab.decode.greedy import Greedy
from gpt2lab.decode.interface import Limits
from gpt2lab.model import KeyValueCache, Transformer, load_model, save_model
from gpt2lab.model.experts import MixtureOfExperts, balance_loss, router_z_loss
from gpt2lab.model.forward import Pass
from gpt2lab.training import next_token
from tests.tiny import CONFIGS, tiny, tokens

ACTIVATIONS = {
    "gelu_tanh": lambda x: 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))),
    "gelu": lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)),
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "relu": lambda x: x * (x > 0),
}


def layer(
    *, dtype: torch.dtype = torch.float64, n_experts: int = 5, seed: int = 0, **changes: object
) -> MixtureOfExperts:
    """One mixture with random weights; d_model 6, experts 7 wide."""
    config = CONFIGS["gpt2"].replace(d_model=6, d_mlp=7, n_experts=n_experts, **changes)
    made = MixtureOfExperts(config, 1)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return made.to(dtype)


def empty_pass() -> Pass:
    return Pass(mask=lambda window: None, causal=True, rotary=None, cache=None, slots=slice(0, 0), tap=None)


def random(*shape: int, seed: int = 3, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def one_token(mixture: MixtureOfExperts, x: torch.Tensor) -> torch.Tensor:
    """Σ p_e · E_e(x) over the k largest p_e, from the equations, for one vector x [d_model]."""
    scores = mixture.router.weight @ x
    p = torch.exp(scores) / torch.exp(scores).sum()
    best = sorted(range(len(p)), key=lambda e: -p[e].item())[: mixture.k]
    total = sum(p[e] for e in best) if mixture.normalise else 1.0
    y = torch.zeros_like(x)
    biases = {
        part: getattr(mixture, part).bias.view(mixture.n_experts, -1)
        if getattr(mixture, part).bias is not None
        else None
        for part in ("up", "down")
    }
    for e in best:
        pre = mixture.up.weight[e] @ x
        pre = pre + biases["up"][e] if biases["up"] is not None else pre
        f = ACTIVATIONS[mixture.activation]
        half = len(pre) // 2
        post = f(pre[:half]) * pre[half:] if mixture.gated else f(pre)
        out = mixture.down.weight[e] @ post
        y = y + p[e] / total * (out + biases["down"][e] if biases["down"] is not None else out)
    return y


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(("k", "normalise", "bias"), [(1, False, True), (2, True, False), (5, False, True)])
def test_values_and_gradients_are_those_of_the_equations(activation, gated, k, normalise, bias) -> None:
    mixture = layer(
        activation=activation,
        gated=gated,
        experts_per_token=k,
        normalise_expert_weights=normalise,
        mlp_bias=bias,
    )
    x = random(2, 4, 6).requires_grad_()
    upstream = random(2, 4, 6, seed=4)
    inputs = [x, *mixture.parameters()]
    ours = mixture(x, empty_pass())
    reference = torch.stack([torch.stack([one_token(mixture, v) for v in row]) for row in x])
    torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-10)
    ours_grads = torch.autograd.grad((ours * upstream).sum(), inputs, allow_unused=True)
    reference_grads = torch.autograd.grad((reference * upstream).sum(), inputs, allow_unused=True)
    for mine, theirs in zip(ours_grads, reference_grads, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_second_derivatives_are_right_too() -> None:
    mixture = layer(experts_per_token=2, activation="silu", n_experts=3)
    x = random(1, 3, 6).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda v: mixture(v, empty_pass()), (x,), atol=1e-4)


def test_an_expert_that_gets_no_token_has_a_gradient_of_zero() -> None:
    mixture = layer(experts_per_token=1)
    with torch.no_grad():
        mixture.router.weight.zero_()
        mixture.router.weight[3] = 5.0  # positive inputs all go to expert 3
    x = random(2, 3, 6).abs()
    mixture(x, empty_pass()).sum().backward()
    grad = mixture.up.weight.grad
    assert grad[3].abs().min() > 0
    assert (grad[[0, 1, 2, 4]] == 0).all()


def test_no_tokens_at_all_give_no_tokens() -> None:
    assert layer()(torch.zeros(0, 3, 6, dtype=torch.float64), empty_pass()).shape == (0, 3, 6)
    assert layer()(torch.zeros(2, 0, 6, dtype=torch.float64), empty_pass()).shape == (2, 0, 6)


def test_a_token_alone_in_a_batch_and_beside_padding_gets_the_same_values() -> None:
    model = tiny("llama", n_experts=4, experts_per_token=2).double()
    ids = tokens(1, 6)
    alone = model(ids)
    rows = torch.cat([torch.zeros(1, 3, dtype=torch.long), ids], 1)
    rows = torch.cat([rows, tokens(2, 9, seed=5)])
    mask = torch.ones_like(rows)
    mask[0, :3] = 0
    torch.testing.assert_close(model(rows, attention_mask=mask)[:1, 3:], alone, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model(ids[:, :1]), alone[:, :1], rtol=1e-9, atol=1e-9)


def test_one_expert_for_all_is_the_plain_feed_forward() -> None:
    mixed, plain = tiny("gpt2", n_experts=1, experts_per_token=1), tiny("gpt2")
    state = {
        name: tensor[0] if tensor.dim() == 3 else tensor
        for name, tensor in mixed.state_dict().items()
        if "router" not in name
    }
    plain.load_state_dict(state)
    torch.testing.assert_close(mixed(tokens(2, 9)), plain(tokens(2, 9)), rtol=1e-5, atol=1e-5)


def test_bfloat16_stays_near_float64_and_the_router_works_in_float32() -> None:
    mixture = layer(dtype=torch.bfloat16, activation="silu", gated=True)
    x = random(2, 8, 6, dtype=torch.float32).bfloat16()
    wide = layer(activation="silu", gated=True)
    wide.load_state_dict(mixture.state_dict())
    exact = wide(x.double(), empty_pass())
    ours = mixture(x, empty_pass())
    assert ours.dtype == torch.bfloat16
    assert (ours.double() - exact).abs().max() < 0.03 * exact.abs().max()
    model = tiny("llama", n_experts=4).bfloat16()
    with model.tap(read=["hook_router_logits"]) as tap:
        model(tokens(1, 5))
    assert tap["hook_router_logits"].dtype == torch.float32


def test_layers_may_have_experts_or_not() -> None:
    model = tiny("gpt2", n_experts=(0, 4, 0), experts_per_token=1)
    assert model(tokens(2, 5)).isfinite().all()
    routed = [name for name in model.activation_names() if "router" in name]
    assert routed == ["blocks.1.mlp.hook_router_logits"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_experts": (4, 2, 0)}, "one number, or 0"),
        ({"n_experts": (4, 4)}, "2 entries for 3 layers"),
        ({"n_experts": 2, "experts_per_token": 3}, "between 1 and n_experts 2, got 3"),
        ({"n_experts": 2, "experts_per_token": 0}, "between 1 and n_experts 2, got 0"),
        ({"n_experts": 2, "balance_weight": -0.1}, "balance_weight must not be negative"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, words) -> None:
    with pytest.raises(LabError, match=words):
        CONFIGS["gpt2"].replace(**changes)


def test_activations_of_the_chosen_experts_are_shown_in_the_order_of_tokens() -> None:
    model = tiny("llama", n_experts=4, experts_per_token=2)
    ids = tokens(2, 7)
    with model.tap(read=["mlp.hook*", "ln2.hook_normalized"]) as tap:
        logits = model(ids)
    mixture, name = model.blocks[1].mlp, "blocks.1.mlp."
    x = tap["blocks.1.ln2.hook_normalized"]
    chosen, weights = tap[f"{name}hook_expert_indices"], tap[f"{name}hook_expert_weights"]
    assert chosen.shape == weights.shape == (2, 7, 2)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 7))
    probabilities = tap[f"{name}hook_router_logits"].softmax(-1)
    assert torch.equal(probabilities.gather(-1, chosen)[..., 0], probabilities.max(-1).values)
    e = int(chosen[1, 4, 1])
    pre = mixture.up.weight[e] @ x[1, 4]
    torch.testing.assert_close(tap[f"{name}hook_pre"][1, 4, 1], pre[:40])
    torch.testing.assert_close(
        tap[f"{name}hook_post"][1, 4, 1], torch.nn.functional.silu(pre[:40]) * pre[40:]
    )
    torch.testing.assert_close(logits, model(ids))  # looking changes nothing


def test_what_is_written_decides_where_tokens_go() -> None:
    model = tiny("llama", n_experts=4, experts_per_token=1)
    with model.tap(
        write={
            "hook_router_logits": lambda x, name: torch.zeros_like(x).index_fill(-1, torch.tensor(2), 9.0)
        },
        read=["hook_expert_indices"],
    ) as tap:
        model(tokens(2, 5))
    assert (tap["hook_expert_indices"] == 2).all()


def test_parameters_that_a_token_meets_are_counted() -> None:
    counts = tiny("llama", n_experts=4, experts_per_token=1).count_parameters()
    dense = tiny("llama").count_parameters()
    assert counts["active"] == dense["total"] + 3 * 4 * 24  # the routers are met by every token
    assert counts["total"] == dense["total"] + 3 * (4 * 24 + 3 * 3 * 24 * 40)
    assert "active" not in dense


def test_a_gpt2_with_experts_is_saved_in_the_labs_own_layout(tmp_path) -> None:
    model = tiny("gpt2", n_experts=(0, 4, 4), experts_per_token=1)
    with pytest.raises(LabError, match="n_experts=0"):
        save_model(model, tmp_path / "m", layout="huggingface")
    save_model(model, tmp_path / "m")
    again = load_model(tmp_path / "m")
    assert again.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_a_mixtral_is_saved_without_loss_and_counts_experts_one_by_one(tmp_path) -> None:
    model = tiny("llama", n_experts=4, router_z_weight=0.001)
    model.config = model.config.replace(family="mixtral")
    save_model(model, tmp_path / "m", layout="huggingface")
    again = load_model(tmp_path / "m")
    assert again.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))
    path = tmp_path / "m" / "model.safetensors"
    stored = load_file(path)
    assert stored["model.layers.2.block_sparse_moe.experts.3.w2.weight"].shape == (24, 40)
    del stored["model.layers.1.block_sparse_moe.experts.2.w3.weight"]
    save_file(stored, path)
    with pytest.raises(LabError, match=r"layers\.1\.block_sparse_moe\.experts\.2\.w3\.weight is missing"):
        load_model(tmp_path / "m")


def test_new_models_draw_experts_like_matrices_and_biases_as_zero() -> None:
    config = CONFIGS["gpt2"].replace(d_model=96, n_heads=3, n_experts=4)
    model = Transformer(config, generator=torch.Generator().manual_seed(0))
    mixture = model.blocks[0].mlp
    assert mixture.up.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert mixture.down.weight.std().item() == pytest.approx(0.02 / 6**0.5, rel=0.02)
    assert (mixture.up.bias == 0).all() and (mixture.down.bias == 0).all()


@torch.no_grad()
def test_decoding_through_the_cache_equals_one_pass() -> None:
    model = tiny("llama", n_experts=4)
    ids = tokens(2, 9)
    cache = model.new_cache(batch=2, length=9) if hasattr(model, "new_cache") else KeyValueCache(
        model.config, batch=2, length=9, dtype=model.dtype
    )  # fmt: skip
    steps = [model(ids[:, :4], cache=cache), *(model(ids[:, i : i + 1], cache=cache) for i in range(4, 9))]
    torch.testing.assert_close(torch.cat(steps, 1), model(ids), rtol=1e-4, atol=1e-5)


def test_greedy_decoding_goes_on_with_the_likeliest_token() -> None:
    model = tiny("gpt2", n_experts=4)
    prompts = [[5, 9, 11, 2], [7]]
    written = Greedy().decode(model, prompts, Limits(max_new_tokens=6)).tokens
    for prompt, row in zip(prompts, written, strict=True):
        ids = list(prompt)
        with torch.no_grad():
            for _ in range(6):
                ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        assert row == ids[len(prompt) :]


# ------------------------------------------------------------------------------------------------- losses


def slow_balance(logits: list[torch.Tensor], k: int, mask: torch.Tensor) -> torch.Tensor:
    """N Σ_i f_i P_i (Fedus et al. 2021, eq. 4 to 6), token by token over all layers."""
    n = logits[0].shape[-1]
    sent, likely, count = torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64), 0
    for of_layer in logits:
        for row, kept in zip(of_layer, mask, strict=True):
            for token, real in zip(row, kept, strict=True):
                if real:
                    p = torch.exp(token) / torch.exp(token).sum()
                    for e in torch.argsort(p, descending=True)[:k]:
                        sent[e] += 1
                    likely, count = likely + p, count + 1
    return n * sum(sent[i] / count * likely[i] / count for i in range(n))


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("padded", [False, True])
def test_the_balance_loss_is_that_of_the_equations_and_of_transformers(k, padded) -> None:
    logits = [random(3, 5, 4, seed=i).requires_grad_() for i in range(2)]
    mask = torch.ones(3, 5, dtype=torch.long)
    if padded:
        mask[0, :2], mask[2, 1:] = 0, 0
    ours = balance_loss(logits, k, mask if padded else None)
    reference = slow_balance(logits, k, mask)
    torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-10)
    theirs = load_balancing_loss_func(
        tuple(each.flatten(0, 1).float() for each in logits), 4, k, mask if padded else None
    )
    torch.testing.assert_close(ours.float(), theirs, rtol=1e-5, atol=1e-6)
    for mine, slow in zip(
        torch.autograd.grad(ours, logits), torch.autograd.grad(reference, logits), strict=True
    ):
        torch.testing.assert_close(mine, slow, rtol=1e-9, atol=1e-12)
    if padded:
        assert (torch.autograd.grad(balance_loss(logits, k, mask), logits)[0][mask == 0] == 0).all()


def test_an_even_load_costs_k_and_one_expert_for_all_costs_n() -> None:
    even = torch.eye(4).view(1, 4, 4) * 1e-3
    assert balance_loss([even], 1).item() == pytest.approx(1.0, abs=1e-4)
    assert balance_loss([torch.zeros(1, 4, 4)], 4).item() == pytest.approx(4.0)
    one = torch.tensor([50.0, 0, 0, 0]).expand(1, 6, 4)
    assert balance_loss([one], 1).item() == pytest.approx(4.0)


def test_the_z_loss_is_the_mean_square_of_the_log_partition() -> None:
    logits = [random(2, 3, 4, seed=i) for i in range(2)]
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    kept = [x for each in logits for row, real in zip(each, mask, strict=True) for x in row[real == 1]]
    expected = sum(torch.log(torch.exp(x).sum()) ** 2 for x in kept) / 10
    torch.testing.assert_close(router_z_loss(logits, mask), expected)
    assert router_z_loss(logits, torch.zeros_like(mask)) == 0  # nothing but padding


def test_the_loss_in_training_is_that_of_transformers(tmp_path) -> None:
    model = tiny("llama", n_experts=4, balance_weight=0.3, seed=2)
    model.config = model.config.replace(family="mixtral")
    save_model(model, tmp_path / "m")
    theirs = MixtralForCausalLM.from_pretrained(tmp_path / "m").train()
    ids = tokens(3, 8)
    mask = torch.ones_like(ids)
    mask[0, 6:] = 0
    labels = ids.masked_fill(mask == 0, -100)
    expected = theirs(ids, attention_mask=mask, labels=labels, output_router_logits=True)
    targets = torch.cat([labels[:, 1:], torch.full((3, 1), -100)], 1)
    model.train()
    loss, metrics = next_token(model, {"tokens": ids, "targets": targets, "attention_mask": mask})
    torch.testing.assert_close(loss, expected.loss, rtol=1e-5, atol=1e-5)
    assert metrics["balance"] == pytest.approx(expected.aux_loss.item(), rel=1e-5)


def by_capacity(mixture: MixtureOfExperts, x: torch.Tensor, factor: float) -> torch.Tensor:
    """The mixture with capacities, token by token: x [tokens, d_model]. All first choices queue before all second ones."""
    count, n, k = len(x), mixture.n_experts, mixture.k
    most = k * int(factor * -(-count // n))
    p = (x @ mixture.router.weight.T).softmax(-1)
    best = [sorted(range(n), key=lambda e: -row[e].item())[:k] for row in p]
    taken = [0] * n
    y = torch.zeros_like(x)
    for choice in range(k):
        for t in range(count):
            e = best[t][choice]
            taken[e] += 1
            if taken[e] > most:
                continue
            total = sum(p[t][other] for other in best[t]) if mixture.normalise else 1.0
            f = ACTIVATIONS[mixture.activation]
            out = mixture.down.weight[e] @ f(mixture.up.weight[e] @ x[t])
            y[t] += p[t][e] / total * out
    return y


@pytest.mark.parametrize(("k", "normalise"), [(1, False), (2, True)])
@pytest.mark.parametrize("factor", [0.5, 1.0, 1.7, 9.0])
def test_a_full_expert_drops_tokens_in_training_only(k: int, normalise: bool, factor: float) -> None:
    options = {
        "experts_per_token": k,
        "normalise_expert_weights": normalise,
        "mlp_bias": False,
        "n_experts": 4,
    }
    plain, limited = layer(**options), layer(expert_capacity=factor, **options)
    x, run = random(3, 7, 6), empty_pass()
    expected = by_capacity(limited, x.flatten(0, 1), factor).view_as(x)
    trained = limited.train()(x, run)
    assert torch.allclose(
        trained, expected, atol=1e-6
    )  # weights of choices are of the router, in float64 here
    assert torch.equal(limited.eval()(x, run), plain.eval()(x, run))
    if factor > 5:  # room for all
        assert torch.allclose(trained, plain(x, run), atol=1e-6)
    else:
        assert torch.equal((trained == 0).all(-1), (expected == 0).all(-1))
        assert factor > 0.5 or (expected == 0).all(-1).any()


def test_the_gradient_of_a_dropped_token_does_not_reach_the_expert() -> None:
    mixture = layer(
        experts_per_token=1, normalise_expert_weights=False, n_experts=2, expert_capacity=1.0
    ).train()
    with torch.no_grad():
        mixture.router.weight[1] = -mixture.router.weight[0]  # tokens x and -x go to different experts
    x = random(1, 1, 6)
    same = x.repeat(1, 4, 1)  # all to one expert, which has room for two
    y = mixture(same, empty_pass())
    assert (y[0, :2] != 0).all() and (y[0, 2:] == 0).all()
    y[0, 2:].sum().backward()
    assert mixture.down.weight.grad is None or not mixture.down.weight.grad.any()


def test_a_capacity_is_saved_and_needs_experts(tmp_path) -> None:
    for name, family in (("llama", "mixtral"), ("gpt2", "gpt2")):
        config = CONFIGS[name].replace(family=family, n_experts=3, expert_capacity=1.25)
        save_model(Transformer(config), tmp_path / family)
        assert load_model(tmp_path / family).config.expert_capacity == 1.25
    for wrong in ({"expert_capacity": 2.0}, {"expert_capacity": 0.0, "n_experts": 3}):
        with pytest.raises(LabError, match="expert_capacity must be above 0, for a model with experts"):
            CONFIGS["gpt2"].replace(**wrong)
