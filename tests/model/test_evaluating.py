"""A model that can say nothing is refused in one place, whatever made it."""

from dataclasses import dataclass

import pytest
import torch

import gpt2lab
from gpt2lab.actions.apply import transformed
from gpt2lab.base.errors import LabError
from gpt2lab.model.evaluating import refuse_not_finite
from gpt2lab.text.language_model import LanguageModel
from tests.tiny import CONFIGS, tiny


@pytest.mark.parametrize("family", CONFIGS)
def test_every_family_passes_the_probe_and_stays_as_it_was(family: str) -> None:
    model = tiny(family).train()
    refuse_not_finite(model, "here")
    assert model.training


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_named(value: float) -> None:
    model = tiny("gpt2")
    with torch.no_grad():
        model.blocks[1].mlp.up.bias[3] = value
    with pytest.raises(LabError, match=r"^here: the result's blocks.1.mlp.up.bias holds NaN or infinity"):
        refuse_not_finite(model, "here")


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_finite_weights_that_overflow_are_found_by_the_logits(family: str) -> None:
    model = tiny(family)
    with torch.no_grad():
        model.blocks[0].mlp.down.weight.fill_(3e38)
    with pytest.raises(LabError, match="NaN or infinite logits"):
        refuse_not_finite(model, "here")


def test_no_transform_gives_a_model_that_can_say_nothing() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Breaks:
        def __call__(self, lm: LanguageModel) -> LanguageModel:
            model = tiny("gpt2")
            with torch.no_grad():
                model.embedding.weight[7, 7] = float("nan")
            return LanguageModel(model, lm.tokenizer)

    with pytest.raises(LabError, match=r"apply breaks: the result's embedding.weight"):
        transformed("breaks", Breaks(), LanguageModel(tiny("gpt2")))
    assert gpt2lab.apply("quantize", LanguageModel(tiny("gpt2")), bits=8)
