"""Resume whatever was stopped."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2lab.base.errors import LabError
from gpt2lab.base.lease import holder_of
from gpt2lab.runs.store import Store

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run
    from gpt2lab.studies.study import Study


def resume(
    name: str,
    *,
    home: Path | str | None = None,
    workers: int | None = None,
    take_over: bool = False,
    seeds: Sequence[int] = (),
) -> "Study | Run":
    """Resume a study, a training run or a transform that trains, given by id, name or the beginning of an id.

    A study repeats only the units that have not finished; the others continue from their last checkpoint. seeds: further
    ones that it is to have, of a study that has ended, too. take_over: even if another process seems to run it; that
    process stops at its next write.
    LabError if there is no such run, it still runs, or it is of a kind that cannot be resumed.
    """
    store = Store(home)
    row = store.find(name)
    if row.status in ("missing", "damaged"):
        raise LabError(f"{row.id}: {row.message}")
    if row.parent is not None:
        study = row.id.partition("/")[0]
        raise LabError(f"{row.id}: a piece of a study; go on with all of it: gpt2lab resume {study}")
    if row.kind not in ("study", "train", "apply"):
        raise LabError(f"{row.id}: a run of kind {row.kind} cannot be resumed; {row.repeat}")
    holder = holder_of(row.folder(store.home))
    if holder is not None and not take_over:
        raise LabError(
            f"{row.id}: still runs, as {holder.words()}; if that is not so, gpt2lab resume {row.id} --take-over"
        )
    if row.kind == "study":
        from gpt2lab.studies.study import resume_study

        return resume_study(row, home=home, workers=workers, take_over=take_over, seeds=seeds)
    if seeds:
        raise LabError(f"{row.id}: only a study has seeds, and this is a run of kind {row.kind}")
    if workers is not None:
        raise LabError(f"workers {workers}: {row.id} is one process; leave it out")
    if row.kind == "apply":
        from gpt2lab.actions.apply import resume_apply

        return resume_apply(row, home=home, take_over=take_over)
    from gpt2lab.actions.train import resume_training

    return resume_training(row, home=home, take_over=take_over)
