"""What the store remembers of a run, and the same as a file of the run's folder."""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import atomic_write
from gpt2lab.base.json_files import read_object
from gpt2lab.base.json_numbers import decode_numbers, encode
from gpt2lab.runs.home import home_folder, is_id

KINDS = ("study", "seed", "arm", "train", "apply", "measure", "generate", "predict", "embed", "export")
MODELLESS = ("measure", "generate", "predict", "embed", "export")
"""Kinds of runs that make no model for others to work on."""
STATUSES = ("running", "finished", "failed", "interrupted", "missing", "damaged")
RECORD = "record.json"
"""File of a run's folder that holds its row: the store can be made again from these."""

_LARGEST = 64 * 2**20  # bytes of a record.json that is read


@dataclass(frozen=True)
class Row:
    """What the store remembers of a run. Times are UTC, ISO 8601."""

    id: str
    """Unique, readable, and the run's folder below the home folder: `tinystories-laptop-2/seed0/d64`."""
    name: str
    """What the user or the verb called it; the newest run of a name is found by it."""
    kind: str
    """One of KINDS."""
    paper: str | None = None
    """Slug."""
    scale: str | None = None
    """smoke, laptop, gpu or paper."""
    seed: int | None = None
    """The seed, where there is one."""
    arm: str | None = None
    """The arm of a study's seed."""
    status: str = "running"
    """running, finished, failed or interrupted; read from the store also missing (its folder) or damaged (its row)."""
    message: str = ""
    """Why it failed or stopped."""
    created: str = ""
    """When it began."""
    finished: str | None = None
    """When it ended."""
    seconds: float | None = None
    """How long its processes worked, each until it ended by itself; None while the first runs."""
    parent: str | None = None
    """Id of the run that it is a piece of."""
    origin: str | None = None
    """Id of the run that made the model it worked on."""
    settings: str = "{}"
    """JSON of the settings."""
    settings_hash: str = ""
    """Fingerprint of everything its numbers depend on; a study skips a piece that has finished under the same."""
    results: str = "{}"
    """JSON of the results."""
    command: str = ""
    """The command line that repeats it."""

    @cached_property
    def numbers(self) -> dict[str, float]:
        """The results by dotted name."""
        return decode_numbers(self.results)

    @property
    def repeat(self) -> str:
        """What repeats it, as words of a message: its command, where one was kept."""
        return f"run it again: {self.command}" if self.command else "run it again"

    def folder(self, home: Path | str | None = None) -> Path:
        """Return the run's folder."""
        return home_folder(home) / self.id

    @property
    def values(self) -> tuple[Any, ...]:
        """The columns, in order."""
        return tuple(getattr(self, name) for name in COLUMNS)

    @property
    def checksum(self) -> str:
        """What tells a whole row from a damaged one."""
        return checksum(self.values)

    def write(self, home: Path) -> None:
        """Write the row to the run's folder."""
        content = dict(zip(COLUMNS, self.values, strict=True)) | {"checksum": self.checksum}
        atomic_write(self.folder(home) / RECORD, encode(content, indent=1))

    @classmethod
    def read(cls, folder: Path, identity: str) -> Self:
        """Return the row that lies in a run's folder, under the id that its place gives it.

        LabError for a file that is not whole.
        """
        path = folder / RECORD
        fields = read_object(path, largest=_LARGEST)
        given = fields.pop("checksum", None)
        if set(fields) != set(COLUMNS):
            raise LabError(f"{path}: not written by this version of gpt2lab")
        if checksum([fields[name] for name in COLUMNS]) != given:
            raise LabError(f"{path}: damaged: it does not match its checksum")
        parent = identity.rpartition("/")[0] or None
        return cls(**(fields | {"id": identity, "parent": parent}))


COLUMNS = tuple(field.name for field in dataclasses.fields(Row))


def checksum(values: Sequence[Any]) -> str:
    """Return the fingerprint of a row's columns."""
    return hashlib.blake2b(
        "\x1f".join(map(str, values)).encode("utf-8", "replace"), digest_size=8
    ).hexdigest()


def is_whole(values: Sequence[Any], given: str) -> bool:
    """Whether columns match their checksum, and the id is one."""
    return checksum(values) == given and is_id(values[0])


def row_of(values: Sequence[Any], given: str) -> Row:
    """Return the row of columns from the store; of damaged ones what its id says, with the status `damaged`."""
    if is_whole(values, given):
        return Row(*values)
    fields = {name: str(value) for name, value in zip(COLUMNS, values, strict=True)}
    return Row(
        fields["id"],
        fields["name"],
        fields["kind"] if fields["kind"] in KINDS else "train",
        status="damaged",
        message="its row in the store is damaged; gpt2lab runs rebuild reads it again from its folder",
        created=fields["created"],
        parent=fields["id"].rpartition("/")[0] or None,
    )
