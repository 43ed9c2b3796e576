"""Every part on real pretrained weights: SmolLM2-135M-Instruct, whose states are unlike those of any small random model.

The whole model is read where its answer matters. Parts that train, transform or measure at length get its first blocks: real
weights of full width at a tenth of the time.
"""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import gpt2lab
from gpt2lab.actions import apply as verb
from gpt2lab.base.errors import LabError
from gpt2lab.base.registry import Part
from gpt2lab.model import Transformer, attach
from gpt2lab.model.adapters import Lora
from gpt2lab.text.language_model import LanguageModel, load, save, save_adapter
from gpt2lab.training import TrainSettings, train
from tests.contract import test_measures, test_transforms
from tests.contract.parts import built
from tests.real_models import MODELS_AT_HAND, skip_without

BLOCKS = 2
QUESTION = "The capital of France is"


@pytest.fixture(scope="session")
def whole() -> LanguageModel:
    """The model with its 30 blocks, in float32."""
    skip_without("smollm2-135m")
    return load(MODELS_AT_HAND / "smollm2-135m" / "SmolLM2-135M-Instruct.Q4_1.gguf")


@pytest.fixture(scope="session")
def first_blocks(whole: LanguageModel) -> LanguageModel:
    """Its first blocks, with its embedding, last norm and tokenizer."""
    model = Transformer(whole.config.replace(n_layers=BLOCKS))
    state = whole.model.state_dict()
    model.load_state_dict({name: state[name] for name in model.state_dict()})
    return LanguageModel(model.eval(), whole.tokenizer, whole.side_files)


@pytest.fixture(scope="session")
def beginning(first_blocks: LanguageModel) -> LanguageModel:
    """The same with the rows of the tokens that the novels need most: the head is most of the work otherwise."""
    return gpt2lab.apply("reduce-vocabulary", first_blocks, vocabulary=4000, data="books:200000", keep=False)


@pytest.fixture
def lm(beginning: LanguageModel) -> LanguageModel:
    """A copy that a test may change."""
    return copied(beginning)


def batch(lm: LanguageModel, time: int = 24) -> dict[str, torch.Tensor]:
    assert lm.tokenizer is not None
    text = "It was the best of times, it was the worst of times. " * 4
    ids = torch.tensor([lm.tokenizer.encode(text)[: time + 1]])
    return {"tokens": ids[:, :-1], "targets": ids[:, 1:]}


class Always:
    """The same batch, whatever its number."""

    def __init__(self, batch: dict[str, torch.Tensor]) -> None:
        self.batch = batch

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.batch


def copied(lm: LanguageModel) -> LanguageModel:
    model = Transformer(lm.config)
    model.load_state_dict(lm.model.state_dict())
    return LanguageModel(model.eval(), lm.tokenizer, lm.side_files)


def finite(model: Transformer) -> bool:
    return all(bool(parameter.isfinite().all()) for parameter in model.parameters())


# What the whole model says.


@pytest.mark.parametrize("decoder", built("decoder"))
def test_every_decoder_answers(decoder: Part, whole: LanguageModel) -> None:
    options = {"top_k": 3} if decoder.name == "sampling" else {}
    said = gpt2lab.generate(whole, QUESTION, decoder=decoder.name, max_new_tokens=6, keep=False, **options)
    assert re.search("Paris|Le Havre", str(said)), said


def test_its_loss_on_prose_is_that_of_a_trained_model(whole: LanguageModel) -> None:
    found = gpt2lab.measure("perplexity", whole, data="books", limit=200, keep=False)
    assert 1.5 < found.numbers["loss"] < 4.5


def test_the_lens_finds_the_answer_in_the_last_blocks(whole: LanguageModel) -> None:
    lens = gpt2lab.measure("logit-lens", whole, prompt=QUESTION, keep=False)
    assert lens.numbers["answer"] > 0.3 and 15 < lens.numbers["settled_after"] <= 30


def test_states_are_read_and_replaced_at_every_block(whole: LanguageModel) -> None:
    tokens = batch(whole)["tokens"]
    names = [f"blocks.{i}.hook_resid_post" for i in range(whole.config.n_layers)]
    with whole.model.tap(read=names) as tap:
        logits = whole.model(tokens)
    states = [tap[name] for name in names]
    assert max(float(state.abs().max()) for state in states) > 1000, "massive activations"
    with whole.model.tap(write={names[9]: states[9]}):
        assert torch.allclose(whole.model(tokens), logits, atol=1e-3)
    with whole.model.tap(write={names[9]: torch.zeros_like(states[9])}):
        assert not torch.allclose(whole.model(tokens), logits, atol=1)


# Its first blocks under every part.

REFUSED = {
    "classification": "has no head for classification",
    "word-attribution": "has no head for classification",
    "regression": "has no head for regression",
    "token-classification": "has no head for tokens",
    "retrieval": "has no head for embedding",
    "pseudo-perplexity": "is causal",
    "loss-by-steps": "does not ponder",
    "meta-effects": "has no meta-attention",
    "translation-pairs": "has no head for classification",
    "codon-attribution": "has no head for classification",
}
"""Measures of other models, and what they say of this one."""

EVERY_TOKEN = {"patching-exactness", "knowledge-bits", "knowledge-extraction"}
"""Measures that bring names of their own, which the novels' tokens do not spell."""

WHOLE_VOCABULARY = {"add-meta-token"}
"""Transforms that refuse a tokenizer of which only some ids are kept."""

UNDEFINED = {"story-quality": {"grammar", "consistency", "plot"}}
"""Numbers that a measure leaves open: those grades are of the generated world's stories, which these texts are not."""

