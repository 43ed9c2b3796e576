"""Greedy and beam search on real small models: the tokens of transformers, and what their papers say they do."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from gpt2lab.decode import Beam, Greedy, Limits, generate
from gpt2lab.text.language_model import LanguageModel, load
from tests.decode.conftest import Pair

PROMPTS = {
    "stories260k-llama": [
        [1, *ids] for ids in ([403, 407, 261, 378], [405], [410, 262, 298, 353, 364, 266], [393, 268, 301])
    ],
    "tinystories-656k-llama": [[1, 40, 51, 60], [1, 300], [1, 1200, 77, 500, 600, 9, 31], [1]],
    "capp-gpt2-237k": [[2, 8, 12, 16, 21, 24, 49], [0, 7, 49], [5, 9, 13, 49], [49]],
    "gpt-nano-sort-85k": [[2, 1, 0, 0, 1, 2], [1, 0], [2, 2, 2, 0], [0]],
}
NEW = {"gpt-nano-sort-85k": 6}


@cache
def pair(folder: Path) -> Pair:
    lm = load(folder)
    return Pair(lm.model, AutoModelForCausalLM.from_pretrained(folder).eval())


@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize("with_eos", [True, False])
def test_greedy_goes_on_as_transformers_does(real: Callable[[str], Path], name: str, with_eos: bool) -> None:
    both, new = pair(real(name)), NEW.get(name, 60)
    eos = both.ours.config.eos if with_eos else None
    limits = Limits(max_new_tokens=new, eos=() if eos is None else (eos,))
    theirs = both.generate(PROMPTS[name], eos=eos, max_new_tokens=new)
    assert Greedy().decode(both.ours, PROMPTS[name], limits).tokens == theirs


@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize("beams", [2, 4])
def test_beams_go_on_as_those_of_transformers(real: Callable[[str], Path], name: str, beams: int) -> None:
    both, new = pair(real(name)), NEW.get(name, 40)
    for eos in {both.ours.config.eos, None}:
        limits = Limits(max_new_tokens=new, eos=() if eos is None else (eos,))
        theirs = both.generate(PROMPTS[name], eos=eos, max_new_tokens=new, num_beams=beams)
        assert Beam(beams=beams).decode(both.ours, PROMPTS[name], limits).tokens == theirs


def test_the_story_model_tells_the_story_of_its_card(real: Callable[[str], Path]) -> None:
    lm = load(real("stories260k-llama"))
    told = generate(lm, "Once upon a time, there was a", max_new_tokens=40)
    assert told.text.startswith(
        " little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball."
    )


def test_the_planning_model_plans_as_its_card_says(real: Callable[[str], Path]) -> None:
    lm: LanguageModel = load(real("capp-gpt2-237k"))
    assert lm.tokenizer is not None
    part = "geometry_prismatic holes_normal external_threads_yes surface_finish_normal tolerance_medium batch_size_small"
    known = lm.tokenizer.vocabulary
    ids = [known[word] for word in part.split() if word in known]
    assert len(ids) == 6
    names = {id: token for token, id in known.items()}
    plan = generate(lm, [[*ids, 49]], max_new_tokens=12)[0]
    assert [names[id] for id in plan.tokens[:4]] == ["Milling", "Drilling", "Thread Milling", "Grinding"]
