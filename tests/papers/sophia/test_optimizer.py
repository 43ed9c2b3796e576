"""Sophia's step against float64 references of the paper and of the released code; its estimates against exact ones."""

import copy
import itertools
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families import mixtral_config
from gpt2lab.papers.sophia import (
    Lion,
    SophiaG,
    SophiaH,
    gauss_newton_bartlett,
    hutchinson,
    sampled_label_loss,
)
from gpt2lab.training import TrainSettings, masked_tokens, next_token, train
from gpt2lab.training.checkpoints import load_checkpoint, save_checkpoint
from gpt2lab.training.sampled_labels import drawn_labels
from tests.tiny import tiny
from tests.training.data import Counting


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_update_is_algorithm_3_of_the_paper() -> None:
    weight = nn.Parameter(drawn(0, 4, 3))
    optimizer = SophiaG([weight], lr=0.02, betas=(0.9, 0.8), gamma=0.5, eps=1e-12, weight_decay=0.3)
    theta, m, h = weight.detach().clone(), torch.zeros(4, 3).double(), torch.zeros(4, 3).double()
    for t in range(12):
        g, estimate = drawn(t + 1, 4, 3), drawn(t + 100, 4, 3) ** 2
        g[0, 0] = 0.0  # never any momentum here
        weight.grad = g.clone()
        optimizer.step()
        m = 0.9 * m + 0.1 * g
        theta = theta - 0.02 * 0.3 * theta
        for i, j in itertools.product(range(4), range(3)):
            step = float(m[i, j]) / max(0.5 * float(h[i, j]), 1e-12)
            theta[i, j] -= 0.02 * max(min(step, 1.0), -1.0)
        assert torch.allclose(weight, theta, rtol=1e-12, atol=1e-14), t
        if t % 3 == 2:
            optimizer.add_curvature([estimate])
            h = 0.8 * h + 0.2 * estimate
    scaled = 0.5 * h
    assert optimizer.unclipped_share() == pytest.approx(float((m.abs() < scaled).double().mean()))
    norms = optimizer.curvature_norms()
    assert norms["curvature_l1"] == pytest.approx(float(h.abs().sum()))
    assert norms["curvature_l2"] == pytest.approx(float(h.norm()))


def test_gamma_is_the_released_codes_rho_when_the_curvature_carries_the_factor_b() -> None:
    """The code keeps h without B and multiplies by bs: m += ..., ratio = |m| / (rho bs h + 1e-15) capped at 1."""
    terms, rho = 512, 0.05
    weight = nn.Parameter(drawn(0, 5, 2))
    optimizer = SophiaG([weight], lr=0.01, gamma=rho, weight_decay=0.1)
    theta, m, h = weight.detach().clone(), torch.zeros(5, 2).double(), torch.zeros(5, 2).double()
    for t in range(9):
        g, sampled = drawn(t, 5, 2), 0.1 * drawn(50 + t, 5, 2)
        weight.grad = g.clone()
        optimizer.step()
        theta = theta * (1 - 0.01 * 0.1)
        m = 0.965 * m + (1 - 0.965) * g
        ratio = (m.abs() / (rho * terms * h + 1e-15)).clamp(max=1)
        theta = theta - 0.01 * m.sign() * ratio
        assert torch.allclose(weight, theta, atol=1e-9)
        if t % 2:
            weight.grad = sampled.clone()
            optimizer.update_curvature(terms)
            h = 0.99 * h + 0.01 * sampled**2


def test_before_any_estimate_and_at_negative_curvature_the_step_is_a_sign() -> None:
    weight = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    optimizer = SophiaH([weight], lr=0.1, weight_decay=0.0)
    weight.grad = torch.tensor([3.0, -1e-6, 0.0, 5.0]).double()
    optimizer.step()
    assert torch.allclose(weight, torch.tensor([-0.1, 0.1, 0.0, -0.1]).double())
    optimizer.add_curvature([torch.tensor([-1e9, -1e9, -1e9, 1e9]).double()])
    weight.grad = torch.tensor([3.0, -1e-6, 0.0, 5.0]).double()
    optimizer.step()
    assert torch.allclose(weight[:3], torch.tensor([-0.2, 0.2, 0.0]).double())
    assert float(weight[3].detach()) == pytest.approx(-0.1, abs=1e-6)


