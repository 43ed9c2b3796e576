"""List runs, newest first; delete runs, remove leftovers, rebuild the list.

examples:
  gpt2lab runs                     the last twenty
  gpt2lab runs tinystories failed  those that contain every word
  gpt2lab runs --kind measure      runs of one kind
  gpt2lab runs --pieces            include the seeds and arms of studies
  gpt2lab runs delete train-3      with its pieces and its folder
  gpt2lab runs clean --dry-run     leftovers of killed processes, unused tokens, rows without folders
  gpt2lab runs rebuild             rebuild the list from the folders, if store.sqlite is damaged or lost
"""

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpt2lab.base.errors import LabError
from gpt2lab.base.progress import duration
from gpt2lab.base.tables import cell
from gpt2lab.base.wording import count, size
from gpt2lab.cli.parser import Parser, whole
from gpt2lab.cli.show import cut, print_json, table
from gpt2lab.runs.store import KINDS, Row, Store

_READABLE = 36  # columns that results need beside the rest; with fewer they stand below
_ON_REQUEST = ("generate", "embed")
"""Kinds of runs that there are many of, and that are listed by --kind only."""
_LIMIT = 20
_ACTIONS = ("delete", "clean", "rebuild")


def add(parser: Parser, argv: Sequence[str]) -> None:
    """Add the filters, and what the actions take."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="WORDS",
        help="words that a run's line must contain; or delete RUN ..., clean, rebuild",
    )
    parser.add_argument(
        "--kind",
        choices=KINDS,
        help="runs of one kind only; generate and embed are listed only with this option",
    )
    parser.add_argument("--pieces", action="store_true", help="include the seeds and arms of studies")
    parser.add_argument("--limit", type=whole, metavar="N", help="at most N, 0 for all (default: 20)")
    parser.add_argument(
        "--force", action="store_true", help="delete: also unfinished runs, and runs whose model others use"
    )
    parser.add_argument("--dry-run", action="store_true", help="clean: only report what would be deleted")


def run(arguments: argparse.Namespace) -> None:
    """Print the runs that match, or do what the first word says."""
    action = arguments.words[0] if arguments.words and arguments.words[0] in _ACTIONS else "list"
    for flag, owner in (("force", "delete"), ("dry_run", "clean")):
        if getattr(arguments, flag) and action != owner:
            raise LabError(f"--{flag.replace('_', '-')}: goes with `gpt2lab runs {owner}`")
    if action != "list":
        for flag in ("kind", "pieces", "limit"):
            if getattr(arguments, flag) not in (None, False):
                raise LabError(f"--{flag}: chooses what `gpt2lab runs` lists, and {action} lists nothing")
    {"list": _list, "delete": _delete, "clean": _clean, "rebuild": _rebuild}[action](arguments)


def _list(arguments: argparse.Namespace) -> None:
    store = Store()
    words = [word.lower() for word in arguments.words]
    limit = (_LIMIT if arguments.limit is None else arguments.limit) or None
    chosen = {
        "kind": arguments.kind,
        "pieces": arguments.pieces,
        "without": () if arguments.kind in _ON_REQUEST else _ON_REQUEST,
    }
    if words:  # a status is known only after a look at the process, so all are read
        found = [row for row in store.rows(**chosen) if all(word in _text(row) for word in words)]
        shown, matching = found[:limit], len(found)
    else:
        shown = store.rows(**chosen, limit=limit)
        matching = len(shown) if limit is None or len(shown) < limit else store.count(**chosen)
    if arguments.json:
        print_json([plain(row) for row in shown])
    elif not shown:
        print(_none(store, arguments, chosen))
    else:
        print(_table(shown))
        if len(shown) < matching:
            print(f"and {matching - len(shown):,} more; --limit 0 shows all")


def _table(rows: Sequence[Row]) -> str:
    """Return a line for each run; on a narrow terminal what it found stands below it."""
    header = ("run", "kind", "model", "status", "began", "took", "results")
    lines = [_line(row) for row in rows]
    kept = [i for i, name in enumerate(header) if name != "model" or any(line[i] for line in lines)]
    widths = [max(len(line[i]) for line in [header, *lines]) for i in kept[:-1]]
    room = shutil.get_terminal_size((110, 24)).columns
    if sum(widths) + 2 * len(widths) + _READABLE <= room:
        return table([[line[i] for i in kept] for line in lines], [header[i] for i in kept])
    short = table([[line[i] for i in kept[:-1]] for line in lines], [header[i] for i in kept[:-1]])
    if "\n\n" in short:  # narrower still: what a run is called and how it ended
        short = table([(line[0], line[3]) for line in lines], (header[0], header[3]))
    first, *others = short.splitlines()
    pairs = ((head, f"    {line[-1]}" if line[-1] else "") for head, line in zip(others, lines, strict=True))
    return "\n".join([first, *(cut(text, room) for pair in pairs for text in pair if text)])


def _none(store: Store, arguments: argparse.Namespace, chosen: Mapping[str, Any]) -> str:
    """Say why the list is empty."""
    if candidates := store.count(**chosen):
        return f"none of {candidates:,} runs holds these words"
    if arguments.kind is None and store.count():
        return "only texts were generated or embedded so far; `gpt2lab runs --kind generate` lists them"
    return f"no runs yet in {store.home}; `gpt2lab reproduce tinystories --scale smoke` makes the first"


def _delete(arguments: argparse.Namespace) -> None:
    from gpt2lab.runs.tidy import delete

    if len(arguments.words) < 2:
        raise LabError("runs delete takes the RUNS to delete; `gpt2lab runs` lists them")
    gone = delete(arguments.words[1:], force=arguments.force)
    if arguments.json:
        print_json([asdict(one) for one in gone])
        return
    for one in gone:
        print(f"deleted {one.name} ({one.what}, {size(one.bytes)})")


def _clean(arguments: argparse.Namespace) -> None:
    from gpt2lab.runs.tidy import clean

    _no_words(arguments)
    gone = clean(dry_run=arguments.dry_run)
    if arguments.json:
        print_json([asdict(one) for one in gone])
        return
    if gone:
        print(table([(one.what, one.name, size(one.bytes)) for one in gone], ("what", "where", "size")))
    would = "would be deleted" if arguments.dry_run else "deleted"
    print(f"{count(len(gone), 'thing')}, {size(sum(one.bytes for one in gone))} {would}")


def _rebuild(arguments: argparse.Namespace) -> None:
    from gpt2lab.runs.rebuild import rebuild

    _no_words(arguments)
    done = rebuild()
    if arguments.json:
        print_json(asdict(done))
        return
    print(f"{count(done.read, 'run')} read from their folders, {done.kept} kept from the old store")
    for sentence in done.unread:
        print(f"left out: {sentence}")
    if done.aside is not None:
        print(f"the old store is {done.aside}")


def _no_words(arguments: argparse.Namespace) -> None:
    if len(arguments.words) > 1:
        raise LabError(f"runs {arguments.words[0]}: takes no words, got {' '.join(arguments.words[1:])}")


def plain(row: Row) -> dict[str, Any]:
    """Return a run as JSON's own values."""
    names = (
        "id",
        "name",
        "kind",
        "paper",
        "scale",
        "seed",
        "arm",
        "status",
        "message",
        "created",
        "finished",
        "parent",
    )
    fields: dict[str, Any] = {name: getattr(row, name) for name in names}
    settings = json.loads(row.settings)
    return {
        **fields,
        "seconds": row.seconds,
        "model": settings.get("model"),
        "origin": settings.get("origin"),
        "settings": settings,
        "results": row.numbers,
        "command": row.command,
        "folder": str(row.folder()),
    }


def _text(row: Row) -> str:
    pieces = (row.id, row.kind, row.status, row.paper, row.scale, row.message, row.created, row.command)
    return " ".join(piece for piece in pieces if piece).lower()


def _line(row: Row) -> tuple[str, ...]:
    began = row.created[:16].replace("T", " ")
    took = duration(row.seconds) if row.seconds is not None else ""
    return row.id, row.kind, _model(row), row.status, began, took, row.message or brief(row.numbers)


def _model(row: Row) -> str:
    """Return which model a run worked on: the run that made it, or the end of what was typed."""
    model = row.origin
    if model is None and '"model"' in row.settings:  # most have none, and a list may be long
        model = json.loads(row.settings).get("model")
    return cut(Path(model).name if Path(model).is_absolute() else model, 28) if model else ""


def brief(results: Mapping[str, float], most: int = 4) -> str:
    """Return the first few results on one line."""
    shown = [f"{name} {cell(value)}" for name, value in list(results.items())[:most]]
    return ", ".join(shown) + (f" and {len(results) - most} more" if len(results) > most else "")
