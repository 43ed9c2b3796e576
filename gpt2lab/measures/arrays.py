"""Arrays of numbers as `.npy` files: whole or not at all, never with pickle."""

import hashlib
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt2lab.base.errors import LabError

Array = NDArray[Any]

FILE_NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_.+=-]{0,149}", re.ASCII)
"""What an array or a file of a measurement may be called, on every system."""


def number_array(name: str, values: Any) -> Array:
    """Return `values` as an array of numbers or truth values. LabError for anything else: it would need pickle."""
    array = np.asarray(values)
    if array.dtype.kind not in "biufc":
        raise LabError(f"array {name}: must hold numbers or truth values, not {array.dtype}")
    return array


def npy_bytes(array: Array) -> bytes:
    """Return an array as the content of a `.npy` file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def read_npy(path: Path) -> Array:
    """Return the array of a `.npy` file, read from the disk as it is used. LabError for a damaged or missing file."""
    try:
        found = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise LabError(f"{path}: this is no array of numbers ({error})") from None
    return number_array(path.name, found)


def array_sha256(array: Array) -> str:
    """Return the checksum of an array's `.npy` file."""
    return hashlib.sha256(npy_bytes(array)).hexdigest()
