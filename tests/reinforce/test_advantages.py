"""Returns, advantages and baselines, against sums written from the equations."""

import math

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.reinforce.advantages import discounted_returns, gae, group_advantages, leave_one_out, spread
from gpt2lab.reinforce.masked import masked_mean, whiten
from tests.reinforce import reference as slow

LENGTHS = (4, 1, 0, 6, 3)
MASK = slow.table([[1.0] * n for n in LENGTHS], 6, 0.0).bool()


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (1.0, 0.95), (0.9, 0.7), (0.99, 0.0), (0.0, 0.5)])
@pytest.mark.parametrize("filler", [0.0, 7.0, math.nan])
def test_advantages_are_the_sums_of_the_paper_whatever_stands_behind_a_text(
    gamma: float, lam: float, filler: float
) -> None:
    rewards, values = slow.random_rows(LENGTHS, 1), slow.random_rows(LENGTHS, 2)
    found = gae(slow.table(rewards, 6, filler), slow.table(values, 6, filler), MASK, gamma=gamma, lam=lam)
    expected = slow.gae(rewards, values, gamma, lam)
    torch.testing.assert_close(found.advantages, slow.table(expected, 6, 0.0))
    sums = [[a + v for a, v in zip(x, y, strict=True)] for x, y in zip(expected, values, strict=True)]
    torch.testing.assert_close(found.returns, slow.table(sums, 6, 0.0))


@pytest.mark.parametrize("gamma", [1.0, 0.8, 0.0])
def test_returns_are_discounted_sums(gamma: float) -> None:
    rewards = slow.random_rows(LENGTHS, 3)
    found = discounted_returns(slow.table(rewards, 6, 5.0), MASK, gamma=gamma)
    torch.testing.assert_close(found, slow.table(slow.returns(rewards, gamma), 6, 0.0))


def test_a_critic_that_says_nothing_leaves_the_return_as_the_advantage() -> None:
    rewards = slow.table(slow.random_rows(LENGTHS, 4), 6, 0.0)
    found = gae(rewards, torch.zeros_like(rewards), MASK, gamma=1.0, lam=1.0)
    torch.testing.assert_close(found.advantages, discounted_returns(rewards, MASK))


def test_advantages_of_texts_without_tokens_are_empty() -> None:
    empty = torch.zeros(3, 0)
    assert gae(empty, empty, empty.bool()).advantages.shape == (3, 0)
    with pytest.raises(LabError, match=r"lam must lie in \[0, 1\], got 1.2"):
        gae(empty, empty, empty.bool(), lam=1.2)


def test_leave_one_out_is_the_score_less_the_mean_of_the_others_and_adds_up_to_nothing() -> None:
    scores = torch.tensor([1.0, 4.0, 2.5, -1.0, 0.0], dtype=torch.float64)
    groups = torch.tensor([7, 2, 7, 7, 2])
    found = leave_one_out(scores, groups)
    assert found.tolist() == pytest.approx([1 - 0.75, 4.0, 2.5 - 0.0, -1 - 1.75, -4.0])
    assert float(found[groups == 7].sum()) == pytest.approx(0.0)
    with pytest.raises(LabError, match="at least 2 samples of every prompt"):
        leave_one_out(scores, torch.tensor([0, 0, 1, 2, 2]))


def test_group_advantages_are_standardised_within_each_group_and_equal_scores_give_none() -> None:
    scores = torch.tensor([1.0, 3.0, 8.0, 5.0, 5.0], dtype=torch.float64)
    groups = torch.tensor([0, 0, 0, 1, 1])
    std = math.sqrt(((1 - 4) ** 2 + (3 - 4) ** 2 + (8 - 4) ** 2) / 2)
    found = group_advantages(scores, groups, floor=0.01)
    assert found.tolist() == pytest.approx([x / (std + 0.01) for x in (-3, -1, 4)] + [0, 0])
    assert group_advantages(scores, groups, scale=False).tolist() == pytest.approx([-3, -1, 4, 0, 0])


@pytest.mark.parametrize("average", ["tokens", "texts"])
def test_means_read_nothing_outside_of_the_mask(average: str) -> None:
    rows = slow.random_rows(LENGTHS, 5)
    found = masked_mean(slow.table(rows, 6, math.nan), MASK, average=average)  # type: ignore[arg-type]  # a literal
    assert float(found) == pytest.approx(slow.averaged(rows, average))
    assert float(masked_mean(torch.full((2, 3), math.nan), torch.zeros(2, 3).bool())) == 0.0


def test_whitened_numbers_have_mean_0_and_unbiased_variance_1_and_a_floor_damps_small_spreads() -> None:
    rows = slow.random_rows(LENGTHS, 6, scale=3.0)
    x = slow.table(rows, 6, math.nan)
    found = whiten(x, MASK)
    assert float(found[MASK].mean()) == pytest.approx(0.0, abs=1e-12)
    assert float(found[MASK].var()) == pytest.approx(1.0)
    assert not bool(found[~MASK].any())
    std = float(x[MASK].std())
    torch.testing.assert_close(whiten(x, MASK, floor=0.3)[MASK], (x[MASK] - x[MASK].mean()) / (std + 0.3))
    torch.testing.assert_close(whiten(x, MASK, center=False, floor=0.0)[MASK], x[MASK] / std)
    one = torch.tensor([[2.0, 9.0]])
    assert whiten(one, torch.tensor([[True, False]]), floor=0.0).tolist() == [[0.0, 0.0]]


def test_a_score_is_spread_over_the_tokens_of_its_text() -> None:
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert spread(torch.tensor([2.0, 3.0]), mask).tolist() == [[2.0, 2.0, 0.0], [0.0, 0.0, 0.0]]
