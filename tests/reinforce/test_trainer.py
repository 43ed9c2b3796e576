"""The trainer: it learns, its first ratio is 1, nothing but what it should change changes, and it resumes to the bit."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.decode.generate import Generation
from gpt2lab.decode.sampling import Sampling
from gpt2lab.model import Transformer, attach
from gpt2lab.model.adapters import Lora
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.reinforce import (
    GRPO,
    PPO,
    RLOO,
    AdaptiveKL,
    Algorithm,
    Critic,
    FixedKL,
    PolicySettings,
    PolicyTrainer,
    Reference,
    Reinforce,
    WeightedRewards,
    train_policy,
)
from gpt2lab.reinforce.rollouts import continuations, rolled_in, rollouts, where_rolled_in
from gpt2lab.text.language_model import LanguageModel

PROMPTS = [[1], [2, 5]]
SMALL = PolicySettings(prompts=2, samples=4, minibatch=4, max_new_tokens=6, iterations=2, learning_rate=3e-3)


def _lm(seed: int = 0, **changes: Any) -> LanguageModel:
    config = gpt2_config(vocab_size=8, d_model=32, n_layers=2, n_heads=2, max_positions=16)
    model = Transformer(config.replace(**changes), generator=torch.Generator().manual_seed(seed))
    return LanguageModel(model.eval(), None)


def threes(texts: Sequence[Generation]) -> list[float]:
    """The share of 3 among the tokens."""
    return [sum(token == 3 for token in one.tokens) / len(one.tokens) for one in texts]


def brevity(texts: Sequence[Generation]) -> list[float]:
    """1 for a text that ends at once."""
    return [1 / len(one.tokens) for one in texts]


def _weights(module: torch.nn.Module) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in module.state_dict().values()]


def _same(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


LEARNERS: dict[str, Algorithm] = {
    "ppo": PPO(epochs=2),
    "reinforce": Reinforce(),
    "moving average": Reinforce(baseline="moving-average"),
    "self-critical": Reinforce(baseline="greedy"),
    "rloo": RLOO(),
    "grpo": GRPO(epochs=2),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_a_policy_learns_the_token_that_is_rewarded(name: str) -> None:
    settings = PolicySettings(
        iterations=30, prompts=4, samples=8, minibatch=16, max_new_tokens=4, learning_rate=4e-3
    )
    done = train_policy(_lm(), PROMPTS, threes, algorithm=LEARNERS[name], settings=settings)
    assert done.rewards[0] < 0.25  # chance is 1/8
    assert done.reward > 0.85


def test_a_policy_learns_to_end_its_texts() -> None:
    settings = PolicySettings(
        iterations=20, prompts=4, samples=8, minibatch=16, max_new_tokens=6, learning_rate=6e-3
    )
    lm = _lm(eos=0)
    rows: list[dict[str, float]] = []
    done = train_policy(
        lm, PROMPTS, brevity, settings=settings, log=lambda step, **numbers: rows.append(numbers)
    )
    assert rows[0]["reward"] < 0.5 < 0.9 < done.reward
    assert rows[0]["length"] > 3 > 1.3 > rows[-1]["length"]
    assert rows[-1]["ended"] == 1.0


@pytest.mark.parametrize("decoder", [Sampling(), Sampling(top_k=3, temperature=1.3)])
@pytest.mark.parametrize("ratio", ["sampling", "model"])
@pytest.mark.parametrize("algorithm", [PPO(epochs=1), GRPO()])
def test_the_ratios_of_the_first_update_are_1_to_the_bit(
    decoder: Sampling, ratio: str, algorithm: Algorithm
) -> None:
    settings = replace(SMALL, iterations=1, minibatch=8, ratio=ratio)  # type: ignore[arg-type]  # a literal
    lm = _lm(eos=0, residual_dropout=0.3)
    lm.model.train()  # dropout must not act
    done = train_policy(lm, PROMPTS, threes, algorithm=algorithm, settings=settings, decoder=decoder)
    assert (done.numbers["ratio"], done.numbers["policy_kl"], done.numbers["clip_fraction"]) == (
        1.0,
        0.0,
        0.0,
    )
    assert lm.model.training


@pytest.mark.parametrize(("critic", "adapter"), [("beside", False), ("apart", False), ("beside", True)])
def test_a_run_that_was_broken_off_ends_with_the_same_bits(
    critic: str, adapter: bool, tmp_path: Path
) -> None:
    settings = replace(SMALL, iterations=5, schedule="linear", checkpoint_every=2, critic_warmup=1)

    def run(reward: Callable[[Sequence[Generation]], list[float]], **more: Any) -> tuple[Any, Any]:
        lm = _lm(eos=0)
        if adapter:
            attach(lm.model, Lora(rank=2))
        critics = getattr(Critic, critic)(lm.model, hidden=3)
        controller = AdaptiveKL(0.1, target=0.01, horizon=10)
        done = train_policy(
            lm,
            PROMPTS,
            reward,
            settings=settings,
            critic=critics,
            controller=controller,
            algorithm=lambda i: Reinforce(baseline="moving-average") if i == 3 else PPO(epochs=2),
            **more,
        )
        return (lm, critics), (done.rewards, done.numbers)

    (whole, critic_whole), expected = run(threes)
    calls = 0

    def broken(texts: Sequence[Generation]) -> list[float]:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return threes(texts)

    with pytest.raises(KeyboardInterrupt):
        run(broken, checkpoints=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]
    (again, critic_again), found = run(threes, checkpoints=tmp_path, resume=True)
    assert found == expected
    assert _same(_weights(whole.model), _weights(again.model))
    assert _same(_weights(critic_whole), _weights(critic_again))


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    found = []
    for seed in (3, 3, 4):
        lm = _lm()
        train_policy(lm, PROMPTS, threes, settings=SMALL, seed=seed)
        found.append(_weights(lm.model))
    assert _same(found[0], found[1])
    assert not _same(found[0], found[2])


def test_a_coefficient_of_0_is_no_reference_and_a_large_one_holds_the_policy() -> None:
    runs = {}
    for name, more in {
        "none": {},
        "measured": {"reference": "copy"},
        "held": {"controller": FixedKL(20.0)},
    }.items():
        lm = _lm()
        if "reference" in more:
            more = {"reference": Reference(lm.model)}
        settings = replace(SMALL, iterations=12)
        done = train_policy(lm, PROMPTS, threes, settings=settings, algorithm=Reinforce(), **more)
        runs[name] = done, _weights(lm.model)
    assert _same(runs["none"][1], runs["measured"][1])
    assert "kl" not in runs["none"][0].numbers
    assert runs["held"][0].numbers["kl_k3"] < 0.1 * runs["measured"][0].numbers["kl_k3"]


def test_an_adaptive_coefficient_hears_the_kl_of_every_iteration() -> None:
    controller = AdaptiveKL(0.5, target=1e-6, horizon=8)
    done = train_policy(_lm(), PROMPTS, threes, settings=SMALL, controller=controller)
    # error clipped: -0.2 while the KL is 0, then 0.2, times 8 texts over a horizon of 8
    assert controller.coefficient == pytest.approx(0.5 * 0.8 * 1.2)
    assert done.numbers["kl_coefficient"] == pytest.approx(0.5 * 0.8)


def test_updates_end_where_the_policy_has_moved_too_far() -> None:
    lm = _lm()
    done = train_policy(
        lm, PROMPTS, threes, settings=replace(SMALL, iterations=1), algorithm=PPO(epochs=5, target_kl=1e-9)
    )
    assert done.numbers["updates"] == 1.0
    free = train_policy(
        _lm(), PROMPTS, threes, settings=replace(SMALL, iterations=1), algorithm=PPO(epochs=5)
    )
    assert free.numbers["updates"] == 10.0


def test_a_critics_warm_up_leaves_the_policy_to_the_bit() -> None:
    lm = _lm()
    critic = Critic.apart(lm.model)
    before, values = _weights(lm.model), _weights(critic)
    settings = replace(SMALL, critic_warmup=2, critic_learning_rate=1e-2)
    train_policy(lm, PROMPTS, threes, settings=settings, critic=critic)
    assert _same(before, _weights(lm.model))
    assert not _same(values, _weights(critic))
    train_policy(lm, PROMPTS, threes, settings=replace(settings, iterations=3), critic=critic)
    assert not _same(before, _weights(lm.model))


def test_the_critic_comes_to_know_the_returns() -> None:
    lm = _lm()
    settings = replace(SMALL, iterations=12, critic_warmup=99, critic_learning_rate=1e-2)
    rows: list[float] = []
    train_policy(
        lm,
        PROMPTS,
        lambda texts: [2.0 if one.prompt_tokens == [1] else -2.0 for one in texts],
        settings=settings,
        critic=Critic.apart(lm.model),
        algorithm=PPO(value_clip=None, lam=1.0, epochs=2),
        log=lambda step, **numbers: rows.append(numbers["value_loss"]),
    )
    assert rows[0] > 1.0 > 0.1 > rows[-1]  # half the square of 2 at first: the critic begins as 0


def test_texts_without_a_token_to_learn_from_change_nothing() -> None:
    lm = _lm()
    trainer = PolicyTrainer(lm, settings=SMALL, critics={"value": Critic.apart(lm.model)})
    before = _weights(trainer.modules)
    made = trainer.collect(PROMPTS)
    nothing = torch.zeros_like(made.mask)
    numbers = trainer.learn(replace(made, update_mask=nothing, value_mask=nothing), torch.arange(8.0), PPO())
    assert _same(before, _weights(trainer.modules))
    assert (numbers["updated"], numbers["gradient_norm"]) == (0.0, 0.0)


def test_only_adapters_move_where_only_adapters_train_and_no_second_copy_is_held() -> None:
    lm = _lm()
    attach(lm.model, Lora(rank=2))
    base = {n: p.clone() for n, p in lm.model.named_parameters() if not p.requires_grad}
    reference = Reference(lm.model)
    assert not reference.is_copy
    train_policy(lm, PROMPTS, threes, settings=SMALL, reference=reference, algorithm=RLOO())
    assert all(torch.equal(p, base[n]) for n, p in lm.model.named_parameters() if n in base)
    assert any(bool(p.any()) for n, p in lm.model.named_parameters() if n.endswith(".B"))


def test_target_texts_pull_the_policy_towards_them() -> None:
    lm = _lm()
    rows: list[float] = []
    train_policy(
        lm,
        PROMPTS,
        lambda texts: [0.0] * len(texts),
        algorithm=Reinforce(),
        settings=replace(SMALL, iterations=15, target_weight=1.0),
        targets=[[6, 6], [7]],
        log=lambda step, **numbers: rows.append(numbers["target"]),
    )
    assert rows[0] == pytest.approx(math.log(8), abs=0.4)
    assert rows[-1] < 0.6


def test_a_guide_may_write_the_first_part_and_two_critics_take_turns() -> None:
    """A loop of a method's own: roll-ins by a guide (PPO++), then by the policy (AggreVaTeD)."""
    lm, guide = _lm(), _lm(seed=9).model
    critics = {"own": Critic.apart(lm.model), "guide": Critic.apart(lm.model)}
    trainer = PolicyTrainer(lm, settings=SMALL, critics=critics)
    rows = [prompt for prompt in PROMPTS for _ in range(4)]
    switches = [1, 2, 3, 1, 2, 3, 5, 0]
    before = {name: _weights(critic) for name, critic in critics.items()}

    first = rollouts(guide, rows, trainer.limits, seed=1)
    made = trainer.collect(rows, samples=1, forced=rolled_in(first, switches))
    own = made.mask & ~where_rolled_in(made, switches)
    numbers = trainer.learn(
        replace(made, update_mask=own, value_mask=own), torch.arange(8.0), PPO(), critic="own"
    )
    assert numbers["updated"] == pytest.approx(float(own.sum() / made.mask.sum()))
    assert _same(before["guide"], _weights(critics["guide"]))
    assert not _same(before["own"], _weights(critics["own"]))

    mine = trainer.collect(rows, samples=1)
    mixed = rollouts(guide, rows, trainer.limits, seed=2, forced=rolled_in(mine, switches))
    whose = where_rolled_in(mixed, switches)
    trainer.learn(
        replace(mixed, update_mask=whose, value_mask=mixed.mask & ~whose),
        torch.arange(8.0),
        PPO(),
        critic="guide",
    )
    assert not _same(before["guide"], _weights(critics["guide"]))
    with pytest.raises(LabError, match="PPO needs a critic named other; this policy has own, guide"):
        trainer.learn(made, torch.arange(8.0), PPO(), critic="other")


