"""Routers' losses in training: accumulation, gradient checkpointing, frozen weights, what is left behind."""

import pytest
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.model.experts import balance_loss, router_z_loss
from gpt2lab.model.task_heads import Head
from gpt2lab.training import TrainSettings, next_token, train
from gpt2lab.training.routing import RoutingLosses
from gpt2lab.training.supervised import HeadLoss, Supervised
from gpt2lab.training.throughput import flops_per_token
from tests.tiny import tiny, tokens
from tests.training.data import Counting


def sparse(**changes: object) -> Transformer:
    return tiny("llama", **{"n_experts": 4, "balance_weight": 0.2, "router_z_weight": 0.1, **changes}).train()


def gradients(model: Transformer, batch: dict[str, Tensor]) -> list[Tensor]:
    model.zero_grad()
    next_token(model, batch)[0].backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def test_the_losses_are_added_by_their_weights_and_reported() -> None:
    model, batch = sparse().double(), Counting(padded=True)[0]
    with model.tap(read=["hook_router_logits"]) as tap:
        model.hidden(batch["tokens"], attention_mask=batch["attention_mask"])
    logits = list(tap["hook_router_logits"])
    balance = float(balance_loss(logits, 2, batch["attention_mask"]))
    size = float(router_z_loss(logits, batch["attention_mask"]))
    loss, metrics = next_token(model, batch)
    plain, nothing = next_token(model.eval(), batch)
    assert metrics == {"balance": pytest.approx(balance), "router_z": pytest.approx(size)}
    assert nothing == {}  # evaluated is the objective alone
    assert loss.item() == pytest.approx(plain.item() + 0.2 * balance + 0.1 * size)


def test_gradient_checkpointing_changes_no_gradient_and_leaves_nothing() -> None:
    model, batch = sparse().double(), Counting(padded=True)[0]
    before = set(vars(model))
    plain = gradients(model, batch)
    model.gradient_checkpointing = True
    for one, two in zip(plain, gradients(model, batch), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)
    assert set(vars(model)) == before
    assert model.open_tap is None


def test_balance_and_router_z_of_an_update_are_those_over_the_tokens_of_all_micro_batches() -> None:
    """Against the equations over the states of three micro-batches at once, each unpadded row by itself."""
    batches, rows = Counting(3, padded=True), list[dict[str, float]]()
    slow, logits = sparse().double(), list[Tensor]()
    for batch in (batches[k] for k in range(3)):
        for ids, mask in zip(batch["tokens"], batch["attention_mask"].bool(), strict=True):
            with torch.no_grad(), slow.tap(read=["hook_router_logits"]) as tap:
                slow.hidden(ids[mask][None])
            logits.append(torch.stack(list(tap["hook_router_logits"]))[:, 0])  # [layers, time, experts]
    every = torch.cat(logits, dim=1).flatten(0, 1)
    sent = torch.zeros_like(every).scatter(-1, every.topk(2).indices, 1.0).mean(0)
    train(
        sparse().double(),
        batches,
        settings=TrainSettings(steps=1, accumulation=3, precision="float32"),
        log=lambda step, **numbers: rows.append(numbers),
    )
    assert rows[0]["balance"] == pytest.approx(4 * float((sent * every.softmax(-1).mean(0)).sum()))
    assert rows[0]["router_z"] == pytest.approx(float(every.logsumexp(-1).square().mean()))


def test_the_router_learns_from_the_balance_loss_alone() -> None:
    model, batch = sparse(router_z_weight=0.0), Counting()[0]
    with_loss = gradients(model, batch)
    model.config = model.config.replace(balance_weight=0.0)
    without = gradients(model, batch)
    names = [name for name, _ in model.named_parameters()]
    differ = {name for name, a, b in zip(names, with_loss, without, strict=True) if not torch.equal(a, b)}
    assert {f"blocks.{i}.mlp.router.weight" for i in range(3)} <= differ


def test_frozen_layers_are_no_obstacle() -> None:
    model, batch = sparse(), Counting()[0]
    model.requires_grad_(False)
    model.head.weight.requires_grad_(True)
    next_token(model, batch)[0].backward()
    assert model.head.weight.grad is not None


def test_training_logs_the_balance_and_spreads_the_load() -> None:
    rows: list[dict[str, float]] = []
    model = sparse(balance_weight=0.05, router_z_weight=0.001, experts_per_token=1)
    train(
        model,
        Counting(8),
        settings=TrainSettings(
            steps=30,
            learning_rate=1e-2,
            precision="float32",
            accumulation=2,
            log_every=1,
            gradient_checkpointing=True,
        ),
        log=lambda step, **numbers: rows.append(numbers),
    )
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.2
    assert rows[-1]["balance"] < rows[0]["balance"]
    assert 0.99 < rows[-1]["balance"] < 1.3


def test_bf16_training_of_experts_stays_finite() -> None:
    done = train(
        sparse(),
        Counting(8, padded=True),
        settings=TrainSettings(steps=4, learning_rate=1e-3, precision="bf16"),
    )
    assert all(loss == loss for loss in done.losses)


def test_work_is_counted_by_the_weights_a_token_meets() -> None:
    model = sparse(experts_per_token=1)
    counts, dense = model.count_parameters(), tiny("llama").count_parameters()
    routers = 3 * 4 * 24
    assert (
        flops_per_token(model.config, 10, counts["active"])
        == flops_per_token(tiny("llama").config, 10, dense["total"]) + 6 * routers
    )


def test_a_supervised_objective_has_the_routers_losses_too() -> None:
    model, batch = sparse(), Counting()[0]
    Head(name="tag", kind="tokens", outputs=3).attach(model)
    batch["labels.tag"] = batch["tokens"] % 3
    objective = Supervised({"tag": HeadLoss()})
    loss, metrics = objective(model, batch)
    plain, nothing = objective(model.eval(), batch)
    added = 0.2 * metrics["balance"] + 0.1 * metrics["router_z"]
    assert loss.item() == pytest.approx(plain.item() + added, rel=1e-5)
    assert nothing == {}


def test_a_model_without_experts_opens_no_tap() -> None:
    model = tiny("gpt2").train()
    with RoutingLosses(model):
        assert model.open_tap is None


def test_micro_batches_of_a_model_whose_experts_have_a_limit_are_refused() -> None:
    model = tiny("llama", n_experts=3, expert_capacity=1.25)
    batch = {"tokens": tokens(2, 6), "targets": tokens(2, 6, seed=1)}
    with pytest.raises(
        LabError, match="accumulation 2: which tokens an expert has room for depends on the whole batch"
    ):
        train(model, [batch] * 4, settings=TrainSettings(steps=1, accumulation=2))
    assert train(model, [batch] * 4, settings=TrainSettings(steps=1)).steps == 1
