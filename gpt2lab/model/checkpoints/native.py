"""The lab's own layout on disk, for models that Hugging Face's layouts cannot express.

config.json holds {"model_type": "gpt2lab", "gpt2lab": {"config": fields of TransformerConfig, "architectures": [{"name":
..., "options": {...}}, ...], "files": {name: SHA-256}, "checksum": SHA-256 of the rest}}, the safetensors files hold the
model's tensors under its own names (`state_dict`). No other program reads it, so a change of any byte is damage.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import sha256
from gpt2lab.base.json_files import check_seal, sealed, write_json
from gpt2lab.base.registry import parts
from gpt2lab.base.settings import from_plain, to_plain
from gpt2lab.model.architecture import architecture_name, attach
from gpt2lab.model.backbone import Architecture
from gpt2lab.model.checkpoints.tensor_files import StoredTensors, some, write_tensors
from gpt2lab.model.config import TransformerConfig
from gpt2lab.model.transformer import Transformer

OWN = "gpt2lab"
"""`model_type` of the layout: transformers knows none of this name and says so."""


def blueprint(config: TransformerConfig, architectures: Iterable[Architecture] = ()) -> Transformer:
    """Return a model with the given architectures attached, on the meta device: names and shapes without numbers."""
    with torch.device("meta"):
        model = Transformer(config)
        for architecture in architectures:
            attach(model, architecture)
    return model


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return what of a model is saved: its parameters, a shared one once, and its persistent buffers."""
    state = model.state_dict(keep_vars=True)
    buffers = {name: tensor for name, tensor in state.items() if not isinstance(tensor, nn.Parameter)}
    return {**dict(model.named_parameters()), **buffers}


def refuse_changed(model: Transformer) -> None:
    """LabError if the model's tensors are not those that its config and architectures make: it could not be loaded."""
    made = named_tensors(blueprint(model.config, model.architectures))
    have = named_tensors(model)
    changed = [
        name
        for name in (*have, *made)
        if name not in made or name not in have or have[name].shape != made[name].shape
    ]
    if changed:
        raise LabError(
            f"{some(list(dict.fromkeys(changed)))}: changed by hand, so that the model's config and architectures "
            "do not describe it; make the change an architecture and attach that"
        )


def write_own(model: Transformer, folder: Path, *, shard_bytes: int) -> None:
    """Write config.json and the tensors. LabError for an architecture whose options cannot be written down."""
    try:
        attached = [{"name": architecture_name(one), "options": to_plain(one)} for one in model.architectures]
    except TypeError as error:
        raise LabError(f"the model's architecture cannot be saved: {error}") from None
    tensors = {
        # Cloned: safetensors refuses to write views that share memory.
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in named_tensors(model).items()
    }
    write_tensors(tensors, folder, shard_bytes=shard_bytes)
    files = {path.name: sha256(path) for path in sorted(folder.glob("*.safetensors*"))}
    content = {"config": to_plain(model.config), "architectures": attached, "files": files}
    entries = {"model_type": OWN, OWN: sealed(content)}
    write_json(folder / "config.json", entries)


def own_config(entries: Mapping[str, Any], where: str) -> TransformerConfig:
    """Return the configuration that a config.json of this layout holds. LabError for an entry of another form."""
    try:
        return from_plain(TransformerConfig, entries[OWN]["config"], f"{where}, config")
    except (KeyError, TypeError, AttributeError) as error:
        raise _not_ours(where, error) from None


def own_architectures(
    entries: Mapping[str, Any], where: str, given: Sequence[type] = ()
) -> list[Architecture]:
    """Return the architectures that a config.json of this layout names, found among `given` and the registered parts.

    LabError for one that is neither, for options that it does not have, and for an entry of another form.
    """
    try:
        rows = [(row["name"], row["options"]) for row in entries[OWN]["architectures"]]
    except (KeyError, TypeError) as error:
        raise _not_ours(where, error) from None
    return [
        from_plain(_found(name, where, given), options, f"{where}, architecture {name}")
        for name, options in rows
    ]


