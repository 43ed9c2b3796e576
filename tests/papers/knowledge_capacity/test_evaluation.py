"""Losses on exactly the tokens of a fact, against passes token by token in float64; parameters; the measure."""

import math
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.cli import main
from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.papers.knowledge_capacity.alignment import aligned
from gpt2lab.papers.knowledge_capacity.evaluation import field_losses, used_ids
from gpt2lab.papers.knowledge_capacity.facts import fact_source, symbol_tokenizer
from gpt2lab.papers.knowledge_capacity.measure import KnowledgeBits, bits_of_people
from gpt2lab.papers.knowledge_capacity.models import SHAPES, shape_config
from gpt2lab.papers.knowledge_capacity.parameters import count_parameters
from gpt2lab.text.generators.biographies import EMPLOYER, Biographies
from gpt2lab.text.generators.fact_text import FactText
from gpt2lab.text.generators.random_facts import FIRST, RandomFacts
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.spans import Span
from gpt2lab.text.tokenizer import Tokenizer, byte_level, train_bpe, word_level
from gpt2lab.text.tokenizer_files import load_tokenizer
from tests.papers.knowledge_capacity import reference


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return train_bpe([told.text for told in Biographies(people=300, seed=9).told(0)], 600)


def small(tokenizer: Tokenizer, context: int = 256) -> LanguageModel:
    config = gpt2_config(
        vocab_size=tokenizer.vocab_size,
        d_model=16,
        n_layers=1,
        n_heads=2,
        max_positions=context,
        eos=tokenizer.eos,
    )
    model = Transformer(config, generator=torch.Generator().manual_seed(4)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)), alpha=0.3
            )
    return LanguageModel(model, tokenizer)


@pytest.mark.parametrize("kind", ["bios:3:1", "bior:2:1", "biod:2:1"])
def test_losses_are_those_of_the_tokens_of_each_field(kind: str, bpe: Tokenizer) -> None:
    lm, source = small(bpe, 400), fact_source(kind)
    found = field_losses(lm, source, draws=2, batch_size=3)
    for person in range(source.people):
        texts = [list(source.judged(draw))[person] for draw in range(2)]
        slow = [reference.field_losses(lm.model, bpe, told) for told in texts]
        for label, values in {"name": found.name, **found.values}.items():
            expected = sum(losses[label] for losses, _ in slow) / 2
            assert values[person] == pytest.approx(expected, rel=1e-5), label
        for label, values in found.exact.items():
            assert values[person] == sum(exact[label] for _, exact in slow) / 2
        if found.first_string is not None:
            firsts = [loss for losses, _ in slow for label, loss in losses.items() if label.endswith(FIRST)]
            assert found.first_string[person] == pytest.approx(float(np.mean(firsts)), rel=1e-5)


def test_gpt2s_tokenizer_joins_no_value_with_the_text_beside_it(shared_data: Path) -> None:
    tokenizer = load_tokenizer(shared_data / "gpt2-tokenizer")
    for kind in ("bios:1500:3", "bior:300:3", "biod:50:3"):
        for told in fact_source(kind).told(0):
            aligned(tokenizer, told)  # refuses else
    for employer in ("Dow Inc.", "Disney+"):
        source = Biographies(people=5000)
        person = next(i for i in range(5000) if source.values(i)[EMPLOYER] == employer)
        for exposure in range(20):
            aligned(tokenizer, next(source.told(exposure, [person])))
    ids = used_ids(tokenizer, Biographies(people=5000))
    assert 3100 < len(ids) < 3400  # the paper's own sentences use 3,275


def test_a_tokenizer_that_hides_a_fact_is_refused() -> None:
    told = next(Biographies(people=1).told(0))
    with pytest.raises(LabError, match="cannot spell"):
        aligned(word_level(["nothing but this"]), told)
    merged = FactText(" Ada said 12.", (Span(1, 4, "name"), Span(10, 12, "age")))
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel(
            {word: i for i, word in enumerate(["Ada", "said", "12."])}, unk_token="Ada"
        )
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    with pytest.raises(LabError, match=r"joins age '12' with the text beside it, in ' Ada said 12\.'"):
        aligned(Tokenizer(backend), merged)
    accented = next(told for told in Biographies(people=3000).told(0) if "Mayagüez" in told.text)
    assert aligned(byte_level(), accented).ranges["university"]


def test_models_that_cannot_be_asked_are_refused(bpe: Tokenizer) -> None:
    lm, source = small(bpe, 40), Biographies(people=3)
    with pytest.raises(
        LabError, match=r"a text of \d+ tokens is longer than the model's 40 positions: a fact cut off"
    ):
        field_losses(lm, source)
    with pytest.raises(LabError, match="has no tokenizer"):
        field_losses(LanguageModel(lm.model), source)
    for options in ({"draws": 0}, {"limit": 0}):
        with pytest.raises(LabError, match="must be at least 1"):
            field_losses(lm, source, **options)
    no_end = Tokenizer(bpe.backend)
    with pytest.raises(LabError, match="no end token"):
        field_losses(LanguageModel(lm.model, no_end), source)


