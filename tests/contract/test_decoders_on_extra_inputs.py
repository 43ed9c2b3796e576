"""Every registered decoder on a model that reads an image and segments beside the tokens: in the first pass alone."""

from typing import Any

import pytest
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.base.registry import Part
from gpt2lab.decode import Limits, Prompts, generate
from gpt2lab.model import Transformer, attach
from gpt2lab.text.language_model import LanguageModel
from tests.contract.parts import built
from tests.model.test_extra_inputs import Images, Segments
from tests.tiny import tiny

PROMPTS = [[3], [5, 6, 7, 8, 9, 10, 11], [1, 2]]
LIMITS = Limits(max_new_tokens=5)

pytestmark = pytest.mark.parametrize("part", built("decoder"))


@pytest.fixture(scope="module")
def model() -> Transformer:
    made = tiny("llama")
    for one in (Images(), Segments()):
        attach(made, one, generator=torch.Generator().manual_seed(0))
    return made.eval()


def beside(rows: list[int], *, turn: int = 0) -> dict[str, Any]:
    """Images [5] and segments [time] of some of the prompts."""
    generator = torch.Generator().manual_seed(1)
    images = [torch.randn(5, generator=generator) * 3 for _ in PROMPTS]
    segments = [torch.arange(len(prompt)) % 3 for prompt in PROMPTS]
    return {
        "images": [images[(row + turn) % len(images)] for row in rows],
        "segments": [segments[row] for row in rows],
    }


def decoded(part: Part, model: Transformer, rows: list[int], extra: dict[str, Any]) -> list[list[int]]:
    prompts = Prompts([PROMPTS[row] for row in rows], extra)
    generators = [torch.Generator().manual_seed(row) for row in rows]
    return list(part.load()().decode(model, prompts, LIMITS, generator=generators))


def test_no_text_depends_on_the_batch_and_each_on_its_own_image(part: Part, model: Transformer) -> None:
    rows = [0, 1, 2]
    together = decoded(part, model, rows, beside(rows))
    assert together == [decoded(part, model, [row], beside([row]))[0] for row in rows]
    assert together != decoded(part, model, rows, beside(rows, turn=1))


def test_the_first_token_is_that_of_the_whole_pass(part: Part, model: Transformer) -> None:
    if part.name != "greedy":
        return  # the others say something else than the likeliest token
    for row, prompt in enumerate(PROMPTS):
        extra: dict[str, Tensor] = {name: entries[0][None] for name, entries in beside([row]).items()}
        said = decoded(part, model, [row], beside([row]))[0]
        for at, token in enumerate(said):
            whole = torch.tensor([prompt + said[:at]])
            read = {
                **extra,
                "segments": torch.cat([extra["segments"], torch.zeros(1, at, dtype=torch.int64)], 1),
            }
            with torch.no_grad():
                assert int(model(whole, extra_inputs=read)[0, -1].argmax()) == token


def test_generate_hands_them_on_in_any_batch_size(part: Part, model: Transformer) -> None:
    lm, rows = LanguageModel(model), [0, 1, 2]
    options: dict[str, Any] = {"decoder": part.name, "max_new_tokens": 5, "extra_inputs": beside(rows)}
    runs = [generate(lm, PROMPTS, batch_size=size, **options) for size in (1, 2, 8)]
    assert [one.tokens for one in runs[0]] == [one.tokens for one in runs[1]]
    assert [one.tokens for one in runs[0]] == [one.tokens for one in runs[2]]


def test_entries_that_do_not_fit_are_refused(part: Part, model: Transformer) -> None:
    with pytest.raises(LabError, match="images: 2 entries for 3 prompts"):
        decoded(part, model, [0, 1, 2], {"images": torch.zeros(2, 5)})
    with pytest.raises(LabError, match="images: an architecture of this model needs it"):
        decoded(part, model, [0], {})
    with pytest.raises(LabError, match=r"segments: prompt 1 has 7 tokens, its entry is \[2\]"):
        decoded(part, model, [0, 1], {**beside([0, 1]), "segments": [torch.zeros(1), torch.zeros(2)]})
    with pytest.raises(LabError, match="images: entries of different shapes"):
        decoded(part, model, [0, 1], {**beside([0, 1]), "images": [torch.zeros(5), torch.zeros(4)]})
    with pytest.raises(LabError, match="image: no architecture of this model reads it; did you mean images"):
        decoded(part, model, [0], {**beside([0]), "image": torch.zeros(1, 5)})
