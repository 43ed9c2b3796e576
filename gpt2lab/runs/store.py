"""The store of runs: one SQLite file that several processes may write at once, beside the runs' folders."""

import contextlib
import dataclasses
import os
import re
import shutil
import sqlite3
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gpt2lab.base.errors import LabError, nearest, unknown
from gpt2lab.base.files import discard
from gpt2lab.base.json_numbers import encode
from gpt2lab.base.lease import Lease, LeaseHeld, holder_of
from gpt2lab.runs.database import Database, insertion
from gpt2lab.runs.home import DiskFull, check_name, home_folder, is_id, make_folder, written
from gpt2lab.runs.row import COLUMNS, KINDS, MODELLESS, STATUSES, Row, row_of

__all__ = ["KINDS", "STATUSES", "Row", "Store", "now"]

_LAST = "\U0010ffff"  # sorts behind every character of a name


class Store:
    """The runs below one home folder; a Store may cross processes.

    LabError as for `gpt2lab.runs.database.Database`. What can only be read is read.
    """

    def __init__(self, home: Path | str | None = None) -> None:
        self.home = home_folder(home)
        self.path = self.home / "store.sqlite"
        self.database = Database(self.path)

    def add(self, row: Row) -> tuple[Row, Lease]:
        """Begin a run: its folder with the lease of this process, its row with a fresh id and the time.

        A piece of another run is `parent/id`; any other is `name-1`, `name-2`, ...
        """
        if row.kind not in KINDS:
            raise unknown("kind of run", row.kind, KINDS)
        check_name(row.name)
        lease: Lease | None = None
        try:
            with self.database.writing() as connection:
                identity = row.id if row.parent else self._fresh_id(connection, row.name)
                row = dataclasses.replace(row, id=identity, created=now())
                try:
                    connection.execute(insertion(), (*row.values, row.checksum))
                except sqlite3.IntegrityError:
                    raise LabError(f"{identity}: a run of this id is in {self.path} already") from None
                make_folder(row.folder(self.home))
                with written(row.folder(self.home)):
                    lease = Lease.claim(row.folder(self.home))
                row.write(self.home)
        except BaseException:
            if lease is not None:  # a run without a row must not use up a number
                lease.release()
                if row.parent is None:
                    shutil.rmtree(row.folder(self.home), ignore_errors=True)
            raise
        return row, lease

    def claim(self, row: Row, *, take_over: bool = False, patience: float = 0.0) -> tuple[Row, Lease]:
        """Take up a run that was stopped, as `row` said when it was read; return it as running, with its lease.

        take_over, patience: see `Lease.claim`. LabError if another process runs it, or has run it since.
        """
        folder = row.folder(self.home)
        if row.parent is not None:
            make_folder(folder)  # a study makes a piece again whose folder is gone
        try:
            with written(folder):
                lease = Lease.claim(folder, take_over=take_over, patience=patience)
        except LeaseHeld as held:
            _, _, who = str(held).partition(": in use by ")
            raise LabError(
                f"{row.id}: still runs, as {who}; if that is not so, gpt2lab resume {row.id} --take-over"
            ) from None
        try:
            fresh = self._stored(row.id)
            known = ("running", row.status)  # what was stopped without a word is written as running
            if fresh is None or fresh.status not in known or fresh.finished != row.finished:
                state = fresh.status if fresh is not None else "deleted"
                raise LabError(f"{row.id}: another process has taken it up meanwhile; now it is {state}")
            self.update(row.id, status="running", message="", finished=None)
        except BaseException:
            lease.release()
            raise
        fresh = self.get(row.id)
        assert fresh is not None
        return fresh, lease

    def update(self, identity: str, **columns: Any) -> None:
        """Set columns of one run, in its folder and in the store. LabError if there is no such run."""
        assert set(columns) <= set(COLUMNS) - {"id"}
        with self.database.writing() as connection:
            found = connection.execute(_SELECT + "WHERE id = ?", (identity,)).fetchone()
            if found is None:
                raise LabError(f"{identity}: no such run in {self.path}")
            row = dataclasses.replace(row_of(found[:-1], found[-1]), **columns)
            row.write(self.home)
            names = ", ".join(f"{name} = ?" for name in COLUMNS)
            connection.execute(
                f"UPDATE runs SET {names}, checksum = ? WHERE id = ?", (*row.values, row.checksum, identity)
            )

    def set_results(self, identity: str, results: Mapping[str, float]) -> None:
        """Replace a run's results."""
        self.update(identity, results=encode(results))

    def remove(self, identity: str) -> list[str]:
        """Delete a run with its pieces: folder and rows; return the ids.

        The folder loses its name first, so that whoever is killed here leaves no half of a run; `gpt2lab runs clean`
        takes away what is left then.
        """
        with contextlib.suppress(DiskFull), self.database.writing() as connection:
            # Where the row cannot be deleted, its folder stays too; but from a full disk it is deleted to make room.
            connection.execute("UPDATE runs SET status = status WHERE id = ?", (identity,))
        if is_id(identity):  # a damaged row must not lead to a folder elsewhere
            discard(self.home / identity)
        inside = (identity, f"{identity}/", f"{identity}/{_LAST}")
        with self.database.writing() as connection:
            where = "WHERE id = ? OR (id > ? AND id < ?)"
            gone = [one for (one,) in connection.execute(f"SELECT id FROM runs {where}", inside)]
            connection.execute(f"DELETE FROM runs {where}", inside)
        return gone

    def get(self, identity: str) -> Row | None:
        """Return the run of exactly this id, or None."""
        found = self._select("WHERE id = ?", (identity,))
        return found[0] if found else None

    def pieces(self, identity: str) -> list[Row]:
        """Return the runs that are pieces of a run, and pieces of pieces, oldest first."""
        return self._select(
            "WHERE id > ? AND id < ? ORDER BY created, rowid", (f"{identity}/", f"{identity}/{_LAST}")
        )

    def rows(
        self,
        *,
        kind: str | None = None,
        paper: str | None = None,
        status: str | None = None,
        origins: Collection[str] | None = None,
        without: Collection[str] = (),
        pieces: bool = False,
        limit: int | None = None,
    ) -> list[Row]:
        """Return the runs, newest first; the pieces of studies only on request.

        origins: only runs that worked on the models of these. without: kinds that are left out. No more rows are read
        than `limit`. LabError for a kind or status that does not exist.
        """
        if status is not None and status not in STATUSES:
            raise unknown("status of a run", status, STATUSES)
        where, values = _conditions(kind, paper, origins, without, pieces)
        return self._select(f"{where} ORDER BY rowid DESC", values, status=status, limit=limit)

    def built_on(self, identity: str) -> list[str]:
        """Return the ids of the runs that made a model from that of a run, or of its pieces."""
        query = (
            f"SELECT id FROM runs WHERE kind NOT IN ({_marks(MODELLESS)}) "
            "AND (origin = ? OR origin > ? AND origin < ?)"
        )
        values = (*MODELLESS, identity, f"{identity}/", f"{identity}/{_LAST}")
        with self.database.reading() as connection:
            found = connection.execute(query, values)
            return [one for (one,) in found]

    def count(self, *, kind: str | None = None, without: Collection[str] = (), pieces: bool = False) -> int:
        """Return how many runs `rows` would return without a limit."""
        where, values = _conditions(kind, None, None, without, pieces)
        if not self.database.exists():
            return 0
        with self.database.reading() as connection:
            found: int = connection.execute(f"SELECT COUNT(*) FROM runs {where}", values).fetchone()[0]
        return found

    def find(self, name: str) -> Row:
        """Return the run of this id, else the newest of this name, else the one whose id begins so.

        LabError if there is none, with the nearest, or if several begin so.
        """
        name = name.rstrip("/").encode("utf-8", "replace").decode()  # SQLite takes no halves of characters
        exact = self.get(name)
        if exact is not None:
            return exact
        found = self._select("WHERE name = ? AND parent IS NULL ORDER BY rowid DESC", (name,), limit=1)
        if found:
            return found[0]
        level = "" if "/" in name else "AND parent IS NULL"
        begins = "id >= ? AND id < ?"
        found = self._select(f"WHERE {begins} {level} ORDER BY rowid DESC", (name, name + _LAST), limit=9)
        if len(found) == 1 and name:
            return found[0]
        if found:
            some = ", ".join(row.id for row in found[:8]) + (", ..." if len(found) > 8 else "")
            raise LabError(f"{name or 'an empty name'}: several runs begin so: {some}")
        known = self._ids(limit=1000)
        if not known:
            raise LabError(f"{name}: no such run; {self.home} holds none yet (set GPT2LAB_HOME for another)")
        raise unknown("run", name, known) if len(known) < 9 else _no_such(name, known)

    # How rows are read.

    def _fresh_id(self, connection: sqlite3.Connection, name: str) -> str:
        """Return `name-N` for the first N behind all that store, disk and the chains of models know."""
        taken = connection.execute(
            "SELECT id FROM runs WHERE name = ? AND parent IS NULL UNION SELECT DISTINCT origin FROM runs "
            "WHERE origin >= ? AND origin < ?",
            (name, f"{name}-", f"{name}-{_LAST}"),
        )
        numbers = (re.fullmatch(rf"{re.escape(name)}-(\d+)", one) for (one,) in taken)
        number = max((int(match[1]) for match in numbers if match), default=0) + 1
        while (self.home / f"{name}-{number}").exists() or connection.execute(
            "SELECT 1 FROM runs WHERE id = ?", (f"{name}-{number}",)
        ).fetchone():
            number += 1
        return f"{name}-{number}"

    def _ids(self, limit: int) -> list[str]:
        if not self.database.exists():
            return []
        query = "SELECT id FROM runs WHERE parent IS NULL ORDER BY rowid DESC LIMIT ?"
        with self.database.reading() as connection:
            return [one for (one,) in connection.execute(query, (limit,))]

    def _stored(self, identity: str) -> Row | None:
        """Return a row as it is written, whatever became of its process."""
        with self.database.reading() as connection:
            found = connection.execute(_SELECT + "WHERE id = ?", (identity,)).fetchone()
        return row_of(found[:-1], found[-1]) if found else None

    def _select(
        self, clause: str, values: tuple[object, ...], *, status: str | None = None, limit: int | None = None
    ) -> list[Row]:
        if not self.database.exists():
            return []
        rows: list[Row] = []
        with self.database.reading() as connection:
            for columns in connection.execute(_SELECT + clause, values):
                if limit is not None and len(rows) >= limit:
                    break
                row = self._resolved(row_of(columns[:-1], columns[-1]))
                if status in (None, row.status):
                    rows.append(row)
        return rows

    def _resolved(self, row: Row) -> Row:
        """Return the row; `interrupted` if it says `running` of a process that is dead, `missing` without a folder."""
        if row.status == "damaged":
            return row
        if row.status == "running" and holder_of(row.folder(self.home)) is not None:
            return row
        if not os.path.isdir(f"{self.home}/{row.id}"):  # half the time of a Path, in lists of all runs
            said = "its folder is gone; gpt2lab runs clean takes it from the list"
            return dataclasses.replace(row, status="missing", message=said)
        if row.status != "running":
            return row
        return dataclasses.replace(row, status="interrupted", message="its process ended without a word")


