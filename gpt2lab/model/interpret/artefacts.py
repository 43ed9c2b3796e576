"""Activations on disk: one .npz file whose arrays are named after the places, and a JSON header; no pickle."""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import atomic_write

if TYPE_CHECKING:
    from gpt2lab.model.transformer import Transformer

HEADER = "header.json"
"""Name of the array that holds the header, UTF-8 bytes."""
_VERSION = 1


@dataclass(frozen=True)
class Artefact:
    """What `load_activations` reads."""

    tensors: dict[str, Tensor]
    """By name, in the type they were saved in."""
    header: dict[str, Any]
    """version, model (hash), tokens (hash), sites, dtypes, about."""


def save_activations(
    path: Path | str,
    tensors: Mapping[str, Tensor],
    *,
    model: "Transformer",
    tokens: Tensor,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write tensors by name, with hashes of the model and of the tokens they come from; the file appears whole.

    about: further plain values for the header. numpy has no bfloat16: such tensors are stored as float32, which holds
    them exactly, and come back as they were.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise LabError(f"{path}: activations are saved as .npz")
    if not tensors or HEADER in tensors:
        raise LabError(
            f"{path}: " + (f"a tensor cannot be called {HEADER}" if tensors else "there is nothing to save")
        )
    header = {
        "version": _VERSION,
        "model": model_hash(model),
        "tokens": tokens_hash(tokens),
        "sites": list(tensors),
        "dtypes": {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()},
        "about": dict(about or {}),
    }
    arrays = {name: _array(tensor) for name, tensor in tensors.items()}
    arrays[HEADER] = np.frombuffer(json.dumps(header, ensure_ascii=False).encode(), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # its stub takes the arrays for its options
    atomic_write(path, buffer.getvalue())


def load_activations(
    path: Path | str, *, model: "Transformer | None" = None, tokens: Tensor | None = None
) -> Artefact:
    """Read what `save_activations` wrote; with `model` or `tokens`, refuse a file that comes from others.

    LabError: no such file, a broken one, one of another kind or version.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(bytes(file[HEADER]).decode())
            arrays = {name: file[name] for name in header["sites"]}
            dtypes = {name: getattr(torch, header["dtypes"][name]) for name in arrays}
    except FileNotFoundError:
        raise LabError(f"{path}: no such file") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise LabError(f"{path}: not a file of activations written by gpt2lab ({error})") from None
    if header["version"] != _VERSION:
        raise LabError(f"{path}: written in version {header['version']} of the format, this reads {_VERSION}")
    if model is not None and header["model"] != model_hash(model):
        raise LabError(f"{path}: these activations come from another model")
    if tokens is not None and header["tokens"] != tokens_hash(tokens):
        raise LabError(f"{path}: these activations come from other tokens")
    return Artefact(
        {name: torch.from_numpy(array).to(dtypes[name]) for name, array in arrays.items()}, header
    )


def model_hash(model: "Transformer") -> str:
    """Return a SHA-256 over names, shapes, types and bytes of all weights; any change of a bit changes it."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def tokens_hash(tokens: Tensor) -> str:
    """Return a SHA-256 over shape and ids."""
    plain = tokens.detach().cpu().to(torch.int64).contiguous()
    return hashlib.sha256(f"{list(plain.shape)}\n".encode() + plain.numpy().tobytes()).hexdigest()


def _array(tensor: Tensor) -> "np.ndarray[Any, Any]":
    plain = tensor.detach().cpu()
    array: np.ndarray[Any, Any] = (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
    return array
