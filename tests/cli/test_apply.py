"""The verb apply, the runs that apply, measure and generate leave, and the chain from a model back to its training."""

from pathlib import Path

import pytest
import torch

import gpt2lab
from gpt2lab.base.errors import LabError
from tests.cli.conftest import Lab

QUANTIZE = ("apply", "quantize", "small-1", "--bits", "8")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("applied") / "small-8bit"


def test_apply_writes_a_model_and_says_what_how_large_and_how_long(said: Lab, out: Path) -> None:
    done = said(*QUANTIZE, "--out", str(out))
    assert done.status == 0, done.err
    words = [line.split()[0] for line in done.out.splitlines()]
    assert words == ["wrote", "size", "took", "run", "next"]
    assert str(out) in done.out and "kB, " in done.out
    texts = [
        said("generate", place, "one day", "--max-new-tokens", "5").out for place in (str(out), "quantize")
    ]
    assert texts[0] == texts[1] != "", "the run's name finds the model in --out"


def test_any_width_and_a_calibration_text_are_typed(said: Lab, tmp_path: Path) -> None:
    words = ("apply", "quantize", "small-1", "--set", "bits=3", "--set", "method=gptq")
    done = said(
        *words, "--data", "tinyworld:20", "--samples", "4", "--out", str(tmp_path / "small"), "--json"
    )
    assert done.status == 0, done.err
    large = said("apply", "quantize", "small-1", "--bits", "7", "--json").json
    assert done.json["results"]["bytes"] < large["results"]["bytes"]
    row = said("runs", "--kind", "apply", "--limit", "2", "--json").json[-1]
    assert "method=gptq" in row["command"] and "--data tinyworld:20" in row["command"]
    refused = said("apply", "quantize", "small-1", "--data", "tinyworld:20")
    assert refused.status != 0 and "reads no text; add method=gptq" in refused.err


def test_the_chain_of_models_is_kept_with_the_runs(said: Lab, out: Path) -> None:
    made = said("apply", "dequantize", str(out), "--json")
    assert made.status == 0, made.err
    assert made.json["origin"].startswith("quantize-")
    assert Path(made.json["out"]).name == "model", "without --out it is in the run's own folder"
    words = ("measure", "perplexity", made.json["id"], "--data", "tinyworld:20", "--limit", "100", "--json")
    measured = said(*words)
    row = said("runs", "--kind", "measure", "--limit", "1", "--json").json[0]
    assert row["id"].startswith("perplexity-") and row["origin"] == made.json["id"]
    assert row["results"]["perplexity"] == pytest.approx(measured.json["numbers"]["perplexity"])
    assert row["command"].startswith("gpt2lab measure perplexity dequantize-")
    report = Path(said("report", row["id"], "--json").json["markdown"]).read_text(encoding="utf-8")
    line = next(line for line in report.splitlines() if "that led here" in line)
    places = [line.index(name) for name in ("small-1", "quantize-", "dequantize-", "perplexity-")]
    assert places == sorted(places)


def test_runs_shows_the_model_and_generated_texts_only_on_request(said: Lab) -> None:
    made = said("apply", "quantize", "small-1", "--bits", "8", "--json").json["id"]
    assert said("generate", "small-1", "one day", "the ball", "--max-new-tokens", "3").status == 0
    listed = said("runs", "--limit", "0").out
    assert "generate-" not in listed
    header, *lines = listed.splitlines()
    assert header.split()[:3] == ["run", "kind", "model"]
    assert any(line.split()[:3] == [made, "apply", "small-1"] for line in lines)
    row = said("runs", "--kind", "generate", "--limit", "1", "--json").json[0]
    assert (row["model"], row["results"]["texts"]) == ("small-1", 2)
    assert "one day" in (Path(row["folder"]) / "texts" / "texts.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("apply quantise small-1", "quantise: no such transform; did you mean quantize?"),
        ("apply vtrans small-1", "not built yet"),
        ("apply quantize small-1 --bit 8", "--bit: no such option; did you mean --bits?"),
        ("apply quantize small-1 --bits three", "apply quantize: bits must be"),
        ("apply quantize small-1 --set bitz=8", "no setting bitz; did you mean bits?"),
        ("apply dequantize small-1", "not quantised"),
        ("apply quantize smal-1", "did you mean the run small-1?"),
        ("apply quantize small-1 --out HERE", "which saving would remove; give another folder"),
        ("apply quantize HERE/model --out HERE/model", "the folder of the given model, which would be lost"),
    ],
)
def test_mistakes_are_sentences_and_nothing_is_written(
    line: str, sentence: str, said: Lab, trained: Path, tmp_path: Path
) -> None:
    import shutil

    (tmp_path / "notes.txt").write_text("mine")
    shutil.copytree(trained / "small-1" / "model", tmp_path / "model")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    done = said(*line.replace("HERE", str(tmp_path)).split())
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1), done.err
    assert sentence in done.err
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


@pytest.mark.parametrize("broken", ["no folder", "no store"])
def test_a_measure_that_cannot_be_kept_is_shown_all_the_same(
    broken: str, said: Lab, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "store.sqlite").write_text(
        "no store, but long enough to be taken for one, as a disk that broke leaves it"
    )
    monkeypatch.setenv("GPT2LAB_HOME", str(tmp_path / "file" / "runs" if broken == "no folder" else tmp_path))
    model = str(trained / "small-1" / "model")
    done = said("measure", "perplexity", model, "--data", "tinyworld:20", "--limit", "100", "--json")
    assert done.status == 0
    assert done.json["numbers"]["perplexity"] > 1
    assert done.err.startswith("gpt2lab: not kept among the runs: ") and done.err.count("\n") == 1


def test_the_function_applies_to_a_loaded_model_and_leaves_it_alone(trained: Path) -> None:
    lm = gpt2lab.load(trained / "small-1" / "model")
    before = lm.model.embedding.weight.clone()
    smaller = gpt2lab.apply("quantize", lm, bits=8)
    assert smaller.model is not lm.model
    assert torch.equal(before, lm.model.embedding.weight)
    with pytest.raises(LabError, match="apply quantize: no setting bitz"):
        gpt2lab.apply("quantize", lm, bitz=8)