def test_scores_are_clipped_and_a_reward_of_several_reports_its_parts() -> None:
    seen: list[tuple[int, int, list[float]]] = []
    reward = WeightedRewards({"threes": (1.0, threes), "huge": (1.0, lambda texts: [1e6] * len(texts))})
    done = train_policy(
        _lm(),
        PROMPTS,
        reward,
        settings=replace(SMALL, score_clip=10.0),
        watch=lambda i, texts, scores: seen.append((i, len(texts), scores.tolist())),
    )
    assert done.numbers["reward.huge"] == 1e6
    assert [(i, n) for i, n, _ in seen] == [(1, 8), (2, 8)]
    assert done.numbers["value_loss"] < 100  # of returns near 10, not a million


def test_a_loss_that_is_not_finite_stops_before_it_spreads() -> None:
    lm = _lm()
    before = _weights(lm.model)
    with pytest.raises(LabError, match="in iteration 1; lower learning_rate"):
        train_policy(
            lm,
            PROMPTS,
            lambda texts: [3e38] * len(texts),
            settings=SMALL,
            algorithm=Reinforce(baseline="none"),
        )
    assert _same(before, _weights(lm.model))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"prompts": []}, "no prompts to write from"),
        ({"prompts": "one text"}, r"list of texts, got one text; give \['one text'\]"),
        ({"algorithm": RLOO}, r"got the class RLOO; give an instance, RLOO\(\)"),
        ({"reward": lambda texts: [math.nan] * len(texts)}, "reward of text 0 is nan"),
        (
            {"settings": replace(SMALL, samples=2, minibatch=2), "algorithm": RLOO(), "prompts": [[1], [2]]},
            None,
        ),
        ({"settings": replace(SMALL, samples=1, minibatch=2), "algorithm": RLOO()}, "at least 2 samples"),
        ({"settings": replace(SMALL, max_new_tokens=16)}, "16 positions"),
        ({"settings": replace(SMALL, target_weight=1.0)}, "target_weight needs a reference text"),
        ({"targets": [[1]]}, "1 targets for 2 prompts"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_a_sentence(more: dict[str, Any], message: str | None) -> None:
    given: dict[str, Any] = {"prompts": PROMPTS, "reward": threes, "settings": SMALL, **more}
    prompts, reward = given.pop("prompts"), given.pop("reward")
    if message is None:
        train_policy(_lm(), prompts, reward, **given)
        return
    with pytest.raises(LabError, match=message):
        train_policy(_lm(), prompts, reward, **given)


def test_settings_and_models_that_do_not_fit_are_refused() -> None:
    with pytest.raises(
        LabError, match=r"8 texts \(2 prompts, 4 samples each\) are not divisible by minibatch 3"
    ):
        replace(SMALL, minibatch=3)
    with pytest.raises(LabError, match="prompts must be at least 1, got 0"):
        PolicySettings(prompts=0)
    with pytest.raises(LabError, match="learning_rate must not be negative, got nan"):
        PolicySettings(learning_rate=math.nan)
    lm = _lm()
    with pytest.raises(LabError, match="a KL coefficient needs a reference"):
        PolicyTrainer(lm, settings=SMALL, controller=FixedKL(0.1))
    lm.model.requires_grad_(False)
    with pytest.raises(LabError, match="nothing of this policy trains"):
        PolicyTrainer(lm, settings=SMALL)
    trainer = PolicyTrainer(_lm(), settings=SMALL)
    with pytest.raises(LabError, match="2 texts are not divisible by minibatch 4"):
        trainer.learn(trainer.collect([[1]], samples=2), torch.zeros(2), Reinforce())
    made = trainer.collect(PROMPTS)
    with pytest.raises(LabError, match="GRPO needs a reference"):
        trainer.learn(made, torch.zeros(8), GRPO(kl_weight=0.1))
    short = continuations([[1]], [[2]])
    with pytest.raises(LabError, match="target_weight needs a reference text for each"):
        replace_weight = PolicyTrainer(_lm(), settings=replace(SMALL, target_weight=0.5))
        replace_weight.learn(made, torch.zeros(8), Reinforce(), targets=short)


def test_a_run_to_be_resumed_that_never_began_begins(tmp_path: Path) -> None:
    done = train_policy(_lm(), PROMPTS, threes, settings=SMALL, checkpoints=tmp_path / "new", resume=True)
    assert (done.iterations, len(done.rewards)) == (2, 2)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["step-00000002"]
