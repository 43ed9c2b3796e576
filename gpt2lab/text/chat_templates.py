"""The chat templates of a folder: in files of their own, or in tokenizer_config.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import atomic_write

_DEFAULT = "chat_template.jinja"
_OTHERS = "additional_chat_templates"
_OF_PROCESSOR = "chat_template.json"  # read by classes for several kinds of input; it is kept
_LARGEST = 2**20  # bytes; the longest in use has 20,000


def read_chat_templates(folder: Path) -> dict[str, str]:
    """Return the files that hold chat templates, by their path in the folder. LabError for one that is no text."""
    paths = [folder / _DEFAULT, folder / _OF_PROCESSOR, *sorted((folder / _OTHERS).glob("*.jinja"))]
    return {path.relative_to(folder).as_posix(): read_template(path) for path in paths if path.is_file()}


def write_chat_templates(files: Mapping[str, str], folder: Path) -> None:
    """Write the files that `read_chat_templates` returned."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / name, text)


def chat_templates(files: Mapping[str, str], settings: Mapping[str, Any]) -> dict[str, str]:
    """Return templates by name, as transformers finds them: files of their own count before tokenizer_config.json.

    The one without a name is "default".
    """
    found = {Path(name).stem: text for name, text in files.items() if name.startswith(f"{_OTHERS}/")}
    if _DEFAULT in files:
        found["default"] = files[_DEFAULT]
    listed = settings.get("chat_template")
    if found or listed is None:
        return found
    if isinstance(listed, str):
        return {"default": listed}
    if isinstance(listed, list):
        listed = {one.get("name"): one.get("template") for one in listed if isinstance(one, Mapping)}
    if not isinstance(listed, Mapping) or not all(
        isinstance(part, str) for pair in listed.items() for part in pair
    ):
        raise LabError("tokenizer_config.json: chat_template should be text, or texts by name")
    return dict(listed)


def read_template(path: Path) -> str:
    """Return the text of a file. LabError for one that is too large, cannot be read or is not UTF-8."""
    try:
        if (size := path.stat().st_size) > _LARGEST:
            raise LabError(
                f"{path}: {size:,} bytes of a chat template, more than the {_LARGEST:,} that are read"
            )
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise LabError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise LabError(f"{path}: not UTF-8 (byte {error.start})") from None
