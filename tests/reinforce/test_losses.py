"""Losses and their gradients, against the equations in float64 and central differences."""

import math

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.reinforce.losses import explained_variance, policy_loss, reinforce_loss, value_loss
from tests.reinforce import reference as slow

LENGTHS = (4, 1, 0, 6, 3)
MASK = slow.table([[1.0] * n for n in LENGTHS], 6, 0.0).bool()


def _rows(seed: int, scale: float = 1.0) -> list[list[float]]:
    return slow.random_rows(LENGTHS, seed, scale)


def _close(grad: torch.Tensor | None, rows: list[list[float]]) -> None:
    assert grad is not None
    torch.testing.assert_close(grad, slow.table(rows, 6, 0.0), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("average", ["tokens", "texts"])
@pytest.mark.parametrize(("low", "high"), [(0.2, None), (0.1, 0.4)])
@pytest.mark.parametrize("filler", [0.0, math.nan])
def test_the_clipped_loss_and_its_gradient_are_those_of_the_paper(
    average: str, low: float, high: float | None, filler: float
) -> None:
    logprobs, old, advantages = _rows(1, 0.5), _rows(2, 0.5), _rows(3)
    new = slow.table(logprobs, 6, filler).requires_grad_()
    loss, numbers = policy_loss(
        new,
        slow.table(old, 6, filler),
        slow.table(advantages, 6, filler),
        MASK,
        clip=low,
        clip_high=high,
        average=average,  # type: ignore[arg-type]  # a literal
    )
    loss.backward()
    top = low if high is None else high

    def plain(rows: list[list[float]]) -> float:
        return slow.ppo(rows, old, advantages, low, top, average)

    assert loss.item() == pytest.approx(plain(logprobs))
    _close(new.grad, slow.gradient(plain, logprobs))
    moves = [a - b for a, b in zip(slow.flat(logprobs), slow.flat(old), strict=True)]
    ratios = [math.exp(move) for move in moves]
    outside = [not 1 - low <= ratio <= 1 + top for ratio in ratios]
    assert numbers["ratio"] == pytest.approx(slow.mean(ratios))
    assert numbers["clip_fraction"] == pytest.approx(slow.mean([float(x) for x in outside]))
    kl = [ratio - 1 - move for ratio, move in zip(ratios, moves, strict=True)]
    assert numbers["policy_kl"] == pytest.approx(slow.mean(kl))


def test_the_gradient_at_ratio_1_is_the_policy_gradient() -> None:
    logprobs, advantages = slow.table(_rows(4), 6, 0.0), slow.table(_rows(5), 6, 0.0)
    one, other = logprobs.clone().requires_grad_(), logprobs.clone().requires_grad_()
    policy_loss(one, logprobs, advantages, MASK)[0].backward()
    reinforce_loss(other, advantages, MASK).backward()
    assert one.grad is not None
    assert other.grad is not None
    torch.testing.assert_close(one.grad, other.grad)
    torch.testing.assert_close(other.grad, -advantages * MASK / MASK.sum())


def test_a_token_that_has_become_impossible_has_no_gradient_and_makes_nothing_infinite() -> None:
    logits = torch.tensor([[0.3, -math.inf, 1.0]], dtype=torch.float64, requires_grad=True)
    new = logits.log_softmax(-1)[:, [0, 1]]
    old = torch.tensor([[-0.7, -1.0]], dtype=torch.float64)
    loss, numbers = policy_loss(new, old, torch.tensor([[1.0, -2.0]]), torch.tensor([[True, True]]))
    loss.backward()
    assert math.isfinite(loss.item())
    assert all(math.isfinite(number) for number in numbers.values())
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


@pytest.mark.parametrize("clip", [None, 0.2, 0.7])
def test_the_value_loss_and_its_gradient_are_those_of_the_paper(clip: float | None) -> None:
    values, targets, old = _rows(6), _rows(7), _rows(8)
    v = slow.table(values, 6, math.nan).requires_grad_()
    loss = value_loss(v, slow.table(targets, 6, math.nan), MASK, old=slow.table(old, 6, math.nan), clip=clip)
    loss.backward()

    def plain(rows: list[list[float]]) -> float:
        return slow.value(rows, targets, old, clip)

    assert loss.item() == pytest.approx(plain(values))
    _close(v.grad, slow.gradient(plain, values))


def test_a_minibatch_without_any_token_to_learn_from_has_loss_0_and_gradient_0() -> None:
    nothing = torch.zeros_like(MASK)
    x = slow.table(_rows(9), 6, 0.0).requires_grad_()
    total = policy_loss(x, x.detach(), x.detach(), nothing)[0] + value_loss(x, x.detach(), nothing)
    (total + reinforce_loss(x, x.detach(), nothing, average="texts")).backward()
    assert total.item() == 0.0
    assert x.grad is not None
    assert not bool(x.grad.any())


def test_explained_variance_is_1_for_the_truth_0_for_a_constant_and_unknown_without_spread() -> None:
    truth = slow.table(_rows(10), 6, math.nan)
    assert explained_variance(truth, truth, MASK) == pytest.approx(1.0)
    assert explained_variance(torch.full_like(truth, 3.0), truth, MASK) == pytest.approx(0.0)
    assert math.isnan(explained_variance(truth, torch.ones_like(truth), MASK))


def test_options_out_of_range_are_refused() -> None:
    x = torch.zeros(1, 2)
    with pytest.raises(LabError, match=r"clip must lie in \(0, 1\), got 1.5"):
        policy_loss(x, x, x, x.bool(), clip=1.5)
    with pytest.raises(LabError, match="needs the old values"):
        value_loss(x, x, x.bool(), clip=0.2)
