"""Training state on disk: written whole or not at all, read without pickle, continued bit for bit.

A checkpoint is a folder of tensors.safetensors, state.json and SHA256SUMS, the checksums of both. Everything that is
read is checked first; one that is damaged is named in a warning, and the one before it is used.
"""

import json
import math
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import atomic_folder, atomic_write, check_sums, discard, write_sums
from gpt2lab.base.json_files import read_object
from gpt2lab.model.weights import write_safetensors

TENSORS, STATE = "tensors.safetensors", "state.json"


def save_checkpoint(
    folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, notes: dict[str, Any]
) -> Path:
    """Write `folder/step-XXXXXXXX`: weights, the optimizer's state, the step and `notes` (plain values).

    `notes["validation"]["validation_loss"]`, where there is one, decides which checkpoint is the best. Optimizer state
    that is neither a tensor nor a plain value is a TypeError of the optimizer's author.
    """
    path = folder / f"step-{step:08d}"
    tensors = {f"model.{name}": tensor for name, tensor in _model_tensors(model).items()}
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
            "notes": notes,
        }
        atomic_write(temporary / STATE, json.dumps(content))
        write_sums(temporary)
    return path


def load_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, dict[str, Any]]:
    """Put a checkpoint's weights and optimizer state back, and return its step and notes.

    LabError: a damaged file, another model or another optimizer.
    """
    content, tensors = _read(path)
    if content["optimizer"] != type(optimizer).__name__:
        raise LabError(
            f"{path}: written with {content['optimizer']}, this run uses {type(optimizer).__name__}"
        )
    own = _model_tensors(model)
    stored = {
        name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")
    }
    if own.keys() != stored.keys() or any(own[name].shape != stored[name].shape for name in own):
        raise LabError(f"{path}: holds another model than this run's settings describe")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(stored[name])
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
    with torch.no_grad():
        for name, tensor in _model_tensors(model).items():
            tensor.copy_(tensors[f"model.{name}"])
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
        loss = read_object(path / STATE)["notes"].get("validation", {}).get("validation_loss")
    except LabError:
        return None
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
