"""Contrastive search against the published algorithm, written slowly: every candidate in a forward pass of its own."""

from typing import Any

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.decode import Greedy, Limits, generate
from gpt2lab.model import Transformer
from gpt2lab.papers.contrastive_search.decoder import ContrastiveSearch, Step, likeliest
from gpt2lab.text.language_model import LanguageModel
from tests.tiny import CAUSAL, tiny

PROMPTS = [[3], [5, 6, 7, 8, 9, 10, 11], [1, 2], [40, 41, 42, 43, 44]]
LIMITS = Limits(max_new_tokens=8)


def sharp(family: str) -> Transformer:
    """A tiny model whose probabilities differ enough for the balance to matter."""
    model = tiny(family)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(3.0)
    return model


def slow(
    model: Transformer, prompt: list[int], new: int, k: int, alpha: float, scope: str = "all"
) -> list[int]:
    """One row, no cache, no batch, float64."""
    model = model.double()
    text = list(prompt)
    with torch.no_grad():
        for _ in range(new):
            states = model.hidden(torch.tensor([text]))[0]
            p = model.unembed(states[-1]).softmax(-1)
            best, winner = -float("inf"), -1
            order = sorted(range(len(p)), key=lambda v: -float(p[v]))[:k]
            for v in order:
                h = model.hidden(torch.tensor([[*text, v]]))[0, -1]
                compared = states if scope == "all" else states[len(prompt) :]
                cosines = [float(h @ x / (h.norm() * x.norm())) for x in compared]
                score = (1 - alpha) * float(p[v]) - alpha * max(cosines, default=0.0)
                if score > best:
                    best, winner = score, v
            text.append(winner)
    model.float()
    return text[len(prompt) :]


@pytest.mark.parametrize("family", CAUSAL)
@pytest.mark.parametrize(("k", "alpha"), [(4, 0.6), (3, 0.3), (6, 1.0)])
def test_tokens_are_those_of_the_published_algorithm(family: str, k: int, alpha: float) -> None:
    """Four prompts of different lengths in one padded batch; local windows, rotary positions, grouped heads."""
    model = sharp(family)
    expected = [slow(model, prompt, 8, k, alpha) for prompt in PROMPTS]
    assert list(ContrastiveSearch(k=k, alpha=alpha).decode(model, PROMPTS, LIMITS)) == expected
    assert expected != list(Greedy().decode(model, PROMPTS, LIMITS))


@pytest.mark.parametrize("family", ["gpt2", "gpt_neo"])
def test_the_penalty_may_be_restricted_to_new_tokens(family: str) -> None:
    model = sharp(family)
    expected = [slow(model, prompt, 8, 4, 0.7, "generated") for prompt in PROMPTS]
    search = ContrastiveSearch(k=4, alpha=0.7, scope="generated")
    assert list(search.decode(model, PROMPTS, LIMITS)) == expected


@pytest.mark.parametrize("options", [{"k": 1, "alpha": 0.9}, {"k": 5, "alpha": 0.0}])
def test_without_candidates_or_without_novelty_it_is_greedy(options: dict[str, Any]) -> None:
    model = sharp("llama")
    assert list(ContrastiveSearch(**options).decode(model, PROMPTS, LIMITS)) == list(
        Greedy().decode(model, PROMPTS, LIMITS)
    )


@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
@pytest.mark.parametrize("options", [{"k": 1}, {"k": 5, "alpha": 0.0}])
def test_in_bf16_too_where_many_tokens_are_equally_likely(family: str, options: dict[str, Any]) -> None:
    model, limits = tiny(family).to(torch.bfloat16), Limits(max_new_tokens=20)
    assert list(ContrastiveSearch(**options).decode(model, PROMPTS, limits)) == list(
        Greedy().decode(model, PROMPTS, limits)
    )


def test_of_equally_likely_tokens_the_lowest_ids_are_candidates() -> None:
    generator = torch.Generator().manual_seed(0)
    for vocab, levels in ((9, 3), (200, 3), (200, 150)):  # few equals, most of the vocabulary, hardly any
        likely = torch.randint(levels, (6, vocab), generator=generator).float()
        for k in (1, 5, 9):
            values, ids = likeliest(likely, k)
            for row, found in zip(likely.tolist(), ids.tolist(), strict=True):
                assert found == sorted(range(vocab), key=lambda v, row=row: (-row[v], v))[:k]  # type: ignore[misc]  # a default names the row
            assert torch.equal(values, likely.gather(1, ids))


def test_every_step_can_be_looked_at() -> None:
    model, steps = sharp("gpt2"), list[Step]()
    tokens = ContrastiveSearch(k=3, alpha=0.5).decode(model, PROMPTS, LIMITS, steps=steps)
    assert len(steps) == 8
    for number, step in enumerate(steps):
        assert step.rows == [0, 1, 2, 3]
        assert (step.probabilities[:, :-1] >= step.probabilities[:, 1:]).all()
        assert torch.allclose(step.scores, 0.5 * step.probabilities - 0.5 * step.penalties)
        assert (step.penalties.abs() <= 1 + 1e-5).all()
        said = step.candidates[torch.arange(4), step.chosen].tolist()
        assert said == [row[number] for row in tokens]


def test_rows_that_end_leave_the_batch_and_the_others_go_on_alike() -> None:
    model = sharp("gpt2")
    search = ContrastiveSearch(k=4, alpha=0.6)
    free = list(search.decode(model, PROMPTS, LIMITS))
    ends = (free[0][1], free[2][2], free[3][0])
    limits = Limits(max_new_tokens=8, eos=ends, pad=50)
    together = search.decode(model, PROMPTS, limits)
    assert list(together) == [search.decode(model, [prompt], limits)[0] for prompt in PROMPTS]
    assert "eos" in together.finished


