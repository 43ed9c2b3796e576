import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2lab.base.errors import LabError
from gpt2lab.model import hub

ROOT = Path(__file__).parents[2]


def offline(code: str, cwd: Path, cache: Path) -> str:
    """Run code in a process whose hub library is told that there is no network."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True
    )
    return run.stdout.strip() + run.stderr.strip()


CODE = """
from gpt2lab.base.errors import LabError
from gpt2lab.model.hub import resolve
try:
    print(resolve({name!r}))
except LabError as error:
    print(error)
"""


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


def test_without_the_hub_a_cached_model_is_found_and_others_are_named(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    snapshot = cached(cache, "EleutherAI/pythia-70m")
    assert offline(CODE.format(name="EleutherAI/pythia-70m"), tmp_path, cache) == str(snapshot)
    message = offline(CODE.format(name="EleutherAI/pythia-160m"), tmp_path, cache)
    assert message == (
        "EleutherAI/pythia-160m: no such folder here, and the hub cannot be reached; "
        "on this machine: EleutherAI/pythia-70m"
    )


def test_without_the_hub_and_a_cache_the_sentence_says_what_a_model_is(tmp_path: Path) -> None:
    message = offline(CODE.format(name="gpt2"), tmp_path, tmp_path / "none")
    assert message == (
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


def test_only_json_safetensors_and_tokenizer_files_are_fetched() -> None:
    assert not any(name.endswith((".bin", ".pt", ".py", ".pkl")) for name in hub.MODEL_FILES)
