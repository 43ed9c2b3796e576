"""A model by what people type. The same everywhere a model is taken.

A name is searched in this order: a folder or file, the folder of a run, a model of the catalogue that is at hand, a run
of the store, a model of the hub. A run with the name of a fetched model is given by its id, which no model has.
`RUN@UPDATES` is what a run kept on the way.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gpt2lab.actions.catalogue import catalogue, fetched_place, refuse_not_fetched
from gpt2lab.base.errors import LabError, nearest, unknown
from gpt2lab.base.files import user_path
from gpt2lab.base.settings import Model, ModelTokenizer, replace_names
from gpt2lab.runs.home import CHECKPOINT, checkpoint_name
from gpt2lab.runs.store import Row, Store
from gpt2lab.text.hub import resolve

if TYPE_CHECKING:
    import torch

    from gpt2lab.model import Transformer, TransformerConfig
    from gpt2lab.text.language_model import LanguageModel

S = TypeVar("S")

STORED = "stored"
DTYPES = ("float32", "bfloat16", "float16", "float64", STORED)
"""Names of the types that weights are loaded in; stored: that of the file, of a GGUF file its 4 to 8 bits."""
_CONFIGS = ("config.json", "adapter_config.json")


def load(
    model: "str | Path",
    *,
    device: "torch.device | str | None" = None,
    dtype: "torch.dtype | str | None" = None,
    architectures: Sequence[type] = (),
) -> "LanguageModel":
    """Load a language model from a folder, the catalogue's models at hand, a run of the store, or the hub, in this order.

    device None is the GPU if there is one, else the CPU. dtype: one of DTYPES; None is that of the file, of a GGUF file
    float32, and "stored" keeps the matrices of a GGUF file in 4 to 8 bits where the lab's layers hold the same numbers.
    architectures: classes that the model may have been saved with and that are no registered parts. LabError if there
    is none of this name, or its files are not whole.
    """
    place = refuse_missing(model)
    from gpt2lab.text.language_model import load as load_folder  # torch, of which a wrong name need not wait

    try:
        lm = load_folder(
            place,
            device=pick_device(device),
            dtype=pick_dtype(dtype),
            stored=dtype == STORED,
            architectures=architectures,
        )
    except LabError as error:
        raise _no_model(model, place, error) from error
    if place == fetched_place(str(model)):
        lm.source = str(model)
    return lm


def loaded(
    model: "str | Path | LanguageModel",
    device: "torch.device | str | None" = None,
    dtype: "torch.dtype | str | None" = None,
) -> "LanguageModel":
    """Return a model that is loaded already, or load the one of that name. LabError if a loaded one is on another device."""
    if isinstance(model, (str, Path)):
        return load(model, device=device, dtype=dtype)
    from gpt2lab.text.language_model import LanguageModel

    if not isinstance(model, LanguageModel):
        raise LabError(
            f"a model is a name or what gpt2lab.load returns, got an object of {type(model).__name__}"
        )
    if dtype is not None:
        raise LabError(f"dtype {dtype}: this model is loaded already; say so to gpt2lab.load")
    if device is not None and pick_device(device).type != model.model.device.type:
        raise LabError(f"device {device}: this model is on {model.model.device}; say so to gpt2lab.load")
    return model


def refuse_missing(model: str | Path) -> str | Path:
    """Return what `find_model` returns, without torch; LabError if there is no model of this name.

    Of a model of the hub its configuration is fetched.
    """
    place = find_model(model)
    try:
        resolve(place, files=_CONFIGS)
    except LabError as error:
        raise _no_model(model, place, error) from error
    return place


def model_config(model: str | Path) -> "TransformerConfig":
    """Return the configuration of a model that `load` would load, without its weights. LabError as there."""
    from gpt2lab.model.checkpoints.huggingface import read_config

    folder = model_folder(model)
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        return load(model).config
    return read_config(folder)


def with_models(settings: S, *, fetch: bool = True) -> S:
    """Return settings in which models and tokenizers are named by folder: a run's name stands for its model.

    With `fetch` models of the hub are fetched; LabError then for one that is neither a folder, a run, nor on the hub.
    """
    named = replace_names(settings, Model, lambda name: str((model_folder if fetch else find_model)(name)))
    return replace_names(named, ModelTokenizer, lambda name: str(find_model(name)))


def model_folder(model: str | Path) -> Path:
    """Return the local folder of a model given by folder, run or hub id. LabError as for `load`."""
    place = find_model(model)
    try:
        return resolve(place)
    except LabError as error:
        raise _no_model(model, place, error) from error


def model_outline(model: str | Path) -> "Transformer":
    """Return a model that `load` would load with everything attached, on the meta device: shapes without numbers.

    LabError as there. The base of an adapter stands for it.
    """
    from gpt2lab.model.adapters import is_adapter
    from gpt2lab.model.checkpoints.huggingface import read_outline

    folder = model_folder(model)
    return load(model).model.to("meta") if is_adapter(folder) else read_outline(folder)


def named(model: object) -> str | Path:
    """Return a model's name as it is. LabError for a model in memory, where only a name will do."""
    if isinstance(model, (str, Path)):
        return model
    raise LabError(
        "a model is given here by folder, run, hub id or name in the catalogue, not as an object in memory; "
        "save it first: gpt2lab.save(lm, FOLDER)"
    )