def test_the_first_tokens_may_be_drawn_from_the_nucleus() -> None:
    model = sharp("gpt2")
    search = ContrastiveSearch(k=4, alpha=0.6, sampled=3, top_p=0.9)

    def texts(seed: int) -> list[list[int]]:
        generators = [torch.Generator().manual_seed(seed + row) for row in range(4)]
        return list(search.decode(model, PROMPTS, LIMITS, generator=generators))

    assert texts(1) == texts(1)
    assert texts(1) != texts(50)
    for prompt, row in zip(PROMPTS, texts(1), strict=True):
        later = ContrastiveSearch(k=4, alpha=0.6).decode(
            model, [[*prompt, *row[:3]]], Limits(max_new_tokens=5)
        )
        assert later[0] == row[3:]


def test_a_repetition_penalty_acts_before_the_candidates_are_chosen() -> None:
    model, steps = sharp("gpt2"), list[Step]()
    search = ContrastiveSearch(k=4, alpha=0.2, repetition_penalty=1e6)
    for row, prompt in zip(search.decode(model, PROMPTS, LIMITS, steps=steps), PROMPTS, strict=True):
        assert not set(row) & set(prompt)
        assert len(set(row)) == len(row)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"k": 0}, "k must be"),
        ({"alpha": 1.1}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"scope": "prompt"}, "scope"),
        ({"top_p": 0.0}, "top_p"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(LabError, match=words):
        ContrastiveSearch(**options)


def test_what_cannot_be_searched_is_refused() -> None:
    model = sharp("gpt2")
    with pytest.raises(LabError, match="vocabulary"):
        ContrastiveSearch(k=10_000).decode(model, PROMPTS, LIMITS)
    room = model.config.max_positions
    for new in (5, 50):
        with pytest.raises(LabError, match=f": 4 new tokens fit, not {new} .this decoder reads the last"):
            ContrastiveSearch().decode(model, [[1] * (room - 4)], Limits(max_new_tokens=new))
        with pytest.raises(LabError, match=f": 4 new tokens fit, not {new} .this decoder reads the last"):
            generate(
                LanguageModel(model), [[1] * (room - 4)], decoder="contrastive-search", max_new_tokens=new
            )
    assert len(ContrastiveSearch().decode(model, [[1] * (room - 4)], Limits(max_new_tokens=4))[0]) == 4


def test_a_state_of_zeros_is_warned_of() -> None:
    model = tiny("llama")
    with torch.no_grad():
        model.final_norm.weight.zero_()
    with pytest.warns(UserWarning, match="state is zero") as warned:
        ContrastiveSearch().decode(model, [[1, 2]], Limits(max_new_tokens=4))
    assert len(warned) == 1


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_an_end_token_before_its_time_never_wins_even_if_all_tokens_are_candidates(alpha: float) -> None:
    """Its probability is 0, but its state may be the newest of all."""
    model = sharp("gpt2")
    search = ContrastiveSearch(k=model.config.vocab_size, alpha=alpha)
    eos = search.decode(model, [[3]], Limits(max_new_tokens=1))[0][0]
    limits = Limits(max_new_tokens=6, min_new_tokens=6, eos=(eos,))
    for decoder in (search, ContrastiveSearch(k=4, alpha=alpha)):
        for row in decoder.decode(model, [[3], [5, 6, 7]], limits):
            assert len(row) == 6
            assert eos not in row


def test_matrices_are_laid_out_for_the_candidates_of_a_single_prompt() -> None:
    """A layout for one row is slow with k: benchmarks/decoding.py --contrastive --batch 1."""
    assert ContrastiveSearch(k=7).rows_per_prompt == 7


def test_scores_of_a_float64_model_are_float64() -> None:
    steps = list[Step]()
    model = sharp("gpt2").double().requires_grad_(False)
    ContrastiveSearch(k=3).decode(model, PROMPTS, Limits(max_new_tokens=1), steps=steps)
    states = model.hidden(torch.tensor([PROMPTS[0]]))[0]
    likely = model.unembed(states[-1]).softmax(-1).topk(3)
    for place, token in enumerate(likely.indices.tolist()):
        state = model.hidden(torch.tensor([[*PROMPTS[0], token]]))[0, -1]
        penalty = float(torch.cosine_similarity(state, states, dim=-1).max())
        expected = 0.4 * float(likely.values[place]) - 0.6 * penalty
        assert float(steps[0].scores[0, place]) == pytest.approx(expected, abs=1e-13)


def test_scores_are_float32_though_the_model_is_bf16() -> None:
    steps = list[Step]()
    ContrastiveSearch().decode(tiny("gpt2").to(torch.bfloat16), PROMPTS, LIMITS, steps=steps)
    assert {step.scores.dtype for step in steps} == {torch.float32}


@pytest.mark.parametrize("family", ["gpt2", "gpt_neo"])
def test_the_cache_of_an_architecture_serves_too(family: str) -> None:
    """A learned prefix keeps slots of its own in front of the text, and local windows reach it over the padding."""
    from gpt2lab.base.registry import part
    from gpt2lab.model.architecture import attach

    model = attach(sharp(family), part("architecture", "soft-prompt")())
    expected = [slow(model, prompt, 4, 4, 0.6) for prompt in PROMPTS]
    search = ContrastiveSearch(k=4, alpha=0.6)
    assert list(search.decode(model, PROMPTS, Limits(max_new_tokens=4))) == expected