def test_parameters_of_unused_rows_are_left_out() -> None:
    for layers, heads in ((2, 3), (12, 12)):
        config = shape_config("gpt2", vocab_size=50257, n_layers=layers, n_heads=heads)
        with torch.device("meta"):
            model = Transformer(config)
        d = 64 * heads
        counted = count_parameters(model, range(3275))
        assert counted.counted == layers * (12 * d**2 + 13 * d) + 2 * d + 3275 * d
        assert counted.total == counted.counted + (50257 - 3275) * d
    assert round(counted.counted / 1e6, 2) == 87.57  # the paper's 88M
    with torch.device("meta"):
        free = Transformer(shape_config("llama", vocab_size=100, n_layers=1, n_heads=1))
        biased = Transformer(gpt2_config(vocab_size=50, d_model=8, n_layers=1, n_heads=2, head_bias=True))
    assert count_parameters(free, range(90)).total - count_parameters(free, range(90)).counted == 10 * 2 * 64
    assert count_parameters(biased, [0]).total - count_parameters(biased, [0]).counted == 49 * 9
    for wrong, words in (([], "no row of the vocabulary is used"), ([100], "ids run from 100 to 100")):
        with pytest.raises(LabError, match=words):
            count_parameters(free, wrong)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_has_the_papers_parameters_and_runs(shape: str) -> None:
    heads = 4
    config = shape_config(shape, vocab_size=50, n_layers=2, n_heads=heads, context=16)
    model = Transformer(config).eval()
    d = 64 * heads
    sizes = dict(model.blocks[0].mlp.named_parameters())
    feed_forward = sum(size.numel() for name, size in sizes.items() if size.dim() > 1)
    gated = 3 * d * (-(-8 * d // 24) * 8)
    assert feed_forward == {
        "gpt2": 8 * d**2, "gpt2-quarter": 2 * d**2, "gpt2-no-mlp": 0, "gpt2-gated": gated,
        "gpt2-experts": 64 * d**2 + 32 * d, "llama": gated, "llama-tied": gated, "llama-plain": 8 * d**2,
        "mistral": 10.5 * d**2, "mistral-tied": 10.5 * d**2,
    }[shape]  # fmt: skip
    assert 8 * d**2 <= gated <= 8.1 * d**2
    assert config.positions == "rotary" and config.rotary_fraction == 1.0 and config.head_width == 64
    assert config.tied_head == (
        shape.startswith("gpt2") or shape in ("llama-tied", "llama-plain", "mistral-tied")
    )
    assert config.layer(0).n_kv_heads == 4
    assert shape_config("mistral", vocab_size=9, n_layers=1, n_heads=6).layer(0).n_kv_heads == 2
    assert shape_config("mistral", vocab_size=9, n_layers=1, n_heads=5).layer(0).n_kv_heads == 1
    with torch.no_grad():
        assert model(torch.arange(12)[None]).isfinite().all()


def test_unknown_shapes_are_refused_with_the_nearest() -> None:
    with pytest.raises(LabError, match="did you mean llama"):
        shape_config("lama", vocab_size=9, n_layers=1, n_heads=1)


def test_the_measure_puts_losses_bits_and_parameters_together() -> None:
    source = RandomFacts(people=30, seed=2)
    tokenizer = symbol_tokenizer(source)
    lm = small(tokenizer, 32)
    found = KnowledgeBits(facts="biod-symbols:30:2", draws=1)(lm)
    p1, p2, p3 = found["name_loss"], found["value_loss"], found["first_string_loss"]
    expected = reference.definition_4_1(30, 64**3, 6, 2, 64, 64, 1, p1, p2, p3)
    assert found["bits"] == pytest.approx(expected, rel=1e-9)
    p = count_parameters(lm.model, used_ids(tokenizer, source)).counted
    assert found["parameters"] == p < count_parameters(lm.model, [0, 262]).total
    assert found["bits_per_parameter"] == pytest.approx(expected / p)
    assert found["bits_per_parameter_max"] == pytest.approx(30 * (math.log2(64**3 / 30) + 72) / p)
    assert found["bits"] == pytest.approx(sum(row["bits"] for row in found.tables["components"]))
    assert "bits_per_parameter_low" not in found.numbers  # everybody was asked
    assert b"<svg" in found.figure_svg("components")


def test_some_people_stand_for_all_with_an_interval(bpe: Tokenizer) -> None:
    lm, source = small(bpe), Biographies(people=120, seed=3)
    whole = KnowledgeBits(facts="bios:120:3", draws=1)(lm)
    part = KnowledgeBits(facts="bios:120:3", draws=1, limit=40)(lm)
    low, high = part["bits_per_parameter_low"], part["bits_per_parameter_high"]
    assert low < part["bits_per_parameter"] < high and low < whole["bits_per_parameter"] < high
    losses = field_losses(lm, source, draws=1, limit=40)
    interval = bits_of_people(source.information, losses)
    nats = losses.name + sum(losses.values[name] for name in source.choices)
    each = 120 * (math.log2(source.name_pool) + sum(source.information.values.values()) - nats / math.log(2))
    assert interval.mean == pytest.approx(each.mean())
    half = 2.0227 * each.std(ddof=1) / math.sqrt(40) * math.sqrt(1 - 40 / 120)  # t of 39 degrees
    assert interval.high - interval.mean == pytest.approx(half, rel=1e-4)


def test_a_model_trained_from_the_command_line_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GPT2LAB_HOME", str(tmp_path))
    words = "train --data biod-symbols:40:1:3 --d-model 16 --n-layers 1 --n-heads 2 --context 64 --steps 4 --vocab-size 300"
    assert main([*words.split(), "--set", "samples=0", "--name", "facts"]) == 0
    assert main(["measure", "knowledge-bits", "facts", "--facts", "biod-symbols:40:1", "--draws", "1"]) == 0
    assert "bits_per_parameter_max" in capsys.readouterr().out
    assert main(["measure", "knowledge-bits", "facts", "--facts", "poems:40"]) == 2
    assert gpt2lab.measure("knowledge-bits", "facts", facts="biod-symbols:9:1", keep=False).numbers
