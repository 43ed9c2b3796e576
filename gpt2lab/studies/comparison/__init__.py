"""All parts of one kind side by side under equal conditions: `gpt2lab compare optimizers|decoders|measures`.

Each kind is an experiment like a paper's, without claims: units that run in parallel and resume, a report with figures.
"""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.base.wording import listed

if TYPE_CHECKING:
    from gpt2lab.studies.study import Study

KINDS = ("optimizers", "decoders", "measures")
"""What can be compared."""
_ON = {"optimizers": "workload.data", "decoders": "on", "measures": "data"}


def module_of(kind: str) -> str:
    """Return the module of a comparison. LabError for a kind that cannot be compared."""
    if kind not in KINDS:
        raise unknown("comparison", kind, KINDS)
    return f"{__name__}.{kind}"


def compare_parts(
    kind: str,
    *,
    on: str | Sequence[str] = (),
    models: Sequence[str] = (),
    only: Sequence[str] = (),
    scale: str = "laptop",
    seeds: int | Sequence[int] = 3,
    workers: int | None = None,
    settings: Mapping[str, object] | None = None,
    home: Path | str | None = None,
    device: str | None = None,
    threads: int | None = None,
    name: str | None = None,
) -> "Study":
    """Put the parts of one kind side by side and return the study, whose report has the table and the figures.

    kind: optimizers, decoders or measures. on: the data (of decoders also a model). models: what measures measure.
    only: some of the parts, each a name with options if need be, "sampling top_p=0.9"; the others as for
    `gpt2lab.studies.study.reproduce`. LabError for what does not exist, and if there is nothing to compare.
    """
    from gpt2lab.studies.data_names import check_on
    from gpt2lab.studies.entries import chosen_entries
    from gpt2lab.studies.experiment import comparison_name, load_comparison, refuse_settings
    from gpt2lab.studies.study import run_study

    module = module_of(kind)
    chosen_entries(kind.removesuffix("s"), only)  # a mistake in a name is told before any work
    chosen: dict[str, object] = {}
    if on:
        chosen[_ON[kind]] = (on,) if isinstance(on, str) else tuple(on)
    if only:
        chosen["only"] = tuple(only)
    if kind == "measures":
        chosen["models"] = tuple(models)
        chosen["first_seed"] = 0 if isinstance(seeds, int) else min(seeds, default=0)
    elif models:
        raise LabError(
            f"{listed(models)}: {kind} are compared on data, given by --on; only measures take models"
        )
    chosen |= settings or {}
    refuse_settings(module, comparison_name(module), chosen)  # a mistake need not wait for torch
    if on:
        check_on(kind, (on,) if isinstance(on, str) else on)
    experiment = load_comparison(module)
    importlib.import_module(module).check(experiment.settings(scale, chosen))
    return run_study(
        experiment,
        scale=scale,
        seeds=seeds,
        workers=workers,
        settings=chosen,
        home=home,
        device=device,
        threads=threads,
        name=name,
    )
