import copy

import pytest
import torch
from scipy.stats import chisquare
from transformers import GenerationConfig

from gpt2lab.base.errors import LabError
from gpt2lab.decode.interface import Limits, row_generators
from gpt2lab.decode.loop import Draws
from gpt2lab.decode.sampling import Sampling, invert
from tests.decode.conftest import EOS, VOCAB, Pair

PROMPTS = [[5, 9, 11, 2, 8], [7], [4, 30, 22], [12, 12, 13, 14, 15, 16, 17, 18]]


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(1000 + row) for row in range(count)]


def test_processors_stand_in_the_order_of_transformers(tiny: Pair) -> None:
    options = {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.2}
    settings = GenerationConfig(
        do_sample=True,
        typical_p=0.8,
        min_new_tokens=3,
        eos_token_id=EOS,
        pad_token_id=0,
        max_new_tokens=9,
        **options,
    )
    prompts = torch.tensor([[5, 9, 11, 2, 8], [4, 30, 22, 7, 1]])
    settings._eos_token_tensor = torch.tensor([EOS])
    theirs = tiny.theirs._get_logits_processor(settings, input_ids_seq_length=5, device="cpu")
    x = 3 * torch.randn(2, VOCAB, generator=torch.Generator().manual_seed(0))
    x[:, EOS] = 20.0
    held = x.clone()
    held[:, EOS] = float("-inf")
    ours = Sampling(typical=0.8, **options)
    assert torch.equal(
        ours.process(held, prompts, torch.ones_like(prompts, dtype=torch.bool)), theirs(prompts, x)
    )


@pytest.mark.parametrize("options", [{}, {"temperature": 0.5, "top_k": 9}, {"top_p": 0.8}, {"typical": 0.7}])
def test_tokens_come_as_often_as_the_distribution_says(options: dict) -> None:
    sampling, rows = Sampling(**options), 20_000
    x = 1.5 * torch.randn(1, 30, generator=torch.Generator().manual_seed(2))
    ready = sampling.process(x, torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.bool))
    draws = Draws([torch.Generator().manual_seed(3)], torch.device("cpu"))
    counts = torch.zeros(30)
    for _ in range(rows):
        counts[sampling.pick(ready, draws)] += 1
    p = ready[0].double().softmax(-1)
    possible = p > 0
    assert counts[~possible].sum() == 0
    wanted = p[possible] * rows
    common = wanted >= 5
    observed = [*counts[possible][common].tolist(), float(counts[possible][~common].sum()) + 1e-9]
    expected = [*wanted[common].tolist(), float(wanted[~common].sum()) + 1e-9]
    scale = sum(observed) / sum(expected)
    assert chisquare(observed, [value * scale for value in expected]).pvalue > 1e-3


def test_inversion_takes_the_first_token_beyond_the_number() -> None:
    x = torch.tensor([[float("-inf"), 0.25, float("-inf"), 0.5, 0.25, float("-inf")]]).log()
    x[0, [0, 2, 5]] = float("-inf")
    for uniform, token in ((0.0, 1), (0.2499, 1), (0.25, 3), (0.7499, 3), (0.75, 4), (1 - 2**-53, 4)):
        assert invert(x, torch.tensor([[uniform]], dtype=torch.float64)).tolist() == [token]


def test_a_row_draws_the_same_whatever_its_neighbours(tiny: Pair) -> None:
    limits, sampling = Limits(max_new_tokens=30, eos=(EOS,)), Sampling(temperature=1.3)
    many = PROMPTS * 8
    together = sampling.decode(tiny.ours, many, limits, generator=generators(32))
    for size in (1, 5):
        apart: list[list[int]] = []
        sources = generators(32)
        for start in range(0, 32, size):
            rows = slice(start, start + size)
            apart += sampling.decode(tiny.ours, many[rows], limits, generator=sources[rows])
        assert apart == together.tokens
    assert len({tuple(row) for row in together.tokens}) > 20


def test_the_same_seed_gives_the_same_text_and_another_does_not(tiny: Pair) -> None:
    def say(seed: int) -> list[list[int]]:
        source = torch.Generator().manual_seed(seed)
        return Sampling().decode(tiny.ours, PROMPTS, Limits(max_new_tokens=20), generator=source).tokens

    assert say(1) == say(1)
    assert say(1) != say(2)
    state = torch.random.get_rng_state()
    say(3)
    assert torch.equal(torch.random.get_rng_state(), state)  # the global generator is nobody's


def test_a_longer_text_begins_like_a_shorter_one(tiny: Pair) -> None:
    short = Sampling().decode(tiny.ours, PROMPTS, Limits(max_new_tokens=9), generator=generators(4))
    long = Sampling().decode(tiny.ours, PROMPTS, Limits(max_new_tokens=50), generator=generators(4))
    assert [row[:9] for row in long] == short.tokens


def test_both_log_probabilities_are_returned(tiny: Pair) -> None:
    sampling = Sampling(temperature=0.7, top_k=3)
    decoded = sampling.decode(
        tiny.ours, PROMPTS, Limits(max_new_tokens=10, eos=(EOS,)), generator=generators(4), logprobs=True
    )
    assert decoded.logprobs is not None
    assert decoded.sampling_logprobs is not None
    for prompt, new, model, cut in zip(
        PROMPTS, decoded, decoded.logprobs, decoded.sampling_logprobs, strict=True
    ):
        with torch.no_grad():
            logits = tiny.ours(torch.tensor([[*prompt, *new]]))[0, len(prompt) - 1 : -1].double()
        index = torch.tensor(new)[:, None]
        torch.testing.assert_close(
            model.double(), logits.log_softmax(-1).gather(1, index)[:, 0], rtol=1e-4, atol=1e-5
        )
        three = logits.masked_fill(logits < logits.topk(3).values[:, -1:], float("-inf")) / 0.7
        torch.testing.assert_close(
            cut.double(), three.log_softmax(-1).gather(1, index)[:, 0], rtol=1e-4, atol=1e-5
        )


def test_one_generator_or_one_per_prompt() -> None:
    assert len(row_generators(None, 3)) == 3
    with pytest.raises(LabError, match="2 generators for 3 prompts"):
        row_generators(generators(2), 3)


def test_options_out_of_range_are_sentences() -> None:
    for options, sentence in (
        ({"temperature": 0.0}, "temperature must be positive, got 0.0; the greedy decoder"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"top_p": 0.0}, r"top_p must lie in \(0, 1\]"),
        ({"typical": 1.5}, r"typical must lie in \(0, 1\]"),
        ({"min_p": -0.1}, r"min_p must lie in \[0, 1\]"),
        ({"repetition_penalty": -1.0}, "repetition_penalty must be positive"),
    ):
        with pytest.raises(LabError, match=sentence):
            Sampling(**options)


def test_logits_that_are_not_numbers_are_refused(tiny: Pair) -> None:
    model = copy.deepcopy(tiny.ours)
    with torch.no_grad():
        model.final_norm.weight[2] = float("nan")
    with pytest.raises(LabError, match="NaN"):
        Sampling().decode(model, [[1, 2]], Limits(max_new_tokens=4))
