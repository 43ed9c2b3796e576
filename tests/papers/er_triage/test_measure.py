"""The measure label-efficiency: a model that knows the words beside fresh weights, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import gpt2lab
from gpt2lab.base.errors import LabError
from gpt2lab.papers.er_triage.measure import LabelEfficiency
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.tokenizer import word_level
from tests.tiny import tiny

SMALL: dict[str, Any] = {"budgets": (4, 12), "repeats": 2, "least_steps": 3, "most_steps": 4}


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    rows = [
        {"text": f"{'chute de' if i % 2 else 'toux apres'} mot{i}", "kind": "ab"[i % 2], "label": i % 2}
        for i in range(40)
    ]
    file = tmp_path / "notes.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def lm(notes: Path) -> LanguageModel:
    tokenizer = word_level(json.loads(line)["text"] for line in notes.read_text().splitlines())
    return LanguageModel(tiny("gpt2", vocab_size=tokenizer.vocab_size), tokenizer)


def test_it_compares_given_and_fresh_weights_and_counted_words(lm: LanguageModel, notes: Path) -> None:
    before = {name: value.clone() for name, value in lm.model.state_dict().items()}
    found = gpt2lab.measure("label-efficiency", lm, data=str(notes), keep=False, **SMALL)
    assert found["gain"] == pytest.approx(found["auc_given"] - found["auc_fresh"])
    assert found["auc_majority"] == 0.5 < found["auc_tfidf"]
    rows = found.tables["ladder"]
    assert len(rows) == 2 * 2 * 5 and {row["strategy"] for row in rows} >= {
        "given",
        "fresh",
        "tfidf_characters",
    }
    assert [row["AUC"] for row in found.tables["factor"]] == [0.8, 0.9, 0.93, 0.95, 0.97]
    assert b"<svg" in found.figure_svg("auc") and found.about["test"] == 8
    assert all(torch.equal(before[name], value) for name, value in lm.model.state_dict().items())


def test_the_class_can_be_a_written_word(notes: Path) -> None:
    texts = [json.loads(line)["text"] for line in notes.read_text().splitlines()]
    tokenizer = word_level(texts, special=["non", "oui", "?"])
    lm = LanguageModel(tiny("gpt2", vocab_size=tokenizer.vocab_size), tokenizer)
    written: dict[str, Any] = {"read_out": "label-word", "label_words": ("non", "oui"), "separator": "?"}
    found = LabelEfficiency(data=(str(notes),), language=0.5, **written, **SMALL)(lm)
    assert found["auc_given"] != LabelEfficiency(data=(str(notes),), language=0.5, **SMALL)(lm)["auc_given"]
    with pytest.raises(LabError, match="label word ' no'"):
        LabelEfficiency(data=(str(notes),), read_out="label-word", **SMALL)(lm)


def test_a_test_file_and_labels_of_other_names_are_read(
    lm: LanguageModel, notes: Path, tmp_path: Path
) -> None:
    test = tmp_path / "test.jsonl"
    test.write_text('{"text": "chute nouvelle", "kind": "b"}\n{"text": "toux nouvelle", "kind": "a"}\n')
    found = LabelEfficiency(data=(str(notes),), test=str(test), label="kind", positive="b", **SMALL)(lm)
    assert found.about["test"] == 2 and found.about["labelled"] == 40
    with pytest.raises(LabError, match="also in the labelled data"):
        LabelEfficiency(data=(str(notes),), test=str(notes), **SMALL)(lm)


def test_what_cannot_be_measured_is_refused(lm: LanguageModel, notes: Path) -> None:
    for options, words in (
        ({"label": "kind"}, "neither 0 nor 1"),
        ({"budgets": (4, 100)}, "a budget of 100 labels, but only 32"),
        ({"context": 4}, "at least 8 tokens"),
        ({"budgets": (12, 4)}, "budgets ascend"),
        ({"repeats": 0}, "repeats is 1 or more"),
    ):
        with pytest.raises(LabError, match=words):
            LabelEfficiency(**{"data": (str(notes),), **SMALL, **options})(lm)
