"""Where a model comes from: the run that made it, the run that made what that one worked on, and so on.

A run that applies, measures or generates notes the model it was given and, as `origin`, the run that had made it.
"""

import json
from pathlib import Path
from typing import Any

from gpt2lab.runs.store import Row, Store


def about(model: str, place: Path | str) -> dict[str, str | None]:
    """Return what a run's settings say of its model: as it was typed, and the run that made it, if one did."""
    origin = origin_of(place) if isinstance(place, Path) else None
    return {"model": model, "origin": origin.id if origin else None}


def origin_of(folder: Path) -> Row | None:
    """Return the run that wrote the model in this folder: below its own folder, or to the `out` of an apply."""
    store, folder = Store(), folder.resolve()
    home = store.home.resolve()
    if home in folder.parents:
        return store.get(folder.relative_to(home).parent.as_posix())
    made = (
        row for row in store.rows(kind="apply", status="finished") if settings_of(row)["out"] == str(folder)
    )
    return next(made, None)


def settings_of(row: Row) -> dict[str, Any]:
    """Return the settings of a run as plain values."""
    settings: dict[str, Any] = json.loads(row.settings)
    return settings


def lineage(row: Row, store: Store | None = None) -> list[Row]:
    """Return the runs that led to a run, itself the last: a model's training, then each transform."""
    store, chain = store or Store(), [row]
    while chain[0].origin is not None:
        before = store.get(chain[0].origin)
        if before is None or before in chain:
            break
        chain.insert(0, before)
    return chain
