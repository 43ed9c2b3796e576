import math
from pathlib import Path

import pytest
import torch

from gpt2lab.base.errors import LabError
from gpt2lab.measures.perplexity import token_losses
from gpt2lab.measures.quantization_error import QuantizationError
from gpt2lab.measures.statistics import t_interval
from gpt2lab.model.quantization import quantized_layers
from gpt2lab.text.language_model import LanguageModel, load, save
from gpt2lab.training.quantize import Quantize


@pytest.fixture(scope="module")
def text(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Real stories as one text."""
    path = tmp_path_factory.mktemp("text") / "stories.txt"
    whole = (shared_data / "tinystories" / "tinystories_sample.txt").read_text(encoding="utf-8")
    path.write_text(whole[:14_000].replace("<|endoftext|>", ""), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def lm(shared_data: Path) -> LanguageModel:
    return load(shared_data / "models" / "stories260k-llama")


def test_perplexities_interval_and_sizes_are_those_of_the_two_models(
    lm: LanguageModel, text: str, tmp_path: Path
) -> None:
    assert lm.tokenizer is not None
    found = QuantizationError(data=(text,), limit=2000, window=128, layers=("*",))(lm)
    rounded = Quantize(layers=("*",))(lm)
    ids = lm.tokenizer.encode(Path(text).read_text(encoding="utf-8"))[:2001]
    before, after = (token_losses(model, ids, window=128) for model in (lm.model, rounded.model))
    assert found["perplexity_before"] == pytest.approx(math.exp(before.mean()))
    assert found["perplexity_after"] == pytest.approx(math.exp(after.mean()))
    difference = after - before
    assert found["perplexity_ratio"] == pytest.approx(math.exp(difference.mean()))
    pieces = t_interval([float(piece.mean()) for piece in difference.tensor_split(15)])
    width = math.log(found["perplexity_ratio_high"] / found["perplexity_ratio_low"])
    assert width == pytest.approx(pieces.high - pieces.low)
    assert 1 < found["perplexity_ratio_low"] < found["perplexity_ratio"] < found["perplexity_ratio_high"]

    save(lm, tmp_path / "before")
    save(rounded, tmp_path / "after")
    for name in ("before", "after"):
        size = (tmp_path / name / "model.safetensors").stat().st_size
        assert size - 20_000 < found[f"bytes_{name}"] < size  # the header
    assert found["bytes_after"] < found["bytes_before"] / 6.5

    rows = found.tables["layers"]
    assert len(rows) == 36  # seven matrices in each of five blocks, and the table that is the head too
    assert [row["layer"] for row in rows[1:4]] == [f"blocks.0.attention.qkv.{part}" for part in "qkv"]
    assert sum(row["bytes"] for row in rows) == sum(x.n_bytes for _, x in quantized_layers(rounded.model))
    assert rows[0]["layer"] == "embedding"
    weight = lm.model.blocks[4].mlp.down.weight.detach()
    missed = weight - rounded.model.blocks[4].mlp.down.dequantise()
    assert rows[-1]["relative_error"] == pytest.approx(float(missed.norm() / weight.norm()), rel=1e-4)
    assert "square_sum" not in rows[0]
    assert min(row["relative_error"] for row in rows) < found["relative_weight_error"]
    assert max(row["relative_error"] for row in rows) > found["relative_weight_error"]
    assert found["bits_per_weight"] == pytest.approx(4.375, abs=0.01)


def test_fewer_bits_cost_more_perplexity_on_a_trained_model(lm: LanguageModel, text: str) -> None:
    ratios = [
        QuantizationError(data=(text,), limit=1500, **how)(lm)["perplexity_ratio"]
        for how in ({"bits": 8}, {"group": 8}, {}, {"scheme": "symmetric"})
    ]
    assert abs(ratios[0] - 1) < 0.01
    assert ratios[0] < ratios[1] < ratios[2] < ratios[3] < 1.8


def test_gptq_is_compared_with_the_nearest_levels_on_the_same_text(
    lm: LanguageModel, text: str, tmp_path: Path
) -> None:
    (tmp_path / "other.txt").write_text(Path(text).read_text(encoding="utf-8")[7000:], encoding="utf-8")
    about = {"data": (text,), "limit": 1500, "window": 128, "bits": 3}
    options = {
        "method": "gptq",
        "calibration": (str(tmp_path / "other.txt"),),
        "samples": 8,
        "act_order": True,
    }
    found = QuantizationError(**about, **options)(lm)
    nearest = QuantizationError(**about)(lm)
    assert found["perplexity_nearest"] == pytest.approx(nearest["perplexity_after"])
    assert found["ratio_to_nearest"] == pytest.approx(found["perplexity_after"] / nearest["perplexity_after"])
    assert found["ratio_to_nearest_low"] < found["ratio_to_nearest"] < found["ratio_to_nearest_high"] < 1
    assert found["bytes_after"] == nearest["bytes_after"]
    assert found.about["calibration"] == [str(tmp_path / "other.txt")] and found.about["act_order"]
    assert found.about["method"] == "gptq" and "perplexity_nearest" not in nearest.numbers
    with pytest.raises(LabError, match="calibration: rounding to the nearest level reads no text"):
        QuantizationError(calibration=("docstrings",))
    with pytest.raises(LabError, match="samples: rounding to the nearest level reads no text"):
        QuantizationError(samples=3)
    for text_of_both in ((), ("a.txt", "docstrings")):
        with pytest.raises(LabError, match="calibration: docstrings is the text that is scored too"):
            QuantizationError(method="gptq", calibration=text_of_both)


def test_a_text_of_one_piece_has_no_interval(lm: LanguageModel, text: str) -> None:
    found = QuantizationError(data=(text,), limit=50)(lm)
    assert found["perplexity_ratio_high"] == math.inf


def test_a_quantised_model_and_no_tokens_are_refused(lm: LanguageModel) -> None:
    with pytest.raises(LabError, match="the model that this quantised one was made from"):
        QuantizationError()(Quantize()(lm))
    with pytest.raises(LabError, match="limit must be at least 1"):
        QuantizationError(limit=0)(lm)
    with torch.no_grad(), pytest.raises(LabError, match="stands for no matrix"):
        QuantizationError(layers=("blocks.9.*",))(lm)


@pytest.mark.parametrize("pieces", [1, 2, 4, 5])
def test_few_pieces_of_text_give_no_interval_and_say_so(lm: LanguageModel, text: str, pieces: int) -> None:
    found = QuantizationError(data=(text,), limit=pieces * 64, window=64)(lm)
    low, high = found["perplexity_ratio_low"], found["perplexity_ratio_high"]
    if pieces < 5:
        assert (low, high) == (0.0, math.inf)
        needed = "an interval needs 5 pieces of 64 tokens; raise limit, or lower window"
        assert found.about["interval"] == f"none: {needed}"
    else:
        assert 0 < low < high < math.inf and "interval" not in found.about
