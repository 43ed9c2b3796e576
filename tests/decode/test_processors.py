from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers.generation import logits_process as theirs

from gpt2lab.decode import processors

BATCH, VOCAB = 6, 1000


def logits(scale: float = 2.0, seed: int = 0) -> Tensor:
    return scale * torch.randn(BATCH, VOCAB, generator=torch.Generator().manual_seed(seed))


def kept(x: Tensor) -> list[set[int]]:
    return [set(row.isfinite().nonzero()[:, 0].tolist()) for row in x]


CUTS: list[tuple[str, Callable[[Tensor], Tensor], Callable[..., Tensor]]] = [
    ("top_k 7", lambda x: processors.top_k(x, 7), theirs.TopKLogitsWarper(7)),
    ("top_k beyond", lambda x: processors.top_k(x, 5000), theirs.TopKLogitsWarper(5000)),
    ("top_p 0.01", lambda x: processors.top_p(x, 0.01), theirs.TopPLogitsWarper(0.01)),
    ("top_p 0.6", lambda x: processors.top_p(x, 0.6), theirs.TopPLogitsWarper(0.6)),
    ("top_p 0.95", lambda x: processors.top_p(x, 0.95), theirs.TopPLogitsWarper(0.95)),
    ("min_p 0.03", lambda x: processors.min_p(x, 0.03), theirs.MinPLogitsWarper(0.03)),
    ("typical 0.2", lambda x: processors.typical(x, 0.2), theirs.TypicalLogitsWarper(0.2)),
    ("typical 0.9", lambda x: processors.typical(x, 0.9), theirs.TypicalLogitsWarper(0.9)),
    ("temperature", lambda x: processors.temperature(x, 0.7), theirs.TemperatureLogitsWarper(0.7)),
]


@pytest.mark.parametrize("case", CUTS, ids=[name for name, _, _ in CUTS])
@pytest.mark.parametrize("scale", [0.3, 2.0, 12.0])
def test_a_cut_keeps_what_that_of_transformers_keeps(case: tuple, scale: float) -> None:
    _, ours, other = case
    for seed in range(5):
        x = logits(scale, seed)
        before = x.clone()
        assert torch.equal(ours(x), other(None, x))
        assert torch.equal(x, before)


@pytest.mark.parametrize("penalty", [1.3, 0.6])
def test_repetition_penalty_equals_that_of_transformers_and_skips_padding(penalty: float) -> None:
    x, generator = logits(), torch.Generator().manual_seed(1)
    tokens = torch.randint(VOCAB, (BATCH, 9), generator=generator)
    padding = torch.tensor([0, 3, 1, 8, 0, 5])
    tokens[torch.arange(9) < padding[:, None]] = 17  # the pad id must not count as said
    real = torch.arange(9) >= padding[:, None]
    other = theirs.RepetitionPenaltyLogitsProcessor(penalty, prompt_ignore_length=padding)
    assert torch.equal(processors.repetition_penalty(x, tokens, real, penalty), other(tokens, x))


def slow_top_p(p: list[float], mass: float) -> set[int]:
    total, chosen = 0.0, set()
    for token in sorted(range(len(p)), key=lambda token: -p[token]):
        if chosen and total >= mass:
            break
        chosen.add(token)
        total += p[token]
    return chosen


def slow_typical(p: Tensor, mass: float) -> set[int]:
    entropy = -sum(float(q) * float(q.log()) for q in p if q > 0)
    total, chosen = 0.0, set()
    for token in sorted(range(len(p)), key=lambda token: abs(-float(p[token].log()) - entropy)):
        chosen.add(token)
        total += float(p[token])
        if total >= mass:
            break
    return chosen


def test_top_p_and_typical_equal_their_definitions_in_float64() -> None:
    x = logits(seed=3)
    p = x.double().softmax(-1)
    for mass in (0.05, 0.5, 0.93):
        assert kept(processors.top_p(x, mass)) == [slow_top_p(row.tolist(), mass) for row in p]
        assert kept(processors.typical(x, mass)) == [slow_typical(row, mass) for row in p]


def test_top_p_is_the_same_whether_few_or_all_tokens_are_ranked() -> None:
    x = logits(scale=0.01)  # nearly flat: 95 % of the mass is far beyond the first 256 tokens
    assert kept(processors.top_p(x, 0.95)) == [
        slow_top_p(row.tolist(), 0.95) for row in x.double().softmax(-1)
    ]


def test_the_most_probable_token_always_stays() -> None:
    x = logits()
    top = [{int(row.argmax())} for row in x]
    assert kept(processors.top_p(x, 1e-9)) == top
    assert kept(processors.min_p(x, 1.0)) == top
    assert kept(processors.top_k(x, 1)) == top


def test_cuts_after_cuts_ignore_what_is_already_impossible() -> None:
    x = processors.top_k(logits(), 50)
    for ours, other in (
        (processors.top_p(x, 0.7), theirs.TopPLogitsWarper(0.7)),
        (processors.min_p(x, 0.2), theirs.MinPLogitsWarper(0.2)),
        (processors.typical(x, 0.7), theirs.TypicalLogitsWarper(0.7)),
    ):
        assert torch.equal(ours, other(None, x))


@pytest.mark.parametrize("size", [6, 600])
def test_top_p_keeps_all_of_several_equally_probable_tokens(size: int) -> None:
    x = torch.full((1, size), -20.0)
    x[0, [1, 3, 5]] = 2.0  # a third of the mass each
    assert kept(processors.top_p(x, 0.5)) == [{1, 3, 5}] == kept(processors.top_p(x, 0.1))
    flat = torch.zeros(1, size)
    assert kept(processors.top_p(flat, 0.5)) == [set(range(size))]
