"""What a training run keeps of what it learns from, so that a resumed one learns from the same: tokenizer and a note."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import atomic_folder, check_sums, restore, write_sums
from gpt2lab.runs.run import Run
from gpt2lab.text.tokenizer import Tokenizer
from gpt2lab.text.tokenizer_files import load_tokenizer, save_tokenizer

_KEY = re.compile("[0-9a-f]{64}( [0-9a-f]{64})?")


def kept_tokenizer(run: Run, make: Callable[[], Tokenizer], *, again: bool) -> Tokenizer:
    """Return the tokenizer from the run's folder; `make` it first in a new run, or if it is missing or damaged there."""
    folder = run.folder / "tokenizer"
    restore(folder)
    if not (again and _is_whole(folder)):
        with atomic_folder(folder) as temporary:
            save_tokenizer(make(), temporary)
            write_sums(temporary)
    return load_tokenizer(folder)


def _is_whole(folder: Path) -> bool:
    """Tell whether a tokenizer is there and as it was written; a damaged one is named."""
    if not folder.exists():
        return False
    try:
        check_sums(folder)
    except LabError as error:
        warnings.warn(f"{error}; the tokenizer is made again", stacklevel=2)
        return False
    return True


def note_data(run: Run, key: str) -> None:
    """Note what the run's data and tokenizer are; LabError if they have changed since it began."""
    noted = run.folder / "data.txt"
    before = noted.read_bytes().decode("ascii", "replace") if noted.exists() else key
    if not _KEY.fullmatch(before):
        raise LabError(f"{noted}: damaged; if the data are as they were, delete this file and resume again")
    if before != key:
        raise LabError(
            f"{run.id}: the data have changed since this run began; train anew with: {run.row.command}"
        )
    run.write_file("data.txt", key)