def test_the_running_curvature_may_be_corrected_for_its_start_at_zero() -> None:
    weight = nn.Parameter(drawn(0, 3))
    optimizer = SophiaG([weight], lr=0.01, gamma=1.0, weight_decay=0.0, correct_curvature=True)
    estimate = torch.full((3,), 40.0).double()
    for _ in range(3):
        optimizer.add_curvature([estimate])
    before = weight.detach().clone()
    weight.grad = torch.full((3,), 100.0).double()
    optimizer.step()
    expected = before - 0.01 * (0.035 * 100) / 40.0  # as if h were 40 itself
    assert torch.allclose(weight, expected, rtol=1e-9)


def quadratic() -> tuple[Tensor, Tensor]:
    half = drawn(1, 5, 5)
    return half + half.T, drawn(2, 5)


@pytest.mark.parametrize("noise", ["normal", "rademacher"])
def test_hutchinsons_mean_is_the_diagonal_of_the_hessian(noise: Any) -> None:
    matrix, _ = quadratic()
    x = nn.Parameter(drawn(3, 5))
    generator, total = seeded(0), torch.zeros(5).double()
    draws = 4000
    for _ in range(draws):
        loss = 0.5 * x @ matrix @ x + (x**4).sum()
        total += hutchinson(loss, [x], generator=generator, noise=noise)[0]
    exact = torch.diag(matrix) + 12 * x.detach() ** 2
    off = matrix.square().sum(1) - torch.diag(matrix) ** 2
    spread = off + (2 * exact**2 if noise == "normal" else 0)  # variance of u_i (H u)_i
    assert ((total / draws - exact).abs() < 4.5 * (spread / draws).sqrt()).all()


def test_the_gauss_newton_bartlett_mean_is_the_gauss_newton_diagonal() -> None:
    """Exactly: all label pairs of two examples are enumerated with their probabilities."""
    features, weight = drawn(0, 2, 3), nn.Parameter(drawn(1, 4, 3))
    probabilities = (features @ weight.T).softmax(-1).detach()
    mean = torch.zeros(4, 3).double()
    for first, second in itertools.product(range(4), repeat=2):
        loss = F.cross_entropy(features @ weight.T, torch.tensor([first, second]))
        estimate = gauss_newton_bartlett(loss, [weight], terms=2)[0]
        mean += probabilities[0, first] * probabilities[1, second] * estimate
    exact = torch.zeros(4, 3).double()
    for example in range(2):
        p, x = probabilities[example], features[example]
        curvature = torch.diag(p) - torch.outer(p, p)  # of cross entropy in the logits
        for label, column in itertools.product(range(4), range(3)):
            exact[label, column] += 0.5 * curvature[label, label] * x[column] ** 2
    assert torch.allclose(mean, exact, atol=1e-7)  # logits are taken to float32 for the loss
    assert (mean >= 0).all()


def test_the_sampled_gradient_is_clipped_before_it_is_squared() -> None:
    weight = nn.Parameter(drawn(0, 3, 2))
    loss = 100 * weight.sum()
    estimate = gauss_newton_bartlett(loss, [weight], terms=8, clip=1.0)[0]
    assert float(estimate.sum()) == pytest.approx(8.0, rel=1e-5)


