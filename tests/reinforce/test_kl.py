"""KL estimates, rewards of tokens and the controllers of their price."""

import math

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.reinforce.kl import (
    AdamKL,
    AdaptiveKL,
    Controller,
    FixedKL,
    ProportionalKL,
    kl_k1,
    kl_k2,
    kl_k3,
    kl_numbers,
    token_rewards,
)
from tests.reinforce import reference as slow

LENGTHS = (3, 1, 0, 2)
MASK = slow.table([[1.0] * n for n in LENGTHS], 3, 0.0).bool()


def test_k1_and_k3_are_unbiased_over_the_policys_tokens_and_k2_and_k3_are_never_negative() -> None:
    generator = torch.Generator().manual_seed(0)
    policy = torch.randn(7, generator=generator, dtype=torch.float64).log_softmax(0)
    other = torch.randn(7, generator=generator, dtype=torch.float64).log_softmax(0)
    true = float((policy.exp() * (policy - other)).sum())
    for estimate in (kl_k1, kl_k3):
        assert float((policy.exp() * estimate(policy, other)).sum()) == pytest.approx(true)
    assert bool((kl_k3(policy, other) >= 0).all())
    assert kl_k2(policy, other).tolist() == pytest.approx(((policy - other) ** 2 / 2).tolist())


@pytest.mark.parametrize("mode", ["add", "replace-last"])
def test_every_token_pays_for_its_kl_and_the_last_one_has_the_score(mode: str) -> None:
    policy, other = slow.random_rows(LENGTHS, 1), slow.random_rows(LENGTHS, 2)
    scores = torch.tensor([2.0, -1.0, 9.0, 0.5], dtype=torch.float64)
    found = token_rewards(
        scores,
        MASK,
        logprobs=slow.table(policy, 3, math.nan),
        reference=slow.table(other, 3, math.nan),
        coefficient=0.3,
        mode=mode,  # type: ignore[arg-type]  # a literal
    )
    expected = [
        [-0.3 * (a - b) for a, b in zip(x, y, strict=True)] for x, y in zip(policy, other, strict=True)
    ]
    for row, score in zip(expected, scores.tolist(), strict=True):
        if row:
            row[-1] = score if mode == "replace-last" else row[-1] + score
    torch.testing.assert_close(found, slow.table(expected, 3, 0.0))


def test_rewards_of_tokens_are_added_and_a_coefficient_of_0_needs_no_reference() -> None:
    given = torch.arange(12.0).reshape(4, 3)
    assert torch.equal(token_rewards(given, MASK), given * MASK)
    scores = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert token_rewards(scores, MASK).sum(1).tolist() == [1.0, 2.0, 0.0, 4.0]
    with pytest.raises(LabError, match="needs the log-probabilities of policy and reference"):
        token_rewards(scores, MASK, coefficient=0.1)


def test_numbers_for_the_log_count_real_tokens_only() -> None:
    policy, other = slow.random_rows(LENGTHS, 3), slow.random_rows(LENGTHS, 4)
    numbers = kl_numbers(slow.table(policy, 3, math.nan), slow.table(other, 3, math.nan), MASK)
    differences = [[a - b for a, b in zip(x, y, strict=True)] for x, y in zip(policy, other, strict=True)]
    assert numbers["kl"] == pytest.approx(sum(slow.flat(differences)) / 4)
    assert numbers["kl_k1"] == pytest.approx(slow.mean(slow.flat(differences)))
    assert numbers["kl_k3"] == pytest.approx(
        slow.mean([math.exp(-d) - 1 + d for d in slow.flat(differences)])
    )


def test_a_fixed_coefficient_stays_and_the_others_follow_their_rules() -> None:
    fixed = FixedKL(0.1)
    fixed.update(100.0, 64)
    assert fixed.coefficient == 0.1
    adaptive = AdaptiveKL(0.05, target=6.0, horizon=10_000)
    adaptive.update(7.0, 500)  # error 1/6
    assert adaptive.coefficient == pytest.approx(0.05 * (1 + (1 / 6) * 500 / 10_000))
    adaptive.update(60.0, 500)  # error clipped at 0.2
    assert adaptive.coefficient == pytest.approx(0.05 * (1 + (1 / 6) * 0.05) * (1 + 0.2 * 0.05))
    scaled = ProportionalKL(0.2, target=4.0, gain=64 / 750)
    scaled.update(10.0, 3)
    assert scaled.coefficient == pytest.approx(0.2 * (1 + 1.5 * 64 / 750))
    scaled.update(-1000.0, 3)
    assert scaled.coefficient == 0.0


def test_dual_ascent_is_torchs_adam_on_minus_the_error_and_the_ball_keeps_it_from_paying() -> None:
    controller = AdamKL(0.5, target=2.0, learning_rate=0.1, ball=False)
    weight = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
    adam = torch.optim.Adam([weight], lr=0.1)
    for kl in (3.0, 5.0, 0.5, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0):
        weight.grad = torch.tensor(-(kl - 2.0), dtype=torch.float64)
        adam.step()
        controller.update(kl, 8)
        assert controller.coefficient == pytest.approx(weight.item())
    inside = AdamKL(0.05, target=2.0, learning_rate=0.1)
    inside.update(0.0, 8)
    assert inside.coefficient == 0.0


@pytest.mark.parametrize(
    "make", [lambda: FixedKL(0.2), lambda: AdaptiveKL(0.2), lambda: ProportionalKL(0.2), lambda: AdamKL(0.2)]
)
def test_a_restored_controller_goes_on_as_the_one_that_was_saved(make: type[Controller]) -> None:
    one, other = make(), make()
    one.update(9.0, 100)
    other.restore(one.state())
    for controller in (one, other):
        controller.update(1.0, 100)
    assert one.coefficient == other.coefficient
    assert one.state() == other.state()


def test_a_negative_coefficient_or_a_target_of_0_is_refused() -> None:
    with pytest.raises(LabError, match="not negative, got -1"):
        FixedKL(-1.0)
    with pytest.raises(LabError, match="target KL must be positive"):
        AdaptiveKL(0.1, target=0.0)
