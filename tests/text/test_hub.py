from pathlib import Path

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.text import hub


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of a hub library that is told that there is no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "cache"


def cached(cache: Path, name: str) -> Path:
    snapshot = cache / f"models--{name.replace('/', '--')}" / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0123abcd")
    return snapshot


def test_an_existing_folder_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gpt2").mkdir()
    assert hub.resolve(tmp_path / "gpt2") == tmp_path / "gpt2"
    monkeypatch.chdir(tmp_path)
    assert hub.resolve("gpt2") == Path("gpt2")


def test_without_the_hub_a_cached_model_is_found_and_others_are_named(cache: Path) -> None:
    snapshot = cached(cache, "EleutherAI/pythia-70m")
    assert hub.resolve("EleutherAI/pythia-70m") == snapshot
    with pytest.raises(LabError) as error:
        hub.resolve("EleutherAI/pythia-160m")
    assert str(error.value) == (
        "EleutherAI/pythia-160m: no such folder here, and the hub cannot be reached; "
        "on this machine: EleutherAI/pythia-70m"
    )


def test_without_the_hub_and_a_cache_the_sentence_says_what_a_model_is(cache: Path) -> None:
    with pytest.raises(LabError) as error:
        hub.resolve("gpt2")
    assert str(error.value) == (
        "gpt2: no such folder here, and the hub cannot be reached; "
        "give a folder with config.json, *.safetensors and tokenizer.json"
    )


def test_paths_are_never_sent_to_the_hub(tmp_path: Path) -> None:
    (tmp_path / "runs" / "stories").mkdir(parents=True)
    (tmp_path / "runs" / "stories" / "config.json").write_text("{}")
    for name in ("./storis", f"{tmp_path}/runs/storis", "a/b/c", "../x"):
        with pytest.raises(LabError, match="no such folder"):
            hub.resolve(name)
    with pytest.raises(LabError, match=r"did you mean .*runs/stories\?"):
        hub.resolve(tmp_path / "runs" / "storis")
    with pytest.raises(LabError, match="does not exist either"):
        hub.resolve(tmp_path / "no" / "where")


@pytest.mark.parametrize(
    "name", ["owner/model-GGUF/model.Q4_K_M.gguf", "owner/model-GGUF/Q8/model-00001-of-00003.gguf"]
)
def test_a_file_of_the_hub_is_refused_with_what_fetches_it(cache: Path, name: str) -> None:
    with pytest.raises(LabError) as error:
        hub.resolve(name)
    repository, file = "owner/model-GGUF", name.removeprefix("owner/model-GGUF/")
    assert str(error.value) == (
        f"{name}: no such file here, and of the hub no single file is read; fetch it (hf download {repository} {file}) and "
        "give its path"
    )


def test_only_json_safetensors_and_tokenizer_files_are_fetched() -> None:
    assert not any(name.endswith((".bin", ".pt", ".py", ".pkl")) for name in hub.MODEL_FILES)


def test_a_model_whose_replacement_died_half_way_is_found(tmp_path: Path) -> None:
    (tmp_path / ".model.old-17").mkdir()
    (tmp_path / ".model.old-17" / "config.json").write_text("{}")
    assert hub.resolve(tmp_path / "model") == tmp_path / "model"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
