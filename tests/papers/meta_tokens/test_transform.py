"""A meta-token for any model, and YaRN: formulas, figures and what is refused."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.model import attach
from gpt2lab.model.rotary import RotaryScaling, rotary_frequencies
from gpt2lab.papers.meta_tokens import META, AddMetaToken, ExtendContext, MetaAttention, meta_id, meta_token
from gpt2lab.text.language_model import LanguageModel, load, save
from gpt2lab.text.tokenizer import Tokenizer, byte_level, word_level
from tests.real_models import MODELS_AT_HAND, skip_without
from tests.tiny import tiny, tokens

WORDS = ["the cat sat on the mat", "a dog ran"]


@pytest.fixture
def tokenizer() -> Tokenizer:
    return word_level(WORDS)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama"])
def test_the_token_is_added_to_tokenizer_and_table_and_nothing_else_changes(
    family: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    lm = LanguageModel(tiny(family, vocab_size=tokenizer.vocab_size), tokenizer)
    made = gpt2lab.apply("add-meta-token", lm, keep=False)
    assert made.tokenizer is not None
    new = meta_id(made.tokenizer)
    assert new == tokenizer.vocab_size == made.config.vocab_size - 1 == meta_token(made.model)
    assert made.tokenizer.encode(f"the cat {META} sat") == [
        *tokenizer.encode("the cat"),
        new,
        *tokenizer.encode("sat"),
    ]
    assert made.tokenizer.decode([new]) == ""
    ids = tokens(2, 9, vocab=tokenizer.vocab_size)
    with torch.no_grad():
        assert torch.allclose(made.model(ids)[..., :new], lm.model(ids), atol=1e-6)
        assert torch.allclose(made.model.embedding.weight[new], lm.model.embedding.weight.mean(0), atol=1e-6)
    save(made, tmp_path / "made")
    again = load(tmp_path / "made")
    assert again.tokenizer is not None and meta_id(again.tokenizer) == new
    with torch.no_grad():
        assert torch.equal(again.model(ids), made.model(ids))
    plain = gpt2lab.apply("add-meta-token", lm, attention=False, keep=False)
    assert not plain.model.architectures and plain.config.vocab_size == new + 1
    with torch.no_grad():
        plain.model.embedding.weight[new] = 9.0  # as if it had been trained
    plain.model.embedding.weight.requires_grad_(False)
    kept = gpt2lab.apply("add-meta-token", plain, keep=False)
    assert kept.config.vocab_size == new + 1 and meta_token(kept.model) == new
    assert bool((kept.model.embedding.weight[new] == 9.0).all()), "the row of a token that it had is its own"
    assert not kept.model.embedding.weight.requires_grad


def test_a_table_with_spare_rows_keeps_its_size(tokenizer: Tokenizer) -> None:
    lm = LanguageModel(tiny("gpt2", vocab_size=tokenizer.vocab_size + 5), tokenizer)
    made = AddMetaToken()(lm)
    assert (
        made.config.vocab_size == tokenizer.vocab_size + 5 and meta_token(made.model) == tokenizer.vocab_size
    )


def test_models_and_spellings_that_do_not_fit_are_refused(tokenizer: Tokenizer) -> None:
    lm = LanguageModel(tiny("gpt2", vocab_size=tokenizer.vocab_size), tokenizer)
    for wrong, options, words in (
        (LanguageModel(tiny("gpt2"), None), {}, "no tokenizer"),
        (LanguageModel(tiny("bert", vocab_size=300), byte_level()), {}, "needs a causal model"),
        (lm, {"token": " "}, "more than blanks"),
        (lm, {"token": "cat"}, "an ordinary token"),
        (AddMetaToken()(lm), {}, "without architectures"),
    ):
        made: Any = options
        with pytest.raises(LabError, match=words):
            AddMetaToken(**made)(wrong)
    with pytest.raises(LabError, match="the tokenizer has no token"):
        meta_id(tokenizer)
    with pytest.raises(LabError, match="the tokenizer has no token"):
        meta_id(None)


@torch.no_grad()
def test_the_real_model_becomes_one_with_metas_and_says_the_same() -> None:
    skip_without("smollm2-135m")
    lm = load(MODELS_AT_HAND / "smollm2-135m" / "SmolLM2-135M-Instruct.Q4_1.gguf")
    assert lm.tokenizer is not None
    said = gpt2lab.generate(lm, "The capital of France is", max_new_tokens=4, keep=False)
    made = gpt2lab.apply("add-meta-token", lm, keep=False)
    assert made.tokenizer is not None
    assert meta_id(made.tokenizer) == 49152 and made.config.vocab_size == 49153
    assert str(gpt2lab.generate(made, "The capital of France is", max_new_tokens=4, keep=False)) == str(said)
    added = made.model.count_parameters()["total"] - lm.model.count_parameters()["total"]
    assert (
        added == 30 * (576 * 2 * (9 + 3) * 64 + 576) + 576
    )  # as many heads as the block has, a norm, the token's row
    ids = torch.tensor([made.tokenizer.encode(f"The capital {META} of France {META} is")])
    long = gpt2lab.apply("extend-context", made, factor=2, keep=False)
    assert long.config.max_positions == 2 * made.config.max_positions and meta_token(long.model) == 49152
    assert long.model(ids).isfinite().all()


def slow_yarn(
    d: int, base: float, length: int, s: float, fast: float = 32, slow: float = 1, extrapolation: float = 1
) -> tuple[list[float], int, int]:
    """The paper's formulas, pair by pair: inverse frequencies, low, high."""

    def pair(rotations: float) -> float:
        return d * math.log(length / (2 * math.pi * rotations)) / (2 * math.log(base))

    low, high = max(math.floor(pair(fast)), 0), min(math.ceil(pair(slow)), d - 1)
    found = []
    for i in range(d // 2):
        theta = base ** (-2 * i / d)
        ramp = min(max((i - low) / (high - low), 0), 1)
        m = (1 - ramp) * extrapolation
        found.append(theta * ((1 - m) / s + m))
    return found, low, high


@pytest.mark.parametrize(("factor", "mscale"), [(4.0, 1.13863), (8.0, 1.20794)])
def test_yarn_has_the_papers_formulas_and_figures(factor: float, mscale: float) -> None:
    expected, low, high = slow_yarn(64, 10000, 1024, factor)
    assert (low, high) == (5, 18)
    lm = LanguageModel(tiny("llama", d_head=64, max_positions=1024), None)
    config = ExtendContext(factor=factor)(lm).config
    scaling = config.rotary_scaling
    assert scaling is not None and config.max_positions == 1024 * factor
    assert scaling.amplitude == pytest.approx(mscale, abs=5e-6)
    found = rotary_frequencies(64, 10000.0, scaling, 1024)
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12)
    wider = ExtendContext(factor=factor, attention_factor=1.5)(lm).config.rotary_scaling
    assert wider is not None and wider.amplitude == pytest.approx(1.5 * mscale, abs=1e-5)


