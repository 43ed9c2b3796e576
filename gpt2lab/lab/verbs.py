"""What people type, as functions: models by folder, hub id or run, parts by name, devices by word."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2lab.base.errors import LabError, nearest
from gpt2lab.base.registry import part
from gpt2lab.base.settings import build, options, update
from gpt2lab.lab.store import Row, Store

if TYPE_CHECKING:
    import torch

    from gpt2lab.decode import Decoder, Generation
    from gpt2lab.lab.run import Run
    from gpt2lab.measure.measurement import Measurement
    from gpt2lab.measure.prediction import Prediction
    from gpt2lab.model import TransformerConfig
    from gpt2lab.text.export import Exported, Kind, Precision
    from gpt2lab.text.language_model import LanguageModel


def load(
    model: "str | Path",
    *,
    device: "torch.device | str | None" = None,
    dtype: "torch.dtype | None" = None,
    architectures: Sequence[type] = (),
) -> "LanguageModel":
    """Load a language model from a folder, a run of the store, or the hub, in this order.

    device None is the GPU if there is one, else the CPU; dtype None is that of the file. architectures: classes that
    the model may have been saved with and that are no registered parts. LabError if there is none of this name, or its
    files are not whole.
    """
    from gpt2lab.text.language_model import load as load_folder

    place = find_model(model)
    try:
        return load_folder(place, device=pick_device(device), dtype=dtype, architectures=architectures)
    except LabError as error:
        raise _no_model(model, place, error) from error


def model_config(model: str | Path) -> "TransformerConfig":
    """Return the configuration of a model that `load` would load, without its weights. LabError as there."""
    from gpt2lab.model.checkpoint import read_config
    from gpt2lab.model.hub import resolve

    place = find_model(model)
    try:
        folder = resolve(place)
    except LabError as error:
        raise _no_model(model, place, error) from error
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        return load(model).config
    return read_config(folder)


def find_model(model: str | Path) -> str | Path:
    """Return the folder of a model given by folder or run; anything else is returned as it is, for the hub.

    LabError for a run that saved no model.
    """
    folder = Path(model).expanduser()
    if holds_model(folder / "model") and not holds_model(folder):
        return folder / "model"  # the folder of a run
    if folder.exists() or isinstance(model, Path):
        return folder
    try:
        row = Store().find(model)
    except LabError:
        return model
    return _model_of(row) if model in (row.id, row.name) else model


def pick_device(device: "torch.device | str | None" = None) -> "torch.device":
    """Return the device of that name; None is the GPU if there is one, else the CPU.

    LabError for a name that torch does not know or a GPU that is not there.
    """
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise LabError(
            f"--device {device}: no such device; cpu, cuda, cuda:1 and mps are names of devices"
        ) from None
    count = torch.cuda.device_count() if chosen.type == "cuda" else 1
    if chosen.type == "cuda" and (chosen.index or 0) >= count:
        raise LabError(
            f"--device {device}: this machine has {count or 'no'} CUDA devices; leave --device out for the CPU"
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise LabError(f"--device {device}: this machine has no Apple GPU; leave --device out for the CPU")
    return chosen


def generate(
    model: "str | Path | LanguageModel",
    prompts: "str | Sequence[str]",
    *,
    decoder: "str | Decoder" = "greedy",
    max_new_tokens: int | None = None,
    device: "torch.device | str | None" = None,
    **settings: Any,
) -> "Generation | list[Generation]":
    """Continue a prompt, or each of several, with any decoder of the floors or of a paper.

    max_new_tokens None is 64, or what the model has positions for. `settings` are those of
    `gpt2lab.decode.generate` and the decoder's own options, such as top_p=0.9.
    """
    from gpt2lab import decode

    if isinstance(decoder, str):
        part("decoder", decoder)  # says that it is unknown, or not built yet, before a model is loaded
    lm = _loaded(model, device)
    if lm.tokenizer is None:
        raise LabError(f"{_called(model)}: holds no tokenizer, so it can neither read nor write text")
    limit = max_new_tokens if max_new_tokens is not None else _room(lm, prompts)
    return decode.generate(lm, prompts, decoder=decoder, max_new_tokens=limit, **settings)


def measure(
    name: str,
    model: "str | Path | LanguageModel",
    *,
    device: "torch.device | str | None" = None,
    **options: object,
) -> "Measurement":
    """Measure a model with the measure of that name; `options` are the measure's own fields, text or typed.

    LabError: no such measure or option, an option of the wrong type.
    """
    made = build(part("measure", name), options, f"measure {name}")
    result: Measurement = made(_loaded(model, device))
    return result


def apply(
    name: str,
    model: "str | Path | LanguageModel",
    *,
    device: "torch.device | str | None" = None,
    **options: object,
) -> "LanguageModel":
    """Return a new model, made of this one by the transform of that name; the given one stays as it is.

    `options` are the transform's own fields, text or typed. LabError: no such transform or option, an option of the
    wrong type, and whatever the transform cannot work on.
    """
    made = build(part("transform", name), options, f"apply {name}")
    return transformed(name, made, _loaded(model, device))


def transformed(name: str, made: "Callable[[LanguageModel], object]", lm: "LanguageModel") -> "LanguageModel":
    """Call a transform. LabError if what it returns is no new language model, or gives NaN or infinite logits."""
    from gpt2lab.model.evaluating import refuse_not_finite
    from gpt2lab.text.language_model import LanguageModel

    result = made(lm)
    if not isinstance(result, LanguageModel):
        raise LabError(f"transform {name} returned {type(result).__name__}; it must return a LanguageModel")
    if result.model is lm.model:
        raise LabError(f"transform {name} returned the model it was given; it must return a new one")
    result.model.eval()
    refuse_not_finite(result.model, f"apply {name}")
    return result


def predict(
    model: "str | Path | LanguageModel",
    texts: "Sequence[str] | Sequence[Sequence[str]]",
    *,
    device: "torch.device | str | None" = None,
    **options: Any,
) -> "list[Prediction]":
    """Say of each text what a model's head has learnt: its class with probabilities, its number, its words' labels.

    `options` are those of `gpt2lab.measure.prediction.predict`: head, pairs, batch_size, truncate, separator.
    """
    from gpt2lab.measure import prediction

    return prediction.predict(_loaded(model, device), texts, **options)


def embed(
    model: "str | Path | LanguageModel",
    texts: Sequence[str],
    *,
    device: "torch.device | str | None" = None,
    **options: Any,
) -> "torch.Tensor":
    """Return a vector for each text, [texts, width], from a model's embedding head, or from its states by `pooling`.

    `options` are those of `gpt2lab.measure.prediction.embed`: head, pooling, prefix, batch_size, truncate.
    """
    from gpt2lab.measure import prediction

    return prediction.embed(_loaded(model, device), texts, **options)


def train(*, name: str = "train", **settings: object) -> "Run":
    """Train a model as `settings` say, text or typed, and return its finished run.

    The settings are those of `gpt2lab.lab.training.TrainingSettings`; those of the loop go without their prefix
    too: steps=300 is train.steps=300. A run shorter than ten warm-ups warms up for a tenth of its steps unless told.
    LabError for settings or data that do not fit.
    """
    from gpt2lab.lab.training import TrainingSettings, train_model
    from gpt2lab.train import TrainSettings

    loop = {option.name for option in options(TrainSettings)}
    given = {f"train.{key}" if key in loop else key: value for key, value in settings.items()}
    made = build(TrainingSettings, {"train.warmup": 0, **given}, "train")
    if "train.warmup" not in given:
        warmup = min(TrainingSettings().train.warmup, made.train.steps // 10)
        made = update(made, {"train.warmup": warmup}, "train")
    part("optimizer", made.optimizer)  # before hours of encoding
    return train_model(made, name=name)


def export(
    model: "str | Path | LanguageModel", *, to: "Kind", out: str | Path, precision: "Precision | None" = None
) -> "Exported":
    """Write a model for other programs; see `gpt2lab.text.export.export`.

    The model is read on the CPU in the type of its file.
    """
    from gpt2lab.text.export import export as write

    return write(_loaded(model, "cpu"), to, out, precision=precision)


def compare(names: Sequence[str], *, out: Path | str | None = None) -> dict[str, Any]:
    """Put runs side by side: {"results": rows, "settings": rows that differ, "html": path of the report}.

    LabError if there are fewer than two runs, or one of them does not exist.
    """
    from gpt2lab.lab.report import comparison_rows, write_comparison

    html = write_comparison(names, out=out)
    rows = list({row.id: row for row in map(Store().find, names)}.values())
    return {**comparison_rows(rows), "html": html}


def _room(lm: "LanguageModel", prompts: "str | Sequence[str]", most: int = 64) -> int:
    """Return how many tokens fit behind the longest prompt, at most `most`; `most` if none fits."""
    from gpt2lab.decode.generate import prompt_tokens

    longest = max((len(prompt_tokens(lm, one)) for one in _several(prompts)), default=0)
    if longest > lm.model.context:
        return most  # decoding says what is wrong
    return min(most, max(lm.model.context - longest, 1))  # some decoders read the last new token too


def _several(prompts: "str | Sequence[str]") -> "Sequence[str]":
    return [prompts] if isinstance(prompts, str) else prompts


def _called(model: "str | Path | LanguageModel") -> str:
    return str(model) if isinstance(model, (str, Path)) else "this model"


def _loaded(model: "str | Path | LanguageModel", device: "torch.device | str | None") -> "LanguageModel":
    return load(model, device=device) if isinstance(model, (str, Path)) else model


def _model_of(row: Row) -> Path:
    out = json.loads(row.settings).get("out") if row.kind == "apply" else None
    folder = Path(out) if out else row.folder() / "model"
    if holds_model(folder):
        return folder
    with_model = [piece.id for piece in Store().pieces(row.id) if holds_model(piece.folder() / "model")]
    if with_model:
        raise LabError(f"{row.id}: a study; its pieces have the models: {', '.join(with_model[:4])}")
    state = (
        f"is {row.status}; gpt2lab resume {row.id}"
        if row.status in ("interrupted", "failed")
        else "saved none"
    )
    raise LabError(f"{row.id}: this run has no model, it {state}")


def holds_model(folder: Path) -> bool:
    """Whether a folder holds a model, or an adapter that names one."""
    return any((folder / name).is_file() for name in ("config.json", "adapter_config.json"))


def _no_model(model: str | Path, place: str | Path, error: LabError) -> LabError:
    """Return what to tell of a model that is not at `place`: who wrote nearly the name of a run meant it."""
    if place != model:
        return error
    try:
        names = [name for row in Store().rows(limit=1000) for name in (row.id, row.name)]
    except LabError as broken:
        return LabError(f"{error}; whether it is a run cannot be told: {broken}")
    match = nearest(str(model), names)
    if match is None:
        return error
    return LabError(
        f"{model}: no folder, no run and no model of the hub that can be had; did you mean the run {match}?"
    )
