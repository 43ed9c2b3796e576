"""Training state on disk: written whole or not at all, read without pickle, continued bit for bit.

A checkpoint is a folder of tensors.safetensors, state.json and SHA256SUMS, the checksums of both. Everything that is
read is checked first; one that is damaged is named in a warning, and the one before it is used.

What is frozen, such as the base beside an adapter, is left out while it has not changed: its fingerprints are kept, and
a run continues only beside the same.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import atomic_folder, atomic_write, check_sums, discard, write_sums
from gpt2lab.base.json_files import read_object
from gpt2lab.model.checkpoints.native import named_tensors
from gpt2lab.model.checkpoints.tensor_files import write_safetensors
from gpt2lab.training.callbacks import Watched
from gpt2lab.training.objectives import Owned

TENSORS, STATE = "tensors.safetensors", "state.json"
LOSS = Watched()
"""The lowest validation loss is the best."""


def fingerprints(model: nn.Module, owned: Owned | None = None) -> dict[str, str]:
    """Return the SHA-256 of each tensor that is frozen or a buffer, by name; of what trains as a whole nothing.

    owned: the objective's modules.
    """
    found = dict[str, str]()
    for prefix, module in _modules(model, owned).items():
        if not all(parameter.requires_grad for parameter in module.parameters()):
            tensors = named_tensors(module)
            found |= {
                f"{prefix}.{name}": _fingerprint(tensor)
                for name, tensor in tensors.items()
                if not tensor.requires_grad
            }
    return found


def _fingerprint(tensor: Tensor) -> str:
    digest = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)} ".encode())
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_checkpoint(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    notes: dict[str, Any],
    frozen: Mapping[str, str] | None = None,
    owned: Owned | None = None,
) -> Path:
    """Write `folder/step-XXXXXXXX`: weights, the optimizer's state, the step and `notes` (plain values).

    frozen: `fingerprints` of the model and modules as the run began, which a resumed one can begin with again. Tensors
    that still have theirs are left out. owned: the objective's modules, whose weights are kept too.
    Validation numbers in `notes`, or in `notes["validation"]`, decide which checkpoint is the best; where
    `notes["validated"]` is the step at which they were measured, only if that is this one.
    Optimizer state that is neither a tensor nor a plain value is a TypeError of the optimizer's author.
    """
    path = folder / f"step-{step:08d}"
    own, before = _all_tensors(model, owned), frozen or {}
    unchanged = {name: sum for name, sum in before.items() if _fingerprint(own[name]) == sum}
    tensors = {name: tensor for name, tensor in own.items() if name not in unchanged}
    plain: dict[str, dict[str, Any]] = {}
    state = optimizer.state_dict()
    for index, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            else:
                plain.setdefault(str(index), {})[name] = value
    groups = [
        {name: value for name, value in group.items() if name != "params"} for group in state["param_groups"]
    ]
    with atomic_folder(path) as temporary:
        # Contiguous copies on the CPU: safetensors refuses views that share memory.
        kept = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        write_safetensors(kept, temporary / TENSORS)
        content = {
            "step": step,
            "optimizer": type(optimizer).__name__,
            "groups": groups,
            "state": plain,
            "frozen": unchanged,
            "notes": notes,
        }
        atomic_write(temporary / STATE, json.dumps(content))
        write_sums(temporary)
    return path


def load_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, owned: Owned | None = None
) -> tuple[int, dict[str, Any]]:
    """Put a checkpoint's weights, those of the objective's modules and the optimizer's state back; return step and notes.

    LabError: a damaged file, another model, another frozen base or another optimizer.
    """
    content, tensors = _read(path)
    if content["optimizer"] != type(optimizer).__name__:
        raise LabError(
            f"{path}: written with {content['optimizer']}, this run uses {type(optimizer).__name__}"
        )
    _put_back(path, _all_tensors(model, owned), content, tensors)
    state = optimizer.state_dict()
    restored: dict[int, dict[str, Any]] = {
        int(index): dict(entries) for index, entries in content["state"].items()
    }
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, entry = name.split(".", 2)
            restored.setdefault(int(index), {})[entry] = value
    groups = [
        {**old, **_tuples(new)} for old, new in zip(state["param_groups"], content["groups"], strict=True)
    ]
    optimizer.load_state_dict({"state": restored, "param_groups": groups})
    return content["step"], content["notes"]


def _put_back(
    path: Path, own: Mapping[str, Tensor], content: dict[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Copy stored weights into those of a model and modules whose frozen ones are those that the run began with."""
    frozen = content["frozen"]
    stored = {name: value for name, value in tensors.items() if not name.startswith("optimizer.")}
    shapes = {name: tensor.shape for name, tensor in own.items() if name not in frozen}
    if shapes != {name: value.shape for name, value in stored.items()} or not frozen.keys() <= own.keys():
        raise LabError(f"{path}: holds another model than this run's settings describe")
    for name, sum in frozen.items():
        if _fingerprint(own[name]) != sum:
            raise LabError(
                f"{path}: {name.removeprefix('model.')}, which is frozen, has changed since this run began; put the model "
                "it began with back, or train anew"
            )
    with torch.no_grad():
        for name, value in stored.items():
            own[name].copy_(value)


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint of a run; a damaged one is passed over for the one before it, with a warning."""
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            check_sums(path)
        except LabError as error:
            warnings.warn(f"{error}; this checkpoint is passed over for the one before it", stacklevel=2)
            continue
        return path
    return None


def load_best_weights(
    folder: Path, model: nn.Module, watched: Watched = LOSS, owned: Owned | None = None
) -> tuple[int, dict[str, Any]]:
    """Put the weights of the best checkpoint into `model` and the objective's modules; return its step and notes.

    LabError if there is none with a finite value.
    """
    path = best_checkpoint(folder, watched)
    if path is None:
        raise LabError(f"{folder}: no checkpoint with a finite {watched.number.replace('_', ' ')}")
    content, tensors = _read(path)
    _put_back(path, _all_tensors(model, owned), content, tensors)
    return int(content["step"]), content["notes"]


def best_checkpoint(folder: Path, watched: Watched = LOSS) -> Path | None:
    """Return the checkpoint with the best finite value of a validation number, the first of equal ones; None without."""
    values = {path: v for path in folder.glob("step-*") if (v := _value(path, watched)) is not None}
    return min(values, key=lambda path: (-watched.gain(values[path], over=0.0), path), default=None)


def prune(folder: Path, keep_last: int, watched: Watched = LOSS) -> None:
    """Delete all but the newest `keep_last` checkpoints and the best."""
    paths = sorted(folder.glob("step-*"))
    kept = {*paths[-keep_last:], best_checkpoint(folder, watched)}
    for path in paths:
        if path not in kept:
            discard(path)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    check_sums(path)
    return read_object(path / STATE), load_file(path / TENSORS)


def _value(path: Path, watched: Watched) -> float | None:
    """Return a validation number of a checkpoint's weights; None without a finite one, or if state.json is damaged."""
    try:
        check_sums(path, [STATE])
        content = read_object(path / STATE)
    except LabError:
        return None
    notes = content["notes"]
    if notes.get("validated", content["step"]) != content["step"]:
        return None  # measured on the weights of an earlier update
    return watched.value(notes.get("validation", notes))


def _modules(model: nn.Module, owned: Owned | None) -> dict[str, nn.Module]:
    """Return what is saved, by the prefix of its names."""
    return {"model": model, **{f"objective.{name}": one.module for name, one in (owned or {}).items()}}


def _all_tensors(model: nn.Module, owned: Owned | None) -> dict[str, Tensor]:
    """Return the tensors of a model and of an objective's modules as a checkpoint names them."""
    return {
        f"{prefix}.{name}": tensor
        for prefix, module in _modules(model, owned).items()
        for name, tensor in named_tensors(module).items()
    }


def _tuples(group: dict[str, Any]) -> dict[str, Any]:
    """JSON has no tuples: give lists of a group (betas) back as tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in group.items()}