def _not_ours(where: str, error: Exception) -> LabError:
    return LabError(f"{where}: not as gpt2lab writes it ({error!r})")


def _found(name: str, where: str, given: Sequence[type]) -> Any:
    """Return the class of that name; a part goes by the name of its class too, under which it may have been saved."""
    for kind in given:
        if kind.__name__ == name:
            return kind
    for part in parts("architecture"):
        if part.built and name in (part.name, part.object.rpartition(":")[2]):
            return part.load()
    raise LabError(
        f"{where}: made with the architecture {name}, which is not installed here; install the package that has it, or "
        "pass its class: load_model(folder, architectures=[CLASS])"
    )


def load_own(
    folder: Path,
    entries: Mapping[str, Any],
    *,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
    architectures: Sequence[type] = (),
) -> Transformer:
    """Load a folder of this layout, given its config.json; dtype converts all numbers with a point.

    LabError names tensors that are missing, extra, of another shape or kind, or not finite.
    """
    where = str(folder / "config.json")
    config = own_config(entries, where)
    with ExitStack() as stack:
        stored = StoredTensors(folder, stack)
        stored.refuse_fewer_than(config.n_layers)
        attached = own_architectures(entries, where, architectures)
        model = blueprint(config, attached)
        wanted = named_tensors(model)
        if lost := sorted(wanted.keys() - stored.handles.keys()):
            have = f"it has {len(stored.handles)} tensors"
            raise LabError(
                f"{folder}: tensor {some(lost)} is missing ({have}){_remedy(model, wanted[lost[0]])}"
            )
        if extra := sorted(stored.handles.keys() - wanted.keys()):
            raise LabError(f"{folder}: the model of config.json has no place for {some(extra)}")
        # What is made in a type of its own (the scales of quantised weights) keeps it, as in `.to(dtype)`.
        kinds = named_tensors(blueprint(config, attached).to(dtype)) if dtype is not None else {}
        loaded = {}
        for name, like in wanted.items():
            kind = kinds[name].dtype if kinds else None
            loaded[id(like)] = _loaded(stored, name, like, device, kind, _remedy(model, like))
    _check_unchanged(folder, entries[OWN], where)
    state = {name: loaded[id(like)] for name, like in model.state_dict(keep_vars=True).items()}
    model.load_state_dict(state, assign=True)
    unsaved = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    if unsaved:
        raise LabError(
            f"{folder}: {some(unsaved)} is neither saved nor made on loading; an architecture's buffers must be persistent"
        )
    return model


def _check_unchanged(folder: Path, content: Mapping[str, Any], where: str) -> None:
    """LabError if the folder is not as it was written, though it can be read: last, as what is wrong says more."""
    check_seal(content, where)
    for name, digest in content["files"].items():
        if sha256(folder / name) != digest:
            raise LabError(f"{folder / name}: damaged, it does not match its checksum in config.json")


@runtime_checkable
class Reshaping(Protocol):
    """An architecture whose buffers may have another form in files that something else has written."""

    other_form: ClassVar[str]
    """What to do about it, as the end of a sentence."""


def _remedy(model: Transformer, like: Tensor) -> str:
    """What an architecture advises where a buffer of its own has another form in the files."""
    if isinstance(like, nn.Parameter):
        return ""
    return "".join(f"; {one.other_form}" for one in model.architectures if isinstance(one, Reshaping))


def _loaded(
    stored: StoredTensors,
    name: str,
    like: Tensor,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
    remedy: str,
) -> Tensor:
    """Read one tensor in the form of `like`, which is on the meta device, and in that number type."""
    tensor = stored.read(name)
    if tensor.shape != like.shape or tensor.is_floating_point() != like.is_floating_point():
        raise LabError(
            f"{stored.folder}: tensor {name} is {tensor.dtype} {list(tensor.shape)}, "
            f"config.json makes it {like.dtype} {list(like.shape)}{remedy}"
        )
    tensor = tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)
    return (
        nn.Parameter(tensor, requires_grad=like.requires_grad) if isinstance(like, nn.Parameter) else tensor
    )
