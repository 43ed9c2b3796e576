"""The chunked cross entropy against the open formula in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2lab.base.errors import LabError
from gpt2lab.model import linear_cross_entropy
from gpt2lab.model import loss as module


def reference(hidden, weight, targets, bias=None):  # type: ignore[no-untyped-def]
    """-log(exp(z_target) / Σ exp(z)) row by row."""
    losses = []
    for h, target in zip(hidden, targets, strict=True):
        z = weight @ h + (bias if bias is not None else 0)
        losses.append(z.exp().sum().log() - z[target] if target >= 0 else z.sum() * 0)
    return torch.stack(losses)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK_ROWS", 3)  # so that tests cross the borders of chunks
    monkeypatch.setattr(module, "_CHUNK_ELEMENTS", {"cpu": 1})


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 7])
def test_values_and_gradients_equal_the_open_formula(reduction: str, with_bias: bool, rows: int) -> None:
    torch.manual_seed(rows)
    hidden, weight = torch.randn(rows, 5, dtype=torch.float64), torch.randn(11, 5, dtype=torch.float64)
    bias = torch.randn(11, dtype=torch.float64) if with_bias else None
    targets = torch.randint(0, 11, (rows,))
    targets[0] = -100 if rows > 1 else targets[0]
    leaves = [t for t in (hidden, weight, bias) if t is not None]
    for leaf in leaves:
        leaf.requires_grad_()
    upstream = torch.randn(rows, dtype=torch.float64)
    ours = linear_cross_entropy(hidden, weight, targets, bias=bias, reduction=reduction)
    expected = reference(hidden, weight, targets, bias)
    if reduction == "none":
        ours, expected = (ours * upstream).sum(), (expected * upstream).sum()
    elif reduction == "mean":
        ours, expected = ours * 1.7, expected.sum() / (targets >= 0).sum() * 1.7
    else:
        expected = expected.sum()
    assert torch.allclose(ours, expected, rtol=0, atol=1e-12)
    for a, b in zip(torch.autograd.grad(ours, leaves), torch.autograd.grad(expected, leaves), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(0, 9), chunk=st.integers(1, 10), seed=st.integers(0, 99))
def test_the_size_of_chunks_changes_nothing(rows: int, chunk: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden, weight = torch.randn(rows, 4, generator=generator), torch.randn(6, 4, generator=generator)
    targets = torch.randint(0, 6, (rows,), generator=generator)
    whole = linear_cross_entropy(hidden, weight, targets, reduction="none")
    before, module._CHUNK_ROWS = module._CHUNK_ROWS, chunk
    try:
        assert torch.allclose(
            linear_cross_entropy(hidden, weight, targets, reduction="none"), whole, atol=1e-6
        )
    finally:
        module._CHUNK_ROWS = before


def test_without_targets_the_mean_is_zero_and_has_zero_gradient() -> None:
    hidden = torch.randn(4, 5, requires_grad=True)
    loss = linear_cross_entropy(hidden, torch.randn(7, 5), torch.full((4,), -100))
    loss.backward()
    assert loss == 0
    assert (hidden.grad == 0).all()


def test_bf16_sums_in_float32() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(60, 16), torch.randn(50, 16, requires_grad=True)
    targets = torch.randint(0, 50, (60,))
    exact = linear_cross_entropy(hidden, weight, targets)
    (expected,) = torch.autograd.grad(exact, weight)
    with torch.autocast("cpu", torch.bfloat16):
        rough = linear_cross_entropy(hidden, weight, targets)
    (gradient,) = torch.autograd.grad(rough, weight)
    assert rough.dtype is torch.float32
    assert abs(rough - exact) < 0.02 * exact
    assert (gradient - expected).norm() < 0.02 * expected.norm()


def test_the_callers_tensors_are_untouched() -> None:
    hidden, weight, targets = torch.randn(5, 4), torch.randn(9, 4), torch.tensor([1, -100, 3, 8, 0])
    copies = [t.clone() for t in (hidden, weight, targets)]
    linear_cross_entropy(hidden.requires_grad_(), weight, targets).backward()
    assert all(torch.equal(a, b) for a, b in zip((hidden, weight, targets), copies, strict=True))


@pytest.mark.parametrize("bad", [[0, 9], [-1, 3], [-101, 3]])
def test_targets_outside_the_vocabulary_are_refused(bad: list[int]) -> None:
    with pytest.raises(LabError, match="the vocabulary has 9"):
        linear_cross_entropy(torch.randn(2, 4), torch.randn(9, 4), torch.tensor(bad))
    with pytest.raises(LabError, match=r"targets are \[3\], the states \[2\]"):
        linear_cross_entropy(torch.randn(2, 4), torch.randn(9, 4), torch.tensor([0, 1, 2]))


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_second_derivative_is_refused_and_never_silently_zero(reduction: str) -> None:
    hidden = torch.randn(4, 3, requires_grad=True)
    loss = linear_cross_entropy(hidden, torch.randn(7, 3), torch.arange(4), reduction=reduction).sum()  # type: ignore[arg-type]  # a Literal
    with pytest.raises(LabError, match="no second derivative"):
        torch.autograd.grad(loss, hidden, create_graph=True)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_frozen_head_changes_nothing_in_the_gradient_of_the_states(reduction: str) -> None:
    hidden, weight, targets = (
        torch.randn(5, 4, requires_grad=True),
        torch.randn(9, 4),
        torch.tensor([1, -100, 3, 8, 0]),
    )
    gradients = []
    for trained in (True, False):
        loss = linear_cross_entropy(
            hidden, weight.requires_grad_(trained), targets, reduction=reduction
        ).sum()  # type: ignore[arg-type]  # a Literal
        gradients.append(torch.autograd.grad(loss, hidden)[0])
    assert torch.equal(*gradients)
