"""Packages that announce papers of their own: found and described by files alone, so that none of their code runs.

Importing importlib.metadata takes a quarter of the time in which all papers must be listed, and one malformed
entry_points.txt of any package ends it; these files are short and read here.
"""

import importlib.machinery
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gpt2lab.base.errors import LabError

ENTRY_POINTS = "gpt2lab.papers"
"""The entry-point group."""

_FILES = ("*.dist-info/entry_points.txt", "*.egg-info/entry_points.txt")
_LARGEST = 2**20  # bytes of an entry_points.txt
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True)
class Announced:
    """A line of the group: the package that should hold a paper.toml, or what is wrong with the line."""

    name: str
    """Left of the equals sign; the file, where that cannot be told."""
    module: str = ""
    """Dotted path of the package."""
    mistake: str = ""
    """What makes the line useless; empty if nothing does."""

    def folder(self) -> Path:
        """Return the package's folder, found without importing anything. LabError for a mistake, and if there is none."""
        if self.mistake:
            raise LabError(self.mistake)
        place: list[str] | None = None
        whole = ""
        for name in self.module.split("."):
            whole = f"{whole}.{name}" if whole else name
            spec = _found(whole, place)
            if spec is None:
                raise LabError(f"there is no module {whole}")
            place = list(spec.submodule_search_locations or ())
        if not place:
            raise LabError(f"{self.module} is not a package")
        return Path(place[0])


def announced() -> list[Announced]:
    """Return what the installed packages announce, in the order of the names; of two installations, the first found."""
    lines = {line for path in _entry_points() for line in _lines(path)}
    return sorted(lines, key=lambda line: (line.name, line.module))


def _found(name: str, place: list[str] | None) -> importlib.machinery.ModuleSpec | None:
    """Ask every finder for a module; importlib's own question would import the packages around it."""
    for finder in sys.meta_path:
        spec = finder.find_spec(name, place)
        if spec is not None:
            return spec
    return None


def _entry_points() -> Iterator[Path]:
    """Yield the entry_points.txt of every installed package."""
    seen: set[str] = set()
    for place in dict.fromkeys(Path(entry or ".") for entry in sys.path):
        for path in (path for pattern in _FILES for path in place.glob(pattern)):
            package = path.parent.name.partition("-")[0]
            if package not in seen and path.is_file():
                seen.add(package)
                yield path


def _lines(path: Path) -> Iterator[Announced]:
    """Yield the lines of the group in one file. A file that does not speak of the group is nobody's concern here."""
    try:
        data = path.read_bytes() if path.stat().st_size <= _LARGEST else b""
    except OSError:
        return
    if f"[{ENTRY_POINTS}]".encode() not in data:
        return
    inside = False
    for line in map(str.strip, data.decode("utf-8", "replace").splitlines()):
        if line.startswith("["):
            inside = line == f"[{ENTRY_POINTS}]"
        elif inside and line and not line.startswith("#"):
            name, equals, module = (word.strip() for word in line.partition("="))
            if name and equals and _MODULE.fullmatch(module):
                yield Announced(name, module)
            else:
                right = "NAME = package.that.holds.the.paper"
                yield Announced(name or str(path), mistake=f"{path}: {line[:80]!r} is not {right}")
