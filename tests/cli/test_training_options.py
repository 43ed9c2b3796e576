"""Every setting of `train` is read by a training or refused: none is ignored."""

import json
from pathlib import Path

import pytest

import gpt2lab
from gpt2lab.actions.train_rules import RULES, refuse_unused, unused
from gpt2lab.actions.train_settings import TrainingSettings
from gpt2lab.base.errors import LabError
from gpt2lab.base.settings import build, options
from tests.cli.conftest import Lab

ALWAYS_READ = {
    *("data", "model", "context", "batch_size", "optimizer", "seed", "device"),
    *("objective", "objective_options", "optimizer_options"),  # refused by the settings themselves where without use
    *("lora", "quantize", "architecture", "architecture_options", "task.kind"),
    *("train.steps", "train.learning_rate", "train.schedule", "train.warmup", "train.weight_decay"),
    *("train.accumulation", "train.precision", "train.gradient_checkpointing", "train.compile"),
    *("train.evaluate_every", "train.evaluate_start", "train.checkpoint_every", "train.keep_last"),
    *("train.weight_decay_schedule", "train.privacy", "train.keep", "train.early_stopping"),
    *("train.best.number", "train.best.mode", "train.log_every"),
}  # fmt: skip

TASK = {"task.kind": "classification", "task.label": "stars"}
IGNORED = [
    *[(name, value, {"model": "m"}) for name, value in (
        ("d_model", "512"), ("family", "gpt2"), ("n_layers", "2"), ("n_heads", "2"), ("tokenizer", "bytes"),
        ("vocab_size", "300"), ("balance", "0.1"),
        ("expert_capacity", "2"),
    )],
    ("experts_per_token", "2", {}),
    ("balance", "0.1", {"family": "llama"}),
    ("expert_capacity", "2", {}),
    ("vocab_size", "300", {"tokenizer": "bytes"}),
    ("samples", "2", TASK),
    ("evaluation_tokens", "100", TASK),
    ("valid_fraction", "0.1", {**TASK, "task.valid": "v.csv"}),
    ("field", "body", {"objective": "dpo", "model": "m"}),
    ("train.betas", "0.9,0.99", {"optimizer": "lion"}),
    ("train.eps", "1e-6", {"optimizer": "conda"}),
    ("train.final_fraction", "0.5", {"train.schedule": "constant"}),
    ("train.laid_out", "9000", {"train.schedule": "constant"}),
    ("train.clip", "2", {"train.privacy.noise": "1"}),
    ("train.decay_fraction", "0.5", {"train.schedule": "cosine"}),
    ("task.valid", "v.csv", {}),
    ("task.pooling", "mean", {}),
    ("task.dropout", "0.1", {}),
    ("task.language_head", "true", {}),
    ("task.truncate", "left", {}),
    ("task.pair", "b", {"task.kind": "simcse"}),
    ("task.separator", "|", TASK),
    ("task.language", "0.5", {"task.kind": "simcse"}),
    ("task.class_weights", "balanced", {"task.kind": "regression", "task.label": "stars"}),
    ("task.smoothing", "0.1", {"task.kind": "regression", "task.label": "stars"}),
    ("task.align", "first", TASK),
    ("task.projection", "8", TASK),
    ("task.temperature", "0.1", TASK),
    ("task.query_prefix", "q: ", TASK),
    ("task.negatives", "n", {"task.kind": "simcse"}),
    ("task.group", "g", TASK),
    ("task.symmetric", "true", {"task.kind": "simcse"}),
    ("task.passage_prefix", "p: ", {"task.kind": "simcse"}),
]  # fmt: skip


def test_every_setting_has_a_rule_or_is_always_read() -> None:
    ruled = {name for rule in RULES for name in rule.names}
    assert ruled | ALWAYS_READ == {option.name for option in options(TrainingSettings)}
    assert not ruled & ALWAYS_READ


def test_each_rule_has_a_case_here() -> None:
    for rule in RULES:
        by_themselves = rule.names == ("task.weights", "task.others", "task.label")
        assert by_themselves or any(name in rule.names for name, _, _ in IGNORED), rule.names


@pytest.mark.parametrize("name", ["task.weights.a", "task.others.a", "task.label"])
def test_labels_of_a_training_that_reads_none_are_refused_by_the_settings(name: str) -> None:
    with pytest.raises(LabError, match="task"):
        build(TrainingSettings, {name: "1" if "weights" in name else "regression"}, "train")


@pytest.mark.parametrize(("name", "value", "others"), IGNORED)
def test_a_setting_that_would_be_ignored_is_refused_even_at_its_default(
    name: str, value: str, others: dict[str, str]
) -> None:
    settings = build(TrainingSettings, {**others, name: value}, "train")
    with pytest.raises(LabError, match=f"train: {name.replace('.', '[.]')} would be ignored: "):
        refuse_unused(settings, [*others, name])
    refuse_unused(settings, others)
    assert name in unused(settings)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("train --data tinyworld:9 --model SMALL --d-model 512", "d_model would be ignored: a given model has its own"),
        ("train --data tinyworld:9 --model SMALL --tokenizer bytes", "tokenizer would be ignored"),
        ("train --data tinyworld:9 --optimizer conda --set optimizer_options.rnk=3", "no such option of conda"),
        ("train --data tinyworld:9 --optimizer lion --set optimizer_options.betas=2,3", "betas must lie in [0, 1)"),
        ("train --data tinyworld:9 --steps 0", "steps must be at least 1"),
    ],
)  # fmt: skip
def test_a_mistake_is_found_before_any_data_is_read_and_leaves_no_run(
    line: str, sentence: str, said: Lab, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT2LAB_HOME", str(tmp_path / "runs"))
    done = said(*(str(trained / "small-1") if word == "SMALL" else word for word in line.split()))
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1), done.err
    assert sentence in done.err
    assert not (tmp_path / "runs" / "train-1").exists()


def test_a_run_keeps_and_reports_only_the_settings_that_it_read(said: Lab, trained: Path) -> None:
    done = said(
        "train", "--data", "tinyworld:80", "--model", "small-1", "--steps", "2", "--name", "tuned", "--json"
    )
    assert done.status == 0, done.err
    folder = trained / done.json["id"]
    kept = json.loads((folder / "settings.json").read_text())
    assert not {"d_model", "family", "n_layers", "vocab_size", "tokenizer", "balance"} & set(kept)
    assert "align" not in kept["task"] and "decay_fraction" not in kept["train"]
    assert kept["context"] == 32, "that of the model"
    assert "n_layers" not in (folder / "report.md").read_text()
    assert "vocab_size" in json.loads((trained / "small-1" / "settings.json").read_text())


def test_settings_objects_are_checked_by_what_differs_from_the_usual(tmp_path: Path) -> None:
    from gpt2lab.actions.train_settings import TaskSettings

    with pytest.raises(LabError, match=r"task\.dropout would be ignored"):
        gpt2lab.train(data="tinyworld:9", task=TaskSettings(dropout=0.5))
