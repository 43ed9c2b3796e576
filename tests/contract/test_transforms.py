"""What every transform must do: ours, a paper's, a plug-in's, and the one that `gpt2lab papers new` begins with."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt2lab import decode
from gpt2lab.actions import apply as verb
from gpt2lab.base.errors import LabError
from gpt2lab.base.registry import Part
from gpt2lab.base.registry import part as part_of
from gpt2lab.text.language_model import LanguageModel, load, save
from gpt2lab.text.tokenizer import Tokenizer
from tests.contract.parts import built, is_frozen_settings, refuses_unknown_options
from tests.tiny import CONFIGS, tiny

FIRST = Part("transform", "example", "gpt2lab.cli.skeletons.transform.transform:ExampleTransform")

pytestmark = pytest.mark.parametrize("part", [pytest.param(FIRST, id="papers-new"), *built("transform")])

SMALL: dict[str, dict[str, Any]] = {
    "reduce-vocabulary": {"vocabulary": 30},
    "quantize": {"method": "gptq"},
    "wechsel": {"source_data": ("tinyworld:40",), "dictionary": "identical", "context": 32},
    "pair-judge": {"first": "text", "second": "question", "label": "match", "valid_fraction": 0.3},
}
"""What makes a transform quick, or possible at all; a part that is not here runs with its defaults."""


def quantized(lm: LanguageModel) -> LanguageModel:
    return verb.apply("quantize", lm, keep=False)


def adapted(lm: LanguageModel) -> LanguageModel:
    from gpt2lab.model.architecture import attach

    model = attach(lm.model, part_of("architecture", "lora")(rank=2))
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return LanguageModel(model, lm.tokenizer)


def pondering(lm: LanguageModel) -> LanguageModel:
    from gpt2lab.model.architecture import attach

    if lm.config.causal:
        attach(lm.model, part_of("architecture", "pondering")(steps=1))
    return lm


def frozen(lm: LanguageModel) -> LanguageModel:
    """With all norms frozen, where the family has norms that can be."""
    options = {"mode": "instant", "output": "staged", "data": ("tinyworld:30",), "context": 16}
    try:
        return verb.apply("remove-layernorm", lm, keep=False, **options)
    except LabError:
        return lm


def rotary(lm: LanguageModel) -> LanguageModel:
    """With rotary positions in place of GPT-2's learned ones; other families as they are."""
    if lm.config.family != "gpt2":
        return lm
    model = tiny(
        "gpt2",
        **{name: getattr(lm.config, name) for name in ("vocab_size", "max_positions", "eos")},
        positions="rotary",
    )
    return LanguageModel(model, lm.tokenizer)


FIT: dict[str, Callable[[LanguageModel], LanguageModel]] = {
    "dequantize": quantized,
    "extend-context": rotary,
    "fold-layernorm": frozen,
    "merge-lora": adapted,
    "pondering-steps": pondering,
}
"""What makes the plain model one that a transform works on."""


def make(part: Part, passages: Path, **options: Any) -> Any:
    """The transform on the shared passages, if it reads text at all, and small wherever it has a size."""
    made = part.load()
    fields = {field.name: str(field.type) for field in dataclasses.fields(made)}
    data = (str(passages),) if fields.get("data", "").startswith("tuple") else str(passages)
    given = {"data": data, "steps": 2, **SMALL.get(part.name, {}), **options}
    return made(**{name: value for name, value in given.items() if name in fields})


def transformed(part: Part, lm: LanguageModel, passages: Path) -> LanguageModel:
    return verb.transformed(part.name, make(part, passages), lm)


@pytest.fixture
def fit(part: Part, lm: LanguageModel) -> LanguageModel:
    """A model that the transform works on."""
    return FIT.get(part.name, lambda lm: lm)(lm)


def test_it_is_a_transform_with_documented_frozen_options(part: Part) -> None:
    is_frozen_settings(part)
    refuses_unknown_options(part)


def test_the_given_model_stays_as_it_is_bit_for_bit(part: Part, fit: LanguageModel, passages: Path) -> None:
    before = {name: tensor.clone() for name, tensor in fit.model.state_dict().items()}
    config, architectures, state = fit.config, fit.model.architectures, torch.get_rng_state()
    new = transformed(part, fit, passages)
    after = fit.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert fit.config == config and fit.model.architectures == architectures
    assert all(parameter.grad is None and parameter.requires_grad for parameter in fit.model.parameters())
    assert not fit.model.training and fit.model.open_tap is None
    assert torch.equal(state, torch.get_rng_state())
    mine = {tensor.data_ptr() for tensor in new.model.state_dict().values() if tensor.numel()}
    assert not mine & {tensor.data_ptr() for tensor in after.values()}, "training one would change both"


def test_weights_of_a_float64_model_do_not_pass_through_float32(
    part: Part, fit: LanguageModel, passages: Path
) -> None:
    fit.model.double()
    with torch.no_grad():
        for parameter in fit.model.parameters():
            parameter.mul_(1 + 1e-10)  # numbers that float32 does not hold
    before = {name: parameter.clone() for name, parameter in fit.model.named_parameters()}
    new = transformed(part, fit, passages)
    for name, parameter in new.model.named_parameters():
        known = before.get(name)
        if (
            known is not None
            and known.shape == parameter.shape
            and torch.equal(known.float(), parameter.float())
        ):
            assert torch.equal(known, parameter), name


def test_what_it_returns_saves_loads_and_generates(
    part: Part, fit: LanguageModel, passages: Path, tmp_path: Path
) -> None:
    new = transformed(part, fit, passages)
    assert not new.model.training
    save(new, tmp_path / "new")
    again = load(tmp_path / "new")
    ids = torch.arange(12)[None] % new.config.vocab_size
    with torch.no_grad():
        logits = new.model(ids)
        assert math.isfinite(float(logits.abs().max()))
        assert torch.equal(logits, again.model(ids))
    if new.config.causal:
        texts = [decode.generate(one, "one day", max_new_tokens=5).text for one in (new, again)]
        assert texts[0] == texts[1]


def test_it_is_the_same_twice(part: Part, fit: LanguageModel, passages: Path) -> None:
    first, second = transformed(part, fit, passages), transformed(part, fit, passages)
    ones, twos = first.model.state_dict(), second.model.state_dict()
    assert ones.keys() == twos.keys()
    assert all(torch.equal(ones[name], twos[name]) for name in ones)


@pytest.mark.parametrize("family", CONFIGS)
def test_every_family_is_transformed_and_kept_or_told_why_not(
    part: Part, family: str, word_tokenizer: Tokenizer, passages: Path, tmp_path: Path
) -> None:
    model = tiny(family, vocab_size=word_tokenizer.vocab_size, max_positions=160)
    given = FIT.get(part.name, lambda lm: lm)(LanguageModel(model, word_tokenizer))
    refused = ""
    try:
        given = transformed(part, given, passages)
    except LabError as error:
        refused = str(error)
    assert not refused or (len(refused) > 20 and "\n" not in refused)
    save(given, tmp_path / "new")
    with torch.no_grad():
        logits = given.model(torch.arange(9)[None])
        assert bool(logits.isfinite().all())
        assert torch.equal(load(tmp_path / "new").model(torch.arange(9)[None]), logits)


def test_a_model_in_bf16_becomes_one_that_works(part: Part, fit: LanguageModel, passages: Path) -> None:
    new = transformed(part, LanguageModel(fit.model.to(torch.bfloat16), fit.tokenizer), passages)
    with torch.no_grad():
        assert bool(new.model(torch.arange(9)[None]).isfinite().all())