@pytest.mark.parametrize("extrapolation", [0.0, 0.25, 1.0])
def test_the_extrapolation_factor_scales_what_stays_of_every_pair(
    extrapolation: float, tmp_path: Path
) -> None:
    lm = LanguageModel(tiny("llama", d_head=64, max_positions=1024), None)
    made = ExtendContext(factor=4.0, extrapolation_factor=extrapolation)(lm)
    expected, _, _ = slow_yarn(64, 10000, 1024, 4.0, extrapolation=extrapolation)
    found = rotary_frequencies(64, 10000.0, made.config.rotary_scaling, 1024)
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12)
    save(made, tmp_path / "long")
    again = load(tmp_path / "long")
    kept, scaling = again.config.rotary_scaling, made.config.rotary_scaling
    assert kept is not None and scaling is not None
    assert replace(kept, magnitude=None) == replace(scaling, magnitude=None)
    ids = tokens(2, 40)
    assert torch.equal(again.model(ids), made.model(ids))
    if extrapolation != 1:  # no other layout has an entry for it
        with pytest.raises(LabError, match="no entry for YaRN's extrapolation factor"):
            save(made, tmp_path / "other", layout="huggingface")
        assert not (tmp_path / "other").exists()


@torch.no_grad()
def test_an_extended_model_keeps_weights_metas_and_its_folder(tmp_path: Path) -> None:
    model = attach(tiny("llama"), MetaAttention(token=7, draw="model"))
    made = ExtendContext(factor=4)(LanguageModel(model, None))
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in made.model.state_dict().items())
    assert made.model.architectures == model.architectures and made.model.context == 160
    ids = tokens(2, 120)
    save(made, tmp_path / "long")
    assert torch.equal(load(tmp_path / "long").model(ids), made.model(ids))
    assert not torch.allclose(made.model(ids[:, :9]), model(ids[:, :9]), atol=1e-3)


@pytest.mark.parametrize(
    ("family", "options", "changes", "words"),
    [
        ("gpt2", {}, {}, "has learned ones"),
        ("llama", {"factor": 1.0}, {}, "factor must be above 1"),
        ("llama", {"attention_factor": 0.0}, {}, "attention_factor must be above 0"),
        ("llama", {"extrapolation_factor": -0.5}, {}, "extrapolation_factor must lie in"),
        ("llama", {"extrapolation_factor": 1.5}, {}, "extrapolation_factor must lie in"),
        (
            "llama",
            {},
            {"rotary_scaling": RotaryScaling(kind="linear", factor=2, original_positions=20)},
            "scaled already",
        ),
    ],
)
def test_other_positions_and_factors_are_refused(
    family: str, options: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(LabError, match=words):
        ExtendContext(**options)(LanguageModel(tiny(family, **changes), None))
