"""Training state on disk: written whole or not at all, read without pickle, continued bit for bit.

A checkpoint is a folder of tensors.safetensors, state.json and SHA256SUMS, the checksums of both. Everything that is
read is checked first; one that is damaged is named in a warning, and the one before it is used.

What is frozen, such as the base beside an adapter, is left out while it has not changed: its fingerprints are kept, and
a run continues only beside the same.
"""

import hashlib
import json
import math
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
from gpt2lab.model.checkpoints.tensor_files import write_safetensors

TENSORS, STATE = "tensors.safetensors", "state.json"


def fingerprints(model: nn.Module) -> dict[str, str]:
    """Return the SHA-256 of each tensor that is frozen or a buffer, by name; of a model that trains as a whole nothing."""
    if all(parameter.requires_grad for parameter in model.parameters()):
        return {}
    tensors = _model_tensors(model)
    return {name: _fingerprint(tensor) for name, tensor in tensors.items() if not tensor.requires_grad}


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
) -> Path:
    """Write `folder/step-XXXXXXXX`: weights, the optimizer's state, the step and `notes` (plain values).

    frozen: `fingerprints` of the model as the run began, which a resumed one can begin with again. Tensors that still
    have theirs are left out.
    "validation_loss" in `notes`, or in `notes["validation"]`, where there is one, decides which checkpoint is the best.
    Optimizer state that is neither a tensor nor a plain value is a TypeError of the optimizer's author.
    """
    path = folder / f"step-{step:08d}"
    own, before = _model_tensors(model), frozen or {}
    unchanged = {name: sum for name, sum in before.items() if _fingerprint(own[name]) == sum}
    tensors = {f"model.{name}": tensor for name, tensor in own.items() if name not in unchanged}
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
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, dict[str, Any]]:
    """Put a checkpoint's weights and optimizer state back, and return its step and notes.

    LabError: a damaged file, another model, another frozen base or another optimizer.
    """
    content, tensors = _read(path)
    if content["optimizer"] != type(optimizer).__name__:
        raise LabError(
            f"{path}: written with {content['optimizer']}, this run uses {type(optimizer).__name__}"
        )
    _put_back(path, model, content, tensors)
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


def _put_back(path: Path, model: nn.Module, content: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Copy stored weights into a model whose frozen ones are those that the run began with."""
    own, frozen = _model_tensors(model), content["frozen"]
    stored = {
        name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")
    }
    shapes = {name: tensor.shape for name, tensor in own.items() if name not in frozen}
    if shapes != {name: value.shape for name, value in stored.items()} or not frozen.keys() <= own.keys():
        raise LabError(f"{path}: holds another model than this run's settings describe")
    for name, sum in frozen.items():
        if _fingerprint(own[name]) != sum:
            raise LabError(
                f"{path}: {name}, which is frozen, has changed since this run began; put the model it began with back, or "
                "train anew"
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


def load_best_weights(folder: Path, model: nn.Module) -> int:
    """Put the weights of the checkpoint with the lowest validation loss into `model`; returns its step."""
    path = best_checkpoint(folder)
    if path is None:
        raise LabError(f"{folder}: no checkpoint with a finite validation loss")
    content, tensors = _read(path)
    _put_back(path, model, content, tensors)
    return int(content["step"])


def best_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint with the lowest finite validation loss, if any has one."""
    losses = {path: loss for path in folder.glob("step-*") if (loss := _validation_loss(path)) is not None}
    return min(losses, key=lambda path: (losses[path], path), default=None)


def prune(folder: Path, keep_last: int) -> None:
    """Delete all but the newest `keep_last` checkpoints and the best."""
    paths = sorted(folder.glob("step-*"))
    kept = {*paths[-keep_last:], best_checkpoint(folder)}
    for path in paths:
        if path not in kept:
            discard(path)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    check_sums(path)
    return read_object(path / STATE), load_file(path / TENSORS)


def _validation_loss(path: Path) -> float | None:
    """Return the validation loss of a checkpoint; None without a finite one, or if state.json is damaged."""
    try:
        check_sums(path, [STATE])
        notes = read_object(path / STATE)["notes"]
    except LabError:
        return None
    loss = notes.get("validation", notes).get("validation_loss")
    # One that is not finite is no measurement: min() keeps a NaN that comes first.
    return float(loss) if loss is not None and math.isfinite(loss) else None


def _model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters (a tied one once) and buffers that are saved."""
    state = model.state_dict(keep_vars=True)
    buffers = {name: tensor for name, tensor in state.items() if not isinstance(tensor, nn.Parameter)}
    return {**dict(model.named_parameters()), **buffers}


def _tuples(group: dict[str, Any]) -> dict[str, Any]:
    """JSON has no tuples: give lists of a group (betas) back as tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in group.items()}