def find_model(model: str | Path) -> str | Path:
    """Return the place of a model given by folder, run or name in the catalogue; anything else as it is, for the hub.

    LabError for a run that saved no model, for a model of the catalogue that was not fetched, and for one in memory.
    """
    folder = user_path(named(model))
    if holds_model(folder / "model") and not holds_model(folder):
        return folder / "model"  # the folder of a run
    if folder.exists() or isinstance(model, Path):
        return folder
    fetched = fetched_place(model)
    if fetched is not None:
        return fetched
    store = Store()
    try:
        row = store.find(model)
    except LabError:  # no such run, or a damaged store: the run's folder is enough
        own = store.home / model / "model"
        if holds_model(own):
            return own
    else:
        if model in (row.id, row.name):
            return _model_of(row)
    checkpoint = _checkpoint(store, model)
    if checkpoint is not None:
        return checkpoint
    refuse_not_fetched(model)
    return model


def _checkpoint(store: Store, model: str) -> Path | None:
    """Return the model that a run kept after so many updates, of `RUN@UPDATES`; None for other names.

    LabError for a run that kept none of these updates, with those that it kept.
    """
    name, at, step = model.rpartition("@")
    if not at or not step.isdecimal():
        return None
    try:
        row = store.find(name)
    except LabError:
        return None
    if name not in (row.id, row.name):
        return None
    folder = row.folder() / checkpoint_name(int(step))
    if holds_model(folder):
        return folder
    kept = sorted(
        int(match[1]) for one in row.folder().glob("*") if (match := CHECKPOINT.fullmatch(one.name))
    )
    has = f"it kept those after {', '.join(map(str, kept))}" if kept else "it kept none on the way"
    raise LabError(f"{model}: {row.id} has no weights of update {step}; {has}")


def is_at_hand(model: str) -> bool:
    """Tell whether a model can be loaded here and now: a folder, a run's, one of the catalogue that was fetched."""
    try:
        return isinstance(find_model(model), Path)
    except LabError:
        return False


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


def pick_dtype(dtype: "torch.dtype | str | None") -> "torch.dtype | None":
    """Return the type of that name; None for the file's own. LabError for a name that is not in DTYPES."""
    import torch

    if not isinstance(dtype, str):
        return dtype
    if dtype == STORED:
        return None
    if dtype not in DTYPES:
        raise unknown("type of weights", dtype, DTYPES)
    found: torch.dtype = getattr(torch, dtype)
    return found


def _model_of(row: Row) -> Path:
    out = json.loads(row.settings).get("out") if row.kind == "apply" else None
    folder = Path(out) if out else row.folder() / "model"
    if holds_model(folder):
        return folder
    with_model = [piece.id for piece in Store().pieces(row.id) if holds_model(piece.folder() / "model")]
    if with_model:
        raise LabError(f"{row.id}: a study; its pieces have the models: {', '.join(with_model[:4])}")
    if out:
        raise LabError(f"{row.id}: its model was written to {folder}, where it is no more; {row.repeat}")
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
    """Return what to tell of a model that is not at `place`: nearly the name of a run or of the catalogue is a slip."""
    if place != model:
        return error
    try:
        names = [name for row in Store().rows(limit=1000) for name in (row.id, row.name)]
    except LabError as broken:
        return LabError(f"{error}; whether it is a run cannot be told: {broken}")
    match = nearest(str(model), names)
    known = nearest(str(model), catalogue())
    if match is None and known == model:
        return LabError(f"{error}; where the hub answers, gpt2lab models get {known} keeps it for later")
    if match is None and known is not None:
        return LabError(f"{error}; did you mean {known} of the catalogue (gpt2lab models)?")
    if match is None:
        return LabError(f"{error}; nor is it a run in {Store().home.resolve()}")
    return LabError(
        f"{model}: no folder, no run and no model of the hub that can be had; did you mean the run {match}?"
    )
