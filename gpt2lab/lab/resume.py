"""Going on with whatever was stopped."""

from pathlib import Path
from typing import TYPE_CHECKING

from gpt2lab.base.errors import LabError
from gpt2lab.lab.store import Store

if TYPE_CHECKING:
    from gpt2lab.lab.run import Run
    from gpt2lab.lab.study import Study


def resume(name: str, *, home: Path | str | None = None, workers: int | None = None) -> "Study | Run":
    """Go on with a study or a training run, given by id, name or the beginning of an id.

    A study repeats only the units that have not finished; a training run goes on from its last checkpoint.
    LabError if there is no such run, it still runs, or it is of a kind that cannot be resumed.
    """
    row = Store(home).find(name)
    if row.status == "running":
        raise LabError(f"{row.id}: still runs, as process {row.pid} on {row.host}")
    if row.parent is not None:
        study = row.id.partition("/")[0]
        raise LabError(f"{row.id}: a piece of a study; go on with all of it: gpt2lab resume {study}")
    if row.kind == "study":
        from gpt2lab.lab.study import resume_study

        return resume_study(row, home=home, workers=workers)
    if row.kind == "train":
        from gpt2lab.lab.training import resume_training

        return resume_training(row, home=home)
    raise LabError(f"{row.id}: a run of kind {row.kind} cannot be resumed; run it again: {row.command}")