_SELECT = f"SELECT {', '.join(COLUMNS)}, checksum FROM runs "


def now() -> str:
    """Return the time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _conditions(
    kind: str | None,
    paper: str | None,
    origins: Collection[str] | None,
    without: Collection[str],
    pieces: bool,
) -> tuple[str, tuple[object, ...]]:
    """Return the WHERE of a list of runs, and its values."""
    if kind is not None and kind not in KINDS:
        raise unknown("kind of run", kind, KINDS)
    wanted = {"kind = ?": kind, "paper = ?": paper}
    found = {condition: value for condition, value in wanted.items() if value is not None}
    conditions, values = list(found), list(found.values())
    if without:
        conditions.append(f"kind NOT IN ({_marks(without)})")
        values += without
    if origins is not None:
        conditions.append(f"origin IN ({_marks(origins)})")
        values += origins
    if not pieces and kind not in ("seed", "arm"):
        conditions.append("parent IS NULL")
    return (f"WHERE {' AND '.join(conditions)}" if conditions else ""), tuple(values)


def _marks(values: Collection[str]) -> str:
    return ", ".join("?" * len(values))


def _no_such(name: str, known: list[str]) -> LabError:
    match = nearest(name, known)
    hint = f"did you mean {match}?" if match else "`gpt2lab runs` lists them"
    return LabError(f"{name}: no such run; {hint}")
