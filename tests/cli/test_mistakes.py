"""What goes wrong for a person is one sentence on stderr and exit status 2, never a traceback."""

import contextlib
import io
import shutil
from pathlib import Path
from typing import get_args

import pytest
import torch

from gpt2lab.actions.models import find_model, load
from gpt2lab.actions.train_settings import TrainingSettings
from gpt2lab.base.errors import LabError
from gpt2lab.base.settings import build
from gpt2lab.cli import parse
from gpt2lab.cli.show import Visible
from gpt2lab.model.task_heads import Kind, find_head
from tests.cli.conftest import SMALL, Lab


def _sentence(said: Lab, *words: str) -> str:
    done = said(*words)
    assert done.status == 2, done.out + done.err
    assert done.out == ""
    assert done.err.startswith("gpt2lab: ")
    assert done.err.count("\n") == 1
    return done.err.removeprefix("gpt2lab: ").strip()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("generate smal-1 hello", "did you mean the run small-1?"),
        ("generate no/such-model hello", "no/such-model: no such folder here, and the hub cannot be reached"),
        ("generate ./nowhere hello", "./nowhere: no such folder"),
        ("generate small-1 hello --max-new-tokens 500", "32 positions"),
        ("generate small-1 hello --set top_q=1", "top_q: no such option of generate with decoder greedy"),
        ("generate small-1 hello --set max_new_tokens=5", "--set max_new_tokens: no option of a decoder"),
        ("generate small-1 hello --set stream=1", "--set stream: no option of a decoder"),
        ("generate small-1 hello --decoder sampling --top-p 2", "top_p"),
        (
            "measure perplexity small-1 --seed 1",
            "measure perplexity draws nothing, so that no seed changes it",
        ),
        ("apply quantize small-1 --seed 1", "transform quantize draws nothing"),
        ("generate small-1 hello --top-p 0.9", "--top-p: no option of greedy, but of sampling"),
        ("generate small-1 hello --decoder sampling --beams 4", "choose the decoder with --decoder beam"),
        ("train --data tinyworld:10 --samples 2", "give it as --set samples=VALUE"),
        ("train --data tinyworld:10 --betas 0.9,0.9", "give it as --set train.betas=VALUE"),
        ("train --data tinyworld:10 --label a", "give it as --set task.label=VALUE"),
        ("help trian", "trian: no such verb; did you mean train?"),
        ("train --data tinyworld:10 --layers 2", "--layers: no such option; did you mean --n-layers?"),
        ("generate small-1 hello --decoder sampling --top-p x", "top_p must be a number"),
        ("generate small-1 hello --device quantum", "--device quantum: no such device"),
        ("generate small-1 hello --device cuda:7", "--device cuda:7: this machine has"),
        ("measure perplexity small-1 --data nosuch.txt", "nosuch.txt: no such file"),
        ("measure perplexity small-1 --window 64", "window 64 is longer than the model's 32 positions"),
        ("measure perplexity small-1 --strid 3", "did you mean --stride?"),
        (
            "measure perplexity small-1 --set lmit=3",
            "measure perplexity: no setting lmit; did you mean limit?",
        ),
        ("reproduce tinystory", "tinystory: no such paper; did you mean tinystories?"),
        ("reproduce vtrans", "vtrans is not built yet"),
        ("report nothing-1", "nothing-1: no such run"),
        ("compare small-1", "compare takes at least two different runs, got small-1"),
        ("resume small-1", "small-1: this run has finished"),
        ("train", "data: nothing to train on"),
        ("train --data nosuch.txt", "nosuch.txt: no such file"),
        ("train --data tinyworl:10", "did you mean tinyworld?"),
        ("train --data tinyworld:10 --steps many", "train: train.steps must be a whole number, got 'many'"),
        (
            "train --data tinyworld:10 --set train.stepz=3",
            "train: no setting train.stepz; did you mean train.steps?",
        ),
        ("train --data tinyworld:10 --optimizer adamv", "adamv: no such optimizer; did you mean adamw?"),
        (f"train --data tinyworld:10 --vocab-size {10**12}", "vocab_size must be at most 16,777,216"),
        (f"train --data tinyworld:10 --d-model {10**9}", "d_model must be at most 262,144"),
        (f"train --data tinyworld:10 --n-layers {10**6}", "n_layers must be at most 10,000"),
        (f"train --data tinyworld:10 --context {10**12}", "context must be at most 2,147,483,647"),
        (f"train --data tinyworld:10 --context {10**9} --d-model 16", "this machine has"),
        (f"train --data tinyworld:10 --batch-size {10**12}", "batch_size must be at most 1,048,576"),
        (f"train --data tinyworld:10 --batch-size {10**6}", "a micro-batch of 128,000,000 tokens takes"),
        (f"train --data tinyworld:10 --accumulation {10**12}", "accumulation must be at most 100,000"),
        (f"train --data tinyworld:10 --seed {10**30}", "seed must be a whole number below 2^63"),
        (f"train --data tinyworld:10 --steps {'9' * 5000}", "train.steps must be a whole number"),
        (
            f"generate small-1 hello --seed {10**30}",
            "--seed: must be a whole number of at least 0, below 2^63",
        ),
        (f"generate small-1 hello --decoder beam --beams {10**12}", "beams must be at most 1,024"),
        (f"reproduce conda --scale smoke --seeds {10**12}", "at most 1,000 seeds are run in one study"),
        (f"train --data tinyworld:{10**15}", "at most 10,000,000 stories at once"),
        (f"train --data tinyworld:10:{10**30}", "expected tinyworld:SIZE[:SEED] with whole numbers"),
        (f"runs --limit {10**30}", "--limit: must be a whole number of at least 0, below 2^63"),
        ("apply vtrans small-1", "vtrans is not built yet"),
        ("train --data tinyworld:10 --family gpt3", "family must be one of gpt2, gpt_neo"),
        ("train --data tinyworld:10 --d-model 10 --n-heads 3", "d_model 10 is not a multiple of n_heads 3"),
        ("train --data tinyworld:10 --name a/b", "the name of a run is made of letters"),
    ],
)
def test_a_wrong_word_is_named_with_what_would_be_right(line: str, sentence: str, said: Lab) -> None:
    assert sentence in _sentence(said, *line.split())


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained model that may be damaged."""
    return Path(shutil.copytree(trained / "small-1" / "model", tmp_path / "model"))


def test_a_truncated_checkpoint_is_named(copy: Path, said: Lab) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert f"{weights}: truncated or not a safetensors file" in _sentence(
        said, "generate", str(copy), "hello"
    )


def test_a_folder_without_model_and_a_file_are_named(tmp_path: Path, said: Lab) -> None:
    assert "no model here, config.json is missing" in _sentence(said, "generate", str(tmp_path), "hello")
    file = tmp_path / "weights.bin"
    file.write_bytes(b"x")
    assert "a file; a model is a folder" in _sentence(said, "generate", str(file), "hello")


def test_a_configuration_that_is_no_json_is_named(copy: Path, said: Lab) -> None:
    (copy / "config.json").write_text("{", encoding="utf-8")
    assert "config.json: not JSON, or cut off" in _sentence(said, "generate", str(copy), "hello")


def test_a_foreign_tokenizer_is_refused(copy: Path, said: Lab) -> None:
    from gpt2lab.text.tokenizer import word_level
    from gpt2lab.text.tokenizer_files import save_tokenizer

    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (copy / name).unlink(missing_ok=True)
    save_tokenizer(word_level([" ".join(f"word{i}" for i in range(2000))]), copy)
    assert "ids, the model only 300 rows" in _sentence(said, "generate", str(copy), "hello")


def test_a_model_without_tokenizer_cannot_take_text(copy: Path, said: Lab) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (copy / name).unlink(missing_ok=True)
    assert "tokenizer" in _sentence(said, "generate", str(copy), "hello")
    assert "tokenizer" in _sentence(said, "measure", "perplexity", str(copy), "--data", "tinyworld:20")


def test_a_store_that_is_something_else_is_named(
    tmp_path: Path, said: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store.sqlite").write_text("not a database at all, but long enough to be read as one" * 20)
    monkeypatch.setenv("GPT2LAB_HOME", str(tmp_path))
    assert "store.sqlite: damaged, or not a run store" in _sentence(said, "runs")
    asked = _sentence(said, "generate", "small-1", "hello")
    assert "whether it is a run cannot be told" in asked and "damaged, or not a run store" in asked


def test_no_store_yet_is_said(tmp_path: Path, said: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPT2LAB_HOME", str(tmp_path / "none"))
    assert "no such run" in _sentence(said, "report", "small-1")
    assert "no such run" in _sentence(said, "resume", "small-1")
    assert not (tmp_path / "none").exists()


def test_text_too_short_to_train_on_is_named(tmp_path: Path, said: Lab) -> None:
    (tmp_path / "short.txt").write_text("one day\n", encoding="utf-8")
    words = [word if word != "tinyworld:80" else str(tmp_path / "short.txt") for word in SMALL]
    assert _sentence(said, "train", *words)


def test_an_empty_file_is_named(tmp_path: Path, said: Lab) -> None:
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    assert "empty.txt" in _sentence(
        said, "measure", "perplexity", "small-1", "--data", str(tmp_path / "empty.txt")
    )


def test_a_loss_that_is_not_finite_stops_with_step_rate_and_checkpoint(said: Lab) -> None:
    sentence = _sentence(
        said, "train", *SMALL, "--name", "hot", "--learning-rate", "1e30", "--set", "train.clip=0"
    )
    assert "at step " in sentence
    assert "learning rate" in sentence
    assert "checkpoint" in sentence


@pytest.mark.parametrize("kind", get_args(Kind))
def test_the_training_that_a_missing_head_is_answered_with_is_one(kind: str, said: Lab) -> None:
    with pytest.raises(LabError, match="train one") as found:
        find_head(load(find_model("small-1")).model, kinds=(kind,))
    line = str(found.value).partition("train one: gpt2lab ")[2].split()
    _, arguments = parse(line)
    assert build(TrainingSettings, arguments.settings, "train").task.kind


def test_a_model_that_reads_out_classes_is_not_asked_to_write(said: Lab, tmp_path: Path) -> None:
    rows = [f"a good day {i},five" for i in range(30)] + [f"a bad day {i},one" for i in range(30)]
    (tmp_path / "rows.csv").write_text("text,stars\n" + "\n".join(rows), encoding="utf-8")
    task = ("--set", "task.kind=classification", "--set", "task.label=stars", "--name", "stars")
    data = ("train", "--data", str(tmp_path / "rows.csv"), "--model", "small-1", "--steps", "1")
    assert said(*data, *task).status == 0
    assert "trained for classification (stars), not to write text" in _sentence(
        said, "generate", "stars-1", "a"
    )
    assert said(*data, *task, "--set", "task.language=1").status == 0
    assert said("generate", "stars-2", "a", "--max-new-tokens", "2").status == 0


def test_help_before_a_verb_is_its_help(said: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("help", "train"), ("train", "--help")):
        with pytest.raises(SystemExit):
            said(*words)
    helped, asked = capsys.readouterr().out.split("usage:")[1:]
    assert helped == asked


def test_what_a_message_quotes_is_shown_and_not_obeyed_by_the_terminal(said: Lab) -> None:
    assert "\\x1b[2Jsmall" in _sentence(said, "generate", "\x1b[2Jsmall", "hello")


def test_a_terminal_gets_no_control_characters_of_anybodys_text() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    with contextlib.redirect_stdout(Visible(terminal)):
        print("a\x1b]0;title\x07b\n\tc")
    assert "a\\x1b]0;title\\x07b\n\tc\n" in terminal.getvalue() and "\x1b" not in terminal.getvalue()


def test_help_lists_the_options_of_the_parts_that_were_typed(
    said: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = ("--optimizer", "conda", "--architecture", "soft-prompt", "--objective", "simctg")
    with pytest.raises(SystemExit):
        said("train", *parts, "--help")
    told = capsys.readouterr().out
    assert "options of conda" in told and "optimizer_options.refresh=" in told
    assert "architecture_options.length=20" in told and "objective_options.margin=" in told


def test_a_scale_made_for_a_gpu_does_not_start_on_a_cpu_unasked(
    said: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "--scale gpu is made for a GPU, and this machine has none" in _sentence(
        said, "reproduce", "conda", "--scale", "gpu"
    )
    assert "--seed 4: --seed-list 1,2 says which" in _sentence(
        said, "reproduce", "conda", "--scale", "smoke", "--seed-list", "1,2", "--seed", "4"
    )
