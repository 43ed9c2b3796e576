"""Every registered decoder on every registered architecture: what it says depends on neither batch nor cache."""

import dataclasses
from typing import Any

import pytest
import torch

from gpt2lab.base.registry import Part, parts
from gpt2lab.decode import Limits
from gpt2lab.model import Architecture, Transformer
from tests.contract.attached import everything, made
from tests.contract.parts import built

PROMPTS = [[3], [5, 6, 7, 8, 9, 10, 11], [1, 2], [40, 41, 42, 43, 44]]
NEW = 5

GREEDY: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampling": {"top_k": 1},
    "beam": {"beams": 1},
    "contrastive-search": {"alpha": 0.0},
}
"""Options under which a decoder says the likeliest token; a decoder that is not here is not compared with recomputing."""

REGISTERED = {part.name for part in parts("architecture")}
ATTACHED = [case for case in everything() if case.id in REGISTERED]

pytestmark = [
    pytest.mark.parametrize("architectures", ATTACHED),
    pytest.mark.parametrize("part", built("decoder")),
]


def recomputed(model: Transformer, prompt: list[int]) -> list[int]:
    """The likeliest tokens, without a cache."""
    row = list(prompt)
    with torch.no_grad():
        for _ in range(NEW):
            row.append(int(model(torch.tensor([row]))[0, -1].argmax()))
    return row[len(prompt) :]


def decoded(decoder: Any, model: Transformer, prompts: list[list[int]]) -> list[list[int]]:
    generators = [torch.Generator().manual_seed(PROMPTS.index(prompt)) for prompt in prompts]
    return list(decoder.decode(model, prompts, Limits(max_new_tokens=NEW), generator=generators))


def test_no_text_depends_on_the_batch(architectures: list[Architecture], part: Part) -> None:
    model, decoder = made(architectures, "llama"), part.load()()
    together = decoded(decoder, model, PROMPTS)
    assert together == [decoded(decoder, model, [prompt])[0] for prompt in PROMPTS]
    assert all(len(row) == NEW for row in together)
    assert model.open_tap is None and not model.training


def test_cached_is_recomputed(architectures: list[Architecture], part: Part) -> None:
    options = GREEDY.get(part.name)
    if options is None:
        return  # it says something else than the likeliest token whatever its options
    kind = part.load()
    known = {field.name for field in dataclasses.fields(kind)}
    assert options.keys() <= known
    model = made(architectures)
    assert decoded(kind(**options), model, PROMPTS) == [recomputed(model, prompt) for prompt in PROMPTS]