def test_labels_follow_the_softmax_and_padding_ids_and_positions_are_left_out() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, 9.0]).expand(40_000, 4)
    labels = drawn_labels(logits[:, :3], seeded(1))
    shares = torch.bincount(labels, minlength=3) / len(labels)
    assert torch.allclose(shares, logits[0, :3].softmax(-1), atol=0.011)
    rows = torch.randn(6, 4, generator=seeded(2), requires_grad=True)
    keep = torch.tensor([1, 0, 1, 1, 0, 1])
    loss = sampled_label_loss(rows, generator=seeded(3), keep=keep, vocab_size=3)
    (gradient,) = torch.autograd.grad(loss, rows)
    assert (gradient[keep == 0] == 0).all() and (gradient[:, 3] == 0).all()
    assert (gradient[keep == 1][:, :3].abs().sum(1) > 0).all()
    assert torch.allclose(gradient.sum(1), torch.zeros(6), atol=1e-6)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama"])
def test_in_the_loop_sophia_g_squares_the_gradient_of_all_micro_batches_together(family: str) -> None:
    model = tiny(family)
    optimizer = SophiaG.for_model(model, clip=None, gamma=1.0)
    batches = [Counting(padded=True)[0], Counting(padded=True)[1]]
    numbers = optimizer.refresh(model, batches, next_token, seeded(5))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    generator, total, loss = seeded(5), 0, torch.zeros(())
    for batch in batches:
        logits = model(batch["tokens"], attention_mask=batch["attention_mask"])
        labels = drawn_labels(logits.detach().flatten(0, 1), generator)
        labels[batch["targets"].flatten() == -100] = -100
        loss = loss + F.cross_entropy(logits.flatten(0, 1), labels, reduction="sum", ignore_index=-100)
        total += int((labels != -100).sum())
    gradients = torch.autograd.grad(loss / total, parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        expected = 0.01 * total * gradient**2
        assert torch.allclose(optimizer.state[parameter]["curvature"], expected, rtol=1e-3, atol=1e-9)
    assert 0 <= numbers["win_rate"] <= 1
    assert all(parameter.grad is None for parameter in parameters)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama"])
def test_in_the_loop_sophia_h_multiplies_with_the_hessian_of_the_training_loss(family: str) -> None:
    """Against a difference of gradients along u: H u = (∇L(θ + δu) - ∇L(θ - δu)) / 2δ, in float64."""
    model = tiny(family).double()
    optimizer = SophiaH.for_model(model, curvature_rows=6)
    batches = [Counting(padded=True)[0], Counting(padded=True)[1]]
    optimizer.refresh(model, batches, next_token, seeded(5))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    generator = seeded(5)
    directions = [torch.empty_like(p).normal_(generator=generator) for p in parameters]
    rows = [batches[0], {name: tensor[:2] for name, tensor in batches[1].items()}]
    total = sum(int((batch["targets"] != -100).sum()) for batch in rows)

    def gradients(shift: float) -> list[Tensor]:
        moved = copy.deepcopy(model)
        theirs = dict(zip([id(p) for p in model.parameters()], moved.parameters(), strict=True))
        with torch.no_grad():
            for p, u in zip(parameters, directions, strict=True):
                theirs[id(p)].add_(shift * u)
        loss = torch.zeros((), dtype=torch.float64)
        for batch in rows:
            logits = moved(batch["tokens"], attention_mask=batch["attention_mask"]).flatten(0, 1)
            loss = loss + F.cross_entropy(logits, batch["targets"].flatten(), reduction="sum")
        return list(torch.autograd.grad(loss / total, [theirs[id(p)] for p in parameters]))

    ahead, behind = gradients(1e-5), gradients(-1e-5)
    for p, u, a, b in zip(parameters, directions, ahead, behind, strict=True):
        expected = 0.01 * u * (a - b) / 2e-5
        found = optimizer.state[p]["curvature"]
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max() + 1e-9))


