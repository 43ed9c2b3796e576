import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.decode.beam import Beam
from gpt2lab.decode.greedy import Greedy
from gpt2lab.decode.interface import Limits
from tests.decode.conftest import EOS, Pair

PROMPTS = [[5, 9, 11, 2, 8], [7], [4, 30, 22], [12, 12, 13, 14, 15, 16, 17, 18]]


@pytest.mark.parametrize("beams", [2, 5])
@pytest.mark.parametrize("with_eos", [False, True])
@pytest.mark.parametrize("early_stopping", [False, True, "never"])
def test_beams_end_where_those_of_transformers_do(
    tiny: Pair, beams: int, with_eos: bool, early_stopping: bool
) -> None:
    free = Beam(beams=beams).decode(tiny.ours, PROMPTS, Limits(max_new_tokens=12))
    eos = free[0][4] if with_eos else None  # a token that beams do come to
    ended = 0
    for length_penalty in (0.0, 1.0, -1.5):
        limits = Limits(max_new_tokens=12, eos=() if eos is None else (eos,))
        decoder = Beam(beams=beams, early_stopping=early_stopping, length_penalty=length_penalty)
        theirs = tiny.generate(
            PROMPTS,
            eos=eos,
            max_new_tokens=12,
            num_beams=beams,
            early_stopping=early_stopping,
            length_penalty=length_penalty,
        )
        ours = decoder.decode(tiny.ours, PROMPTS, limits)
        assert ours.tokens == theirs
        ended += ours.finished.count("eos")
    assert (ended > 0) == with_eos


def test_penalties_and_shortest_lengths_act_as_in_transformers(tiny: Pair) -> None:
    settings = {"max_new_tokens": 12, "min_new_tokens": 6}
    theirs = tiny.generate(PROMPTS, eos=EOS, num_beams=3, repetition_penalty=1.4, **settings)
    decoder = Beam(beams=3, repetition_penalty=1.4)
    assert decoder.decode(tiny.ours, PROMPTS, Limits(eos=(EOS,), **settings)).tokens == theirs


def test_one_beam_is_greedy(tiny: Pair) -> None:
    for eos in ((), (EOS,)):
        limits = Limits(max_new_tokens=15, eos=eos)
        assert (
            Beam(beams=1).decode(tiny.ours, PROMPTS, limits).tokens
            == Greedy().decode(tiny.ours, PROMPTS, limits).tokens
        )


def test_a_prompt_alone_ends_as_it_does_in_a_batch(tiny: Pair) -> None:
    for early_stopping in (False, True):
        limits, decoder = Limits(max_new_tokens=15, eos=(EOS,)), Beam(beams=3, early_stopping=early_stopping)
        together = decoder.decode(tiny.ours, PROMPTS, limits)
        assert together.tokens == [decoder.decode(tiny.ours, [prompt], limits)[0] for prompt in PROMPTS]


def test_a_score_is_the_log_probability_over_the_length(tiny: Pair) -> None:
    limits = Limits(max_new_tokens=10, eos=(EOS,))
    found = Beam(beams=4, length_penalty=0.7).decode(tiny.ours, PROMPTS, limits)
    forced = Greedy().decode(tiny.ours, PROMPTS, limits, forced=found.tokens, logprobs=True)
    assert forced.logprobs is not None
    assert found.scores == pytest.approx(
        [float(row.sum()) / len(row) ** 0.7 for row in forced.logprobs], abs=1e-4
    )


def test_more_beams_than_tokens_still_search(tiny: Pair) -> None:
    decoded = Beam(beams=30).decode(tiny.ours, [[5, 9]], Limits(max_new_tokens=3, eos=(EOS,)))
    assert len(decoded[0]) <= 3


def test_mistakes_are_sentences(tiny: Pair) -> None:
    with pytest.raises(LabError, match="beams must be at least 1, got 0"):
        Beam(beams=0)
    with pytest.raises(LabError, match="cannot stream"):
        Beam().decode(tiny.ours, [[1]], Limits(), on_token=lambda row, token: None)
