"""Tensors in a folder of safetensors files, with or without an index: read one at a time, written in shards."""

import json
import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gpt2lab.base.errors import LabError, brief
from gpt2lab.base.json_files import write_json
from gpt2lab.model.finite import all_finite

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000


class StoredTensors:
    """The tensors of a folder by name; the files stay open as long as `stack`.

    LabError: no files, a file that is truncated, or one that lacks what the index promises.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.handles: dict[str, Any] = {}
        for path, expected in _weight_files(folder).items():
            refuse_unreadable(path)
            try:
                handle = stack.enter_context(safe_open(path, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise LabError(f"{path}: truncated or not a safetensors file ({brief(error)})") from None
            names = set(handle.keys())
            if expected is not None and (lost := sorted(expected - names)):
                raise LabError(f"{path}: the index promises {some(lost)}, the file does not have it")
            # The index alone says where a tensor is: a copy in another file may be an older one.
            self.handles |= dict.fromkeys(names if expected is None else expected, handle)

    def refuse_fewer_than(self, layers: int) -> None:
        """LabError if there are fewer tensors than layers: checked before a model of so many layers is built."""
        if len(self.handles) < layers:
            raise LabError(
                f"{self.folder}: config.json says {layers:,} layers, the files hold {len(self.handles):,} tensors"
            )

    def read(self, name: str) -> Tensor:
        """Read one tensor; LabError if it is missing or holds NaN or infinity."""
        if name not in self.handles:
            have = f"it has {len(self.handles)} tensors"
            raise LabError(f"{self.folder}: tensor {name} is missing ({have})")
        tensor: Tensor = self.handles[name].get_tensor(name)
        if tensor.is_floating_point() and not all_finite(tensor):
            raise LabError(f"{self.folder}: tensor {name} holds NaN or infinity")
        return tensor


def write_tensors(tensors: Mapping[str, Tensor], folder: Path, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Write tensors, none sharing memory with another, as one file, or as several of at most `shard_bytes`."""
    shards = _sharded(tensors, shard_bytes)
    if len(shards) == 1:
        write_safetensors(shards[0], folder / WEIGHTS)
        return
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for name, shard in zip(names, shards, strict=True):
        write_safetensors(shard, folder / name)
    total = sum(tensor.nbytes for shard in shards for tensor in shard.values())
    index = {
        "metadata": {"total_size": total},
        "weight_map": {key: name for name, shard in zip(names, shards, strict=True) for key in shard},
    }
    write_json(folder / INDEX, index)


def refuse_unreadable(path: Path) -> None:
    """LabError if the system lets nobody read a file, which safetensors takes for a missing one."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise LabError(f"{path}: cannot be read ({error.strerror})") from None


def write_safetensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write one safetensors file. OSError, as for any other file, if the disk is full or the system refuses."""
    try:
        save_file(dict(tensors), path, metadata={"format": "pt"})
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))  # the library gives the system's error as text alone
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error


def some(names: list[str]) -> str:
    """List the first few of many names, each of them briefly."""
    shown = ", ".join(map(brief, names[:4]))
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown


def _weight_files(folder: Path) -> dict[Path, set[str] | None]:
    """Files of the checkpoint, each with the names that the index promises in it (None without an index)."""
    if (folder / WEIGHTS).is_file():
        return {folder / WEIGHTS: None}
    if not (folder / INDEX).is_file():
        pickled = [name for name in os.listdir(folder) if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]
        hint = (
            f"; {pickled[0]} is a pickle file, which is never read: convert it to safetensors"
            if pickled
            else ""
        )
        raise LabError(f"{folder}: no weights here, {WEIGHTS} is missing{hint}")
    try:
        mapping: Mapping[str, str] = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        files: dict[Path, set[str] | None] = {}
        for name, file in mapping.items():
            path = folder / Path(file).name  # a name only: an index must not lead out of its folder
            promised = files.setdefault(path, set())
            assert promised is not None
            promised.add(name)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError, UnicodeDecodeError):
        raise LabError(f"{folder / INDEX}: not an index of safetensors files") from None
    for path in files:
        try:
            there = path.is_file()
        except OSError:  # a name that no file can have
            there = False
        if not there:
            raise LabError(f"{folder}: the index names {brief(path.name)}, which is missing")
    return files


def _sharded(tensors: Mapping[str, Tensor], limit: int) -> list[dict[str, Tensor]]:
    """Cut into files of at most `limit` bytes, in order; a larger tensor gets a file of its own."""
    shards: list[dict[str, Tensor]] = [{}]
    used = 0
    for name, tensor in tensors.items():
        if shards[-1] and used + tensor.nbytes > limit:
            shards.append({})
            used = 0
        shards[-1][name] = tensor
        used += tensor.nbytes
    return shards
