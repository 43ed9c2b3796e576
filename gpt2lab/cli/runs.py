"""What has been run, newest first.

examples:
  gpt2lab runs                     the last twenty
  gpt2lab runs tinystories failed  those that hold every word
  gpt2lab runs --kind measure      runs of one kind
  gpt2lab runs --pieces            the seeds and arms of studies too
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt2lab.base.progress import duration
from gpt2lab.cli.parser import Parser, whole
from gpt2lab.cli.show import cut, number, print_json, table
from gpt2lab.lab.store import KINDS, Row, Store


def add(parser: Parser, argv: Sequence[str]) -> None:
    """Add the filters."""
    parser.add_argument("words", nargs="*", metavar="WORDS", help="words that a run's line must hold")
    parser.add_argument("--kind", choices=KINDS, help="runs of one kind only; generate is listed only so")
    parser.add_argument("--pieces", action="store_true", help="the seeds and arms of studies too")
    parser.add_argument(
        "--limit", type=whole, default=20, metavar="N", help="at most N, 0 for all (default: 20)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Print the runs that match."""
    store = Store()
    words = [word.lower() for word in arguments.words]
    every = store.rows(kind=arguments.kind, pieces=arguments.pieces)
    rows = [row for row in every if row.kind != "generate" or arguments.kind == "generate"]
    found = [row for row in rows if all(word in _text(row) for word in words)]
    shown = found[: arguments.limit or None]
    if arguments.json:
        print_json([plain(row) for row in shown])
    elif not every:
        print(f"no runs yet in {store.home}; `gpt2lab reproduce tinystories --scale smoke` makes the first")
    elif not rows:
        print("only texts were generated so far; `gpt2lab runs --kind generate` lists them")
    elif not found:
        print(f"none of {len(rows):,} runs holds these words")
    else:
        header = ("run", "kind", "model", "status", "began", "took", "results")
        print(table([_line(row) for row in shown], header))
        if len(shown) < len(found):
            print(f"and {len(found) - len(shown):,} more; --limit 0 shows all")


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
    said = row.message if row.status != "finished" or not row.numbers else brief(row.numbers)
    return row.id, row.kind, _model(row), row.status, began, took, said or row.message


def _model(row: Row) -> str:
    """Return which model a run worked on: the run that made it, or the end of what was typed."""
    settings = json.loads(row.settings)
    model = settings.get("origin") or settings.get("model")
    return cut(Path(model).name if Path(model).is_absolute() else model, 28) if model else ""


def brief(results: Mapping[str, float], most: int = 4) -> str:
    """Return the first few results on one line."""
    shown = [f"{name} {number(value)}" for name, value in list(results.items())[:most]]
    return ", ".join(shown) + (f" and {len(results) - most} more" if len(results) > most else "")
