"""What algorithms make of rewards: credit and loss, with gradients, against the equations on texts without padding."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.decode.interface import Limits
from gpt2lab.decode.sampling import Sampling
from gpt2lab.reinforce.algorithms import GRPO, PPO, RLOO, Algorithm, Experience, Memory, Now, Reinforce
from gpt2lab.reinforce.rollouts import Rollouts, continuations
from tests.reinforce import reference as slow

LENGTHS = (4, 1, 2, 6, 3, 5)
WIDTH = 6
GROUPS = (0, 0, 1, 1, 1, 0)
Rows = list[list[float]]


def _rows(seed: int, scale: float = 1.0) -> Rows:
    return slow.random_rows(LENGTHS, seed, scale)


def _table(rows: Rows) -> Tensor:
    return slow.table(rows, WIDTH, 0.0)


def _made() -> Rollouts:
    laid = continuations([[1]] * len(LENGTHS), [[2] * n for n in LENGTHS])
    zeros = torch.zeros(laid.mask.shape)
    return Rollouts(
        tokens=laid.tokens,
        attention_mask=laid.attention_mask,
        mask=laid.mask,
        groups=torch.tensor(GROUPS),
        logprobs=zeros,
        sampling_logprobs=zeros,
        update_mask=laid.mask,
        value_mask=laid.mask,
        finished=("length",) * len(LENGTHS),
        decoder=Sampling(),
        limits=Limits(),
    )


REWARDS, VALUES, OLD, NEW, REFERENCE, ENTROPY, CRITIC = (
    _rows(seed, scale) for seed, scale in ((1, 1), (2, 1), (3, 0.4), (4, 0.4), (5, 0.4), (6, 1), (7, 1))
)


def _experience(made: Rollouts | None = None) -> Experience:
    return Experience(
        rollouts=made or _made(),
        rewards=_table(REWARDS),
        logprobs=_table(OLD),
        model_logprobs=_table(OLD),
        values=_table(VALUES),
        reference=_table(REFERENCE),
        greedy=torch.arange(6.0, dtype=torch.float64),
    )


def _credited(algorithm: Algorithm, memory: Memory | None = None) -> Experience:
    then = _experience()
    found = algorithm.credit(then, {} if memory is None else memory)
    return replace(then, advantages=found.advantages, returns=found.returns)


def _now() -> Now:
    new = _table(NEW).requires_grad_()
    return Now(
        logprobs=new,
        model_logprobs=new,
        entropy=_table(ENTROPY).requires_grad_(),
        values=_table(CRITIC).requires_grad_(),
    )


def _totals() -> list[float]:
    return [sum(row) for row in REWARDS]


def _white(rows: Rows, floor: float) -> Rows:
    every = slow.flat(rows)
    mean = slow.mean(every)
    std = math.sqrt(sum((x - mean) ** 2 for x in every) / (len(every) - 1))
    return [[(x - mean) / (std + floor) for x in row] for row in rows]


@pytest.mark.parametrize("white", [False, True])
def test_ppo_is_the_clipped_loss_of_gae_with_the_critics_loss_less_the_entropy(white: bool) -> None:
    ppo = PPO(gamma=0.9, lam=0.8, value_weight=0.7, entropy_weight=0.05, whiten=white, floor=0.3)
    then, now = _credited(ppo), _now()
    loss, numbers = ppo.loss(now, then)
    loss.backward()
    gains = slow.gae(REWARDS, VALUES, 0.9, 0.8)
    targets = [[a + v for a, v in zip(x, y, strict=True)] for x, y in zip(gains, VALUES, strict=True)]
    if white:
        gains = _white(gains, 0.3)

    def plain(new: Rows, critic: Rows, entropy: Rows) -> float:
        policy = slow.ppo(new, OLD, gains, 0.2, 0.2)
        return (
            policy + 0.7 * slow.value(critic, targets, VALUES, 0.2) - 0.05 * slow.averaged(entropy, "tokens")
        )

    assert loss.item() == pytest.approx(plain(NEW, CRITIC, ENTROPY))
    assert numbers["entropy"] == pytest.approx(slow.averaged(ENTROPY, "tokens"))
    for tensor, expected in (
        (now.logprobs, slow.gradient(lambda x: plain(x, CRITIC, ENTROPY), NEW)),
        (now.values, slow.gradient(lambda x: plain(NEW, x, ENTROPY), CRITIC)),
        (now.entropy, slow.gradient(lambda x: plain(NEW, CRITIC, x), ENTROPY)),
    ):
        assert tensor is not None
        assert tensor.grad is not None
        torch.testing.assert_close(tensor.grad, _table(expected), rtol=1e-6, atol=1e-8)


def test_ppo_whitens_over_the_tokens_that_the_policy_learns_from() -> None:
    made = _made()
    made = replace(made, update_mask=made.mask & (torch.arange(WIDTH) < 2))
    found = PPO().credit(_experience(made), {}).advantages
    assert float(found[made.update_mask].mean()) == pytest.approx(0.0, abs=1e-12)
    assert float(found[made.update_mask].std()) == pytest.approx(1.0)


def _baselines() -> dict[str, list[float]]:
    returns = [row[0] for row in slow.returns(REWARDS, 0.9)]
    others = [
        slow.mean([returns[j] for j in range(6) if j != i and GROUPS[j] == GROUPS[i]]) for i in range(6)
    ]
    return {
        "none": [0.0] * 6,
        "batch-mean": [slow.mean(returns)] * 6,
        "leave-one-out": others,
        "greedy": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
        "moving-average": [(0.5 * 2.0 + 4.0) / 1.5] * 6,
    }


@pytest.mark.parametrize("baseline", list(_baselines()))
def test_reinforce_takes_its_baseline_off_the_returns(baseline: str) -> None:
    algorithm = Reinforce(gamma=0.9, baseline=baseline, decay=0.5)  # type: ignore[arg-type]  # a literal
    assert algorithm.reads_greedy == (baseline == "greedy")
    memory = {}
    for mean in (2.0, 4.0):  # two earlier iterations
        weight, total = memory.get("baseline.weight", 0.0), memory.get("baseline.sum", 0.0)
        memory |= {"baseline.weight": 0.5 * weight + 1, "baseline.sum": 0.5 * total + mean}
    then, now = _credited(algorithm, memory), _now()
    gains = [
        [g - b for g in row]
        for row, b in zip(slow.returns(REWARDS, 0.9), _baselines()[baseline], strict=True)
    ]
    assert then.advantages is not None
    torch.testing.assert_close(then.advantages, _table(gains))
    loss, _ = algorithm.loss(now, then)
    loss.backward()

    def plain(new: Rows) -> float:
        return -slow.mean(
            [a * x for row, own in zip(gains, new, strict=True) for a, x in zip(row, own, strict=True)]
        )

    assert loss.item() == pytest.approx(plain(NEW))
    assert now.logprobs.grad is not None
    torch.testing.assert_close(now.logprobs.grad, _table(slow.gradient(plain, NEW)), rtol=1e-6, atol=1e-8)


def test_the_moving_average_is_of_earlier_iterations_alone() -> None:
    algorithm, memory = Reinforce(baseline="moving-average", decay=0.5), {}
    first = algorithm.credit(_experience(), memory).advantages
    torch.testing.assert_close(first, _table(slow.returns(REWARDS, 1.0)))  # nothing came before
    second = algorithm.credit(_experience(), memory).advantages
    mean = slow.mean(_totals())
    torch.testing.assert_close(
        second, _table([[g - mean for g in row] for row in slow.returns(REWARDS, 1.0)])
    )


def test_rloo_weighs_the_log_probability_of_a_whole_text_by_its_lead_over_the_others() -> None:
    then, now = _credited(RLOO()), _now()
    loss, _ = RLOO().loss(now, then)
    loss.backward()
    totals = _totals()
    leads = [
        totals[i] - slow.mean([totals[j] for j in range(6) if j != i and GROUPS[j] == GROUPS[i]])
        for i in range(6)
    ]

    def plain(new: Rows) -> float:
        return -slow.mean([lead * sum(row) for lead, row in zip(leads, new, strict=True)])

    assert loss.item() == pytest.approx(plain(NEW))
    assert now.logprobs.grad is not None
    torch.testing.assert_close(now.logprobs.grad, _table(slow.gradient(plain, NEW)), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("average", ["tokens", "texts"])
@pytest.mark.parametrize("scale", [True, False])
def test_grpo_is_the_clipped_loss_of_standardised_rewards_with_k3_to_the_reference(
    average: str, scale: bool
) -> None:
    grpo = GRPO(average=average, scale=scale, kl_weight=0.3, clip_high=0.3)  # type: ignore[arg-type]  # a literal
    assert grpo.reads_reference
    then, now = _credited(grpo), _now()
    loss, _ = grpo.loss(now, then)
    loss.backward()
    gains = []
    for i, total in enumerate(_totals()):
        group = [x for x, g in zip(_totals(), GROUPS, strict=True) if g == GROUPS[i]]
        mean = slow.mean(group)
        std = math.sqrt(sum((x - mean) ** 2 for x in group) / (len(group) - 1)) if scale else 1 - 1e-4
        gains.append([(total - mean) / (std + 1e-4)] * LENGTHS[i])

    def plain(new: Rows) -> float:
        away = [
            [math.exp(r - x) - 1 - (r - x) for r, x in zip(ref, row, strict=True)]
            for ref, row in zip(REFERENCE, new, strict=True)
        ]
        return slow.ppo(new, OLD, gains, 0.2, 0.3, average) + 0.3 * slow.averaged(away, average)

    assert loss.item() == pytest.approx(plain(NEW))
    assert now.logprobs.grad is not None
    torch.testing.assert_close(now.logprobs.grad, _table(slow.gradient(plain, NEW)), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("algorithm", [PPO(), Reinforce(), RLOO(), GRPO(kl_weight=0.1)])
def test_the_order_of_texts_and_what_stands_behind_them_change_no_loss(algorithm: Algorithm) -> None:
    then = _credited(algorithm)
    order = torch.tensor([3, 5, 0, 2, 4, 1])
    mixed = then.select(order)
    now = _now()
    moved = Now(
        logprobs=now.logprobs[order],
        model_logprobs=now.model_logprobs[order],
        entropy=now.entropy[order],
        values=None if now.values is None else now.values[order],
    )
    one, other = algorithm.loss(now, then)[0], algorithm.loss(moved, mixed)[0]
    torch.testing.assert_close(one, other)
    filled = now.logprobs.detach().masked_fill(~then.rollouts.mask, math.nan)
    torch.testing.assert_close(
        algorithm.loss(replace(now, logprobs=filled, model_logprobs=filled), then)[0], one
    )


def test_options_out_of_range_and_a_missing_critic_are_refused() -> None:
    with pytest.raises(LabError, match="epochs must be at least 1, got 0"):
        PPO(epochs=0)
    with pytest.raises(LabError, match="target_kl must be positive"):
        GRPO(target_kl=0.0)
    with pytest.raises(LabError, match="ppo needs a critic"):
        PPO().credit(replace(_experience(), values=None), {})
