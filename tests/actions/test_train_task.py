"""`train` with a task: every kind of head learns, saves, resumes and is measured, and bad data are a sentence."""

import csv
import json
import os
import random
import signal

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from gpt2lab.actions.train import train_model
from gpt2lab.actions.train_settings import TrainingSettings
from gpt2lab.base.errors import LabError
from gpt2lab.base.settings import build
from gpt2lab.measures.labelled import Classification, Regression, TokenClassification
from gpt2lab.measures.prediction import embed, predict
from gpt2lab.model.task_heads import heads
from gpt2lab.runs.run_record import record
from gpt2lab.studies.resume import resume
from gpt2lab.text.encoding import padded
from gpt2lab.text.language_model import load

GOOD, BAD = ["fine", "great", "lovely"], ["awful", "poor", "dull"]


def rows(count: int, seed: int = 0) -> list[dict[str, object]]:
    """Texts of six words; the class is told by one of them, the number is the count of `very`."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        good = draw.random() < 0.5
        words = [draw.choice(["the", "film", "was", "very", "and"]) for _ in range(5)]
        words.insert(draw.randrange(6), draw.choice(GOOD if good else BAD))
        made.append(
            {
                "text": " ".join(words), "label": "good" if good else "bad", "very": words.count("very"),
                "words": words, "tags": ["B-MOOD" if w in GOOD + BAD else "O" for w in words],
                "marks": [name for name in ("film", "and") if name in words],
                "other": " ".join(reversed(words)),
            }
        )  # fmt: skip
    return made


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(120)))
    return path


def settings(data, **changes):
    usual = {
        "data": (str(data),), "d_model": 24, "n_layers": 1, "n_heads": 2, "context": 24, "tokenizer": "words",
        "batch_size": 16, "valid_fraction": 0.2, "device": "cpu", "train.steps": 60, "train.warmup": 4,
        "train.learning_rate": 1e-2, "train.evaluate_every": 20, "train.checkpoint_every": 10, "train.log_every": 10,
    }  # fmt: skip
    return build(TrainingSettings, usual | changes, "test")


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
def test_a_classifier_learns_and_its_folder_predicts(data, home, family):
    run = train_model(
        settings(data, family=family, **{"task.kind": "classification", "task.label": "label"}), home=home
    )
    assert run.results["accuracy"] > 0.9
    assert run.results["validation_examples"] == 24
    lm = load(run.folder / "model")
    head = heads(lm.model)["label"]
    assert head.labels == ("bad", "good")
    assert json.loads((run.folder / "model" / "config.json").read_text())["architectures"][0].endswith(
        "ForSequenceClassification"
    )
    told = predict(lm, ["the film was great", "the film was awful", ""])
    assert [one.label for one in told[:2]] == ["good", "bad"]
    assert sum(told[0].scores.values()) == pytest.approx(1.0)
    theirs = AutoModelForSequenceClassification.from_pretrained(run.folder / "model").eval()
    rows_of_ids = [
        lm.tokenizer.encode("the film was great", special=True),
        lm.tokenizer.encode("awful", special=True),
    ]
    ids, mask = padded(rows_of_ids, theirs.config.pad_token_id)
    with torch.no_grad():
        shares = theirs(input_ids=ids, attention_mask=mask.long()).logits.softmax(-1)
    expected = [list(one.scores.values()) for one in predict(lm, ["the film was great", "awful"])]
    assert shares.tolist() == [pytest.approx(row, abs=1e-5) for row in expected]
    found = record(run.row, home)
    assert "confusion_label" in found.tables and "confusion_label" in found.figures
    again = Classification(data=(str(data),), label=("label",), resamples=100)(lm)
    assert again["accuracy"] > 0.9 and again.about["truncated"] == 0


def test_the_classes_keep_their_shares_in_validation(data, home):
    run = train_model(settings(data, **{"task.kind": "classification", "task.label": "label"}), home=home)
    table = list(csv.DictReader((run.folder / "tables" / "confusion_label.csv").open()))
    counts = {row["true"]: sum(int(v) for k, v in row.items() if k != "true") for row in table}
    whole = [row["label"] for row in rows(120)]
    for label, count in counts.items():
        assert abs(count - 0.2 * whole.count(label)) <= 2


def test_regression_labels_of_words_and_several_heads_learn(data, home):
    number = train_model(
        settings(data, **{"task.kind": "regression", "task.label": "very", "train.steps": 120}), home=home
    )
    assert number.results["pearson"] > 0.8
    assert Regression(data=(str(data),), resamples=100)(load(number.folder / "model"))["pearson"] > 0.8
    tagged = train_model(
        settings(data, field="words", **{"task.kind": "tokens", "task.label": "tags"}), home=home
    )
    assert tagged.results["span_f1"] > 0.9
    lm = load(tagged.folder / "model")
    assert predict(lm, ["the film was awful"])[0].labels == ("O", "O", "O", "B-MOOD")
    assert (
        TokenClassification(data=(str(data),), field="words", label=("tags",), resamples=100)(lm)["span_f1"]
        > 0.9
    )
    several = train_model(
        settings(data, **{
            "task.kind": "classification", "task.label": "label", "task.others.very": "regression",
            "task.others.marks": "multilabel", "task.weights.very": "0.5", "task.pooling": "mean", "task.language": "0.1",
        }),
        home=home,
    )  # fmt: skip
    assert {"label.accuracy", "very.mse", "marks.macro_f1"} <= set(several.results)
    both = load(several.folder / "model")
    assert list(heads(both.model)) == ["label", "very", "marks"]
    assert predict(both, ["a great film and"], head="marks")[0].scores.keys() == {"and", "film"}


@pytest.mark.parametrize("kind", ["contrastive", "simcse"])
def test_vectors_learn(data, home, kind):
    given = {"task.kind": kind, "task.temperature": "0.1", "task.projection": "8"}
    given |= {"task.pair": "other"} if kind == "contrastive" else {"task.dropout": "0.1"}
    run = train_model(settings(data, **given), home=home)
    assert record(run.row, home).series("validation_loss")[1][-1] < 2.5
    assert embed(load(run.folder / "model"), ["the film", "was very fine"]).shape == (2, 8)


def test_stop_then_resume_ends_with_the_same_weights(data, home, monkeypatch):
    from gpt2lab.runs.run import Run

    given = settings(data, **{"task.kind": "classification", "task.label": "label", "task.dropout": 0.2})
    whole = train_model(given, home=home, name="whole")
    log = Run.log

    def interrupt(run, step, **numbers):
        log(run, step, **numbers)
        if step == 20:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Run, "log", interrupt)
    with pytest.raises(KeyboardInterrupt, match="go on with: gpt2lab resume"):
        train_model(given, home=home, name="stopped")
    monkeypatch.setattr(Run, "log", log)
    again = resume("stopped", home=home)
    a, b = (load(run.folder / "model").model.state_dict() for run in (whole, again))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_trained_head_goes_on_learning_with_its_own_labels(data, home, tmp_path):
    task = {"task.kind": "classification", "task.label": "label"}
    first = train_model(settings(data, **task), home=home)
    second = train_model(settings(data, model=str(first.folder / "model"), **task), home=home)
    assert second.results["accuracy"] > 0.9
    other = tmp_path / "new.jsonl"
    other.write_text("".join(json.dumps({**row, "label": "new"}) + "\n" for row in rows(9)))
    with pytest.raises(LabError, match="label 'new' is not among the head's"):
        train_model(
            settings(other, model=str(first.folder / "model"), **{**task, "task.valid": (str(data),)}),
            home=home,
        )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task.kind": "classification"}, "needs the field of the answer"),
        ({"task.kind": "classification", "task.label": "lable"}, "no field 'lable'; did you mean 'label'"),
        ({"task.kind": "contrastive"}, "task.pair: contrastive needs"),
        ({"task.label": "label"}, "reads no labels"),
        ({"task.kind": "regression", "task.label": "label"}, "should hold a number, found"),
        ({"task.kind": "classification", "task.label": "text2"}, "no field"),
        (
            {"task.kind": "classification", "task.label": "label", "task.weights.labl": "2"},
            "did you mean label",
        ),
        (
            {"task.kind": "classification", "task.label": "label", "task.others.very": "rank"},
            "no such kind of head",
        ),
    ],
)
def test_what_does_not_fit_is_a_sentence(data, home, changes, words):
    with pytest.raises(LabError, match=words):
        train_model(settings(data, **changes), home=home)


def test_one_class_alone_is_refused(data, home):
    data.write_text("".join(json.dumps({**row, "label": "good"}) + "\n" for row in rows(20)))
    with pytest.raises(LabError, match="only 'good'; it takes two classes"):
        train_model(settings(data, **{"task.kind": "classification", "task.label": "label"}), home=home)


def test_a_head_beside_adapters_trains_and_opens_again(data, home):
    task = {"task.kind": "classification", "task.label": "label"}
    base = train_model(settings(data, **{**task, "train.steps": 2, "train.warmup": 0}), home=home)
    given = {**task, "model": str(base.folder / "model"), "lora.rank": "2", "task.others.very": "regression"}
    run = train_model(settings(data, **given), home=home)
    lm = load(run.folder / "model")
    assert list(heads(lm.model)) == ["label", "very"]
    old = load(base.folder / "model").model.state_dict()
    assert torch.equal(lm.model.state_dict()["embedding.weight"], old["embedding.weight"]), "the base stays"
    assert run.results["label.accuracy"] > 0.5


@pytest.mark.parametrize(
    ("part", "kind", "field"),
    [
        ("training", "regression", "very"),
        ("validation", "regression", "very"),
        ("validation", "multilabel", "marks"),
        ("validation", "classification", "label"),
        ("validation", "tokens", "tags"),
    ],
)
def test_a_head_without_a_label_in_one_part_is_refused_before_training(
    part, kind, field, data, home, tmp_path
):
    """Such a head's loss would be 0: the best."""
    bare = tmp_path / "bare.jsonl"
    bare.write_text("".join(json.dumps({**row, field: None}) + "\n" for row in rows(20, seed=1)))
    given, valid = (bare, data) if part == "training" else (data, bare)
    asked = settings(
        given,
        field="words" if kind == "tokens" else "text",
        **{"task.kind": kind, "task.label": field, "task.valid": str(valid)},
    )
    with pytest.raises(LabError, match=rf"head {field}: none of the \d+ {part} rows has a label"):
        train_model(asked, home=home)


def test_one_of_several_numbers_without_a_label_is_named(data, home, tmp_path):
    half = tmp_path / "half.jsonl"
    half.write_text("".join(json.dumps({**row, "size": None}) + "\n" for row in rows(20)))
    asked = settings(half, **{"task.kind": "regression", "task.label": "very,size"})
    with pytest.raises(LabError, match="head label, number size: none of the 16 training rows has a label"):
        train_model(asked, home=home)


@pytest.mark.parametrize("kind", ["contrastive", "simcse"])
def test_contrastive_tasks_refuse_accumulation_before_any_data_is_read(kind, tmp_path):
    asked = {
        "task.kind": kind,
        "train.accumulation": 2,
        **({"task.pair": "b"} if kind == "contrastive" else {}),
    }
    with pytest.raises(LabError, match=r"^test: accumulation 2: the texts .* raise batch_size instead"):
        settings(tmp_path / "none.jsonl", **asked)


def test_a_limit_of_experts_refuses_accumulation_before_any_data_is_read(tmp_path):
    asked = {"experts": 3, "expert_capacity": 1.5, "train.accumulation": 2}
    with pytest.raises(LabError, match=r"^test: accumulation 2: which tokens an expert has room for"):
        settings(tmp_path / "none.jsonl", **asked)
