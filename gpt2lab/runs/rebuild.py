"""The store made again, from the runs' folders and from what is whole in the old file."""

import contextlib
import json
import os
import sqlite3
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import atomic_file, locked
from gpt2lab.runs.database import READABLE, SCHEMA_VERSION, Database, fill_empty, insertion
from gpt2lab.runs.home import written
from gpt2lab.runs.row import COLUMNS, RECORD, Row, is_whole
from gpt2lab.runs.store import Store

_DEPTHS = ("*", "*/*", "*/*/*")  # a run, the seed of a study, the arm of a seed


@dataclass(frozen=True)
class Rebuilt:
    """What `rebuild` found."""

    read: int
    """Runs read from their folders."""
    kept: int
    """Runs that only the old store knew."""
    unread: tuple[str, ...]
    """A sentence for every folder whose record could not be read and whose row was not whole either."""
    aside: Path | None
    """Where the old file is, if it could not be kept."""


def rebuild(home: Path | str | None = None) -> Rebuilt:
    """Make the store again, in the order in which the runs began; what is whole is kept.

    A run's folder counts before the old store, because it is written first. A store of an older gpt2lab is brought up
    to date. LabError if there is no such folder or it cannot be written.
    """
    store = Store(home)
    if not store.home.is_dir():
        raise LabError(f"{store.home}: no such folder, so there are no runs to read")
    with written(store.home), locked(store.path):
        if _is_sound(store.database):
            with (
                store.database.writing() as connection
            ):  # before anything is read: nobody may add a run meanwhile
                found = _collect(store)
                connection.execute("DELETE FROM runs")
                _insert(connection, found.rows)
            aside = None
        else:
            found = _collect(store)
            try:
                aside = _replace(store.path, found.rows)
            except sqlite3.Error as error:
                raise store.database.sentence(error) from error
    return Rebuilt(len(found.rows) - found.kept, found.kept, found.unread, aside)


@dataclass(frozen=True)
class _Found:
    """What is whole, in the folders and in the old store."""

    rows: list[Row]
    kept: int
    unread: tuple[str, ...]


def _collect(store: Store) -> _Found:
    """Read everything; a run whose record is missing or damaged, but not its row, gets its record again."""
    old = _old_rows(store.path)
    records, broken = _records(store.home)
    only_old = old.keys() - records.keys()
    for identity in only_old:
        if (store.home / identity).is_dir():
            try:
                old[identity].write(store.home)
            except OSError as error:  # of one run, which the store has; the others matter more
                reason = error.strerror or error
                warnings.warn(f"{identity}: {RECORD} cannot be written again ({reason})", stacklevel=3)
    rows = sorted((old | records).values(), key=lambda row: (row.created, row.id))
    unread = tuple(sentence for identity, sentence in broken.items() if identity not in old)
    return _Found(rows, len(only_old), unread)


def _records(home: Path) -> tuple[dict[str, Row], dict[str, str]]:
    """Return the rows that lie in the folders by id, and by id a sentence for each that is damaged."""
    rows: dict[str, Row] = {}
    broken: dict[str, str] = {}
    for depth in _DEPTHS:
        found = (path.parent for name in (RECORD, "settings.json") for path in home.glob(f"{depth}/{name}"))
        for folder in sorted(set(found)):
            identity = folder.relative_to(home).as_posix()
            try:
                rows[identity] = Row.read(folder, identity)
            except LabError as error:
                broken[identity] = str(error)
    return rows, broken


def _old_rows(path: Path) -> dict[str, Row]:
    """Return by id the rows of a store that are whole, as many as can still be read of a damaged one."""
    rows: dict[str, Row] = {}
    if not path.exists():
        return rows
    for order in (
        "rowid",
        "rowid DESC",
    ):  # a damaged page ends a reading: what is behind it is read from the end
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as connection:
            connection.text_factory = READABLE
            connection.row_factory = sqlite3.Row
            for found in connection.execute(f"SELECT * FROM runs ORDER BY {order}"):
                if (row := _whole(dict(found))) is not None:
                    rows[row.id] = row
    return rows


def _whole(fields: Mapping[str, Any]) -> Row | None:
    """Return a row of this version, or of version 1, which had no checksums; None if it is damaged."""
    if "checksum" in fields:
        values: list[Any] = [fields.get(name) for name in COLUMNS]
        return Row(*values) if is_whole(values, fields["checksum"]) else None
    try:
        settings = json.loads(fields["settings"])
        seconds = _between(fields["created"], fields["finished"]) if fields["finished"] else None
        known = {name: fields[name] for name in COLUMNS if name in fields}
        row = Row(**known, seconds=seconds, origin=settings.get("origin"))
        row.numbers.values()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return row


def _between(began: str, ended: str) -> float:
    return max((datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds(), 0.0)


def _replace(path: Path, rows: list[Row]) -> Path | None:
    """Put a new store in the place of a damaged one, and return where that one is."""
    with atomic_file(path) as fresh:
        with contextlib.closing(sqlite3.connect(fresh, isolation_level=None)) as connection:
            fill_empty(connection)
            connection.execute("BEGIN")
            _insert(connection, rows)
            connection.execute("COMMIT")
        return _move_aside(path)


def _is_sound(database: Database) -> bool:
    """Tell whether a store of this version can be written into as it is. LabError if it cannot be looked at now."""
    path = database.path
    if not path.is_file() or not path.stat().st_size:
        return False
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=30.0)) as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            check = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            connection.execute(f"SELECT {', '.join(COLUMNS)}, checksum FROM runs LIMIT 1")
    except sqlite3.OperationalError as error:
        if "no such" in str(error):  # table or column
            return False
        raise database.sentence(error) from error  # locked, full, not to be written: nothing is wrong with it
    except sqlite3.DatabaseError:
        return False
    return version == SCHEMA_VERSION and check == "ok"


def _insert(connection: sqlite3.Connection, rows: list[Row]) -> None:
    connection.executemany(insertion(), ((*row.values, row.checksum) for row in rows))


def _move_aside(path: Path) -> Path | None:
    """Move a store and its log away; a log left there would be taken for the new store's."""
    aside = path.with_name(f"{path.name}.old")
    for ending in ("", "-wal"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}{ending}", f"{aside}{ending}")
    Path(f"{path}-shm").unlink(missing_ok=True)
    return aside if aside.exists() else None
