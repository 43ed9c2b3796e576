"""--config FILE: what a verb takes, from a TOML file; flags and --set win; a mistake names file and key."""

import json
from pathlib import Path

import pytest

from gpt2lab.runs.store import Store
from tests.cli.conftest import Lab

TRAIN = """
data = ["tinyworld:80"]
d_model = 16
n-layers = 1
n_heads = 2
context = 32
vocab_size = 300
batch_size = 4
samples = 1
name = "filed"

[train]
steps = 6
schedule = "linear"
checkpoint_every = 2
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of settings."""
    (tmp_path / "train.toml").write_text(TRAIN)
    return tmp_path / "train.toml"


def test_a_training_is_that_of_its_file_unless_something_is_typed(
    said: Lab, trained: Path, file: Path
) -> None:
    done = said("train", "--config", str(file), "--steps", "4", "--set", "train.checkpoint_every=4", "--json")
    assert done.status == 0, done.err
    assert done.json["id"].startswith("filed-")
    settings = json.loads(Store(trained).find(done.json["id"]).settings)
    loop = settings["train"]
    assert (settings["d_model"], settings["n_layers"], settings["vocab_size"]) == (16, 1, 300)
    assert (loop["steps"], loop["schedule"], loop["checkpoint_every"]) == (4, "linear", 4)


def test_a_file_chooses_the_decoder_whose_options_it_gives(said: Lab, tmp_path: Path) -> None:
    (tmp_path / "g.toml").write_text(
        'decoder = "sampling"\ntop_p = 0.9\nseed = 1\nmax_new_tokens = 3\nstop = ["x"]'
    )
    words = ("generate", "small-1", "One day", "--json")
    filed = said(*words, "--config", str(tmp_path / "g.toml")).json
    flags = ("--decoder", "sampling", "--top-p", "0.9", "--seed", "1", "--max-new-tokens", "3", "--stop", "x")
    assert filed == said(*words, *flags).json
    assert (
        len(said(*words, "--config", str(tmp_path / "g.toml"), "--max-new-tokens", "2").json[0]["tokens"])
        <= 2
    )


def test_measure_and_apply_read_their_options_from_a_file(said: Lab, tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text('data = ["tinyworld:4"]\nlimit = 50\ndtype = "float64"')
    (tmp_path / "a.toml").write_text(f'bits = 8\nout = "{tmp_path / "small"}"')
    measured = said("measure", "perplexity", "small-1", "--config", str(tmp_path / "m.toml"), "--json")
    assert measured.json["about"]["tokens"] == 50
    assert said("apply", "quantize", "small-1", "--config", str(tmp_path / "a.toml")).status == 0
    assert (tmp_path / "small" / "config.json").is_file()


@pytest.mark.parametrize(
    ("line", "text", "sentence"),
    [
        ("train", "d_modell = 3", "no setting d_modell; did you mean d_model?"),
        ("train --data tinyworld:9", 'd_model = "wide"', "d_model must be a whole number, got 'wide'"),
        (
            "train --data tinyworld:9",
            "[train]\nstepz = 3",
            "no setting train.stepz; did you mean train.steps?",
        ),
        ("train --data tinyworld:9", "[train]\nsteps = 0", "steps must be at least 1"),
        ("train", "d_model = ", "no TOML"),
        ("measure perplexity small-1", "lmit = 3", "no setting lmit; did you mean limit?"),
        ("measure perplexity small-1", 'model = "x"', "model is no setting; it is given on the command line"),
        ("measure perplexity small-1", 'dtype = "float8"', "dtype must be one of float32, bfloat16"),
        ("generate small-1 a", 'seed = "one"', "seed must be a whole number of at least 0, got 'one'"),
        ("generate small-1 a", "max_new_tokens = [1, 2]", "max_new_tokens must be one value, got 2"),
        ("generate small-1 a", "json = 1", "json must be true or false, got 1"),
        ("generate small-1 a", "top_p = 0.9", "top_p: no such option of generate with decoder greedy"),
        ("apply quantize small-1", "bits = 9", "bits must be one of 2, 3, 4, 5, 6, 7, 8"),
        ("reproduce conda --scale smoke", "[workload]\nd_modl = 3", "no setting workload.d_modl"),
        ("predict small-1 a", "hed = 3", "hed: no such option; did you mean head?"),
    ],
)
def test_a_mistake_in_a_file_names_file_and_key(
    said: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, text: str, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.toml").write_text(text)
    done = said(*line.split(), "--config", "c.toml")
    assert done.status == 2 and done.err.count("\n") == 1
    assert done.err.startswith("gpt2lab: c.toml: ") and sentence in done.err, done.err


def test_what_is_typed_is_not_blamed_on_the_file(
    said: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.toml").write_text("bits = 4")
    assert said("apply", "quantize", "small-1", "--bits", "9", "--config", "c.toml").err.startswith(
        "gpt2lab: apply quantize: bits"
    )
    assert "nosuch.toml: cannot be read" in said("train", "--config", "nosuch.toml").err
