"""Gradients of gradients: against finite differences, and inner steps against an optimizer that really steps."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2lab.base.errors import LabError
from gpt2lab.model import Transformer
from gpt2lab.model.adapters import (
    InnerAdamW,
    Lora,
    adapt,
    adapter_parameters,
    functional_lora,
    merge,
    plain_loss,
)
from gpt2lab.model.architecture import attach
from gpt2lab.training import next_token
from tests.model.adapters.models import adapted_model, model_of
from tests.tiny import tokens

FAMILIES = ("gpt2", "gpt_neo", "gpt_neox", "llama")
SMALL = {"d_model": 6, "n_layers": 2, "n_heads": 1, "n_kv_heads": None, "d_mlp": 5, "vocab_size": 9}


def small(family: str = "llama", *, fresh: bool = False, **options: object) -> Transformer:
    """A very small float64 model with an adapter; a fresh one has B = 0."""
    changes = {**SMALL, "n_heads": 1} if family != "gpt_neox" else {**SMALL, "rotary_fraction": 1.0}
    if family == "gpt_neo":
        changes["windows"] = (None, 3)
    lora = Lora(**{"rank": 1, "alpha": 1.0, "targets": ("q", "v", "down"), **options})  # type: ignore[arg-type]  # options of Lora
    made = attach(model_of(family, **changes), lora) if fresh else adapted_model(family, lora, **changes)
    return made.double()


def batch(seed: int = 0) -> dict[str, Tensor]:
    """Two padded rows."""
    ids, targets = tokens(2, 5, vocab=9, seed=seed), tokens(2, 5, vocab=9, seed=seed + 1)
    mask = torch.ones(2, 5, dtype=torch.long)
    mask[1, :2] = 0
    targets[1, :2] = -100
    return {"tokens": ids, "targets": targets, "attention_mask": mask}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_functional_form_is_the_model_itself(family: str) -> None:
    model = small(family)
    own = {name: tensor.detach().clone() for name, tensor in adapter_parameters(model).items()}
    logits = functional_lora(model, own, lambda m: m(batch()["tokens"]))
    assert torch.allclose(logits, model(batch()["tokens"]), atol=1e-12)
    loss = functional_lora(model, own, lambda m: plain_loss(m, batch()))
    assert torch.allclose(loss, next_token(model, batch())[0], atol=1e-12)
    other = {name: 2 * tensor for name, tensor in own.items()}
    moved = functional_lora(model, other, lambda m: m(batch()["tokens"]))
    assert not torch.allclose(moved, logits, atol=1e-3)
    assert all(torch.equal(tensor, own[name]) for name, tensor in adapter_parameters(model).items())


@pytest.mark.parametrize("family", FAMILIES)
def test_second_derivatives_pass_gradgradcheck(family: str) -> None:
    model = small(family, targets=("q", "down", "head") if family == "llama" else ("q", "v", "down"))
    own = adapter_parameters(model)
    tensors = tuple(tensor.detach().clone().requires_grad_() for tensor in own.values())

    def loss(*given: Tensor) -> Tensor:
        named = dict(zip(own, given, strict=True))
        return functional_lora(model, named, lambda m: plain_loss(m, batch()))

    assert torch.autograd.gradcheck(loss, tensors, fast_mode=True)
    assert torch.autograd.gradgradcheck(loss, tensors, fast_mode=True, atol=1e-6)


def test_a_weighted_loss_counts_every_cell() -> None:
    model, given = small(), batch()
    weights = torch.rand(2, 5, dtype=torch.float64)
    log_probs = model(given["tokens"], attention_mask=given["attention_mask"]).log_softmax(-1)
    expected = sum(
        -weights[b, t] * log_probs[b, t, given["targets"][b, t]]
        for b in range(2)
        for t in range(5)
        if given["targets"][b, t] >= 0
    )
    assert torch.allclose(plain_loss(model, given, weights), expected / 10)


def rates_for(model: Transformer, steps: int) -> dict[str, Tensor]:
    """A learning rate of its own for each tensor and step."""
    generator = torch.Generator().manual_seed(2)
    return {
        name: (0.05 * (1 + torch.rand(steps, generator=generator, dtype=torch.float64))).requires_grad_()
        for name in adapter_parameters(model)
    }


@pytest.mark.parametrize("fresh", [False, True])
def test_inner_steps_are_those_of_adamw(fresh: bool) -> None:
    model = small(fresh=fresh)
    rates = rates_for(model, 4)
    fast, losses = adapt(
        model, adapter_parameters(model), lambda m: plain_loss(m, batch()), rates, steps=4, create_graph=False
    )
    groups = [{"params": [p], "name": name} for name, p in adapter_parameters(model).items()]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01)
    for step in range(4):
        for group in optimizer.param_groups:
            group["lr"] = rates[group["name"]][step].item()
        optimizer.zero_grad()
        loss = plain_loss(model, batch())
        assert abs(loss.item() - losses[step]) < 1e-10
        loss.backward()
        optimizer.step()
    for name, tensor in adapter_parameters(model).items():
        assert torch.allclose(fast[name], tensor, atol=1e-10)
        assert not fast[name].requires_grad


def outer(
    model: Transformer, start: Mapping[str, Tensor], rates: Mapping[str, Tensor], truncate: int
) -> Tensor:
    """The loss on other text after three inner steps."""
    inner = InnerAdamW(eps=1e-2)  # smooth enough for finite differences
    fast, _ = adapt(
        model, start, lambda m: plain_loss(m, batch()), rates, steps=3, truncate=truncate, optimizer=inner
    )
    return functional_lora(model, fast, lambda m: plain_loss(m, batch(5)))


@pytest.mark.parametrize("fresh", [False, True])
def test_the_outer_gradient_is_that_of_finite_differences(fresh: bool) -> None:
    model = small(fresh=fresh)
    start, rates = dict(adapter_parameters(model)), rates_for(model, 3)
    everything = [*start.values(), *rates.values()]
    gradients = torch.autograd.grad(outer(model, start, rates, 0), everything)
    generator = torch.Generator().manual_seed(4)
    for chosen in (range(len(start)), range(len(start), len(everything))):
        slope, direction = 0.0, {}
        for i in chosen:
            direction[i] = torch.randn(everything[i].shape, generator=generator, dtype=torch.float64)
            slope += float((gradients[i] * direction[i]).sum())

        def at(size: float, moves: dict[int, Tensor] = direction) -> float:
            moved = [
                t.detach() + size * moves[i] if i in moves else t.detach() for i, t in enumerate(everything)
            ]
            a = dict(zip(start, moved[: len(start)], strict=True))
            return float(outer(model, a, dict(zip(rates, moved[len(start) :], strict=True)), 0))

        assert slope == pytest.approx((at(1e-7) - at(-1e-7)) / 2e-7, rel=1e-4)


@pytest.mark.parametrize("truncate", [1, 2, 3])
def test_truncated_steps_pass_the_gradient_on_through_the_decay_and_to_their_rates(truncate: int) -> None:
    model = small()
    start, rates = dict(adapter_parameters(model)), rates_for(model, 3)
    found = torch.autograd.grad(
        outer(model, start, rates, truncate), [*start.values(), *rates.values()], materialize_grads=True
    )
    # By hand: the gradients of the first steps are taken down as numbers in a run of their own.
    noted: list[dict[str, Tensor]] = []
    betas, eps, decay = (0.9, 0.95), 1e-2, 0.01
    fast: dict[str, Tensor] = dict(start)
    first = {name: torch.zeros_like(t) for name, t in fast.items()}
    second = {name: torch.zeros_like(t) for name, t in fast.items()}
    for step in range(3):
        loss = functional_lora(model, fast, lambda m: plain_loss(m, batch()))
        found_here = torch.autograd.grad(loss, list(fast.values()), create_graph=True)
        noted.append({n: g.detach() if step < truncate else g for n, g in zip(fast, found_here, strict=True)})
        after = {}
        for name, gradient in noted[-1].items():
            first[name] = betas[0] * first[name] + (1 - betas[0]) * gradient
            second[name] = betas[1] * second[name] + (1 - betas[1]) * gradient**2
            rate, n = rates[name][step], step + 1
            root = (second[name] / (1 - betas[1] ** n)).sqrt()
            move = first[name] / (1 - betas[0] ** n) / (root + eps)
            after[name] = fast[name] - rate * decay * fast[name] - rate * move
        fast = after
    loss = functional_lora(model, fast, lambda m: plain_loss(m, batch(5)))
    expected = torch.autograd.grad(loss, [*start.values(), *rates.values()], materialize_grads=True)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(found, expected, strict=True))
    exact = torch.autograd.grad(outer(model, start, rates, 0), list(start.values()))
    assert not all(torch.allclose(a, b, rtol=1e-3) for a, b in zip(found, exact, strict=False))


def test_a_fresh_adapter_moves_only_b_in_the_first_step_and_its_gradient_is_finite() -> None:
    model = small(fresh=True)
    start, rates = dict(adapter_parameters(model)), rates_for(model, 2)
    fast, _ = adapt(
        model, start, lambda m: plain_loss(m, batch()), rates, steps=1, optimizer=InnerAdamW(weight_decay=0.0)
    )
    for name, tensor in fast.items():
        assert torch.equal(tensor, start[name]) == name.endswith(".A")
    fast, _ = adapt(model, start, lambda m: plain_loss(m, batch()), rates, steps=2)
    loss = functional_lora(model, fast, lambda m: plain_loss(m, batch(5)))
    gradients = torch.autograd.grad(loss, [*start.values(), *rates.values()])
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_a_net_that_weights_tokens_learns_from_the_untruncated_steps_alone() -> None:
    model = small()
    net = torch.nn.Linear(6, 1, dtype=torch.float64)

    def inner(m: Transformer) -> Tensor:
        hidden = m.hidden(batch()["tokens"], attention_mask=batch()["attention_mask"])
        losses = F.cross_entropy(
            m.unembed(hidden).flatten(0, 1), batch()["targets"].flatten(), reduction="none"
        )
        return (losses * F.softplus(net(hidden)).flatten()).mean()

    for truncate in (1, 2):
        start = dict(adapter_parameters(model))
        fast, _ = adapt(model, start, inner, rates_for(model, 2), steps=2, truncate=truncate)
        loss = functional_lora(model, fast, lambda m: plain_loss(m, batch(5)))
        (found,) = torch.autograd.grad(loss, [net.weight], materialize_grads=True)
        assert bool((found != 0).any()) == (truncate < 2)


def test_mistakes_are_one_sentence() -> None:
    model = small()
    own = dict(adapter_parameters(model))
    name = next(iter(own))

    def refused(message: str, given: dict[str, Tensor], **options: int) -> None:
        with pytest.raises(LabError, match=message):
            if options:
                adapt(model, given, lambda m: plain_loss(m, batch()), rates_for(model, 2), **options)  # type: ignore[arg-type]  # whole numbers
            else:
                functional_lora(model, given, lambda m: plain_loss(m, batch()))

    refused("no adapter weight of this model; did you mean", {name[:-1] + "C": own[name]})
    refused(r"is \[1\], the model's adapter has", {name: torch.zeros(1)})
    refused(r"truncate must lie in 0 … 2, the number of steps, got 3", own, steps=2, truncate=3)
    refused("needs a learning rate for each of 3 steps", own, steps=3)
    model.gradient_checkpointing = True
    refused("recomputes blocks in the backward pass", own)
    model.gradient_checkpointing = False
    merge(model)
    refused("the adapters are merged", own)


def test_the_chunked_loss_inside_an_inner_step_is_refused_and_not_silently_wrong() -> None:
    model = small()
    own = dict(adapter_parameters(model))
    with pytest.raises(LabError, match="no second derivative"):
        adapt(model, own, lambda m: next_token(m, batch())[0], rates_for(model, 1), steps=1)


def test_the_order_of_rows_does_not_matter_to_the_adapted_weights() -> None:
    model, given = small(), batch()
    order = torch.tensor([1, 0])
    turned = {name: tensor[order] for name, tensor in given.items()}
    results = [
        adapt(
            model,
            adapter_parameters(model),
            lambda m, rows=rows: plain_loss(m, rows),
            rates_for(model, 2),
            steps=2,
            create_graph=False,
        )[0]
        for rows in (given, turned)
    ]
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(*(r.values() for r in results), strict=True))
