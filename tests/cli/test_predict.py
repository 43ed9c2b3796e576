"""`predict`, prompts of a file, and the type that weights are loaded in."""

import csv
import json
from pathlib import Path

import pytest
import torch

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.cli import main
from gpt2lab.runs.store import Store
from tests.cli.conftest import Lab, in_process_environment

HEAD = ["--d-model", "16", "--n-layers", "1", "--n-heads", "2", "--context", "16", "--vocab-size", "300"]


@pytest.fixture(scope="module")
def headed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home folder of three runs whose heads say a class, a number and labels of words."""
    folder = tmp_path_factory.mktemp("headed")
    lines = [line for i in range(40) for line in (f"red apple {i},fruit,1", f"old dog {i},animal,3")]
    (folder / "rows.csv").write_text("\n".join(["text,kind,size", *lines]))
    rows = [{"text": ["Ann", "sees", f"Bob{i}"], "tags": ["N", "V", "N"]} for i in range(60)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in in_process_environment(folder / "runs").items():
            patch.setenv(name, value)
        for kind, label, data in (
            ("classification", "kind", "rows.csv"),
            ("regression", "size", "rows.csv"),
            ("tokens", "tags", "rows.jsonl"),
        ):
            words = [
                "--data",
                str(folder / data),
                *HEAD,
                "--steps",
                "30",
                "--learning-rate",
                "1e-2",
                "--name",
                kind,
            ]
            assert main(["train", *words, "--set", f"task.kind={kind}", "--set", f"task.label={label}"]) == 0
    return folder


@pytest.fixture
def typed(headed: Path, monkeypatch: pytest.MonkeyPatch, said: Lab) -> Lab:
    """Type a command beside these runs."""
    monkeypatch.setenv("GPT2LAB_HOME", str(headed / "runs"))
    monkeypatch.chdir(headed)
    return said


def test_predict_says_class_and_probability_number_or_words_with_labels(typed: Lab) -> None:
    lines = typed("predict", "classification-1", "red apple", "old dog").out.splitlines()
    assert [line.split()[0] for line in lines] == ["prediction", "fruit", "animal"]
    said = typed("predict", "classification-1", "red apple", "--json").json
    assert said[0]["labels"] == ["fruit"] and sum(said[0]["scores"].values()) == pytest.approx(1)
    assert float(typed("predict", "regression-1", "old dog").out.splitlines()[1].split()[0]) > 1
    assert "Ann/N sees/V" in typed("predict", "tokens-1", "Ann sees").out


def test_texts_to_predict_are_the_lines_of_a_file_or_a_field_of_its_rows(typed: Lab, headed: Path) -> None:
    (headed / "texts.txt").write_text("red apple\r\n\nold dog\n")
    assert [
        one["text"] for one in typed("predict", "classification-1", "--data", "texts.txt", "--json").json
    ] == [
        "red apple",
        "old dog",
    ]
    rows = typed("predict", "classification-1", "--data", "rows.csv", "--field", "kind", "--json").json
    assert {one["text"] for one in rows} == {"fruit", "animal"} and len(rows) == 80
    run = Store(headed / "runs").rows(kind="predict", limit=1)[0]
    assert run.numbers["texts"] == 80 and json.loads(run.settings)["dtype"] == "float32"


def test_predictions_are_written_beside_the_rows_they_are_of(typed: Lab, headed: Path) -> None:
    out = headed / "told.csv"
    assert (
        "80 predictions"
        in typed("predict", "classification-1", "--data", "rows.csv", "--out", "told.csv").out
    )
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 80 and rows[0]["text"] == "red apple 0" and rows[0]["size"] == "1"
    assert [row["prediction"] for row in rows[:2]] == ["fruit", "animal"]
    assert float(rows[0]["score fruit"]) == pytest.approx(1 - float(rows[0]["score animal"]))
    typed("predict", "classification-1", "old dog", "--out", "typed.csv")
    assert (headed / "typed.csv").read_text().splitlines()[1].startswith("old dog,animal,0.")
    (headed / "lines.txt").write_text("red apple\n\nold dog\n")
    typed("predict", "classification-1", "--data", "lines.txt", "--out", "lines.csv")
    assert len((headed / "lines.csv").read_text().splitlines()) == 3
    (headed / "gap.csv").write_text("text,n\nred apple,1\n,2\n")
    for words, message in (
        (["--data", "rows.csv", "--out", "told.csv"], "there is a file of this name"),
        (["--data", "rows.csv", "--out", "told.txt"], "ends in .csv"),
        (["--data", "rows.csv", "--out", "nowhere/a.csv"], "there is no folder"),
        (["--data", "gap.csv", "--out", "a.csv"], "gap.csv, line 3: field 'text' is empty"),
        (["--data", "told.csv", "--out", "b.csv"], "have a field 'prediction' already"),
    ):
        done = typed("predict", "classification-1", *words)
        assert done.status == 2 and message in done.err


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("predict classification-1", "what to read is missing; give texts, or --data FILE"),
        ("predict classification-1 a --data rows.csv", "texts are typed as well"),
        ("predict classification-1 a --field b", "--field names a field of the rows of --data"),
        ("predict classification-1 --data nosuch.csv", "nosuch.csv: no such file"),
        ("predict classification-1 a --head nose", "nose"),
        ("predict small-9 a", "small-9"),
        ("generate classification-1", "what to go on from is missing"),
        ("generate classification-1 a --prompts rows.csv", "prompts are typed as well"),
        ("generate classification-1 a --field b", "--field names a field of the rows of --prompts"),
        ("predict classification-1 a --dtype float8", "invalid choice: 'float8'"),
    ],
)
def test_a_mistake_in_what_is_read_is_one_sentence(typed: Lab, line: str, sentence: str) -> None:
    done = typed(*line.split())
    assert done.status == 2 and sentence in done.err and done.err.count("\n") == 1


def test_prompts_of_a_file_are_gone_on_from_one_by_one(said: Lab, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("One day\nTom has\n")
    (tmp_path / "prompts.jsonl").write_text('{"start": "Anna"}\n{"start": "Ben"}\n')
    told = said("generate", "small-1", "--prompts", str(tmp_path / "prompts.txt"), "--max-new-tokens", "2")
    assert [text[:7] for text in told.out.split("\n\n")] == ["One day", "Tom has"]
    words = ["--prompts", str(tmp_path / "prompts.jsonl"), "--field", "start", "--max-new-tokens", "2"]
    assert len(said("generate", "small-1", *words, "--json").json) == 2


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_a_model_is_loaded_in_the_type_that_is_asked_for_and_the_record_says_so(
    said: Lab, trained: Path, tmp_path: Path, dtype: str
) -> None:
    words = ("--dtype", dtype, "--json")
    assert said("generate", "small-1", "One day", "--max-new-tokens", "2", *words).status == 0
    assert said("measure", "perplexity", "small-1", "--data", "tinyworld:4", *words).status == 0
    assert said("apply", "quantize", "small-1", "--out", str(tmp_path / "small"), *words).status == 0
    for kind in ("generate", "measure", "apply"):
        row = Store(trained).rows(kind=kind, limit=1)[0]
        assert json.loads(row.settings)["dtype"] == dtype, kind


def test_a_model_that_is_loaded_keeps_its_type_and_device(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT2LAB_HOME", str(trained))
    lm = gpt2lab.load("small-1", dtype="float64")
    assert lm.model.dtype == torch.float64
    with pytest.raises(LabError, match="dtype float32: this model is loaded already"):
        gpt2lab.generate(lm, "One day", dtype="float32")
    with pytest.raises(LabError, match="device meta: this model is on cpu"):
        gpt2lab.measure("perplexity", lm, data="tinyworld:2", device="meta")
    with pytest.raises(LabError, match="float8: no such type of weights"):
        gpt2lab.load("small-1", dtype="float8")


def test_an_export_says_the_type_of_its_matrices(said: Lab, tmp_path: Path) -> None:
    done = said("export", "small-1", "--to", "huggingface", "--out", str(tmp_path / "folder"))
    assert "matrices in float32" in done.out
