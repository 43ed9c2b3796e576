import copy
from pathlib import Path

import pytest
import torch

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.base.registry import part
from gpt2lab.model.architecture import attach
from gpt2lab.model.checkpoints.native import named_tensors
from gpt2lab.model.quantization import GPTQ, Quantized, calibrate, quantized_layers
from gpt2lab.text.generators.stories import documents
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import Tokenizer, word_level
from gpt2lab.training.quantize import Quantize
from tests.tiny import tiny

GPTQ_BITS = {"method": "gptq", "bits": 3, "group": 8}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return word_level(documents(0, 60))


@pytest.fixture(scope="module")
def lm(tokenizer: Tokenizer) -> LanguageModel:
    return LanguageModel(tiny("gpt2", vocab_size=tokenizer.vocab_size, eos=tokenizer.eos), tokenizer)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("text") / "stories.txt"
    path.write_text("\n<|endoftext|>\n".join(documents(1, 8)), encoding="utf-8")
    return str(path)


def same_codes(one: LanguageModel, model: torch.nn.Module) -> bool:
    pairs = zip(quantized_layers(one.model), quantized_layers(model), strict=True)
    return all(torch.equal(ours.codes, theirs.codes) for (_, ours), (_, theirs) in pairs)


def test_the_nearest_levels_need_no_text_and_the_given_model_stays_as_it_is(lm: LanguageModel) -> None:
    before = {name: tensor.clone() for name, tensor in named_tensors(lm.model).items()}
    made = Quantize(bits=3)(LanguageModel(lm.model, None))
    assert made.model.architectures == (Quantized(bits=3),)
    assert same_codes(made, attach(copy.deepcopy(lm.model), Quantized(bits=3)))
    assert all(torch.equal(t, before[name]) for name, t in named_tensors(lm.model).items())


def test_gptq_reads_windows_from_the_beginning_of_the_text(lm: LanguageModel, text: str) -> None:
    assert lm.tokenizer is not None and lm.tokenizer.eos is not None
    ids = [id for story in documents(1, 8) for id in (*lm.tokenizer.encode(story), lm.tokenizer.eos)]
    for options, count, window in (
        ({"samples": 5, "window": 12}, 5, 12),
        ({"samples": 3}, 3, 40),  # the model's positions
        ({"samples": 10_000, "window": 40}, len(ids) // 40, 40),
    ):
        made = Quantize(**GPTQ_BITS, data=(text,), **options)(lm)
        rows = torch.tensor(ids[: count * window]).view(count, window)
        how = Quantized(bits=3, group=8)
        assert same_codes(made, calibrate(copy.deepcopy(lm.model), how, rows.split(4)))
    ordered = Quantize(**GPTQ_BITS, data=(text,), samples=3, act_order=True, damping=0.1)(lm)
    wanted = GPTQ(act_order=True, damping=0.1)
    rows = torch.tensor(ids[:120]).view(3, 40)
    assert same_codes(
        ordered, calibrate(copy.deepcopy(lm.model), Quantized(bits=3, group=8), rows.split(4), wanted)
    )
    assert not same_codes(ordered, made.model)


def test_a_text_shorter_than_a_window_is_one(lm: LanguageModel, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the ball", encoding="utf-8")
    assert Quantize(**GPTQ_BITS, data=(str(tmp_path / "a.txt"),))(lm).model.architectures
    (tmp_path / "b.txt").write_text("", encoding="utf-8")
    with pytest.raises(LabError):
        Quantize(**GPTQ_BITS, data=(str(tmp_path / "b.txt"),))(lm)


def test_an_adapter_trains_beside_calibrated_weights(
    lm: LanguageModel, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT2LAB_HOME", str(tmp_path / "runs"))
    made = gpt2lab.apply("quantize", lm, out=tmp_path / "small", data=text, samples=4, **GPTQ_BITS)
    rows = torch.tensor([[1, 2, 3]])
    loaded = gpt2lab.load(tmp_path / "small")
    assert torch.equal(loaded.model(rows), made.model(rows))
    assert gpt2lab.generate(loaded, "the ball", max_new_tokens=3, keep=False).tokens
    run = gpt2lab.train(
        data=text, model=str(tmp_path / "small"), steps=2, context=16, batch_size=2, **{"lora.rank": 2}
    )
    assert same_codes(made, gpt2lab.load(run.id).model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": ("a",)}, "data: rounding to the nearest level reads no text; add method=gptq"),
        ({"act_order": True}, "act_order: rounding to the nearest level reads no text"),
        ({"damping": 0.1}, "damping: rounding"),
        ({"method": "gptq", "scheme": "nf4"}, "no whole steps, which gptq needs"),
        ({"method": "gptq", "damping": -1.0}, "damping must be above 0"),
        ({"method": "gptq", "samples": 0}, "samples must be at least 1, got 0"),
        ({"method": "gptq", "window": 0}, "window must be at least 1, got 0"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(LabError, match=message):
        Quantize(**options)  # type: ignore[arg-type]  # wrong on purpose


def test_a_model_that_cannot_read_the_text_is_refused(lm: LanguageModel, text: str) -> None:
    with pytest.raises(LabError, match="this model has no tokenizer"):
        Quantize(**GPTQ_BITS, data=(text,))(LanguageModel(lm.model, None))
    with pytest.raises(LabError, match="window 41 is longer than the model's 40 positions"):
        Quantize(**GPTQ_BITS, data=(text,), window=41)(lm)
    with pytest.raises(LabError, match="quantised already"):
        Quantize()(Quantize()(lm))


def test_the_part_is_found_by_name() -> None:
    assert part("transform", "quantize") is Quantize
