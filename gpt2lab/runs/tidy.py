"""Runs deleted or cleared, and what nobody needs any more swept from the folder of the runs."""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import discard, locked, size_of, sweep
from gpt2lab.base.lease import Lease, holder_of
from gpt2lab.base.wording import count, listed
from gpt2lab.runs import provenance
from gpt2lab.runs.head import HEAD
from gpt2lab.runs.home import written
from gpt2lab.runs.store import Row, Store

_DATA = (
    "data.txt"  # a run's note of the tokens it reads; the name of their folder is the beginning of its text
)


@dataclass(frozen=True)
class Gone:
    """Something that was deleted, or would be."""

    what: str
    """Kind of thing, for people."""
    name: str
    """The run's id, or the path below the folder of the runs."""
    bytes: int
    """Its size on the disk."""


def delete(names: Sequence[str], *, home: Path | str | None = None, force: bool = False) -> list[Gone]:
    """Delete runs with their pieces, and return what is gone.

    names: ids, or names that a single run has. All are checked before any is deleted.
    LabError if there is no such run, or one of them is a piece of a study, still runs, or made a model that another
    run builds on; the last two are deleted with `force`, and a process that runs one stops at its next write.
    """
    store = Store(home)
    rows = list({row.id: row for row in (_exactly(name, store) for name in names)}.values())
    going = {row.id for row in rows}
    for row in rows:
        if row.parent is not None:
            raise LabError(f"{row.id}: a piece of a study; delete all of it: {row.id.partition('/')[0]}")
        if not force:
            _refuse_needed(row, store, going)
    with written(store.home):
        return [_delete(row, store, force) for row in rows]


def clear(folder: Path, *, checkpoints: bool) -> None:
    """Remove what a run has reported, and its checkpoints on request; who computed it, if nothing of the work is left."""
    for leftover in ("tables", "figures", "texts", "arrays", "files", "model"):
        shutil.rmtree(folder / leftover, ignore_errors=True)
    for leftover in ("captions.json", "results.json", HEAD, provenance.DATA):
        (folder / leftover).unlink(missing_ok=True)
    if checkpoints:
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    if not (folder / "checkpoints").exists():
        (folder / provenance.ENVIRONMENT).unlink(missing_ok=True)


def clean(home: Path | str | None = None, *, dry_run: bool = False) -> list[Gone]:
    """Delete what nobody needs, and return it; with `dry_run` only return it.

    These are leftovers of killed processes, tokens that no run reads, and rows of runs whose folders are gone.
    """
    store = Store(home)
    if not store.home.is_dir():
        return []
    found = [*_leftovers(store.home), *_unused_tokens(store.home), *_missing(store)]
    if dry_run:
        return [gone for gone, _ in found]
    with written(store.home):
        for gone, path in found:
            if path is None:
                store.remove(gone.name)
            elif gone.what == _TOKENS:
                with locked(path):
                    discard(path)
        sweep(store.home)
    return [gone for gone, _ in found]


_TOKENS = "tokens that no run reads"


def _exactly(name: str, store: Store) -> Row:
    """Return the run of this id, or the only one of this name: deleting takes no other shortcut."""
    row = store.find(name)
    if name.rstrip("/") == row.id:
        return row
    alike = [one.id for one in store.rows() if one.name == name]
    if len(alike) == 1:
        return row
    if alike:
        raise LabError(
            f"{name}: several runs have this name; give the ids of those to delete: {listed(alike[:8])}"
        )
    raise LabError(f"{name}: no run of this id; did you mean {row.id}?")


def _refuse_needed(row: Row, store: Store, going: set[str]) -> None:
    """LabError if the run still runs, or another that stays builds on its model."""
    holder = holder_of(row.folder(store.home))
    if holder is not None:
        raise LabError(f"{row.id}: still runs, as {holder.words()}; stop it first, or --force")
    users = [user for user in store.built_on(row.id) if user.partition("/")[0] not in going]
    if users:
        raise LabError(f"{row.id}: {listed(users[:4])} built on its model; delete them too, or --force")


def _delete(row: Row, store: Store, force: bool) -> Gone:
    folder = row.folder(store.home)
    size = size_of(folder)
    with contextlib.ExitStack() as stack:
        if folder.is_dir():  # claimed, so that nobody resumes it meanwhile
            stack.callback(Lease.claim(folder, take_over=force).release)
        pieces = len(store.remove(row.id)) - 1
    return Gone(f"{row.kind} with {count(pieces, 'piece')}" if pieces > 0 else row.kind, row.id, size)


def _leftovers(home: Path) -> Iterator[tuple[Gone, Path]]:
    for path in sweep(home, dry_run=True):
        yield Gone("leftover of a killed process", path.relative_to(home).as_posix(), size_of(path)), path


def _unused_tokens(home: Path) -> Iterator[tuple[Gone, Path]]:
    """Yield the folders of tokens that no run's `data.txt` names."""
    notes = [note for depth in ("*", "*/*", "*/*/*") for note in home.glob(f"{depth}/{_DATA}")]
    used = [note.read_text(encoding="utf-8", errors="replace") for note in notes]
    for folder in sorted(home.glob("tokens/[!.]*")):
        if not any(text.startswith(folder.name) for text in used):
            yield Gone(_TOKENS, folder.relative_to(home).as_posix(), size_of(folder)), folder


def _missing(store: Store) -> Iterator[tuple[Gone, None]]:
    """Yield the rows without folders; pieces go with their study."""
    gone: set[str] = set()
    for row in reversed(store.rows(status="missing", pieces=True)):
        if not gone & {row.id.rpartition("/")[0], row.id.partition("/")[0]}:
            gone.add(row.id)
            yield Gone("row of a run whose folder is gone", row.id, 0), None
