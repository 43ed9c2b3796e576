"""Files that belong to a model and that the lab keeps as they are: what is read of them, others read elsewhere."""

from collections.abc import Mapping
from pathlib import Path

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import atomic_write
from gpt2lab.text.hub import SIDE_FILES

_LARGEST = 16 * 2**20
"""Bytes of one file; the largest in use are the matrices of a sentence encoder's `2_Dense`, 3 MB."""


def read_side_files(folder: Path) -> dict[str, bytes]:
    """Return the side files of a model's folder by path. LabError for one that is too large or cannot be read."""
    found: dict[str, bytes] = {}
    for pattern in SIDE_FILES:
        for path in sorted(folder.glob(pattern)):
            if path.is_file():
                found[path.relative_to(folder).as_posix()] = _content(path)
    return found


def write_side_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Write what `read_side_files` returned into another folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / name, content)


def _content(path: Path) -> bytes:
    try:
        if (size := path.stat().st_size) > _LARGEST:
            raise LabError(
                f"{path}: {size:,} bytes, more than the {_LARGEST:,} of a file that is kept beside a model; move it away"
            )
        return path.read_bytes()
    except OSError as error:
        raise LabError(f"{path}: cannot be read ({error.strerror or error})") from None
