"""The train verb: a run with a model that opens, resumes to the same bits, and refuses what does not fit."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import gpt2lab
from gpt2lab.actions.train import train_model
from gpt2lab.actions.train_data import tokens, validation_of
from gpt2lab.actions.train_settings import TrainingSettings
from gpt2lab.base.errors import LabError
from gpt2lab.base.lease import Lease
from gpt2lab.base.settings import update
from gpt2lab.runs.run import Run
from gpt2lab.runs.run_record import record
from gpt2lab.runs.store import Row, Store
from gpt2lab.studies.resume import resume
from gpt2lab.text import tokenizer_files
from gpt2lab.text.language_model import load
from gpt2lab.text.tokenizer import byte_level
from gpt2lab.text.tokenizer_files import save_tokenizer
from gpt2lab.training import loop

WORDS = re.findall(
    r"\w+", "the a small old cat dog ship sea house ran saw found lost and but near under with it"
)


@pytest.fixture
def text(tmp_path):
    """Write a folder with forty short documents and return it."""
    draw = random.Random(0)
    folder = tmp_path / "text"
    folder.mkdir()
    for i in range(40):
        words = [draw.choice(WORDS) for _ in range(60)]
        (folder / f"{i:02}.txt").write_text(" ".join(words) + ".")
    return folder


def small(text, **changes):
    settings = TrainingSettings(
        data=(str(text),), d_model=16, n_layers=2, n_heads=2, context=16, vocab_size=300, batch_size=4,
        valid_fraction=0.2, evaluation_tokens=64, samples=2, device="cpu",
    )  # fmt: skip
    usual = {
        "train.steps": 6,
        "train.warmup": 2,
        "train.evaluate_every": 3,
        "train.checkpoint_every": 2,
        "train.log_every": 1,
    }
    return update(settings, usual | changes, "test")


def weights(run):
    return (run.folder / "model" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("family", ["gpt2", "gpt_neo", "gpt_neox", "llama", "mistral", "qwen2"])
def test_a_run_leaves_a_model_with_its_tokenizer_metrics_samples_and_a_report(text, home, family):
    run = train_model(small(text, family=family), home=home)
    lm = load(run.folder / "model")
    assert lm.config.family == family
    assert lm.tokenizer is not None
    assert lm.tokenizer.decode(lm.tokenizer.encode("the old cat")) == "the old cat"
    row = Store(home).find("train")
    assert (row.id, row.kind, row.status) == ("train-1", "train", "finished")
    assert {
        "validation_loss",
        "bits_per_byte",
        "perplexity",
        "loss",
        "tokens",
        "epochs",
        "parameters.total",
    } <= set(row.numbers)
    assert row.numbers["tokens"] == 6 * 4 * 16
    found = record(row, home)
    assert found.series("loss")[0] == [1, 2, 3, 4, 5, 6]
    assert found.series("validation_loss")[0] == [0, 3, 6], "before the first update too"
    assert found.texts["samples"].count("⟶") == 2
    assert (run.folder / "report.html").exists()


def test_a_new_model_gets_experts_and_the_log_says_how_even_their_load_is(text, home):
    changes = {"family": "llama", "experts": 4, "experts_per_token": 1, "train.accumulation": 2}
    run = train_model(small(text, **changes), home=home)
    config = load(run.folder / "model").config
    assert (config.family, config.n_experts, config.experts_per_token) == ("mixtral", 4, 1)
    assert config.balance_weight == 0.01
    balance = record(run.row, home).series("balance")[1]
    assert len(balance) == 6 and all(0.9 < value < 4 for value in balance)
    numbers = Store(home).find("train").numbers
    assert numbers["parameters.active"] < numbers["parameters.total"]


def test_the_same_settings_give_the_same_weights(text, home):
    assert weights(train_model(small(text), home=home)) == weights(train_model(small(text), home=home))
    assert weights(train_model(small(text, seed=1), home=home)) != weights(
        train_model(small(text), home=home)
    )


def test_the_validation_loss_does_not_depend_on_the_batch_size(text, home):
    first, second = (
        train_model(small(text, batch_size=size, **{"train.steps": 0, "train.warmup": 0}), home=home)
        for size in (1, 5)
    )

    losses = []
    for run, size in ((first, 1), (second, 5)):
        lm = load(run.folder / "model")
        settings = small(text, batch_size=size)
        losses.append(validation_of(lm, tokens(run, settings, lm), settings)()["validation_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_tokens_are_encoded_once_for_all_runs_on_the_same_data(text, home):
    for _ in range(2):
        train_model(small(text, tokenizer="bytes"), home=home)
    assert len(list((home / "tokens").iterdir())) == 1


@pytest.mark.parametrize("tokenizer", ["bytes", "words", "folder"])
def test_the_tokenizer_can_be_chosen(text, home, tmp_path, tokenizer):
    if tokenizer == "folder":
        save_tokenizer(byte_level(), tmp_path / "bytes")
    run = train_model(
        small(text, tokenizer=str(tmp_path / "bytes") if tokenizer == "folder" else tokenizer), home=home
    )
    made = load(run.folder / "model").tokenizer
    assert made.vocab_size == (257 if tokenizer != "words" else len(set(WORDS)) + 3)


def test_a_given_model_is_trained_further_with_its_own_tokenizer(text, home, monkeypatch):
    monkeypatch.setenv("GPT2LAB_HOME", str(home))
    first = train_model(small(text), name="base")
    second = train_model(small(text, model="base", **{"train.learning_rate": 0.0}), name="further")
    assert weights(first) == weights(second), "at rate 0 nothing moves, so it began from the given weights"
    third = train_model(small(text, model=str(first.folder / "model")), name="further")
    assert weights(third) != weights(first)
    assert (
        load(third.folder / "model").tokenizer.fingerprint
        == load(first.folder / "model").tokenizer.fingerprint
    )


def test_ctrl_c_then_resume_ends_with_the_weights_of_an_uninterrupted_run(text, home, monkeypatch):
    whole = train_model(small(text), home=home, name="whole")
    log = Run.log

    def interrupt_at_three(run, step, **numbers):
        log(run, step, **numbers)
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Run, "log", interrupt_at_three)
    with pytest.raises(
        KeyboardInterrupt, match=r"stopped at step 3 of 6.*go on with: gpt2lab resume stopped-1"
    ):
        train_model(small(text), home=home, name="stopped")
    monkeypatch.setattr(Run, "log", log)
    assert Store(home).find("stopped").status == "interrupted"
    again = resume("stopped", home=home)
    assert again.id == "stopped-1"
    assert weights(again) == weights(whole)
    assert record(again.row, home).series("loss") == record(whole.row, home).series("loss")
    assert Store(home).find("stopped").status == "finished"


def test_kill_9_then_resume_ends_with_the_weights_of_an_uninterrupted_run(text, home):
    changes = {"train.steps": 100, "train.checkpoint_every": 10, "train.evaluate_every": 0}
    whole = train_model(small(text, **changes), home=home, name="whole")
    code = (
        "import sys, torch; torch.set_num_threads(int(sys.argv[1]));"
        "from gpt2lab.actions.train import *; from gpt2lab.base.settings import from_plain; import json;"
        "train_model(from_plain(TrainingSettings, json.load(open(sys.argv[2]))), name='killed', home=sys.argv[3])"
    )
    path = os.pathsep.join([str(Path(gpt2lab.__file__).parents[1]), *sys.path])
    settings = str(whole.folder / "settings.json")
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(torch.get_num_threads()), settings, str(home)],
        env=os.environ | {"PYTHONPATH": path, "GPT2LAB_QUIET": "1"},
    )
    checkpoints = home / "killed-1" / "checkpoints"
    while process.poll() is None and len(list(checkpoints.glob("step-*"))) < 2:
        time.sleep(0.01)
    time.sleep(random.random() * 0.2)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was killed on the way"
    assert Store(home).find("killed").status == "interrupted"
    again = resume("killed", home=home)
    assert weights(again) == weights(whole)
    assert record(again.row, home).series("loss") == record(whole.row, home).series("loss")


@pytest.mark.parametrize("files", [0, 1, 2])
def test_a_tokenizer_that_was_being_written_when_the_process_died_is_made_again(
    text, home, monkeypatch, files
):
    whole = train_model(small(text), home=home, name="whole")
    left = [files]

    def dying(write):
        def dies(path, content, **options):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            write(path, content, **options)

        return dies

    with monkeypatch.context() as patched:
        for name in ("atomic_write", "write_json"):
            patched.setattr(tokenizer_files, name, dying(getattr(tokenizer_files, name)))
        with pytest.raises(KeyboardInterrupt):
            train_model(small(text), home=home, name="cut")
    assert weights(resume("cut", home=home)) == weights(whole)


def test_what_a_killed_run_left_in_its_folder_and_among_the_tokens_is_gone_after_resuming(text, home):
    run = train_model(small(text), home=home)
    Store(home).update(run.id, status="interrupted")
    left = [run.folder / ".model.abcd1234.tmp", run.checkpoints / ".step-00000004.abcd1234.tmp"]
    left += [home / "tokens" / ".0123456789abcdef.abcd1234.tmp"]
    for folder in left:
        folder.mkdir()
        (folder / "tensors.safetensors").write_bytes(b"half")
    left.append(home / "tokens" / ".0123456789abcdef.lock")
    left[-1].touch()
    resume("train", home=home)
    assert not [path for path in left if path.exists()]


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "SHA256SUMS"])
def test_a_tokenizer_that_was_damaged_is_named_and_made_again(text, home, file):
    run = train_model(small(text), home=home)
    Store(home).update(run.id, status="interrupted")
    path = run.folder / "tokenizer" / file
    path.write_bytes(path.read_bytes().replace(b"e", b"a", 1))
    with pytest.warns(UserWarning, match=r"train-1/tokenizer: damaged, .*; the tokenizer is made again"):
        again = resume("train", home=home)
    assert weights(again) == weights(run)


def test_a_run_that_died_before_its_first_file_is_resumed(text, home):
    whole = train_model(small(text), home=home, name="whole")
    plain = json.dumps(whole.record.json("settings.json"))
    _, lease = Store(home).add(Row(id="", name="cut", kind="train", settings=plain, seed=0))
    lease.release()  # as the death of its process does
    again = resume("cut", home=home)
    assert weights(again) == weights(whole)
    assert again.record.json("settings.json") == whole.record.json("settings.json")


@pytest.mark.parametrize("at", [5, 6])
def test_a_resumed_runs_record_is_that_of_an_undisturbed_one(text, home, monkeypatch, at):
    changes = {"train.steps": 6, "train.log_every": 2, "train.checkpoint_every": 3, "task.kind": "language"}
    whole = train_model(small(text, **changes), home=home, name="whole")
    save = loop.save_checkpoint

    def dies(folder, step, *rest):
        if step >= at:
            raise KeyboardInterrupt
        return save(folder, step, *rest)

    monkeypatch.setattr(loop, "save_checkpoint", dies)
    with pytest.raises(KeyboardInterrupt):
        train_model(small(text, **changes), home=home, name="cut")
    monkeypatch.setattr(loop, "save_checkpoint", save)
    again = resume("cut", home=home)
    timed = ("seconds", "tokens_per_second", "mfu")
    rows = [
        [{name: value for name, value in row.items() if name not in timed} for row in run.record.metrics]
        for run in (whole, again)
    ]
    assert rows[0] == rows[1]
    assert all(row["seconds"] >= 0 for row in again.record.metrics)
    results = [{k: v for k, v in run.results.items() if k not in timed} for run in (whole, again)]
    assert results[0] == results[1]
    assert again.results["tokens_per_second"] > 0


def test_death_between_the_last_update_and_the_report_costs_no_result(text, home, monkeypatch):
    whole = train_model(small(text), home=home, name="whole")

    def dies(run, lm):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "model", dies)
        with pytest.raises(KeyboardInterrupt):
            train_model(small(text), home=home, name="cut")
    again = resume("cut", home=home)
    assert again.results["loss"] == whole.results["loss"]
    assert again.results.keys() == whole.results.keys()


def test_the_command_of_a_run_names_what_differs_from_the_defaults(text, home):
    run = train_model(small(text, optimizer_options={}), home=home, name="tiny")
    assert run.row.command.startswith(
        f"gpt2lab train --data {text} --set valid_fraction=0.2 --set d_model=16"
    )
    assert "--set train.steps=6" in run.row.command
    assert "learning_rate" not in run.row.command
    assert run.row.command.endswith("--name tiny")


def test_a_papers_optimizer_gets_its_options_by_their_types(text, home, tide):
    (tide / "optimizer.py").write_text(
        "import torch\n"
        "class Tide(torch.optim.SGD):\n"
        "    def __init__(self, params, lr: float, *, period: int = 3, phases: tuple[float, float] = (0, 1)):\n"
        "        assert (period, phases) == (5, (0.5, 0.25))\n"
        "        super().__init__(params, lr=lr)\n"
    )
    sys.modules.pop("tide_papers.tide.optimizer", None)
    options = {"optimizer_options.period": "5", "optimizer_options.phases": "0.5,0.25"}
    train_model(small(text, optimizer="tide", **options), home=home)
    with pytest.raises(LabError, match=r"perod: no such option of tide; did you mean period\?"):
        train_model(small(text, optimizer="tide", **{"optimizer_options.perod": "5"}), home=home)
    with pytest.raises(LabError, match=r"optimizer_options\.period must be a whole number, got 'x'"):
        train_model(small(text, optimizer="tide", **{"optimizer_options.period": "x"}), home=home)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": ()}, "data: nothing to train on"),
        ({"data": ("no-such-file.txt",)}, "no-such-file.txt"),
        ({"context": 100_000}, "tokens, a window takes 100000 and one more"),
        ({"tokenizer": "nowhere/at-all"}, "nowhere/at-all"),
        ({"vocab_size": 10}, "vocab_size 10"),
        ({"optimizer": "adamv"}, r"adamv: no such optimizer; did you mean adamw\?"),
        ({"optimizer_options": {"beta": "1"}}, "adamw takes train.betas"),
        ({"n_heads": 3}, "3"),
        ({"device": "gpu"}, "gpu"),
        ({"experts": 2, "experts_per_token": 3}, "between 1 and experts 2, got 3"),
        ({"experts": -1}, "experts -1"),
        ({"experts": 2, "model": "train-1"}, "only a new model gets experts"),
    ],
)
def test_what_does_not_fit_is_a_sentence(text, home, changes, words):
    with pytest.raises(LabError, match=words):
        train_model(small(text, **changes), home=home)


@pytest.mark.parametrize("name", ["d_model", "context", "batch_size", "evaluation_tokens"])
def test_sizes_start_at_one(text, name):
    with pytest.raises(LabError, match=f"{name} must be at least 1, got 0"):
        small(text, **{name: 0})


def test_a_loss_that_is_not_finite_fails_the_run_with_the_reason(text, home):
    with pytest.raises(LabError, match=r"is (nan|inf) at step .* learning rate"):
        train_model(
            small(text, **{"train.learning_rate": 1e30, "train.clip": 0, "train.warmup": 0}), home=home
        )
    row = Store(home).find("train")
    assert row.status == "failed"
    assert "learning rate" in row.message


def test_only_what_was_stopped_is_resumed(text, home, tide):
    run = train_model(small(text), home=home)
    with pytest.raises(LabError, match="train-1: this run has finished; its model is in"):
        resume("train", home=home)
    Store(home).update(run.id, status="running")
    lease = Lease.claim(run.folder)
    with pytest.raises(LabError, match="train-1: still runs, as process"):
        resume("train", home=home)
    lease.release()


def test_data_that_changed_since_are_refused(text, home):
    run = train_model(small(text), home=home)
    Store(home).update(run.id, status="interrupted")
    (text / "00.txt").write_text("something else entirely, " * 20)
    with pytest.raises(LabError, match="train-1: the data have changed since this run began; train anew"):
        resume("train", home=home)


@pytest.mark.parametrize("note", [b"\xff\xfe", b"", b"0123"])
def test_a_damaged_note_of_the_data_and_damaged_settings_are_put_right(text, home, note):
    run = train_model(small(text), home=home)
    Store(home).update(run.id, status="interrupted")
    settings = (run.folder / "settings.json").read_bytes()
    (run.folder / "data.txt").write_bytes(note)
    (run.folder / "settings.json").write_text("{")
    with pytest.raises(LabError, match=r"data\.txt: damaged; if the data are as they were, delete"):
        resume("train", home=home)
    (run.folder / "data.txt").unlink()
    assert resume("train", home=home).row.status == "finished"
    assert (run.folder / "settings.json").read_bytes() == settings


def test_touching_the_data_does_not_forbid_to_resume(text, home):
    run = train_model(small(text), home=home)
    Store(home).update(run.id, status="interrupted")
    os.utime(text / "00.txt", (1, 1))
    assert weights(resume("train", home=home)) == weights(run)


def test_a_piece_is_resumed_with_its_study(home, tide):
    from gpt2lab.studies.study import reproduce

    study = reproduce("tide", scale="smoke", home=home)
    with pytest.raises(
        LabError, match="a piece of a study; go on with all of it: gpt2lab resume tide-smoke-1"
    ):
        resume(f"{study.id}/seed0", home=home)
    assert resume("tide-smoke", home=home).failures == []
