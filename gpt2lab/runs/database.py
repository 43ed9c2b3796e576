"""The SQLite file of the store: opened, checked, and read even where it cannot be written."""

import contextlib
import functools
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from gpt2lab.base.errors import LabError
from gpt2lab.runs.home import disk_full, make_folder
from gpt2lab.runs.row import COLUMNS, RECORD

SCHEMA_VERSION = 2

READABLE = functools.partial(str, encoding="utf-8", errors="replace")
"""How text is read: bytes that are no UTF-8 make a damaged row, which the checksum tells, and not an error."""

_APPLICATION_ID = 0x47324C42  # marks the file as ours among all SQLite files: "G2LB"
_LEAST_FREE = (
    1 << 17
)  # bytes; below it SQLite cannot make the files it works with, and calls that an I/O error
_PATIENCE = 30.0  # seconds to wait for another writer
_CANNOT_WRITE = ("readonly", "unable to open", "I/O error", "full")  # what SQLite says of such a place
_TABLE = """
CREATE TABLE runs (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, paper TEXT, scale TEXT, seed INTEGER, arm TEXT,
    status TEXT NOT NULL, message TEXT NOT NULL, created TEXT NOT NULL, finished TEXT, seconds REAL, parent TEXT,
    origin TEXT, settings TEXT NOT NULL, settings_hash TEXT NOT NULL, results TEXT NOT NULL, command TEXT NOT NULL,
    checksum TEXT NOT NULL
);
CREATE INDEX runs_by_name ON runs (name);
CREATE INDEX runs_by_parent ON runs (parent);
CREATE INDEX runs_by_kind ON runs (kind);
CREATE INDEX runs_by_origin ON runs (origin);
"""


class Database:
    """The file. Every call opens it anew, so that it may cross processes.

    LabError if it is no store, is damaged or lost, is of another version, or stays locked for 30 s.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def exists(self) -> bool:
        """Whether there is a store. LabError if it was lost: there are runs, but no store."""
        try:
            if self.path.stat().st_size:
                return True
        except FileNotFoundError:
            pass
        except NotADirectoryError as error:
            raise LabError(f"{self.path.parent}: a file, where the folder of the runs is to be") from error
        except OSError as error:
            raise LabError(f"{self.path}: cannot be read ({error.strerror})") from error
        self._refuse_lost()
        return False

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection to read with; a place that cannot be written does not matter."""
        connection = None
        try:
            with contextlib.ExitStack() as stack:
                try:
                    connection = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)
                    self._check(connection)
                except sqlite3.OperationalError as error:
                    if not any(words in str(error) for words in _CANNOT_WRITE):
                        raise
                    if connection is not None:
                        connection.close()
                    connection = self._snapshot(stack)
                    self._check(connection)
                if not _tables(connection):  # its beginning was cut short, by a death or a full disk
                    self._refuse_lost()
                    connection.close()
                    connection = sqlite3.connect(":memory:", isolation_level=None)
                    fill_empty(connection)
                connection.text_factory = READABLE
                yield connection
        except sqlite3.Error as error:
            raise self.sentence(error) from error
        finally:
            if connection is not None:
                connection.close()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection within a transaction: all that the block writes, or nothing; made if there is none yet."""
        self.exists()
        make_folder(self.path.parent)
        connection = None
        try:
            connection = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)
            self._check(connection, fill=True)
            with _transaction(connection):
                yield connection
        except sqlite3.Error as error:
            raise self.sentence(error) from error
        finally:
            if connection is not None:
                connection.close()

    def _snapshot(self, stack: contextlib.ExitStack) -> sqlite3.Connection:
        """Open what can only be read: SQLite wants to write even then, so it gets a copy if there is a log to replay."""
        log = self.path.with_name(f"{self.path.name}-wal")
        if not log.exists() or not log.stat().st_size:
            address = f"{self.path.resolve().as_uri()}?immutable=1"
            return sqlite3.connect(address, uri=True, isolation_level=None)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gpt2lab-store-")))
        for file in (self.path, log):
            shutil.copyfile(file, folder / file.name)
        return sqlite3.connect(folder / self.path.name, isolation_level=None)

    def _check(self, connection: sqlite3.Connection, fill: bool = False) -> None:
        """Refuse a file that is not a store this version can read; fill an empty one."""
        version, application = _pragma(connection, "user_version"), _pragma(connection, "application_id")
        if application == _APPLICATION_ID:
            self._check_version(version)
            return
        if version != 0 or application != 0 or _tables(connection):
            # another process may just have filled it
            if _pragma(connection, "application_id") == _APPLICATION_ID:
                return
            raise LabError(
                f"{self.path}: an SQLite file, but not a run store of gpt2lab; move it away or choose another "
                "folder with GPT2LAB_HOME"
            )
        self._refuse_lost()
        if fill:
            fill_empty(connection)

    def _refuse_lost(self) -> None:
        """LabError if there are runs here, though the store is missing or empty."""
        if any(self.path.parent.glob(f"*/{RECORD}")):
            raise LabError(f"{self.path}: lost, but its runs are here; gpt2lab runs rebuild makes it again")

    def _check_version(self, version: int) -> None:
        if version > SCHEMA_VERSION:
            raise LabError(
                f"{self.path}: written by a newer gpt2lab (store version {version}, this one reads up to "
                f"{SCHEMA_VERSION}); update gpt2lab, or choose another folder with GPT2LAB_HOME"
            )
        if version < SCHEMA_VERSION:
            raise LabError(
                f"{self.path}: written by an older gpt2lab (store version {version}); gpt2lab runs rebuild brings it "
                "up to date"
            )

    def sentence(self, error: sqlite3.Error) -> LabError:
        """Return an error of SQLite as a sentence."""
        text = str(error)
        if "locked" in text or "busy" in text:
            return LabError(
                f"{self.path}: another process has kept it locked for {_PATIENCE:.0f} s; try again"
            )
        if "full" in text or ("I/O error" in text and shutil.disk_usage(self.path.parent).free < _LEAST_FREE):
            return disk_full(self.path)
        if any(words in text for words in _CANNOT_WRITE):
            return LabError(f"{self.path}: cannot be used ({text}); choose another folder with GPT2LAB_HOME")
        return LabError(
            f"{self.path}: damaged, or not a run store ({text}); gpt2lab runs rebuild makes it again from the "
            "runs' folders"
        )


def fill_empty(connection: sqlite3.Connection) -> None:
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
            for statement in _TABLE.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def insertion() -> str:
    """Return the statement that inserts a row: its columns, then its checksum."""
    marks = ", ".join("?" * (len(COLUMNS) + 1))
    return f"INSERT INTO runs ({', '.join(COLUMNS)}, checksum) VALUES ({marks})"


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
