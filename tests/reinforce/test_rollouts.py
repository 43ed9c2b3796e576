"""Rollouts: layout, log-probabilities against one pass a token, sampling distributions, roll-ins, values, references."""

import math
from dataclasses import replace

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.decode.greedy import Greedy
from gpt2lab.decode.interface import Limits
from gpt2lab.decode.loop import StepDecoder
from gpt2lab.decode.sampling import Sampling
from gpt2lab.model import Transformer, attach
from gpt2lab.model.adapters import Lora, adapter_parameters
from gpt2lab.reinforce.reference import Reference
from gpt2lab.reinforce.rollouts import (
    Rollouts,
    continuations,
    rolled_in,
    rollouts,
    score_tokens,
    sequence_logprobs,
    where_rolled_in,
)
from gpt2lab.reinforce.values import Critic, ValueHead
from tests.reinforce import reference as slow
from tests.tiny import CAUSAL, tiny

PROMPTS = [[5, 9, 2], [7], [1, 2, 3, 4, 5, 6]]
TEXTS = [[4, 8], [3, 1, 60, 2, 2], [11]]
LIMITS = Limits(max_new_tokens=6, eos=(0, 1, 2, 3, 4, 5, 6), pad=0)
DECODERS = {
    "plain": Sampling(),
    "hot": Sampling(temperature=1.7),
    "top-k": Sampling(top_k=5),
    "nucleus": Sampling(top_p=0.8, temperature=0.7),
    "penalty": Sampling(repetition_penalty=1.8, min_p=0.02),
    "greedy": Greedy(),
}


def _model(family: str = "gpt2") -> Transformer:
    return tiny(family).double()