@pytest.mark.parametrize("cls", [SophiaG, SophiaH])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_model_trains_and_a_resumed_run_ends_with_the_same_bits(
    cls: type[SophiaG] | type[SophiaH], when: Any, tmp_path: Path
) -> None:
    settings = TrainSettings(steps=12, learning_rate=3e-3, warmup=2, checkpoint_every=5, log_every=1)

    def make(model: nn.Module) -> Any:
        return cls.for_model(model, lr=3e-3, gamma=0.1, refresh_every=4, refresh_when=when)

    rows = dict[int, dict[str, float]]()
    whole = tiny("gpt2")
    result = train(
        whole, Counting(), settings=settings, optimizer=make(whole), seed=3,
        log=lambda step, **numbers: rows.update({step: numbers}),
    )  # fmt: skip
    assert result.losses[-1] < result.losses[0]
    refreshed = [step for step, numbers in rows.items() if "win_rate" in numbers]
    assert refreshed == ([1, 5, 9] if when == "before" else [4, 8, 12])

    class Stops(Counting):
        def __getitem__(self, index: int) -> dict[str, Tensor]:
            if index >= 9:
                raise InterruptedError
            return super().__getitem__(index)

    cut = tiny("gpt2")
    with pytest.raises(InterruptedError):
        train(cut, Stops(), settings=settings, optimizer=make(cut), checkpoints=tmp_path, seed=3)
    again = tiny("gpt2")
    train(
        again, Counting(), settings=settings, optimizer=make(again), checkpoints=tmp_path, resume=True, seed=3
    )
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def test_bf16_weights_keep_float32_state_through_a_checkpoint(tmp_path: Path) -> None:
    layer = nn.Linear(3, 2).bfloat16()
    for number, make in enumerate((SophiaG, SophiaH, Lion)):
        optimizer = make(layer.parameters(), lr=0.1)
        for p in layer.parameters():
            p.grad = torch.randn(p.shape, generator=seeded(1)).bfloat16()
        optimizer.step()
        path = save_checkpoint(tmp_path / str(number), 1, layer, optimizer, {})
        fresh = make(layer.parameters(), lr=0.1)
        load_checkpoint(path, layer, fresh)
        momentum = fresh.state[layer.weight]["momentum"]
        assert momentum.dtype is torch.float32
        assert torch.equal(momentum, optimizer.state[layer.weight]["momentum"])


def test_lion_is_its_algorithm() -> None:
    weight = nn.Parameter(drawn(0, 4, 3))
    optimizer = Lion([weight], lr=0.01, betas=(0.9, 0.7), weight_decay=0.5)
    theta, m = weight.detach().clone(), torch.zeros(4, 3).double()
    for t in range(6):
        g = drawn(t + 1, 4, 3)
        weight.grad = g.clone()
        optimizer.step()
        theta = theta - 0.01 * (torch.sign(0.9 * m + 0.1 * g) + 0.5 * theta)
        m = 0.7 * m + 0.3 * g
        assert torch.allclose(weight, theta, atol=1e-14)


def test_a_model_is_grouped_as_in_the_paper() -> None:
    for family in ("gpt2", "llama"):
        model = tiny(family)
        optimizer = SophiaG.for_model(model, weight_decay=0.2)
        names = {id(p): name for name, p in model.named_parameters()}
        decayed = {names[id(p)] for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]}
        assert {name for name in decayed if "blocks" not in name} == (
            set() if model.config.tied_head else {"head.weight"}
        )
        assert all(name.endswith("weight") and "norm" not in name for name in decayed)


