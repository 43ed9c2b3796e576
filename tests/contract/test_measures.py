"""What every measure must do: ours, a paper's, a plug-in's."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.base.registry import Part
from gpt2lab.base.registry import part as part_of
from gpt2lab.measures.measurement import Measurement
from gpt2lab.model import Transformer
from gpt2lab.model.architecture import attach
from gpt2lab.model.checkpoints.families import CONSTRUCTORS
from gpt2lab.model.task_heads import Head
from gpt2lab.text.generators.stories import documents
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import byte_level, for_masking, word_level
from tests.contract.parts import broken, built, is_frozen_settings, refuses_unknown_options
from tests.tiny import tiny

pytestmark = pytest.mark.parametrize("part", built("measure"))


TINYWORLD_TITLES = str(Path(__file__).parents[1] / "papers/occupational_bias/tinyworld_titles.csv")
"""Words of the test model's vocabulary in the place of occupations."""

TWO_NAMES = str(Path(__file__).parents[1] / "papers/layernorm_removal/two_names.csv")
"""Prompts with two names in that vocabulary."""

SMALL: dict[str, dict[str, Any]] = {
    "lm-eval": {"tasks": ("passages",)},
    "isotropy": {"texts": 6, "max_tokens": 20},
    "generation-quality": {"texts": 4, "prefix": 5, "new": 6},
    "text-statistics": {"texts": 4, "prompt_tokens": 5, "new_tokens": 6},
    "story-quality": {"held_out": "tinyworld:12:9", "train": "tinyworld:40", "samples": 4, "max_new_tokens": 9},
    "story-diversity": {
        "held_out": "tinyworld:12:9", "train": "tinyworld:40", "prompts": 4, "max_new_tokens": 9,
    },
    "short-prompts": {"max_new_tokens": 3},
    "story-circuits": {"stories": 4, "neurons": 2},
    "pseudo-perplexity": {"limit": 60},
    "loss-by-steps": {"limit": 120},
    "quantization-error": {"limit": 120},
    "classification": {"label": ("answer",), "resamples": 100},
    "word-attribution": {"text": "Once upon a time there was"},
    "label-efficiency": {
        "label": "match", "test": "0.4", "budgets": (2,), "repeats": 1, "least_steps": 2, "most_steps": 2,
    },
    "regression": {"label": ("answer",), "resamples": 100},
    "token-classification": {"field": "words", "label": ("label",), "resamples": 100},
    "retrieval": {"resamples": 100},
    "translation-pairs": {
        "kind": "texts", "first": "text", "second": "question", "label": "match", "baselines": False,
    },
    "codon-probe": {"first": "dna"},
    "codon-attribution": {"first": "dna", "second": "protein", "label": "codes", "steps": 2},
    "pair-components": {"first": "dna", "second": "protein", "label": "codes"},
    "logit-lens": {"prompt": "Once upon a time there was"},
    "attribution": {"prompt": "Once upon a time there was"},
    "patching": {"clean": "there was a little girl named", "corrupt": "there was a little boy named"},
    "patching-exactness": {"prompts": TWO_NAMES},
    "occupational-bias": {"mode": "exact", "n": 50, "gazetteer": TINYWORLD_TITLES},
    "knowledge-bits": {
        "facts": "biod-symbols:12", "attributes": 2, "diversity": 8, "alphabet": 8, "name_symbols": 9,
    },
    "language-perplexity": {"languages": ("shuffle_control", "shuffle_local3", "shuffle_nondeterministic")},
    "marker-surprisal": {"annotated": ("agreement:40",), "markers": (",", ".")},
    "interchange-intervention": {
        "base": ("there was a little girl named",), "source": ("there was a little boy named",), "markers": (",", "."),
    },
    "knowledge-extraction": {
        "facts": "biod-symbols:12", "steps": 3, "rows": 4, "rank": 2, "embedding_rank": 2,
    },
    "activations": {"prompt": "Once upon a time there was", "read": ("resid_post", "hook_pattern")},
}  # fmt: skip
"""What makes a measure quick; a part that is not here runs with its defaults."""


SPELT = {"knowledge-bits", "knowledge-extraction", "codon-probe", "codon-attribution", "pair-components"}
"""Measures of words, symbols and DNA that no vocabulary of stories has: the test model has a tokenizer of bytes."""


BOTH_WAYS = {"pseudo-perplexity"}
"""Measures of bidirectional models."""


RAREST = word_level(documents(0, 60)).vocab_size - 1
"""The test model's last word, which the passages lack."""


HEADED = {
    "classification": Head(outputs=3),
    "word-attribution": Head(outputs=3),
    "regression": Head(kind="regression", outputs=1),
    "token-classification": Head(name="tags", kind="tokens", outputs=2, labels=("O", "B-NAME")),
    "retrieval": Head(kind="embedding", outputs=0, pooling="mean"),
    "translation-pairs": Head(outputs=2),
    "codon-attribution": Head(outputs=2),
    "loss-by-steps": part_of("architecture", "pondering")(steps=2),
    "meta-effects": part_of("architecture", "meta-attention")(token=RAREST),
}
"""Measures of heads and of architectures, and what each reads."""


