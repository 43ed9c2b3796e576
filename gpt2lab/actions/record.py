"""What a verb leaves in the store: a run with its settings, the model that it worked on, and what it found."""

import contextlib
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2lab.actions.catalogue import weights_of
from gpt2lab.actions.models import find_model
from gpt2lab.base.errors import LabError
from gpt2lab.runs.lineage import about
from gpt2lab.runs.run import Run
from gpt2lab.runs.store import Store

if TYPE_CHECKING:
    from gpt2lab.decode.backend import TextBackend
    from gpt2lab.text.language_model import LanguageModel

IN_MEMORY = "a model in memory"
"""What a record calls a model that was given as an object and that no folder, hub id or run is known of."""

_LONGEST = (
    150  # characters of a result's or a table's name; a comparison puts those of arm and model before it
)


@contextlib.contextmanager
def recorded(
    kind: str,
    name: str,
    model: "str | Path | LanguageModel | TextBackend",
    lm: "LanguageModel | TextBackend",
    settings: Mapping[str, Any],
    *,
    keep: bool,
    command: str = "",
    needed: bool = False,
    **columns: Any,
) -> Iterator[Run | None]:
    """Yield a new run with what is known of the model beside `settings`; None if it is not to be kept.

    model: as it was given; lm: the same, loaded. columns: further ones of the store, such as seed. Where no run can be
    kept it is None too, with a warning: the result is worth having without one. LabError instead if a run is `needed`.
    """
    run = None
    if keep:
        try:
            known, device = _about(model, lm)
            known |= settings
            run = Run.start(kind, name, settings=known, command=command, device=device, **columns)
        except LabError as error:
            if needed:
                raise
            warnings.warn(f"not kept among the runs: {error}", stacklevel=4)
    if run is None:
        yield None
        return
    with run:
        yield run


def _about(
    model: "str | Path | LanguageModel | TextBackend", lm: "LanguageModel | TextBackend"
) -> tuple[dict[str, Any], str]:
    """Return what a record says of a model (its name, the run that made it, its numbers), and where it computes."""
    from gpt2lab.text.language_model import LanguageModel

    if not isinstance(lm, LanguageModel):
        return {"model": str(model) if isinstance(model, str) else lm.name, "origin": None}, "cpu"
    given = model if isinstance(model, (str, Path)) else None
    dtype = str(lm.model.dtype).removeprefix("torch.")
    return {**_origin(given, lm), "dtype": dtype}, str(lm.model.device)


def _origin(given: str | Path | None, lm: "LanguageModel") -> dict[str, str | None]:
    if given is not None:
        return _about_place(str(given))
    if not lm.source:
        return {"model": IN_MEMORY, "origin": None}
    made = Store().get(lm.source)
    if made is not None:
        return {"model": made.id, "origin": made.id}
    found = _about_place(lm.source)
    return {**found, "model": found["origin"] or lm.source}


def _about_place(model: str) -> dict[str, str | None]:
    """Return what a record says of a model by its name: the run that made it, or which weights of the catalogue it has."""
    place = find_model(model)
    weights = weights_of(place)
    return {**about(model, place), **({"weights": weights} if weights else {})}


def note_weights(run: Run, model: str | None) -> None:
    """Write into a run's log which weights of the catalogue it begins with, if it begins with such a model."""
    weights = weights_of(find_model(model)) if model else None
    if weights is not None:
        run.note(f"{model}: {weights}")


def result_names(names: Iterable[str]) -> dict[str, str]:
    """Return what numbers are called as results and tables as files, no two the same: `a b`, `a-b` → `a_b`, `a_b_2`.

    More names after these change nothing for these.
    """
    made: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"^(?=\d)|[^A-Za-z0-9_.]+|^\.|\.(?=[.\d]|$)", "_", name)[:_LONGEST].rstrip(".") or "_"
        known, number = plain, 2
        while known in made.values():
            known, number = f"{plain}_{number}", number + 1
        made[name] = known
    return made
