"""The verb `apply`: a transform makes a new model of one, and a run keeps what was done."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2lab.actions.models import find_model, loaded, with_models
from gpt2lab.actions.record import IN_MEMORY, recorded
from gpt2lab.base.errors import LabError
from gpt2lab.base.files import size_of, user_path
from gpt2lab.base.registry import part
from gpt2lab.base.settings import build, from_plain, to_plain
from gpt2lab.runs.home import FULL
from gpt2lab.runs.lineage import settings_of
from gpt2lab.runs.run import Run
from gpt2lab.runs.store import Row

if TYPE_CHECKING:
    import torch

    from gpt2lab.text.language_model import LanguageModel


def apply(
    name: str,
    model: "str | Path | LanguageModel",
    *,
    out: "str | Path | None" = None,
    save: bool = False,
    device: "torch.device | str | None" = None,
    dtype: "torch.dtype | str | None" = None,
    keep: bool = True,
    command: str = "",
    **options: Any,
) -> "LanguageModel":
    """Return a new model, made of this one by the transform of that name; the given one stays as it is.

    options: the transform's own fields, text or typed. The new model is saved in `out`; with `save` and no `out` in the
    folder of the run, as the command does; otherwise it is in memory alone. keep: leave a run, whose id is then the new
    model's `source`; command: what the run notes as the command that repeats it. LabError before any work for an unknown
    transform or option, a value of the wrong type, an `out` that holds something else or is the given model's own
    folder; and for whatever the transform cannot work on.
    """
    made = with_models(build(part("transform", name), options, f"apply {name}"))
    folder = None if out is None else _free(out, model)
    if save and folder is None and not keep:
        raise LabError("save: a run that is not kept has no folder to save the model in; say where with out")
    lm = loaded(model, device, dtype)
    settings = {"out": str(folder) if folder else None, "save": save, "options": to_plain(made)}
    needed = save or folder is not None
    with recorded("apply", name, model, lm, settings, keep=keep, command=command, needed=needed) as run:
        return _applied(name, made, lm, run, folder, save=save)


def resume_apply(row: Row, *, home: Path | str | None = None, take_over: bool = False) -> Run:
    """Continue a transform that trains from its last checkpoint; it ends with the model of one that was never stopped.

    take_over: even if another process seems to run it. LabError if the transform does not train, has finished, or was
    given a model in memory, and if the model or the data have changed.
    """
    from gpt2lab.training.transform import TrainingTransform

    settings = settings_of(row)
    made = with_models(from_plain(part("transform", row.name), settings["options"], row.id))
    if not isinstance(made, TrainingTransform):
        raise LabError(f"{row.id}: {row.name} trains nothing, so there is nothing to resume; {row.repeat}")
    if row.status == "finished":
        raise LabError(f"{row.id}: this run has finished")
    if settings["model"] == IN_MEMORY:
        raise LabError(f"{row.id}: was given a model in memory, which is gone; apply the transform again")
    lm = loaded(settings["model"], None, settings["dtype"])
    folder = Path(settings["out"]) if settings["out"] else None
    with Run.reopen(row, home, str(lm.model.device), take_over=take_over) as run:
        _applied(row.name, made, lm, run, folder, save=settings["save"])
    return run


def _applied(
    name: str,
    made: "Callable[[LanguageModel], object]",
    lm: "LanguageModel",
    run: Run | None,
    folder: Path | None,
    *,
    save: bool,
) -> "LanguageModel":
    """Apply a transform; save the new model in `folder`, or with `save` in the run's; report to the run."""
    began = time.monotonic()
    try:
        result = transformed(name, made, lm, run)
    except KeyboardInterrupt as stop:
        if run is None or not run.checkpoints.exists():
            raise
        raise KeyboardInterrupt(f"{stop or 'stopped'}; resume with: gpt2lab resume {run.id}") from None
    written = folder
    if written is None and save and run is not None:
        written = run.folder / "model"
    if written is not None:
        _save(result, written)
    result.source = run.id if run is not None else str(written or "")
    if run is not None:
        run.result("parameters", _count(result))
        run.result("parameters_before", _count(lm))
        if written is not None:
            run.result("bytes", size_of(written))
        run.result("seconds", round(time.monotonic() - began, 3))
    return result


def transformed(
    name: str, made: "Callable[[LanguageModel], object]", lm: "LanguageModel", run: Run | None = None
) -> "LanguageModel":
    """Call a transform; one that trains reports to the run.

    LabError if what it returns is no new language model, or gives NaN or infinite logits.
    """
    from gpt2lab.model.evaluating import refuse_not_finite
    from gpt2lab.text.language_model import LanguageModel
    from gpt2lab.training.transform import TrainingTransform

    result = made.train(lm, run) if isinstance(made, TrainingTransform) else made(lm)
    if not isinstance(result, LanguageModel):
        raise LabError(f"transform {name} returned {type(result).__name__}; it must return a LanguageModel")
    if result.model is lm.model:
        raise LabError(f"transform {name} returned the model it was given; it must return a new one")
    result.model.eval()
    refuse_not_finite(result.model, f"apply {name}")
    result.inherit(lm)
    return result


def _free(out: str | Path, model: "str | Path | LanguageModel") -> Path:
    """Return the folder of the new model. LabError if it holds anything but a model, or the given one."""
    from gpt2lab.text.language_model import refuse_foreign

    folder = Path(os.path.realpath(user_path(out)))
    refuse_foreign(folder)
    given = find_model(model) if isinstance(model, (str, Path)) else model.source
    if given and os.path.realpath(user_path(given)) == str(folder):
        raise LabError(f"--out {out}: the folder of the given model, which would be lost; give another")
    return folder


def _save(lm: "LanguageModel", folder: Path) -> None:
    from gpt2lab.text.language_model import save

    with _room_in(folder):
        save(lm, folder)


@contextlib.contextmanager
def _room_in(folder: Path) -> Iterator[None]:
    """LabError that names this folder if its disk is full: it may be another than that of the runs."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise LabError(
                f"{folder}: no space is left on this disk; free some, or choose another with --out"
            ) from error
        raise


def _count(lm: "LanguageModel") -> int:
    return lm.model.count_parameters()["total"]
