"""Training state on disk: written whole or not at all, read without pickle, continued bit for bit."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import atomic_folder, atomic_write, sha256

TENSORS, STATE = "tensors.safetensors", "state.json"


def save_checkpoint(
    folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, notes: dict[str, Any]
) -> Path:
    """Write `folder/step-XXXXXXXX`: weights, the optimizer's state, the step and `notes` (plain values).

    Tensors go to safetensors, everything else to JSON with the checksum of the tensors; optimizer state of any other
    kind is a TypeError of the optimizer's author.
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
        save_file(kept, temporary / TENSORS)
        content = {
            "step": step,
            "checksum": sha256(temporary / TENSORS),
            "optimizer": type(optimizer).__name__,
            "groups": groups,
            "state": plain,
            "notes": notes,
        }
        atomic_write(temporary / STATE, json.dumps(content, indent=1))
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
    """Return the newest whole checkpoint of a run; one that is damaged is passed over for the one before it."""
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            _read(path)
        except LabError:
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
            shutil.rmtree(path, ignore_errors=True)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        content = json.loads((path / STATE).read_text(encoding="utf-8"))
        if sha256(path / TENSORS) != content["checksum"]:
            raise LabError(f"{path}: damaged, its checksum differs")
        return content, load_file(path / TENSORS)
    except (OSError, json.JSONDecodeError, KeyError, SafetensorError) as error:
        raise LabError(f"{path}: not a whole checkpoint ({error})") from None


def _validation_loss(path: Path) -> float | None:
    try:
        notes = json.loads((path / STATE).read_text(encoding="utf-8"))["notes"]
    except (OSError, json.JSONDecodeError, KeyError):
        return None
    loss = notes.get("validation_loss")
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
