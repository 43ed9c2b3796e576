"""A file or folder appears whole or not at all, and what a killed process has left is put right by the next.

It is written under a temporary name beside its own, flushed to disk, then given its name by one rename, or by one
exchange where another folder has that name. A writer holds a lock on its temporary name. The lock dies with its process,
so a temporary name that can be locked belongs to nobody. In a folder whose lease this process has lost it writes nothing
(LeaseLost, see `gpt2lab.base.lease`).
"""

import contextlib
import ctypes
import errno
import functools
import glob
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from gpt2lab.base.errors import LabError
from gpt2lab.base.lease import NO_LOCKS, check_writable
from gpt2lab.base.progress import Progress

try:
    import fcntl
except ImportError:  # Windows has no locks that a folder can have; nothing is swept there
    fcntl = None  # type: ignore[assignment]  # a module, or None where there is none

SUMS = "SHA256SUMS"
"""The file of `write_sums`, in the form of coreutils: `sha256sum -c SHA256SUMS` checks a folder by hand."""

_PIECE = 1 << 20  # bytes read at a time
_LEFT = re.compile(r"\.(?P<name>.+)\.(?P<kind>[^.]+\.tmp|old-\d+|lock)")
_RENAME_EXCHANGE = 2  # linux/fs.h


def user_path(path: Path | str) -> Path:
    """Return a path with ~ as the user's home; a user's name that the system does not know stays as it is."""
    return Path(os.path.expanduser(path))  # Path.expanduser raises for such a name


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: Path | str, content: bytes | str) -> None:
    """Write `content` to `path` through a temporary name: fsync, rename, fsync of the folder."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


@contextlib.contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yield a new, empty file that becomes `path` if the block succeeds; an older `path` stays whole until then.

    LabError for a device, a pipe or a socket, whose name the file would take: as root, /dev/null would be gone.
    """
    path = Path(path)
    check_writable(path)
    if (path.exists() and not (path.is_file() or path.is_dir())) or _is_stream(path):
        raise LabError(f"{path}: a device or a pipe, which a file cannot replace; give the name of a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, lock = _temporary(path, _new_file)
    mode = os.fstat(lock).st_mode
    try:
        yield temporary
        _sync(temporary, mode)
        check_writable(path)  # this process may have slept while it wrote, and lost the folder
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(lock)
    sync_folder(path.parent)


@contextlib.contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield a folder that becomes `path` if the block succeeds; an older `path` stays whole until then.

    What killed writers of the same path have left is deleted first. The older folder is replaced by an exchange of names
    where the system has one (Linux). Elsewhere it is renamed first to `.NAME.old-PID`; if the process dies before the
    second rename, `restore` or `sweep` undoes the first.
    """
    path = Path(os.path.realpath(path))
    check_writable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        _delete_unused(left)
    temporary, lock = _temporary(path, _new_folder)
    mode = os.fstat(lock).st_mode
    try:
        yield temporary
        for entry in temporary.rglob("*"):
            _sync(entry, mode)
        _sync(temporary, mode)
        check_writable(path)
        _place(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # after an exchange this is the older folder
        os.close(lock)
    sync_folder(path.parent)


def check_place(path: Path) -> None:
    """LabError if no folder can be put at `path`, so that it is known before the work that would fill it."""
    path = Path(os.path.realpath(path))
    if os.path.lexists(path) and not path.is_dir():
        raise _occupied(path)
    above = next((folder for folder in path.parents if folder.exists()), path)
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        why = "cannot be written in" if above.is_dir() else "is a file"
        raise LabError(f"{path}: no folder can be put there, because {above} {why}; give another")
    if path.is_dir() and path.is_mount():
        raise _mounted(path)


def restore(path: Path) -> None:
    """Put back the folder `path` if a process died between the two renames that should have replaced it."""
    if path.exists() or not path.parent.is_dir():
        return
    moved = [*path.parent.glob(f".{glob.escape(path.name)}.old-*")]
    if moved:
        with contextlib.suppress(FileNotFoundError):  # another reader was quicker
            os.rename(max(moved, key=lambda old: old.stat().st_mtime_ns), path)


def discard(path: Path) -> None:
    """Delete a folder so that it is never seen half deleted: it loses its name first."""
    gone = _new_name(path)  # not made first: a full disk has no room
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, gone)
    shutil.rmtree(gone, ignore_errors=True)


def sweep(folder: Path, *, dry_run: bool = False) -> list[Path]:
    """Delete what killed writers have left below `folder`, at any depth, and return the paths that are gone.

    What a living process writes is left alone. A folder that was moved away for another that never came is put back.
    Nothing is deleted where the system or the file system has no locks. With `dry_run` nothing is changed: the paths
    are those that would be deleted.
    """
    gone = []
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            match = _LEFT.fullmatch(name)
            path = Path(place, name)
            if match is None or path.is_symlink():
                continue
            if name in folders:
                folders.remove(name)
            if match["kind"].startswith("old-"):
                replaced = path.with_name(match["name"])
                if dry_run and not replaced.exists():
                    continue  # it would be put back
                restore(replaced)
            if _delete_unused(path, dry_run):
                gone.append(path)
    return gone


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of `path` during the block, after waiting for whoever holds it; it ends with its process.

    The lock is the file `.NAME.lock` beside it. Where the file system has no locks the block runs without one, which
    costs work done twice and nothing else, because what it writes appears whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.with_name(f".{path.name}.lock")
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    while not (_lock(descriptor, wait=True) is None or _is(descriptor, file)):
        os.close(descriptor)  # its last holder has deleted it while this process waited
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        os.close(descriptor)


def sha256(path: Path | str) -> str:
    """Return the hex SHA-256 of a file, read in pieces."""
    digest, path = hashlib.sha256(), Path(path)
    total = path.stat().st_size
    with (
        path.open("rb") as handle,
        Progress[None](total=total, label=f"reading {path.name}", unit="bytes") as bar,
    ):
        while piece := handle.read(_PIECE):
            digest.update(piece)
            bar.advance(len(piece))
    return digest.hexdigest()


def write_sums(folder: Path) -> None:
    """Write the checksums of all files in `folder` to its `SHA256SUMS`."""
    atomic_write(folder / SUMS, "".join(_line(folder, name) for name in _named(folder)))


def check_sums(folder: Path, names: Sequence[str] | None = None) -> None:
    """LabError unless the files of `folder`, or those in `names`, are exactly those that `write_sums` saw."""
    try:
        recorded = (folder / SUMS).read_bytes().decode("ascii", "replace").splitlines(keepends=True)
        lines = {name: _line(folder, name) for name in names or _named(folder)}
    except OSError as error:
        missing = Path(error.filename or SUMS).name
        raise LabError(f"{folder}: not whole, {missing} cannot be read ({error.strerror})") from None
    for name, line in lines.items():
        if line not in recorded:
            raise LabError(f"{folder}: damaged, the checksum of {name} is not the one in {SUMS}")
    if names is None and len(recorded) != len(lines):
        raise LabError(f"{folder}: not whole, {SUMS} names {len(recorded)} files and {len(lines)} are there")


def _named(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)
    return sorted(path.relative_to(folder).as_posix() for path in files)


def _line(folder: Path, name: str) -> str:
    return f"{sha256(folder / name)}  {name}\n"


def _sync(path: Path, mode: int) -> None:
    """Flush a file or folder to disk, readable by whom the umask lets: safetensors' own files are private.

    mode: that of the temporary file or folder, which the umask has decided.
    """
    wanted = mode & (0o777 if path.is_dir() else 0o666)
    if path.stat().st_mode & 0o777 != wanted:
        with contextlib.suppress(
            PermissionError
        ):  # a file system without modes, such as exFAT, gives all the same
            os.chmod(path, wanted)
    sync_folder(path)  # a file is flushed by the same calls


def _place(temporary: Path, path: Path) -> None:
    """Give a folder its name; what had the name before is at `temporary` afterwards, or deleted."""
    old = path.with_name(f".{path.name}.old-{os.getpid()}")
    while True:
        try:
            os.rename(temporary, path)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise _mounted(path) from error
            if error.errno == errno.ENOTDIR:
                raise _occupied(path) from error
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            break
        with contextlib.suppress(FileNotFoundError):  # another process has moved it meanwhile: begin again
            if _exchange(temporary, path):
                return
            os.rename(path, old)
    shutil.rmtree(old, ignore_errors=True)


def _occupied(path: Path) -> LabError:
    return LabError(f"{path}: a file, where a folder is to be; move it away")


def _mounted(path: Path) -> LabError:
    return LabError(
        f"{path}: another file system is mounted there, which a folder cannot replace; give a folder inside it"
    )


def _is_stream(path: Path) -> bool:
    """Whether a name stands for an open file of this process, as /dev/stdout does."""
    return path.is_symlink() and os.readlink(path).startswith("/proc/")


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where system or file system cannot. OSError if one is missing."""
    renameat2 = _renameat2()
    if renameat2 is None:
        return False
    here = -100  # AT_FDCWD: relative paths start at the current folder
    if renameat2(here, os.fsencode(one), here, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL):
        return False
    raise OSError(code, os.strerror(code), str(other))


@functools.cache
def _renameat2() -> Callable[..., int] | None:
    try:
        function: Callable[..., int] = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # not Linux, or a libc before 2018
        return None
    return function


def _new_file(path: Path) -> tuple[Path, int]:
    new = _new_name(path)
    return new, os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def _new_folder(path: Path) -> tuple[Path, int]:
    new = _new_name(path)
    os.mkdir(new)
    return new, os.open(new, os.O_RDONLY)


def _new_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _temporary(path: Path, make: Callable[[Path], tuple[Path, int]]) -> tuple[Path, int]:
    """Make a temporary file or folder beside `path`; return it with the descriptor that holds its lock."""
    while True:
        try:
            temporary, lock = make(path)
        except FileNotFoundError:
            if not path.parent.is_dir():
                raise
            continue  # swept between its making and its opening
        _lock(lock, wait=True)
        if _is(lock, temporary):
            return temporary, lock
        os.close(lock)  # swept between its making and its lock


def _delete_unused(path: Path, dry_run: bool = False) -> bool:
    """Delete a leftover unless a living process holds it."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        if not _lock(descriptor, wait=False):
            return False
        if dry_run:
            return True
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        return not path.exists()
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, wait: bool) -> bool | None:
    """Lock an open file or folder for this process: False if another has it, None if there are no locks here."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in NO_LOCKS:
            return None
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def _is(descriptor: int, path: Path) -> bool:
    """Tell whether an open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
