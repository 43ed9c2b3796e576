"""A folder of data that was made here: it holds a manifest, by which it is known and may be written anew."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import check_place, user_path
from gpt2lab.base.json_files import read_object

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Written:
    """What was written: a file, or a folder with its manifest."""

    path: Path
    """The file or the folder."""
    size: int
    """Bytes."""
    documents: int | None = None
    """Documents of the file; what a folder holds its manifest says."""
    manifest: Mapping[str, object] = field(default_factory=dict)
    """Of a folder: what it was made of, and what became of it."""


def refuse_foreign(folder: Path, what: str) -> None:
    """LabError if no folder can be put there, or it holds something that has no manifest; what: `corpus`."""
    check_place(folder)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise LabError(f"{folder}: holds something that is no {what}; give another folder")


def read_manifest(folder: Path | str) -> dict[str, object]:
    """Return the manifest of a folder. LabError if it has none."""
    path = user_path(folder) / MANIFEST
    if not path.is_file():
        raise LabError(f"{folder}: no data that gpt2lab has written; it has no {MANIFEST}")
    return read_object(path)