def _slow_logprobs(model: Transformer, prompts: list[list[int]], texts: list[list[int]]) -> list[list[float]]:
    def logits(ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            return model(torch.tensor([ids]))[0, -1]

    return [slow.text_logprobs(logits, x, y) for x, y in zip(prompts, texts, strict=True)]


@pytest.mark.parametrize("family", CAUSAL)
def test_log_probabilities_are_those_of_one_pass_a_token_without_padding(family: str) -> None:
    model, batch = _model(family), continuations(PROMPTS, TEXTS, pad=60)
    expected = slow.table(_slow_logprobs(model, PROMPTS, TEXTS), 5, 0.0)
    for entropy in (False, True):
        found = score_tokens(model, batch, entropy=entropy).logprobs
        torch.testing.assert_close(found.detach(), expected)
    torch.testing.assert_close(sequence_logprobs(model, batch), expected.sum(1))
    lengths = torch.tensor([2.0, 5.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(sequence_logprobs(model, batch, average=True), expected.sum(1) / lengths)


def test_a_model_with_a_bias_at_its_head_keeps_it_on_both_paths() -> None:
    model = tiny("gpt2", head_bias=True, tied_head=False).double()
    batch = continuations(PROMPTS, TEXTS)
    one, other = (score_tokens(model, batch, entropy=entropy).logprobs for entropy in (False, True))
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(one.detach(), slow.table(_slow_logprobs(model, PROMPTS, TEXTS), 5, 0.0))


def test_the_gradient_of_a_text_is_that_of_the_text_alone() -> None:
    model = _model()
    score_tokens(model, continuations(PROMPTS, TEXTS)).logprobs[1].sum().backward()
    together = model.embedding.weight.grad
    model.zero_grad()
    logits = model(torch.tensor([PROMPTS[1] + TEXTS[1][:-1]]))[0]
    logits.log_softmax(-1).gather(1, torch.tensor(TEXTS[1])[:, None]).sum().backward()
    assert together is not None
    assert model.embedding.weight.grad is not None
    torch.testing.assert_close(together, model.embedding.weight.grad)


def test_a_prompt_without_any_continuation_has_log_probability_0() -> None:
    model = _model()
    assert sequence_logprobs(model, continuations(PROMPTS, [[], [], []])).tolist() == [0.0, 0.0, 0.0]
    mixed = continuations(PROMPTS, [[], [9], []])
    found = score_tokens(model, mixed, entropy=True)
    assert found.logprobs.detach()[[0, 2]].tolist() == [[0.0], [0.0]]
    assert found.states.shape == (3, 1, 24)
    with pytest.raises(LabError, match="prompt 1 is empty"):
        continuations([[1], []], [[2], [3]])


@pytest.mark.parametrize("name", DECODERS)
def test_recomputed_log_probabilities_are_those_recorded_while_sampling(name: str) -> None:
    model = _model()
    made = rollouts(model, PROMPTS, LIMITS, samples=4, decoder=DECODERS[name], seed=3)
    lengths = made.mask.sum(1)
    assert name == "greedy" or int(lengths.min()) < int(
        lengths.max()
    )  # ragged, or nothing of padding is tested
    found = score_tokens(model, made, sampling=True, entropy=True)
    for recomputed, recorded in ((found.logprobs, made.logprobs), (found.sampling, made.sampling_logprobs)):
        assert recomputed is not None
        torch.testing.assert_close(recomputed.detach().float(), recorded, rtol=1e-5, atol=1e-5)
    assert found.entropy is not None
    assert bool((found.entropy.detach() >= 0).all())
    assert bool(found.entropy.isfinite().all())


def test_the_sampling_distribution_is_temperature_then_top_k_with_its_entropy_and_gradient() -> None:
    model = _model()
    decoder = Sampling(temperature=0.8, top_k=4)
    made = rollouts(model, PROMPTS, replace(LIMITS, min_new_tokens=2), samples=2, decoder=decoder, seed=1)
    found = score_tokens(model, made, sampling=True, entropy=True)
    assert found.entropy is not None and found.sampling is not None
    for row in range(len(made)):
        prompt = made.tokens[row, : made.start][made.attention_mask[row, : made.start]].tolist()
        text = made.new_tokens[row][made.mask[row]].tolist()
        for step in range(len(text)):
            with torch.no_grad():
                logits = model(torch.tensor([prompt + text[:step]]))[0, -1]
            if step < 2:
                logits[list(LIMITS.eos)] = -math.inf
            p = slow.sampled(logits, 0.8, 4)
            assert float(found.sampling[row, step].detach()) == pytest.approx(math.log(p[text[step]]))
            entropy = -sum(x * math.log(x) for x in p if x)
            assert float(found.entropy[row, step].detach()) == pytest.approx(entropy)
    (found.sampling.sum() + found.entropy.sum()).backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


def test_a_text_that_this_model_would_never_draw_has_probability_0_and_a_finite_gradient() -> None:
    model = _model()
    made = rollouts(model, PROMPTS, LIMITS, samples=3, decoder=Sampling(temperature=3.0), seed=0)
    narrow = replace(made, decoder=Sampling(top_k=1))
    found = score_tokens(model, narrow, sampling=True).sampling
    assert found is not None
    assert bool(found.isinf().any())
    found.exp().sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("decoder", [Sampling(), Sampling(top_k=7)])
def test_texts_depend_neither_on_the_batch_size_nor_on_their_neighbours(decoder: StepDecoder) -> None:
    model = tiny("llama")
    whole = rollouts(model, PROMPTS, LIMITS, samples=3, decoder=decoder, seed=5)
    cut = rollouts(model, PROMPTS, LIMITS, samples=3, decoder=decoder, seed=5, batch_size=2)
    last = rollouts(model, PROMPTS[2:], LIMITS, samples=3, decoder=decoder, seed=5, first=6)
    assert _texts(whole) == _texts(cut)
    assert _texts(whole)[6:] == _texts(last)
    assert whole.groups.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len(set(map(tuple, _texts(whole)[:3]))) > 1  # samples of one prompt differ


def test_a_text_ends_with_its_end_token_which_counts_as_one_of_its_tokens() -> None:
    made = rollouts(tiny("gpt2"), PROMPTS, LIMITS, samples=8, seed=2)
    for text, finished in zip(_texts(made), made.finished, strict=True):
        assert (text[-1] in LIMITS.eos) == (finished == "eos")
        assert not set(text[:-1]) & set(LIMITS.eos)


def test_forced_tokens_are_said_first_and_who_wrote_what_is_known() -> None:
    guide, learner = tiny("gpt2", seed=4), tiny("gpt2")
    limits = Limits(max_new_tokens=5)
    first = rollouts(guide, PROMPTS, limits, samples=2, seed=0)
    switches = [0, 2, 5, 1, 3, 4]
    made = rollouts(learner, PROMPTS, limits, samples=2, seed=1, forced=rolled_in(first, switches))
    for own, before, switch in zip(_texts(made), _texts(first), switches, strict=True):
        assert own[:switch] == before[:switch]
    assert where_rolled_in(made, switches).sum(1).tolist() == switches
    with pytest.raises(LabError, match="between 0 and the length"):
        rolled_in(first, [6, 0, 0, 0, 0, 0])
    with pytest.raises(LabError, match="forced has 2 rows for 6"):
        rollouts(learner, PROMPTS, limits, samples=2, forced=[[], []])


def test_rows_chosen_from_rollouts_keep_all_that_belongs_to_them() -> None:
    made = rollouts(tiny("gpt2"), PROMPTS, LIMITS, samples=2, seed=2)
    some = made.select(torch.tensor([4, 1]))
    assert _texts(some) == [_texts(made)[4], _texts(made)[1]]
    assert some.finished == (made.finished[4], made.finished[1])
    assert torch.equal(some.sampling_logprobs, made.sampling_logprobs[[4, 1]])
    assert some.groups.tolist() == [2, 0]


@pytest.mark.parametrize("hidden", [0, 5])
def test_a_value_reads_the_state_before_its_token_whatever_the_padding(hidden: int) -> None:
    model = _model()
    head = ValueHead(24, hidden=hidden).double()
    values = Critic(head)(batch := continuations(PROMPTS, TEXTS, pad=60), score_tokens(model, batch).states)
    for row, (prompt, text) in enumerate(zip(PROMPTS, TEXTS, strict=True)):
        states = model.hidden(torch.tensor([prompt + text]))[0, len(prompt) - 1 : -1]
        x = states
        if head.hidden is not None:
            x = (states @ head.hidden.weight.T + head.hidden.bias).clamp_min(0)
        expected = (x * head.output.weight[0]).sum(-1) + head.output.bias
        torch.testing.assert_close(values[row, : len(text)], expected)
        assert not bool(values[row, len(text) :].any())


def test_a_critic_begins_as_0_beside_the_policy_or_apart_from_it() -> None:
    model = _model()
    batch = continuations(PROMPTS, TEXTS)
    states = score_tokens(model, batch).states
    beside, apart = Critic.beside(model, hidden=8), Critic.apart(model)
    for critic in (beside, apart):
        values = critic(batch, states)
        assert not bool(values.any())
        assert values.dtype == torch.float64
    (apart(batch, states) - 1).square().sum().backward()
    assert apart.head.output.weight.grad is not None
    assert model.embedding.weight.grad is None  # its network is its own


def test_the_reference_of_a_model_with_fresh_adapters_is_the_model_with_them_off() -> None:
    model = attach(_model(), Lora(rank=2))
    reference = Reference(model)
    batch = continuations(PROMPTS, TEXTS)
    assert not reference.is_copy
    before = reference.score(batch).logprobs
    torch.testing.assert_close(before, score_tokens(model, batch).logprobs.detach())
    with torch.no_grad():
        for name, parameter in adapter_parameters(model).items():
            parameter.add_(0.3 if name.endswith("B") else 0.0)
    torch.testing.assert_close(reference.score(batch).logprobs, before)
    assert not torch.allclose(score_tokens(model, batch).logprobs.detach(), before)
    again = Reference(model)  # the adapter has learnt something: it is part of what must be kept
    assert again.is_copy
    torch.testing.assert_close(again.score(batch).logprobs, score_tokens(model, batch).logprobs.detach())


def test_the_reference_of_a_model_that_trains_is_a_copy_that_does_not() -> None:
    model = _model()
    reference = Reference(model)
    assert reference.is_copy
    assert not any(p.requires_grad for p in reference.model.parameters())
    batch = continuations(PROMPTS, TEXTS)
    before = reference.score(batch).logprobs
    with torch.no_grad():
        model.final_norm.weight.mul_(3.0)
    torch.testing.assert_close(reference.score(batch).logprobs, before)


def test_what_cannot_be_scored_is_refused() -> None:
    model = tiny("gpt2")
    with pytest.raises(LabError, match="only rollouts have a sampling distribution"):
        score_tokens(model, continuations(PROMPTS, TEXTS), sampling=True)
    with pytest.raises(LabError, match="samples and batch_size must be at least 1"):
        rollouts(model, PROMPTS, LIMITS, samples=0)
    with torch.no_grad():
        model.final_norm.weight.fill_(math.nan)
    with pytest.raises(LabError, match="not numbers"):
        score_tokens(model, continuations(PROMPTS, TEXTS))


def _texts(made: Rollouts) -> list[list[int]]:
    return [row[keep].tolist() for row, keep in zip(made.new_tokens, made.mask, strict=True)]
