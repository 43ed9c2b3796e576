"""What a study says of itself first: `head.json` in its folder, where the experiment gave words or a figure of its own."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from gpt2lab.base import json_files
from gpt2lab.base.errors import LabError
from gpt2lab.base.json_numbers import encode

HEAD = "head.json"


@dataclass(frozen=True)
class Head:
    """Three sentences and the name of a figure; what is empty is made from the claims and their verdicts."""

    asked: str = ""
    """What was asked."""
    found: str = ""
    """What was found."""
    means: str = ""
    """What it means."""
    figure: str = ""
    """Name of one of the study's figures."""


def write_head(head: Head) -> str:
    """Return the content of `head.json`."""
    return encode(dataclasses.asdict(head), indent=2)


def read_head(folder: Path) -> Head:
    """Read a study's `head.json`; an empty one where there is none. LabError if it is damaged."""
    path = folder / HEAD
    if not path.exists():
        return Head()
    content = json_files.read_json(path)
    names = [field.name for field in dataclasses.fields(Head)]
    if not isinstance(content, dict) or not all(isinstance(content.get(name), str) for name in names):
        raise LabError(f"{path}: must hold the texts {', '.join(names)}")
    return Head(**{name: content[name] for name in names})