@pytest.fixture
def lm(part: Part, lm: LanguageModel) -> LanguageModel:
    """A model that the measure is made for."""
    if part.name in SPELT:
        tokenizer = byte_level()
        lm = LanguageModel(tiny("gpt2", vocab_size=tokenizer.vocab_size, max_positions=160), tokenizer)
    if part.name in HEADED:
        attach(lm.model, HEADED[part.name])
    if part.name not in BOTH_WAYS:
        return lm
    tokenizer = for_masking(lm.tokenizer)
    return LanguageModel(tiny("bert", vocab_size=tokenizer.vocab_size), tokenizer)


def collection(passages: Path) -> None:
    """Write the passages as a retrieval task beside them: each question is answered by its own text."""
    folder = passages.parent / "collection"
    folder.mkdir(exist_ok=True)
    rows = [json.loads(line) for line in passages.read_text().splitlines()]
    for name, field in (("corpus", "text"), ("queries", "question")):
        lines = [json.dumps({"_id": str(i), "text": row[field]}) + "\n" for i, row in enumerate(rows)]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    judged = [f"{i}\t{i}\t1\n" for i in range(len(rows))]
    (folder / "qrels.tsv").write_text("".join(["query-id\tcorpus-id\tscore\n", *judged]))


def make(part: Part, passages: Path, **options: Any) -> Any:
    """The measure on the shared passages, if it reads text at all, and small wherever it has a size."""
    made = part.load()
    fields = {field.name: field for field in dataclasses.fields(made)}
    kind = str(fields["data"].type) if "data" in fields else ""
    data = (
        (str(passages),)
        if kind.startswith("tuple")
        else str(passages)
        if kind == "<class 'str'>"
        else passages
    )
    if part.name == "retrieval":
        data = (str(passages.parent / "collection"),)
        collection(passages)
    given = {
        "data": data,
        "include_path": str(passages.parent),
        "window": 12,
        **SMALL.get(part.name, {}),
        **options,
    }
    return made(**{name: value for name, value in given.items() if name in fields})


def test_it_is_a_measure_with_documented_frozen_options(part: Part) -> None:
    is_frozen_settings(part)
    refuses_unknown_options(part)


def test_it_returns_finite_numbers_that_travel_as_json(part: Part, lm: LanguageModel, passages: Path) -> None:
    result = make(part, passages)(lm)
    assert isinstance(result, Measurement)
    assert result.name == part.name
    assert all(math.isfinite(value) for value in result.numbers.values())
    text = result.to_json()
    assert json.loads(text)
    assert Measurement.from_json(text).numbers == result.numbers


def test_it_is_the_same_twice_and_leaves_the_model_alone(
    part: Part, lm: LanguageModel, passages: Path
) -> None:
    before = [parameter.clone() for parameter in lm.model.parameters()]
    state = torch.get_rng_state()
    first, second = make(part, passages)(lm), make(part, passages)(lm)
    assert first.numbers == second.numbers
    assert all(torch.equal(a, b) for a, b in zip(lm.model.parameters(), before, strict=True))
    assert torch.equal(state, torch.get_rng_state())
    assert lm.model.open_tap is None
    assert not lm.model.training


def test_no_number_depends_on_the_batch(part: Part, lm: LanguageModel, passages: Path) -> None:
    if "batch_size" not in {field.name for field in dataclasses.fields(part.load())}:
        return  # has no batch, and is the same twice
    results = [make(part, passages, batch_size=size)(lm).numbers for size in (1, 5, 32)]
    for other in results[1:]:
        assert other == pytest.approx(results[0], rel=1e-6, abs=1e-6)  # a correlation may be near 0


def test_nan_is_refused(part: Part, lm: LanguageModel, passages: Path) -> None:
    sick = LanguageModel(broken(lm.model), lm.tokenizer)
    with pytest.raises(LabError, match=r"NaN|not finite|not numbers"):
        make(part, passages)(sick)


def test_bf16_is_near(part: Part, lm: LanguageModel, passages: Path) -> None:
    exact = make(part, passages)(lm).numbers
    rough = make(part, passages)(LanguageModel(lm.model.to(torch.bfloat16), lm.tokenizer)).numbers
    assert exact.keys() == rough.keys()
    assert all(math.isfinite(value) for value in rough.values())


@pytest.mark.parametrize("family", ["llama", "mixtral", "bert"])
def test_other_families_are_measured_or_told_why_not(
    part: Part, family: str, lm: LanguageModel, passages: Path
) -> None:
    tokenizer = for_masking(lm.tokenizer) if family == "bert" else lm.tokenizer
    config = CONSTRUCTORS[family](
        vocab_size=tokenizer.vocab_size, d_model=16, n_layers=2, n_heads=2, max_positions=160
    )
    model = Transformer(config, generator=torch.Generator().manual_seed(0)).eval()
    try:
        if part.name in HEADED:
            attach(model, HEADED[part.name])
        result = make(part, passages)(LanguageModel(model, tokenizer))
    except LabError as error:
        said = str(error)
        assert len(said) > 20 and "\n" not in said
        assert family == "bert" or part.name in BOTH_WAYS or "no single output matrix" in said
    else:
        assert all(math.isfinite(value) for value in result.numbers.values())


def test_no_text_is_refused(part: Part, lm: LanguageModel, tmp_path: Path) -> None:
    if "data" not in {field.name for field in dataclasses.fields(part.load())}:
        return  # reads no text
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    with pytest.raises(LabError):
        make(part, empty)(lm)
