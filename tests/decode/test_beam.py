import pytest

from gpt2lab.decode.beam import Beam
from gpt2lab.decode.interface import Limits
from tests.decode.conftest import EOS, Pair

PROMPTS = [[5, 9, 11, 2, 8], [7], [4, 30, 22], [12, 12, 13, 14, 15, 16, 17, 18]]


@pytest.mark.parametrize("beams", [1, 2, 3, 5])
@pytest.mark.parametrize("eos", [None, EOS])
@pytest.mark.parametrize("early_stopping", [False, True, "never"])
def test_beams_end_where_those_of_transformers_do(
    tiny: Pair, beams: int, eos: int | None, early_stopping: bool
) -> None:
    for length_penalty in (0.0, 1.0, 2.5, -1.0):
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
        assert decoder.decode(tiny.ours, PROMPTS, limits).tokens == theirs
