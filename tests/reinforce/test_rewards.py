"""Rewards are functions, and what they must not return is refused with the text it was for."""

import math
from collections.abc import Callable, Sequence

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.decode.generate import Generation
from gpt2lab.decode.interface import Limits
from gpt2lab.reinforce.rewards import WeightedRewards, of_text, scored
from gpt2lab.reinforce.rollouts import Rollouts, rollouts
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import byte_level
from tests.tiny import tiny

TOKENIZER = byte_level()
LM = LanguageModel(tiny("gpt2", vocab_size=TOKENIZER.vocab_size), TOKENIZER)
PROMPTS = [TOKENIZER.encode("Say "), TOKENIZER.encode("x")]


@pytest.fixture(scope="module")
def made() -> Rollouts:
    limits = Limits(max_new_tokens=5, eos=tuple(range(40, 90)))
    return rollouts(LM.model, PROMPTS, limits, samples=3, seed=1)


def test_a_reward_sees_prompt_text_tokens_and_ending_of_every_sample(made: Rollouts) -> None:
    texts = made.generations(LM)
    assert [one.prompt for one in texts] == ["Say "] * 3 + ["x"] * 3
    for row, one in enumerate(texts):
        assert one.text == TOKENIZER.decode(made.new_tokens[row][made.mask[row]].tolist())
        assert one.prompt_tokens == PROMPTS[row // 3]
        assert (one.finished == "eos") == (40 <= one.tokens[-1] < 90)
        assert len(one.logprobs or ()) == len(one.tokens) == int(made.mask[row].sum())
    found = scored(lambda every: [len(one.tokens) for one in every], texts, made)
    assert found.tolist() == made.mask.sum(1).tolist()
    assert scored(of_text(len), texts, made).tolist() == [len(one.text) for one in texts]


def test_a_reward_may_be_a_number_for_every_token(made: Rollouts) -> None:
    texts = made.generations(LM)
    found = scored(lambda every: [[float(t) for t in one.tokens] for one in every], texts, made)
    assert torch.equal(found, (made.new_tokens * made.mask).float())
    whole = torch.ones(made.mask.shape)
    assert torch.equal(scored(lambda every: whole, texts, made), made.mask.float())


def _fails(texts: Sequence[Generation]) -> list[float]:
    raise ZeroDivisionError("division by zero")


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda texts: [0.0, 1.0, math.nan, 0.0, 0.0, 0.0], "the reward of text 2 is nan, of '"),
        (lambda texts: [0.0, math.inf, 0.0, 0.0, 0.0, 0.0], "the reward of text 1 is inf"),
        (lambda texts: [1.0], "returned 1 numbers for 6 texts"),
        (lambda texts: torch.zeros(6, 2), r"returned \[6, 2\] numbers; \[6\] or \[6, 5\] are needed"),
        (lambda texts: ["good"] * 6, "returned what is no number: could not convert"),
        (lambda texts: [None] * 6, "returned what is no number"),
        (lambda texts: None, "returned NoneType numbers for 6 texts"),
        (lambda texts: [[1.0]] * 6, "as many numbers as the text has tokens"),
        (_fails, "the reward function failed: ZeroDivisionError: division by zero"),
    ],
)
def test_what_is_no_reward_is_refused(
    made: Rollouts, reward: Callable[[Sequence[Generation]], list[float]], message: str
) -> None:
    with pytest.raises(LabError, match=message):
        scored(reward, made.generations(LM), made)


def test_weighted_rewards_are_added_and_each_is_reported_by_itself(made: Rollouts) -> None:
    texts = made.generations(LM)
    reward = WeightedRewards({"length": (2.0, of_text(len)), "one": (-1.0, lambda every: [1.0] * len(every))})
    lengths = [len(one.text) for one in texts]
    assert scored(reward, texts, made).tolist() == [2.0 * length - 1 for length in lengths]
    assert reward.means == {"reward.length": pytest.approx(sum(lengths) / 6), "reward.one": 1.0}
    with pytest.raises(LabError, match=r"reward one returned \[1\] numbers for 6 texts"):
        scored(WeightedRewards({"one": (1.0, lambda every: [1.0])}), texts, made)
