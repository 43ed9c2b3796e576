"""The verbs as functions: what each leaves in the store, of a model by name and of one in memory."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import gpt2lab
from gpt2lab.actions.record import IN_MEMORY
from gpt2lab.base.errors import LabError
from gpt2lab.decode import Sampling
from gpt2lab.model import Transformer
from gpt2lab.model.checkpoints.families import gpt2_config
from gpt2lab.runs.lineage import lineage
from gpt2lab.runs.run_record import record
from gpt2lab.runs.store import Row, Store
from gpt2lab.text.language_model import LanguageModel, save
from gpt2lab.text.tokenizer import byte_level

TEXT = {"data": "tinyworld:3", "limit": 40, "window": 16}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("GPT2LAB_HOME", str(tmp_path / "runs"))
    return Store()


@pytest.fixture
def lm() -> LanguageModel:
    tokenizer = byte_level()
    config = gpt2_config(vocab_size=tokenizer.vocab_size, d_model=16, n_layers=1, n_heads=2, max_positions=32)
    return LanguageModel(Transformer(config, generator=torch.Generator().manual_seed(0)), tokenizer)


@pytest.fixture
def folder(lm: LanguageModel, tmp_path: Path) -> Path:
    save(lm, tmp_path / "model")
    return tmp_path / "model"


def settings(row: Row) -> dict[str, object]:
    found: dict[str, object] = json.loads(row.settings)
    return found


def test_a_measurement_in_python_leaves_the_run_that_the_command_leaves(store: Store, folder: Path) -> None:
    found = gpt2lab.measure("perplexity", str(folder), **TEXT)
    (row,) = store.rows()
    assert (row.kind, row.name, settings(row)["model"]) == ("measure", "perplexity", str(folder))
    assert row.numbers["perplexity"] == pytest.approx(found.numbers["perplexity"])
    assert settings(row)["dtype"] == "float32"


def test_what_is_known_of_a_loaded_model_is_recorded(store: Store, folder: Path, lm: LanguageModel) -> None:
    gpt2lab.measure("perplexity", gpt2lab.load(folder), **TEXT)
    gpt2lab.measure("perplexity", lm, **TEXT)
    assert [settings(row)["model"] for row in store.rows()] == [IN_MEMORY, str(folder.resolve())]


@pytest.mark.parametrize("verb", ["apply", "embed", "export", "generate", "measure"])
def test_what_is_not_to_be_kept_leaves_no_run_and_gives_the_same(
    verb: str, store: Store, lm: LanguageModel, tmp_path: Path
) -> None:
    def done(keep: bool) -> object:
        match verb:
            case "apply":
                return gpt2lab.apply("quantize", lm, keep=keep).model(torch.tensor([[1, 2]])).tolist()
            case "embed":
                return gpt2lab.embed(lm, ["a", "bc"], pooling="mean", keep=keep).tolist()
            case "export":
                return gpt2lab.export(lm, to="huggingface", out=tmp_path / "out", keep=keep).size
            case "generate":
                return gpt2lab.generate(lm, "a", max_new_tokens=3, keep=keep).tokens
            case _:
                return gpt2lab.measure("perplexity", lm, keep=keep, **TEXT).numbers

    first = done(False)
    assert store.count() == 0
    assert done(True) == first
    assert [row.kind for row in store.rows()] == [verb]


def test_the_chain_runs_through_models_that_were_never_saved(store: Store, lm: LanguageModel) -> None:
    once = gpt2lab.apply("quantize", lm, bits=8)
    twice = gpt2lab.apply("dequantize", once)
    gpt2lab.measure("perplexity", twice, **TEXT)
    chain = lineage(store.rows(kind="measure")[0])
    assert [row.name for row in chain] == ["quantize", "dequantize", "perplexity"]
    assert (once.source, twice.source) == (chain[0].id, chain[1].id)
    assert not (store.home / once.source / "model").exists()
    with pytest.raises(LabError, match="this run has no model"):
        gpt2lab.load(once.source)
    alone = gpt2lab.report("perplexity-1").with_suffix(".md").read_text()
    assert "on the way" not in alone, "the numbers of one model have nothing to be compared with"
    gpt2lab.measure("perplexity", once, **TEXT)
    assert "perplexity on the way" in gpt2lab.report("perplexity-1").with_suffix(".md").read_text()


def test_an_applied_model_is_saved_where_it_is_asked_to_be(
    store: Store, lm: LanguageModel, tmp_path: Path
) -> None:
    kept = gpt2lab.apply("quantize", lm, save=True)
    elsewhere = gpt2lab.apply("quantize", lm, out=tmp_path / "small")
    rows = torch.tensor([[1, 2, 3]])
    for made in (kept, elsewhere):
        assert torch.equal(gpt2lab.load(made.source).model(rows), made.model(rows))
    gpt2lab.apply("quantize", lm, out=tmp_path / "other", keep=False)
    assert (tmp_path / "other" / "config.json").is_file() and store.count() == 2
    with pytest.raises(LabError, match="a run that is not kept has no folder"):
        gpt2lab.apply("quantize", lm, save=True, keep=False)
    with pytest.raises(LabError, match="the folder of the given model, which would be lost"):
        gpt2lab.apply("dequantize", gpt2lab.load(tmp_path / "small"), out=tmp_path / "small")


def test_texts_are_recorded_with_their_decoder_and_its_options(store: Store, lm: LanguageModel) -> None:
    by_name = gpt2lab.generate(lm, "ab", decoder="contrastive-search", k=4, alpha=0.6, max_new_tokens=3)
    by_object = gpt2lab.generate(lm, ["ab", [1, 2]], decoder=Sampling(top_p=0.5), max_new_tokens=2, seed=3)
    assert by_name.prompt == "ab" and len(by_object) == 2
    second, first = store.rows(kind="generate")
    assert settings(first)["decoder"] == "contrastive-search"
    assert settings(first)["options"] == {
        "k": 4,
        "alpha": 0.6,
        "max_new_tokens": 3,
        "min_new_tokens": 0,
        "stop": [],
        "seed": 0,
    }
    options = settings(second)["options"]
    assert settings(second)["decoder"] == "sampling" and isinstance(options, dict) and options["top_p"] == 0.5
    assert settings(second)["prompts"] == ["ab", [1, 2]] and second.seed == 3
    assert str(by_name) in record(first, store.home).texts["texts"]


def test_where_no_run_can_be_kept_the_result_comes_with_a_warning(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("GPT2LAB_HOME", str(tmp_path / "file" / "runs"))
    with pytest.warns(UserWarning, match="not kept among the runs"):
        assert gpt2lab.measure("perplexity", lm, **TEXT).numbers["perplexity"] > 1
    with pytest.warns(UserWarning, match="not kept among the runs"):
        assert gpt2lab.generate(lm, "a", max_new_tokens=2).tokens
    with pytest.warns(UserWarning, match="not kept among the runs"):
        assert gpt2lab.apply("quantize", lm).source == ""
    with pytest.raises(LabError):
        gpt2lab.apply("quantize", lm, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_mistake_leaves_no_run(store: Store, lm: LanguageModel) -> None:
    for wrong in (
        lambda: gpt2lab.measure("perplexity", lm, **{**TEXT, "window": 64}),
        lambda: gpt2lab.apply("dequantize", lm),
        lambda: gpt2lab.predict(lm, ["a"]),
        lambda: gpt2lab.generate(lm, "a", max_new_tokens=500),
        lambda: gpt2lab.generate(lm, "a", top_q=1),
    ):
        with pytest.raises(LabError):
            wrong()
    assert store.count() == 0


def test_an_object_of_another_kind_is_answered_in_a_sentence(store: Store, lm: LanguageModel) -> None:
    wrong: Any = lm
    with pytest.raises(LabError, match=r"not as an object in memory; save it first: gpt2lab\.save"):
        gpt2lab.train("tinyworld:3", model=wrong, steps=1)
    with pytest.raises(LabError, match="not as an object in memory"):
        gpt2lab.load(wrong)
    wrong = lm.model
    with pytest.raises(LabError, match=r"what gpt2lab\.load returns, got an object of Transformer"):
        gpt2lab.measure("perplexity", wrong, **TEXT)
    for wrong, what in (([1, 2], "a prompt is text, a list of token ids"), (5, "list of prompts, got int")):
        with pytest.raises(LabError, match=what):
            gpt2lab.generate(lm, wrong, max_new_tokens=1)
    assert store.count() == 0


def test_a_run_without_a_command_and_one_whose_folder_is_gone_say_what_to_do(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    gpt2lab.apply("quantize", folder, out=tmp_path / "small")
    shutil.rmtree(tmp_path / "small")
    with pytest.raises(
        LabError, match=r"its model was written to .*small, where it is no more; run it again$"
    ):
        gpt2lab.load("quantize-1")
    with pytest.raises(LabError, match=r"nothing to resume; run it again$"):
        gpt2lab.resume("quantize-1")
    gpt2lab.measure("perplexity", folder, command="gpt2lab measure it", **TEXT)
    with pytest.raises(LabError, match=r"cannot be resumed; run it again: gpt2lab measure it$"):
        gpt2lab.resume("perplexity-1")


def test_settings_of_the_verb_itself_are_no_options_of_a_part(store: Store, folder: Path) -> None:
    from gpt2lab.cli import main

    for line in (
        ["measure", "perplexity", str(folder), "--set", "keep=0"],
        ["apply", "quantize", str(folder), "--set", "save=0"],
        ["generate", str(folder), "a", "--set", "batch_size=2"],
    ):
        assert main(line) == 2
    assert store.count() == 0