SMALL: dict[str, dict[str, Any]] = {
    "confidence-neurons": {"samples": 1, "length": 16, "top": 1},
    "text-statistics": {"new_tokens": 24},
    "removal-effects": {"samples": 2, "length": 24, "texts": 1},
    "attribution-exactness": {"samples": 4, "length": 24},
    "quantization-error": {"limit": 100},
    "knowledge-bits": {
        "facts": "bios:4",
        "draws": 1,
        **dict.fromkeys(("attributes", "diversity", "alphabet", "name_symbols")),  # of random facts
    },
    "knowledge-extraction": {"facts": "bios:4"},
    "perplexity": {"limit": 100},
    "remove-layernorm": {"data": ("books:20000",), "context": 24, "batch_size": 2, "accumulation": 1},
    "quantize": {"bits": 8, "samples": 2},
    "reduce-vocabulary": {"vocabulary": 500},
}
"""What makes a part quick beside the sizes of a random model."""


@pytest.mark.parametrize("optimizer", built("optimizer"))
def test_every_optimizer_steps(optimizer: Part, lm: LanguageModel) -> None:
    last = lm.model.blocks[-1]
    trained = [
        last.attention.out.weight,
        last.norm1.weight,
    ]  # a matrix and a vector: Muon in bfloat16 is slow here
    for parameter in lm.model.parameters():
        parameter.requires_grad_(any(parameter is one for one in trained))
    before = [parameter.detach().clone() for parameter in trained]
    result = train(
        lm.model,
        Always(batch(lm)),
        settings=TrainSettings(steps=2, schedule="constant"),
        optimizer=optimizer.load()(trained, lr=1e-4),
    )
    assert math.isfinite(result.loss) and finite(lm.model)
    assert all(not torch.equal(new, old) for new, old in zip(trained, before, strict=True))


@pytest.mark.parametrize("measure", built("measure"))
def test_every_measure_measures_or_says_why_not(
    measure: Part, beginning: LanguageModel, first_blocks: LanguageModel, passages: Path
) -> None:
    lm = first_blocks if measure.name in EVERY_TOKEN else beginning
    made = test_measures.make(measure, passages, **SMALL.get(measure.name, {}))
    if measure.name in REFUSED:
        with pytest.raises(LabError, match=REFUSED[measure.name]):
            made(lm)
        return
    found = made(lm)
    undefined = {name for name, value in found.numbers.items() if not math.isfinite(value)}
    assert found.numbers and undefined == UNDEFINED.get(measure.name, set())


@pytest.mark.parametrize("transform", built("transform"))
def test_every_transform_gives_a_model_that_computes(
    transform: Part, beginning: LanguageModel, first_blocks: LanguageModel, passages: Path
) -> None:
    prepare = test_transforms.FIT.get(transform.name)
    given = first_blocks if transform.name in WHOLE_VOCABULARY else beginning
    fit = prepare(copied(given)) if prepare else given
    made = test_transforms.make(transform, passages, **SMALL.get(transform.name, {}))
    new = verb.transformed(transform.name, made, fit)
    assert finite(new.model)
    assert new.model(batch(new)["tokens"]).isfinite().all()


@pytest.mark.parametrize("bits", [8, 4])
def test_rounded_weights_compute_nearly_the_same(bits: int, beginning: LanguageModel) -> None:
    tokens = batch(beginning)["tokens"]
    rounded = gpt2lab.apply("quantize", beginning, bits=bits, keep=False)
    exact, found = (lm.model(tokens).log_softmax(-1) for lm in (beginning, rounded))
    apart = float((exact.exp() * (exact - found)).sum(-1).mean())
    assert 0 <= apart < {8: 0.01, 4: 0.5}[bits], "divergence of the predictions, in nats"


def test_an_adapter_learns_is_saved_and_is_merged(lm: LanguageModel, tmp_path: Path) -> None:
    save(lm, tmp_path / "base")
    attach(lm.model, Lora(rank=4, targets=("q", "v")), generator=torch.Generator().manual_seed(0))
    settings = TrainSettings(steps=3, learning_rate=1e-3, schedule="constant", log_every=1)
    losses: list[float] = []
    train(lm.model, Always(batch(lm)), settings=settings, log=lambda step, **row: losses.append(row["loss"]))
    assert losses[-1] < losses[0]
    logits = lm.model.eval()(batch(lm)["tokens"])
    save_adapter(lm, tmp_path / "adapter", base=str(tmp_path / "base"))
    assert torch.equal(load(tmp_path / "adapter").model(batch(lm)["tokens"]), logits)
    merged = gpt2lab.apply("merge-lora", lm, keep=False)
    assert torch.allclose(merged.model(batch(lm)["tokens"]), logits, atol=1e-3)


def test_it_goes_out_and_comes_back_the_same(first_blocks: LanguageModel, tmp_path: Path) -> None:
    tokens = batch(first_blocks)["tokens"]
    logits = first_blocks.model(tokens)
    for form, out in (("huggingface", tmp_path / "folder"), ("gguf", tmp_path / "model.gguf")):
        gpt2lab.export(first_blocks, to=form, out=out, keep=False)
        again = gpt2lab.load(out)
        assert torch.allclose(again.model(tokens), logits, atol=1e-3), form
        assert again.tokenizer is not None and first_blocks.tokenizer is not None
        assert again.tokenizer.encode("It's 1984: naïve café\n\n") == first_blocks.tokenizer.encode(
            "It's 1984: naïve café\n\n"
        )
