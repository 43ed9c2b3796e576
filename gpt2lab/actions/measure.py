"""The verb `measure`: numbers and tables of a model, kept in a run."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2lab.actions.backends import names_back_end, open_back_end
from gpt2lab.actions.models import loaded, with_models
from gpt2lab.actions.record import recorded, result_names
from gpt2lab.base.errors import LabError
from gpt2lab.base.registry import part
from gpt2lab.base.settings import build, to_plain

if TYPE_CHECKING:
    import torch

    from gpt2lab.decode.backend import TextBackend
    from gpt2lab.measures.measurement import Measurement
    from gpt2lab.runs.run import Run
    from gpt2lab.text.language_model import LanguageModel


def measure(
    name: str,
    model: "str | Path | LanguageModel | TextBackend",
    *,
    device: "torch.device | str | None" = None,
    dtype: "torch.dtype | str | None" = None,
    keep: bool = True,
    command: str = "",
    **options: Any,
) -> "Measurement":
    """Measure a model with the measure of that name; `options` are the measure's own fields, text or typed.

    model: as for `load`; a measure of text also takes a text back end, as an object or as `open_back_end` reads it.
    keep: leave a run with the numbers and the tables; command: what it notes as the command that repeats it.
    LabError before the model is loaded: no such measure or option, an option of the wrong type,
    a back end for a measure that needs more than text.
    """
    made = with_models(build(part("measure", name), options, f"measure {name}"))
    measured = _measured(name, made, model, device, dtype)
    settings = {"options": to_plain(made)}
    with recorded("measure", name, model, measured, settings, keep=keep, command=command) as run:
        result: Measurement = made(measured)
        if run is not None:
            _report(run, result)
    return result


def _measured(
    name: str,
    made: object,
    model: "str | Path | LanguageModel | TextBackend",
    device: "torch.device | str | None",
    dtype: "torch.dtype | str | None",
) -> "LanguageModel | TextBackend":
    """Return what the measure is called with."""
    from gpt2lab.decode.backend import TextBackend
    from gpt2lab.measures.text_measure import TextMeasure

    backend = open_back_end(model) if isinstance(model, str) and names_back_end(model) else model
    if not isinstance(backend, TextBackend):
        return loaded(backend, device, dtype)
    if not isinstance(made, TextMeasure):
        raise LabError(
            f"measure {name}: reads a model's weights, which {backend.name} does not show; measures of text are "
            "cloze, multiple-choice and text-statistics"
        )
    if device is not None or dtype is not None:
        raise LabError(f"{backend.name}: computes elsewhere; leave device and dtype out")
    return backend


def _report(run: "Run", result: "Measurement") -> None:
    run.write_file("measurement.json", result.to_json())
    names = result_names(result.numbers)
    for key, value in result.numbers.items():
        run.result(names[key], value)
    names = result_names(result.tables)
    for key, rows in result.tables.items():
        run.table(names[key], rows, caption=key)
    for key, array in result.arrays.items():
        run.array(key, array)
    for key, content in result.files.items():
        run.file(key, content)
