"""What the verbs apply, measure and generate leave in the store: a run each, with the model it worked on."""

import contextlib
import os
import re
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2lab.actions import models, verbs
from gpt2lab.actions.models import with_models
from gpt2lab.base.errors import LabError
from gpt2lab.base.files import user_path
from gpt2lab.base.registry import part
from gpt2lab.base.settings import build, to_plain
from gpt2lab.runs.home import FULL
from gpt2lab.runs.lineage import about
from gpt2lab.runs.run import Run

if TYPE_CHECKING:
    from gpt2lab.decode import Generation
    from gpt2lab.measures.measurement import Measurement
    from gpt2lab.measures.prediction import Prediction
    from gpt2lab.text.language_model import LanguageModel

_LONGEST = (
    150  # characters of a result's or a table's name; a comparison puts those of arm and model before it
)


@dataclass(frozen=True)
class Applied:
    """What `apply` wrote."""

    run: Run
    """The finished run."""
    folder: Path
    """The new model's folder."""

    @property
    def bytes(self) -> int:
        """Size of the folder's files."""
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())


def apply(
    name: str,
    model: str,
    *,
    out: Path | str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    options: Mapping[str, object],
    command: str = "",
) -> Applied:
    """Apply a transform to a model and save the result in `out`, or in the run's own folder.

    LabError before any work for an unknown transform or option, for an `out` that holds something else, and for one
    that is the given model's own folder.
    """
    from gpt2lab.text.language_model import refuse_foreign, save

    made = with_models(build(part("transform", name), options, f"apply {name}"))
    place = models.find_model(model)
    folder = Path(os.path.realpath(user_path(out))) if out is not None else None
    if folder is not None:
        refuse_foreign(folder)
        if os.path.realpath(user_path(place)) == str(folder):
            raise LabError(f"--out {out}: the folder of the given model, which would be lost; give another")
    lm = models.load(model, device=device, dtype=dtype)
    before = _count(lm)
    settings = {
        **about(model, place),
        "out": str(folder) if folder else None,
        "dtype": _type(lm),
        "options": to_plain(made),
    }
    began = time.monotonic()
    with Run.start("apply", name, settings=settings, command=command, device=str(lm.model.device)) as run:
        result = verbs.transformed(name, made, lm)
        written = folder or run.folder / "model"
        with _saved_in(written):
            save(result, written)
        applied = Applied(run, written)
        run.result("parameters", _count(result))
        run.result("parameters_before", before)
        run.result("bytes", applied.bytes)
        run.result("seconds", round(time.monotonic() - began, 3))
    return applied


def measure(
    name: str,
    model: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    options: Mapping[str, object],
    command: str = "",
) -> "Measurement":
    """Measure a model as `gpt2lab.actions.verbs.measure` does, and leave a run with the numbers and the tables."""
    made = with_models(build(part("measure", name), options, f"measure {name}"))
    place = models.find_model(model)
    lm = models.load(model, device=device, dtype=dtype)
    settings = {"dtype": _type(lm), "options": to_plain(made)}
    with _noted("measure", name, model, place, settings, command, str(lm.model.device)) as run:
        result: Measurement = made(lm)
        if run is not None:
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
    return result


def generate(
    model: str,
    prompts: Sequence[str],
    *,
    decoder: str,
    device: str | None = None,
    dtype: str | None = None,
    command: str = "",
    **settings: Any,
) -> "list[Generation]":
    """Continue prompts as `gpt2lab.actions.verbs.generate` does, and leave a run with the texts."""
    part("decoder", decoder)  # says that it is unknown before a model is loaded
    place = models.find_model(model)
    lm = models.load(model, device=device, dtype=dtype)
    shown = {key: value for key, value in settings.items() if key != "stream"}
    noted = {"dtype": _type(lm), "decoder": decoder, "prompts": list(prompts), "options": shown}
    seed, device = settings.get("seed", 0), str(lm.model.device)
    with _noted("generate", "generate", model, place, noted, command, device, seed=seed) as run:
        results = verbs.generate(lm, prompts, decoder=decoder, **settings)
        assert isinstance(results, list)
        if run is not None:
            run.text("texts", "\n\n* * *\n\n".join(map(str, results)))
            run.result("texts", len(results))
            run.result("new_tokens", sum(len(result.tokens) for result in results))
    return results


def predict(
    model: str,
    texts: Sequence[str],
    *,
    device: str | None = None,
    dtype: str | None = None,
    command: str = "",
    **options: Any,
) -> "list[Prediction]":
    """Say what a model's head has learnt of texts as `gpt2lab.actions.verbs.predict` does, and leave a run with it."""
    place = models.find_model(model)
    lm = models.load(model, device=device, dtype=dtype)
    settings = {"dtype": _type(lm), "options": options}
    with _noted("predict", "predict", model, place, settings, command, str(lm.model.device)) as run:
        said = verbs.predict(lm, texts, **options)
        if run is not None:
            rows = [
                {
                    "text": text,
                    "labels": " ".join(one.labels),
                    **{f"score {k}": v for k, v in one.scores.items()},
                }
                for text, one in zip(texts, said, strict=True)
            ]
            run.table("predictions", rows, caption="predictions")
            run.result("texts", len(said))
    return said


# How a run is kept.


@contextlib.contextmanager
def _saved_in(folder: Path) -> Iterator[None]:
    """LabError that names this folder if its disk is full: it may be another than that of the runs."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise LabError(
                f"{folder}: no space is left on this disk; free some, or choose another with --out"
            ) from error
        raise


@contextlib.contextmanager
def _noted(
    kind: str,
    name: str,
    model: str,
    place: Path | str,
    settings: Mapping[str, Any],
    command: str,
    device: str,
    **columns: Any,
) -> Iterator[Run | None]:
    """Yield a run; None, with a warning, where none can be kept: the numbers are worth having without one."""
    try:
        settings = {**about(model, place), **settings}
        run = Run.start(kind, name, settings=settings, command=command, device=device, **columns)
    except LabError as error:
        warnings.warn(f"not kept among the runs: {error}", stacklevel=4)
        yield None
        return
    with run:
        yield run


def _type(lm: "LanguageModel") -> str:
    """Return the type of a model's weights, as a run's record has it: float32, bfloat16, ..."""
    return str(lm.model.dtype).removeprefix("torch.")


def _count(lm: Any) -> int:
    total: int = lm.model.count_parameters()["total"]
    return total


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
