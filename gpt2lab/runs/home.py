"""Where runs are kept, and what may go wrong with that place."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from gpt2lab.base.errors import LabError, shown
from gpt2lab.base.files import user_path

CHECKPOINT = re.compile(r"update-(\d+)")
"""Folder of the weights that a run keeps on the way, below its own, with the number of updates."""


def checkpoint_name(updates: int) -> str:
    """Return the name of the folder of the weights after so many updates."""
    return f"update-{updates}"


FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says where no space is left, on the disk or for this user."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+=-]*")
_LONGEST = 200  # characters: file systems take 255 bytes, with the ending and what a temporary name adds


def home_folder(home: Path | str | None = None) -> Path:
    """Return the folder of the runs: `home`, else $GPT2LAB_HOME, else ./runs."""
    return user_path(home or os.environ.get("GPT2LAB_HOME") or "runs")


def is_name(name: str) -> bool:
    """Whether it can be the name of a run, a table, a figure or a text, and so of a file."""
    return bool(_NAME.fullmatch(name)) and ".." not in name and len(name) <= _LONGEST


def check_name(name: str) -> None:
    """LabError unless `name` can be a run's name and a folder's."""
    if not is_name(name):
        raise LabError(
            f"{shown(name)}: the name of a run is made of letters, digits and . _ + = -, at most {_LONGEST}"
        )


def is_id(identity: str) -> bool:
    """Whether it can be the id of a run: names with / between, so that its folder lies below the home folder."""
    return ".." not in identity and all(_NAME.fullmatch(name) for name in identity.split("/"))


def make_folder(folder: Path) -> None:
    """Make a folder and its parents; LabError if that cannot be."""
    with written(folder, "this folder cannot be made"):
        folder.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def written(folder: Path, otherwise: str = "cannot be written") -> Iterator[None]:
    """Do what writes in a folder; LabError where the system lets nobody, or has no space."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise disk_full(folder) from error
        raise LabError(f"{folder}: {otherwise} ({error.strerror})") from error


class DiskFull(LabError):
    """No space is left where runs are kept."""


def disk_full(path: Path | str) -> DiskFull:
    """Build the error for a full disk."""
    return DiskFull(f"{path}: no space is left on this disk; free some, or choose another with GPT2LAB_HOME")
