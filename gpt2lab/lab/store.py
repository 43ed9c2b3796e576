"""The store of runs: one SQLite file that several processes may write at once, beside the runs' folders."""

import contextlib
import dataclasses
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from gpt2lab.base.errors import LabError, nearest, unknown
from gpt2lab.lab.home import check_name, disk_full, home_folder, make_folder
from gpt2lab.lab.plain import decode_numbers, encode
from gpt2lab.lab.process import is_alive, this_process

SCHEMA_VERSION = 1
KINDS = ("study", "seed", "arm", "train", "apply", "measure", "generate")
STATUSES = ("running", "finished", "failed", "interrupted")

_APPLICATION_ID = 0x47324C42  # marks the file as ours among all SQLite files: "G2LB"
_LEAST_FREE = (
    1 << 17
)  # bytes; below it SQLite cannot make the files it works with, and calls that an I/O error
_PATIENCE = 30.0  # seconds to wait for another writer
_SCHEMA = """
CREATE TABLE runs (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, paper TEXT, scale TEXT, seed INTEGER, arm TEXT,
    status TEXT NOT NULL, message TEXT NOT NULL, created TEXT NOT NULL, finished TEXT, parent TEXT,
    settings TEXT NOT NULL, settings_hash TEXT NOT NULL, results TEXT NOT NULL, command TEXT NOT NULL,
    pid INTEGER, host TEXT, process_started TEXT
);
CREATE INDEX runs_by_name ON runs (name);
CREATE INDEX runs_by_parent ON runs (parent);
"""


@dataclass(frozen=True)
class Row:
    """What the store remembers of a run. Times are UTC, ISO 8601."""

    id: str
    """Unique, readable, and the run's folder below the home folder: `tinystories-laptop-2/seed0/d64`."""
    name: str
    """What the user or the verb called it; the newest run of a name is found by it."""
    kind: str
    """study, seed, arm, train, apply, measure or generate."""
    paper: str | None = None
    """Slug."""
    scale: str | None = None
    """smoke, laptop, gpu or paper."""
    seed: int | None = None
    """The seed, where there is one."""
    arm: str | None = None
    """The arm of a study's seed."""
    status: str = "running"
    """running, finished, failed or interrupted; a running run whose process is dead reads interrupted."""
    message: str = ""
    """Why it failed or stopped."""
    created: str = ""
    """When it began."""
    finished: str | None = None
    """When it ended."""
    parent: str | None = None
    """Id of the run that it is a piece of."""
    settings: str = "{}"
    """JSON of the settings."""
    settings_hash: str = ""
    """Fingerprint of everything its numbers depend on; a study skips a piece that has finished under the same."""
    results: str = "{}"
    """JSON of the results."""
    command: str = ""
    """The command line that repeats it."""
    pid: int | None = None
    """Process."""
    host: str | None = None
    """Machine of that process."""
    process_started: str | None = None
    """When that process began, in the system's own ticks: a process id is used again some day."""

    @cached_property
    def numbers(self) -> dict[str, float]:
        """The results by dotted name."""
        return decode_numbers(self.results)

    @property
    def seconds(self) -> float | None:
        """How long it took, None while it runs; 0 if the clock was put back so far that it ended before it began."""
        if not self.finished:
            return None
        took = datetime.fromisoformat(self.finished) - datetime.fromisoformat(self.created)
        return max(took.total_seconds(), 0.0)

    def folder(self, home: Path | str | None = None) -> Path:
        """Return the run's folder."""
        return home_folder(home) / self.id


_COLUMNS = tuple(field.name for field in dataclasses.fields(Row))


