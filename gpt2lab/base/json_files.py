"""JSON and text that somebody else wrote: read within a stated size, every way to be broken answered by one sentence."""

import hashlib
import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import atomic_write

LARGEST = 256 * 2**20
"""Bytes of a JSON file that is read by default: six times the largest tokenizer.json in use (Gemma 3, 33 MB)."""

LARGEST_CONFIG = 16 * 2**20
"""Bytes of a config.json or an index that is read: ten times the longest in use (a class for each of a million labels)."""


def read_json(path: Path, *, largest: int = LARGEST) -> Any:
    """Return the content of a JSON file.

    LabError, beginning with the path, for a file that cannot be read, is larger than `largest` bytes, is not UTF-8, is
    not JSON or cut off, is nested too deeply, or holds a number of more than 4,300 digits.
    """
    return parse_json(_bytes(path, largest), str(path))


def read_text(path: Path, *, largest: int = LARGEST) -> str:
    """Return the text of a file, line ends as they are; LabError as for `read_json`."""
    try:
        return _bytes(path, largest).decode("utf-8")
    except UnicodeDecodeError as error:
        raise LabError(f"{path}: not UTF-8 (byte {error.start})") from None


def _bytes(path: Path, largest: int) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for
            raise LabError(f"{path}: not a regular file")
        if found.st_size > largest:
            raise LabError(f"{path}: {found.st_size:,} bytes, more than the {largest:,} that are read")
        return path.read_bytes()
    except OSError as error:
        raise LabError(f"{path}: cannot be read ({error.strerror or error})") from None


def write_json(path: Path, content: Any, *, sort_keys: bool = True, ensure_ascii: bool = True) -> None:
    """Write a JSON file for people to read, indented by two; it appears whole or not at all."""
    text = json.dumps(content, indent=2, sort_keys=sort_keys, ensure_ascii=ensure_ascii)
    atomic_write(path, text + "\n")


def parse_json(data: bytes | str, where: str) -> Any:
    """Return the content of JSON text; LabError, beginning with `where`, as for `read_json`."""
    size = len(data)
    try:
        return json.loads(data if isinstance(data, str) else data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise LabError(f"{where}: not UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise LabError(
            f"{where}: not JSON, or cut off: {error.msg} in line {error.lineno} ({size:,} bytes)"
        ) from None
    except RecursionError:
        raise LabError(f"{where}: JSON nested too deeply to be read") from None
    except ValueError as error:  # a whole number of more digits than Python converts
        raise LabError(f"{where}: {error}") from None


def read_object(path: Path, *, largest: int = LARGEST) -> dict[str, Any]:
    """Return the JSON object of a file; LabError as for `read_json`, and for any other kind of content."""
    content = read_json(path, largest=largest)
    if not isinstance(content, dict):
        raise LabError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def json_sha256(content: Any) -> str:
    """Return the SHA-256 (hex) of JSON's own values; the order of an object's names does not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object with its own checksum, so that `check_seal` knows it from a changed one."""
    return {**content, _SEAL: _checksum(content)}


def check_seal(content: Mapping[str, Any], where: str) -> None:
    """LabError, beginning with `where`, unless the object is as `sealed` gave it."""
    if content.get(_SEAL) != _checksum(content):
        raise LabError(f"{where}: damaged, or changed by hand: it does not match its checksum")


_SEAL = "checksum"


def _checksum(content: Mapping[str, Any]) -> str:
    return json_sha256({name: value for name, value in content.items() if name != _SEAL})