@pytest.mark.parametrize(
    "options",
    [
        {"lr": -1.0},
        {"betas": (0.9, 1.0)},
        {"gamma": -0.1},
        {"eps": math.nan},
        {"weight_decay": -1.0},
        {"refresh_every": 0},
        {"refresh_when": "sometimes"},
        {"curvature_rows": 0},
        {"refresh_every": 2.5},
        {"betas": (0.9, 0.9, 0.9)},
        {"gamma": math.inf},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    for cls in (SophiaG, SophiaH):
        with pytest.raises(LabError, match=r"sophia|refresh_when"):
            cls([nn.Parameter(drawn(0, 3))], **options)


def test_misuse_is_refused_in_words() -> None:
    weight = nn.Parameter(drawn(0, 3))
    optimizer = SophiaG([weight])
    with pytest.raises(LabError, match=r"call backward\(\) before"):
        optimizer.step()
    with pytest.raises(LabError, match="at least 1"):
        optimizer.update_curvature(0)
    for options, words in (({"clip": -1.0}, "clip"), ({"vocab_size": 0}, "vocab_size")):
        with pytest.raises(LabError, match=words):
            SophiaG([weight], **options)  # type: ignore[arg-type]  # that is the mistake
    with pytest.raises(LabError, match="noise"):
        SophiaH([weight], noise="uniform")  # type: ignore[arg-type]  # that is the mistake
    model = tiny("gpt2")

    def distance(model: Any, batch: Any) -> tuple[Tensor, dict[str, float]]:
        return torch.zeros(()), {}

    with pytest.raises(LabError, match="not for distance"):
        SophiaG.for_model(model).refresh(model, [Counting()[0]], distance, seeded(0))
    with pytest.raises(LabError, match="no curvature"):
        hutchinson(weight.sum(), [weight])
    parameters = list(model.parameters())
    loss, _ = next_token(model, Counting()[0])
    with pytest.raises(LabError, match="second derivative"):
        hutchinson(loss, parameters)
    with pytest.raises(LabError, match="MATH"):  # the fused attention kernel
        hutchinson(model(Counting()[0]["tokens"]).square().mean(), parameters)
    nothing = {"tokens": torch.zeros(1, 4).long(), "targets": torch.full((1, 4), -100)}
    for cls in (SophiaG, SophiaH):
        with pytest.raises(LabError, match="no targets"):
            cls.for_model(model).refresh(model, [nothing], next_token, seeded(0))


def test_an_estimate_of_float64_gradients_stays_float64() -> None:
    weight = nn.Parameter(drawn(0, 5))
    optimizer = SophiaG([weight])
    weight.grad = drawn(1, 5)
    optimizer.update_curvature(terms=64)
    assert torch.allclose(
        optimizer.state[weight]["curvature"], 0.01 * 64 * weight.grad**2, rtol=1e-14, atol=0
    )
    logits = drawn(2, 6, 4)
    loss = sampled_label_loss(logits, generator=seeded(1))
    expected = F.cross_entropy(logits, drawn_labels(logits, seeded(1)))
    assert loss.dtype is torch.float64
    assert torch.equal(loss, expected)


def test_estimates_that_cannot_be_meant_are_refused_and_change_nothing() -> None:
    weights = [nn.Parameter(drawn(0, 4, 3)), nn.Parameter(drawn(1, 3))]
    optimizer = SophiaG(weights)
    good = [torch.ones(4, 3), torch.ones(3)]
    for wrong, words in (
        ([good[0]], "1 curvature estimates for 2 parameters"),
        ([good[0], torch.ones(1)], r"of shape \[1\] for a parameter of shape \[3\]"),
        ([good[0], torch.tensor([1.0, math.inf, 1.0])], "not finite"),
    ):
        with pytest.raises(LabError, match=words):
            optimizer.add_curvature(wrong)
    weights[0].grad = torch.ones(4, 3).double().to_sparse()
    with pytest.raises(LabError, match="sparse"):
        optimizer.update_curvature(terms=3)
    assert not optimizer.state


@pytest.mark.parametrize("cls", [SophiaG, SophiaH])
def test_frozen_parameters_are_left_out_of_an_estimate(cls: type[SophiaG] | type[SophiaH]) -> None:
    model = tiny("gpt2")
    model.embedding.weight.requires_grad_(False)
    optimizer = cls(model.parameters())
    optimizer.refresh(model, [Counting()[0]], next_token, seeded(0))
    assert model.embedding.weight not in optimizer.state
    assert int(optimizer.state[model.blocks[0].mlp.up.weight]["refreshes"]) == 1
    loss = (model.blocks[0].mlp.up.weight ** 2).sum()
    found = hutchinson(loss, list(model.parameters()), generator=seeded(0))
    assert not found[0].any()


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_a_model_that_fills_in_has_its_curvature_at_the_masked_places(family: str) -> None:
    batches = [Counting()[0], Counting()[1]]
    for number, batch in enumerate(batches):
        batch["targets"][:, number::2] = -100
    model = tiny(family)
    optimizer = SophiaG(model.parameters(), clip=None)
    optimizer.refresh(model, batches, masked_tokens, seeded(5))
    generator, loss, total = seeded(5), torch.zeros(()), 0
    for batch in batches:
        logits = model(batch["tokens"])[batch["targets"] != -100]
        labels = drawn_labels(logits.detach(), generator)
        loss, total = loss + F.cross_entropy(logits, labels, reduction="sum"), total + len(labels)
    gradients = torch.autograd.grad(loss / total, list(model.parameters()), allow_unused=True)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        expected = torch.zeros_like(parameter) if gradient is None else 0.01 * total * gradient**2
        assert torch.allclose(optimizer.state[parameter]["curvature"], expected, rtol=1e-3, atol=1e-8)

    # A Hessian has entries of both signs, and the estimate of the same loss by hand is the same.
    second = SophiaH(model.parameters(), curvature_rows=None)
    second.refresh(model, batches[:1], masked_tokens, seeded(7))
    with sdpa_kernel(SDPBackend.MATH):
        kept = batches[0]["targets"] != -100
        plain = F.cross_entropy(model(batches[0]["tokens"])[kept], batches[0]["targets"][kept])
    for parameter, estimate in zip(
        model.parameters(), hutchinson(plain, list(model.parameters()), generator=seeded(7)), strict=True
    ):
        assert torch.allclose(second.state[parameter]["curvature"], 0.01 * estimate, rtol=1e-3, atol=1e-7)


def test_hutchinson_takes_any_objective_that_can_be_differentiated_twice() -> None:
    model = tiny("gpt2")
    parameters = list(model.parameters())

    def squares(model: Any, batch: Any) -> tuple[Tensor, dict[str, float]]:
        return sum((p**4).sum() for p in model.parameters()) / 12, {}  # type: ignore[return-value]  # a tensor

    optimizer = SophiaH(parameters, noise="rademacher", curvature_rows=None)
    optimizer.refresh(model, [{"pairs": torch.zeros(2, 3)}], squares, seeded(0))
    for parameter in parameters:  # a diagonal Hessian is found exactly with ±1
        assert torch.allclose(optimizer.state[parameter]["curvature"], 0.01 * parameter**2, atol=1e-7)
    ascending = SophiaH(parameters, noise="rademacher", maximize=True)
    ascending.refresh(model, [{"pairs": torch.zeros(2, 3)}], squares, seeded(0))
    assert torch.equal(
        ascending.state[parameters[0]]["curvature"], -optimizer.state[parameters[0]]["curvature"]
    )


def test_recomputed_activations_and_bf16_leave_hutchinsons_estimate_alone() -> None:
    ends = []
    for checkpointing, precision in ((False, "float32"), (True, "bf16")):
        model = tiny("gpt2")
        optimizer = SophiaH.for_model(model, lr=0.0, refresh_every=1)
        settings = TrainSettings(
            steps=1,
            gradient_checkpointing=checkpointing,
            precision=precision,  # type: ignore[arg-type]  # each is one
        )
        train(model, Counting(), settings=settings, optimizer=optimizer)
        ends.append([state["curvature"] for state in optimizer.state.values()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@pytest.mark.parametrize("cls", [SophiaG, SophiaH])
def test_a_list_of_batches_may_end_with_the_run(cls: type[SophiaG] | type[SophiaH]) -> None:
    batches = [Counting()[i] for i in range(6)]
    for steps, finishes in ((6, True), (8, False)):
        model = tiny("gpt2")
        optimizer = cls.for_model(model, refresh_every=3)
        settings = TrainSettings(steps=steps, learning_rate=1e-3)
        if finishes:
            assert train(model, batches, settings=settings, optimizer=optimizer).steps == 6
        else:
            with pytest.raises(IndexError):
                train(model, batches, settings=settings, optimizer=optimizer)


def test_experts_and_adapters_decay_as_the_linear_maps_they_are() -> None:
    model = Transformer(
        mixtral_config(
            vocab_size=61, d_model=24, n_layers=1, n_heads=4, n_kv_heads=2, d_mlp=40, n_experts=3, max_positions=40
        ),
        generator=seeded(0),
    )  # fmt: skip
    names = {id(p): name for name, p in model.named_parameters()}
    optimizer = SophiaG.for_model(model, weight_decay=0.2)
    decayed = {names[id(p)] for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    assert {"blocks.0.mlp.up.weight", "blocks.0.mlp.down.weight", "blocks.0.mlp.router.weight"} <= decayed
    assert not any("norm" in name or "embedding" in name for name in decayed)


def test_estimators_refuse_what_has_no_graph_or_no_such_ids() -> None:
    weight = nn.Parameter(drawn(0, 3))
    for estimate in (
        lambda loss: hutchinson(loss, [weight]),
        lambda loss: gauss_newton_bartlett(loss, [weight], terms=2),
    ):
        with pytest.raises(LabError, match="no graph"):
            estimate(weight.detach().sum())
    with pytest.raises(LabError, match="uniform"):
        hutchinson((weight**2).sum(), [weight], noise="uniform")  # type: ignore[arg-type]  # that is the mistake
    for size in (0, 5):
        with pytest.raises(LabError, match="1 to 4"):
            sampled_label_loss(drawn(1, 2, 4), vocab_size=size)
    with pytest.raises(LabError, match="one answer for each position"):
        sampled_label_loss(drawn(1, 2, 4), keep=torch.ones(3))
    assert sampled_label_loss(drawn(1, 4), generator=seeded(0)).dim() == 0


def test_the_loops_that_the_guide_shows_run() -> None:
    page = (Path(__file__).parents[3] / "docs" / "papers" / "sophia.md").read_text(encoding="utf-8")
    model = tiny("gpt2")
    batches = [(batch["tokens"], batch["targets"]) for batch in (Counting()[i] for i in range(10))]
    names: dict[str, Any] = {"model": model, "batches": batches}
    first, second = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(first, names)
    assert {int(state["refreshes"]) for state in names["optimizer"].state.values()} == {1}
    assert names["optimizer"].unclipped_share() > 0
    exec(second, names)
    assert all(state["curvature"].isfinite().all() for state in names["optimizer"].state.values())
    assert any((state["curvature"] < 0).any() for state in names["optimizer"].state.values())


def test_an_objective_without_labels_is_refused_before_the_first_update() -> None:
    def squares(model: Any, batch: Any) -> tuple[Tensor, dict[str, float]]:
        return sum((p**2).sum() for p in model.parameters()), {}  # type: ignore[return-value]  # a tensor

    model = tiny("gpt2")
    before = [parameter.detach().clone() for parameter in model.parameters()]
    settings = TrainSettings(steps=2)
    with pytest.raises(LabError, match="not for squares"):
        train(model, Counting(), settings=settings, objective=squares, optimizer=SophiaG(model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    never = SophiaG(model.parameters(), refresh_every=None)
    assert train(model, Counting(), settings=settings, objective=squares, optimizer=never).steps == 2


def test_norms_of_the_curvature_do_not_depend_on_the_order_of_a_loaded_state() -> None:
    weights = [nn.Parameter(drawn(k, 5, 3)) for k in range(12)]
    optimizer = SophiaG(weights)
    optimizer.add_curvature([10.0**k * drawn(50 + k, 5, 3) ** 2 for k in range(12)])
    again = SophiaG([nn.Parameter(weight.detach().clone()) for weight in weights])
    saved = optimizer.state_dict()
    again.load_state_dict({**saved, "state": dict(reversed(saved["state"].items()))})
    assert again.curvature_norms() == optimizer.curvature_norms()
