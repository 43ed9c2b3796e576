"""Leases: one process at a time owns a folder, and shows every few seconds that it still lives.

A lease is a small file in the folder that names its process and the last sign of life. It is checked and claimed under
a lock of the system, so that of several claims exactly one succeeds. It is free when its process is known to be dead, or
when there was no sign of life for `TIMEOUT` seconds. Host names decide nothing. Clocks are trusted only on the machine
that they belong to: a lease of another machine that looks old is watched for some seconds before it is taken.

A process that lost its lease, because it slept too long or another took the lease over, finds out at its next write:
`check_writable` raises LeaseLost there, and nothing is written.
"""

import contextlib
import errno
import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

from gpt2lab.base.errors import LabError
from gpt2lab.base.process import Process, uptime

try:
    import fcntl
except (
    ImportError
):  # Windows: two claims at the same moment may both succeed there; the second to write keeps the lease
    fcntl = None  # type: ignore[assignment]  # a module, or None where there is none

TIMEOUT = 60.0
"""Seconds without a sign of life after which a lease is free."""
BEAT = 5.0
"""Seconds between two signs of life."""

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF}
"""What a file system says that has no locks, such as Lustre without the option for them."""

_STUCK = 5.0  # seconds to wait for a lock that is held for microseconds
_WATCH = 3 * BEAT  # seconds; for so long a lease of another machine is watched before it is taken
_SIZE = 1024  # bytes of the file, always: renewing needs no space on a full disk, and is written in one piece
_NAME = ".lease"

Standing = Literal["held", "free", "silent"]


class LeaseHeld(LabError):
    """Another process owns the folder."""


class LeaseLost(LabError):
    """This process owned the folder, and another has taken it over, or it was deleted."""


@dataclass(frozen=True)
class Holder:
    """What a lease says."""

    owner: str
    """Random, new for every claim."""
    process: Process
    """Who claimed it."""
    beats: int
    """Signs of life so far."""
    time: float
    """Wall clock of the last one, seconds since 1970."""
    uptime: float
    """The same by the machine's own clock, seconds since it started."""
    inode: int
    """Number of the file: another one means that the folder was copied."""

    def words(self) -> str:
        """Say which process it is, and when it last gave a sign of life."""
        if self.process.same_machine():
            seconds = uptime() - self.uptime
        else:
            seconds = time.time() - self.time
        ago = f"last sign of life {seconds:.0f} s ago" if seconds >= 0 else "its clock is ahead"
        return f"process {self.process.pid} on {self.process.host}, {ago}"


class Lease:
    """The right to write in a folder; a thread renews it until `release`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path, self.owner = folder, folder / _NAME, secrets.token_hex(8)
        self._process = Process.this()
        self._beats = 0
        self._renewed = 0.0
        self._lost: LeaseLost | None = None
        self._released = False

    @classmethod
    def claim(cls, folder: Path, *, take_over: bool = False, patience: float = 0.0) -> Self:
        """Take the lease of a folder that exists, and keep it.

        patience: seconds to wait for its holder to end. take_over: whatever the holder says; it will stop at its next
        write. LeaseHeld if another process, or this one, holds it. OSError if it cannot be written.
        """
        lease = cls(Path(os.path.realpath(folder)))
        silent: bytes | None = None
        since = time.monotonic()
        deadline = since + patience
        while True:
            content, standing = lease._claim_once(take_over, silent, time.monotonic() - since)
            if standing == "free":
                _keep(lease)
                return lease
            if standing == "silent":
                if content != silent:
                    silent, since = content, time.monotonic()
            elif time.monotonic() >= deadline:
                holder = _parsed(content)
                who = holder.words() if holder else "another process"
                raise LeaseHeld(f"{lease.folder}: in use by {who}")
            time.sleep(0.1)

    def _claim_once(self, take_over: bool, silent: bytes | None, watched: float) -> tuple[bytes, Standing]:
        """Write the lease if it is free, and return what it said and how that stood.

        silent: what a lease of another machine said `watched` seconds ago. If it has changed, its process lives,
        whatever its clock says; if not for long enough, it is free.
        """
        try:
            with _locked(self.path, create=True) as file:
                content = _content(file)
                standing = _standing(content, file)
                if standing == "silent" and silent is not None:
                    standing = "held" if content != silent else "free" if watched >= _WATCH else "silent"
                if take_over or standing == "free":
                    self._write(file)
                    return content, "free"
                return content, standing
        except TimeoutError:
            if take_over or holder_of(self.folder) is None:
                self.path.unlink(
                    missing_ok=True
                )  # its process sleeps with the lock; it will find another file here
            return b"", "held"

    def check(self) -> None:
        """LeaseLost if another process has taken the lease, or the folder is gone. What was given back is not checked."""
        self._verify(renew=uptime() - self._renewed > TIMEOUT / 2)

    def renew(self) -> None:
        """Give a sign of life. LeaseLost as for `check`."""
        self._verify(renew=True)

    def release(self) -> None:
        """Give the lease back, if it is still this process's."""
        with contextlib.suppress(OSError, LeaseLost), _locked(self.path) as file:
            self._mine(_content(file))
            os.pwrite(file, b" " * _SIZE, 0)  # kept as long as it is: on a full disk it can be claimed again
        self._released = True
        if _held.get(self.folder) is self:
            del _held[self.folder]

    def _verify(self, *, renew: bool) -> None:
        if self._lost is not None:
            raise self._lost
        if self._released:
            return
        try:
            with _locked(self.path) as file:
                self._mine(_content(file))
                if renew:
                    self._write(file)
        except FileNotFoundError:
            self._lose("its folder was moved or deleted")

    def _mine(self, content: bytes) -> None:
        holder = _parsed(content)
        if holder is not None and holder.owner != self.owner:
            self._lose(f"it was taken over by process {holder.process.pid} on {holder.process.host}")
        if holder is None and not content.strip():
            self._lose("another process has taken it over and given it back")

    def _lose(self, reason: str) -> None:
        self._lost = LeaseLost(f"{self.folder}: {reason}; this process stops without writing there")
        raise self._lost

    def _write(self, file: int) -> None:
        self._beats += 1
        self._renewed = uptime()
        inode = os.fstat(file).st_ino
        holder = Holder(self.owner, self._process, self._beats, time.time(), self._renewed, inode)
        os.pwrite(file, json.dumps(asdict(holder)).encode().ljust(_SIZE), 0)