class Store:
    """The runs below one home folder. Every call opens the file anew, so a Store may cross processes.

    LabError if the file is no store, is damaged, is of a newer gpt2lab, or stays locked for 30 s.
    """

    def __init__(self, home: Path | str | None = None) -> None:
        self.home = home_folder(home)
        self.path = self.home / "store.sqlite"

    def add(self, row: Row) -> Row:
        """Insert a run under a fresh id and return it with id, times and process filled in.

        A piece of another run is `parent/id`; any other is `name-1`, `name-2`, ...
        """
        if row.kind not in KINDS:
            raise unknown("kind of run", row.kind, KINDS)
        check_name(row.name)
        with self._open(create=True) as connection, _transaction(connection):
            identity = row.id if row.parent else self._fresh_id(connection, row.name)
            row = dataclasses.replace(row, id=identity, created=now(), **this_process())
            marks = ", ".join("?" * len(_COLUMNS))
            try:
                connection.execute(f"INSERT INTO runs VALUES ({marks})", _values(row))
            except sqlite3.IntegrityError:
                raise LabError(f"{identity}: a run of this id is in {self.path} already") from None
        return row

    def update(self, identity: str, **columns: Any) -> None:
        """Set columns of one run. LabError if there is no such run."""
        assert set(columns) <= set(_COLUMNS) - {"id"}
        names = ", ".join(f"{name} = ?" for name in columns)
        with self._open() as connection, _transaction(connection):
            done = connection.execute(
                f"UPDATE runs SET {names} WHERE id = ?",  # names are columns, see the assertion
                (*columns.values(), identity),
            )
            if done.rowcount != 1:
                raise LabError(f"{identity}: no such run in {self.path}")

    def set_results(self, identity: str, results: Mapping[str, float]) -> None:
        """Replace a run's results."""
        self.update(identity, results=encode(results))

    def get(self, identity: str) -> Row | None:
        """Return the run of exactly this id, or None."""
        found = self._select("WHERE id = ?", (identity,))
        return found[0] if found else None

    def pieces(self, identity: str) -> list[Row]:
        """Return the runs that are pieces of a run, and pieces of pieces, oldest first."""
        inside = f"{identity}/"
        return self._select("WHERE substr(id, 1, ?) = ? ORDER BY rowid", (len(inside), inside))

    def rows(
        self,
        *,
        kind: str | None = None,
        paper: str | None = None,
        status: str | None = None,
        pieces: bool = False,
        limit: int | None = None,
    ) -> list[Row]:
        """Return the runs, newest first; the pieces of studies only on request.

        LabError for a kind or status that does not exist.
        """
        if kind is not None and kind not in KINDS:
            raise unknown("kind of run", kind, KINDS)
        if status is not None and status not in STATUSES:
            raise unknown("status of a run", status, STATUSES)
        wanted = {"kind": kind, "paper": paper}
        conditions = [f"{column} = ?" for column, value in wanted.items() if value is not None]
        if not pieces and kind not in ("seed", "arm"):
            conditions.append("parent IS NULL")
        where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
        values = tuple(value for value in wanted.values() if value is not None)
        found = self._select(f"{where}ORDER BY rowid DESC", values)
        return [row for row in found if status in (None, row.status)][:limit]

    def find(self, name: str) -> Row:
        """Return the run of this id, else the newest of this name, else the one whose id begins so.

        LabError if there is none, with the nearest, or if several begin so.
        """
        name = name.rstrip("/")
        exact = self.get(name)
        if exact is not None:
            return exact
        found = self._select("WHERE name = ? AND parent IS NULL ORDER BY rowid DESC LIMIT 1", (name,))
        if found:
            return found[0]
        level = "" if "/" in name else "AND parent IS NULL"
        begins = "substr(id, 1, ?) = ?"
        found = self._select(f"WHERE {begins} {level} ORDER BY rowid DESC LIMIT 9", (len(name), name))
        if len(found) == 1 and name:
            return found[0]
        if found:
            some = ", ".join(row.id for row in found[:8]) + (", ..." if len(found) > 8 else "")
            raise LabError(f"{name or 'an empty name'}: several runs begin so: {some}")
        known = [row.id for row in self._select("WHERE parent IS NULL ORDER BY rowid DESC LIMIT 1000", ())]
        if not known:
            raise LabError(f"{name}: no such run; {self.home} holds none yet (set GPT2LAB_HOME for another)")
        raise unknown("run", name, known) if len(known) < 9 else _no_such(name, known)

    # How the file is opened, read and checked.

    def _fresh_id(self, connection: sqlite3.Connection, name: str) -> str:
        """Return `name-N` for the first N that neither the store nor the disk has used."""
        taken = connection.execute("SELECT id FROM runs WHERE name = ? AND parent IS NULL", (name,))
        last = max((int(match[1]) for (one,) in taken if (match := re.search(r"-(\d+)$", one))), default=0)
        number = last + 1
        while (self.home / f"{name}-{number}").exists() or connection.execute(
            "SELECT 1 FROM runs WHERE id = ?", (f"{name}-{number}",)
        ).fetchone():
            number += 1
        return f"{name}-{number}"

    def _select(self, clause: str, values: tuple[object, ...]) -> list[Row]:
        if not self.path.exists():
            return []
        with self._open() as connection:
            found = connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM runs {clause}", values).fetchall()
        alive: dict[tuple[object, ...], bool] = {}
        return [_resolved(Row(*columns), alive) for columns in found]

    @contextlib.contextmanager
    def _open(self, create: bool = False) -> Iterator[sqlite3.Connection]:
        """Yield a checked connection; SQLite's errors leave as sentences."""
        if create:
            make_folder(self.home)
        elif not self.path.exists():
            raise LabError(f"{self.path}: there is no run store here yet")
        try:
            connection = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)
        except sqlite3.Error as error:
            raise self._sentence(error) from error
        try:
            self._check(connection)
            yield connection
        except sqlite3.Error as error:
            raise self._sentence(error) from error
        finally:
            connection.close()

    def _check(self, connection: sqlite3.Connection) -> None:
        """Refuse a file that is not a store this version can read; fill an empty one."""
        version, application = _pragma(connection, "user_version"), _pragma(connection, "application_id")
        if application == _APPLICATION_ID and version == SCHEMA_VERSION:
            return
        if application == _APPLICATION_ID and version > SCHEMA_VERSION:
            raise LabError(
                f"{self.path}: written by a newer gpt2lab (store version {version}, this one reads up to "
                f"{SCHEMA_VERSION}); update gpt2lab, or choose another folder with GPT2LAB_HOME"
            )
        if version != 0 or application != 0 or _tables(connection):
            # another process may just have filled it
            if _pragma(connection, "application_id") == _APPLICATION_ID:
                return
            raise LabError(
                f"{self.path}: an SQLite file, but not a run store of gpt2lab; move it away or choose another "
                "folder with GPT2LAB_HOME"
            )
        self._fill(connection)

    def _fill(self, connection: sqlite3.Connection) -> None:
        """Make the tables, once, whoever comes first."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                break
            except sqlite3.OperationalError as error:
                # changing the mode does not wait for other processes as writing does
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        with _transaction(connection):
            if not _tables(connection):
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _sentence(self, error: sqlite3.Error) -> LabError:
        text = str(error)
        if "locked" in text or "busy" in text:
            return LabError(
                f"{self.path}: another process has kept it locked for {_PATIENCE:.0f} s; try again"
            )
        if "full" in text or ("I/O error" in text and shutil.disk_usage(self.home).free < _LEAST_FREE):
            return disk_full(self.path)
        if any(words in text for words in ("readonly", "unable to open", "I/O error")):
            return LabError(f"{self.path}: cannot be used ({text}); choose another folder with GPT2LAB_HOME")
        return LabError(
            f"{self.path}: damaged, or not a run store ({text}); move it away and a new one is begun "
            "(the runs' folders stay as they are)"
        )


def now() -> str:
    """Return the time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _resolved(row: Row, alive: dict[tuple[object, ...], bool]) -> Row:
    """Return the row, `interrupted` if it says `running` of a process that is dead."""
    if row.status != "running":
        return row
    process = (row.pid, row.host, row.process_started)
    if process not in alive:
        alive[process] = is_alive(row.pid, row.host, row.process_started)
    if alive[process]:
        return row
    return dataclasses.replace(row, status="interrupted", message="its process ended without a word")


def _values(row: Row) -> tuple[object, ...]:
    return tuple(getattr(row, name) for name in _COLUMNS)


def _no_such(name: str, known: list[str]) -> LabError:
    match = nearest(name, known)
    hint = f"did you mean {match}?" if match else "`gpt2lab runs` lists them"
    return LabError(f"{name}: no such run; {hint}")


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Write under the lock from the first statement on, or not at all."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # a full disk has rolled back by itself
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _tables(connection: sqlite3.Connection) -> list[str]:
    return [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