def holder_of(folder: Path) -> Holder | None:
    """Return who holds the lease of a folder; None if it is free, or looks so by the clocks."""
    try:
        file = os.open(folder / _NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        content = _content(file)  # without the lock: it is written in one piece
        return _parsed(content) if _standing(content, file) == "held" else None
    except IsADirectoryError:  # no lease; a claim says so
        return None
    finally:
        os.close(file)


def check_writable(path: Path) -> None:
    """LeaseLost if `path` lies in a folder whose lease this process had and has lost."""
    if not _held:
        return
    place = Path(os.path.realpath(path))
    for lease in list(_held.values()):
        if place.is_relative_to(lease.folder):
            lease.check()


def _standing(content: bytes, file: int) -> Standing:
    """Return whether a lease is held, free, or silent: too old by a clock that may not be trusted."""
    if not content.strip():
        return "free"
    holder = _parsed(content)
    if holder is None:
        return "silent"  # a machine died while it wrote; whoever lives writes it again
    state = holder.process.state()
    if state == "dead":
        return "free"
    if state == "running" and holder.inode == os.fstat(file).st_ino:
        return "held"  # however old: a long call outside Python keeps the thread that renews from running
    if holder.process.same_machine():
        return "held" if 0 <= uptime() - holder.uptime <= TIMEOUT else "free"
    return "held" if abs(time.time() - holder.time) <= TIMEOUT else "silent"


def _content(file: int) -> bytes:
    return os.pread(file, _SIZE, 0)


def _parsed(content: bytes) -> Holder | None:
    """Return what a lease says; None if it is empty or damaged."""
    try:
        fields = json.loads(content)
        holder = Holder(**(fields | {"process": Process(**fields["process"])}))
        return holder if holder.time + holder.uptime >= 0 and int(holder.process.pid) > 0 else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


@contextlib.contextmanager
def _locked(path: Path, *, create: bool = False) -> Iterator[int]:
    """Yield the open file while no other process has it so. TimeoutError if one has it for seconds: it sleeps."""
    deadline = time.monotonic() + _STUCK
    while True:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o666)
        try:
            if _lock(file) and os.path.samestat(
                os.fstat(file), path.stat()
            ):  # else it was replaced meanwhile
                yield file
                return
        finally:
            os.close(file)
        if time.monotonic() > deadline:
            raise TimeoutError(errno.ETIMEDOUT, "a process that sleeps has it locked", str(path))
        time.sleep(0.01)


def _lock(file: int) -> bool:
    """Lock an open file; False if another process has it locked. A file system without locks is as Windows is."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True


# The leases of this process, and the thread that renews them.

_held: dict[Path, Lease] = {}
_beating = threading.Event()


def _keep(lease: Lease) -> None:
    """Renew a lease from now on."""
    _held[lease.folder] = lease
    if not _beating.is_set():
        _beating.set()
        threading.Thread(target=_beat, name="leases", daemon=True).start()


def _beat() -> None:
    """Renew every lease of this process, as long as the process lives."""
    while True:
        time.sleep(BEAT)
        for lease in list(_held.values()):
            with contextlib.suppress(LeaseLost, OSError):  # the next write reports a loss
                lease.renew()


def _forget() -> None:
    """Begin a forked process: thread and leases are its parent's."""
    _held.clear()
    _beating.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
