"""Models as folders in Hugging Face's layout: config.json and safetensors, read and written without loss."""

import fnmatch
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.base.files import atomic_folder, atomic_write
from gpt2lab.model.config import TransformerConfig
from gpt2lab.model.families import FAMILIES, Entries, Family, Weight
from gpt2lab.model.transformer import Transformer

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000


def read_config(folder: Path | str) -> TransformerConfig:
    """Read config.json of a checkpoint folder. LabError: no such file, broken JSON, a family we do not have."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise LabError(f"{folder}: no model here, config.json is missing")
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise LabError(f"{path}: not valid JSON ({error})") from None
    name = entries.get("model_type") if isinstance(entries, dict) else None
    if name not in FAMILIES:
        raise LabError(f"{path}: {unknown('model family', str(name), FAMILIES)}")
    reader = Entries(entries, str(path))
    try:
        fields = FAMILIES[name].read(reader)
        return TransformerConfig(**fields, family=name, extra=reader.rest())
    except (TypeError, AttributeError) as error:
        raise LabError(f"{path}: an entry has a wrong type ({error})") from None


def load_model(
    folder: Path | str, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> Transformer:
    """Load a checkpoint folder; dtype None keeps the type the weights are stored in.

    LabError names every tensor that is missing, extra, of a wrong shape or not finite, and a truncated file.
    The model is returned in evaluation mode.
    """
    folder = Path(folder)
    config = read_config(folder)
    family = FAMILIES[config.family]
    with ExitStack() as stack:
        checkpoint = _Checkpoint(folder, config, stack)
        config = config.replace(**family.held(checkpoint.handles))
        with torch.device("meta"):
            model = Transformer(config)
        if config.tied_head and config.head != "none":
            checkpoint.tie()
        state = dict(_translated(model, family, checkpoint, device, dtype))
        checkpoint.refuse_leftovers()
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_head()
    return model.eval()


def save_model(model: Transformer, folder: Path | str, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Write config.json and safetensors as `transformers` does; the folder appears whole or not at all.

    LabError if the model's architecture does not exist in its family's layout.
    """
    with atomic_folder(folder) as temporary:
        write_model(model, temporary, shard_bytes=shard_bytes)


def write_model(model: Transformer, folder: Path, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Write a model's files into an existing folder (`save_model` without the atomic folder around it)."""
    family = FAMILIES[model.config.family]
    entries = {**model.config.extra, **family.write(model.config)}
    entries |= {
        "model_type": family.name,
        "architectures": [family.bare if model.config.head == "none" else family.architecture],
        "dtype": str(model.dtype).removeprefix("torch."),
    }
    entries.pop("torch_dtype", None)
    atomic_write(folder / "config.json", json.dumps(entries, indent=2, sort_keys=True) + "\n")
    shards = _sharded(dict(_exported(model, family)), shard_bytes)
    if len(shards) == 1:
        save_file(shards[0], folder / WEIGHTS, metadata={"format": "pt"})
        return
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for name, shard in zip(names, shards, strict=True):
        save_file(shard, folder / name, metadata={"format": "pt"})
    total = sum(tensor.nbytes for shard in shards for tensor in shard.values())
    index = {
        "metadata": {"total_size": total},
        "weight_map": {key: name for name, shard in zip(names, shards, strict=True) for key in shard},
    }
    atomic_write(folder / INDEX, json.dumps(index, indent=2, sort_keys=True) + "\n")


class _Checkpoint:
    """The tensors of a folder by name, without the family's prefix, read one at a time."""

    def __init__(self, folder: Path, config: TransformerConfig, stack: ExitStack) -> None:
        family = FAMILIES[config.family]
        self.folder, self.family, self.config = folder, family, config
        self.handles: dict[str, Any] = {}
        self.full_names: dict[str, str] = {}
        for path, expected in _weight_files(folder).items():
            try:
                handle = stack.enter_context(safe_open(path, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise LabError(f"{path}: truncated or not a safetensors file ({error})") from None
            names = set(handle.keys())
            if expected is not None and (lost := sorted(expected - names)):
                raise LabError(f"{path}: the index promises {_listed(lost)}, the file does not have it")
            for full in names:
                short = full.removeprefix(family.prefix)
                for old, new in family.renamed.items():
                    short = short.removesuffix(old) + new if short.endswith(old) else short
                if not any(fnmatch.fnmatchcase(short, pattern) for pattern in family.dropped):
                    self.handles[short], self.full_names[short] = handle, full
        self.unused = set(self.handles)

    def names(self, row: Weight) -> tuple[str, ...]:
        """Return the names to read for a row: of several for one tensor, the last that is there."""
        there = [name for name in (*row.theirs, *row.also) if name in self.handles]
        if not row.also or not there:
            return row.theirs
        self.unused.difference_update(there)
        return (there[-1],)

    def take(self, name: str) -> Tensor:
        """Read one tensor; LabError if it is missing or holds NaN or infinity."""
        if name not in self.handles:
            have = f"it has {len(self.handles)} tensors"
            full = self.family.full_name(name, self.config)
            raise LabError(f"{self.folder}: tensor {full} is missing ({have})")
        self.unused.discard(name)
        tensor: Tensor = self.handles[name].get_tensor(self.full_names[name])
        if not torch.isfinite(tensor).all():
            raise LabError(f"{self.folder}: tensor {self.full_names[name]} holds NaN or infinity")
        return tensor

    def tie(self) -> None:
        """Make one tensor of head and embedding table: files hold either or both. LabError if they differ."""
        head, table = self.family.head, self.family.weights[0].theirs[0]
        if head not in self.handles:
            return
        if table not in self.handles:
            self.handles[table], self.full_names[table] = self.handles[head], self.full_names[head]
            self.unused.add(table)
            self.unused.discard(head)
        elif torch.equal(self.take(head), self.take(table)):
            self.unused.add(table)
        else:
            raise LabError(
                f"{self.folder}: {head} differs from {self.full_names[table]}, but config.json ties them; "
                'set "tie_word_embeddings": false'
            )

    def refuse_leftovers(self) -> None:
        """LabError for tensors nobody asked for."""
        if self.unused:
            extra = sorted(self.full_names[name] for name in self.unused)
            raise LabError(f"{self.folder}: a {self.family.name} model has no place for {_listed(extra)}")


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
        if not path.is_file():
            raise LabError(f"{folder}: the index names {path.name}, which is missing")
    return files


def _translated(
    model: Transformer,
    family: Family,
    checkpoint: _Checkpoint,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> Iterator[tuple[str, Tensor]]:
    """Yield our name and tensor for every weight of the model."""
    wanted = {name: tensor.shape for name, tensor in model.named_parameters()}
    for row in _rows(model.config, family):
        if row.ours not in wanted:
            continue  # a bias that this configuration does not have
        shape = wanted.pop(row.ours)
        names = checkpoint.names(row)
        parts = [checkpoint.take(name) for name in names]
        for name, part, expected in zip(names, parts, _part_shapes(row, shape, model.config), strict=True):
            if part.shape != expected:
                raise LabError(
                    f"{checkpoint.folder}: tensor {checkpoint.full_names[name]} is {list(part.shape)}, "
                    f"config.json makes it {list(expected)}"
                )
        tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
        if row.by_head:
            tensor = _regrouped(tensor, (model.config.layer(_layer(row)).n_heads, 3))
        if len(shape) == 3:
            tensor = tensor.view(shape)  # one matrix for each expert
        tensor = (tensor.T if row.transposed else tensor).to(device=device, dtype=dtype)
        yield row.ours, nn.Parameter(tensor.clone(memory_format=torch.contiguous_format))
    assert not wanted, f"{family.name}: no row for {sorted(wanted)}"


def _exported(model: Transformer, family: Family) -> Iterator[tuple[str, Tensor]]:
    """Yield their full name and tensor for every weight of the model."""
    state = {name: parameter.detach().cpu() for name, parameter in model.named_parameters()}
    for row in _rows(model.config, family):
        if row.ours not in state:
            continue
        tensor = state.pop(row.ours)
        if row.by_head:
            tensor = _regrouped(tensor, (3, model.config.layer(_layer(row)).n_heads))
        sizes = [shape[0] for shape in _part_shapes(row, tensor.shape, model.config)]
        tensor = tensor.flatten(0, 1) if tensor.dim() == 3 else tensor
        parts = [tensor.T] if row.transposed else tensor.split(sizes)
        named = list(zip(row.theirs, parts, strict=True)) + [(name, parts[0]) for name in row.also]
        for name, part in named:
            # Cloned: parts of one tensor share memory, which safetensors refuses to write.
            whole = part.clone(memory_format=torch.contiguous_format)
            yield family.full_name(name, model.config), whole
    if state:
        raise LabError(f"a {family.name} checkpoint has no place for {_listed(sorted(state))}")


def _rows(config: TransformerConfig, family: Family) -> Iterator[Weight]:
    for row in family.weights:
        yield from row.rows(config)
    if not config.tied_head:
        yield Weight("head.weight", (family.head,))


def _part_shapes(row: Weight, shape: torch.Size, config: TransformerConfig) -> list[torch.Size]:
    """Shapes of their tensors, given the shape of ours: [q, k, v] by heads, [gate, up] by halves, experts alike."""
    if len(shape) == 3:
        return len(row.theirs) * [torch.Size((shape[0] * shape[1] // len(row.theirs), shape[2]))]
    if row.transposed:
        return [torch.Size(reversed(shape))]
    if len(row.theirs) == 1:
        return [shape]
    if len(row.theirs) == 3:
        layer = config.layer(_layer(row))
        sizes = [layer.n_heads * layer.d_head] + 2 * [layer.n_kv_heads * layer.d_head]
    else:
        sizes = 2 * [shape[0] // 2]
    return [torch.Size((size, *shape[1:])) for size in sizes]


def _layer(row: Weight) -> int:
    return int(row.ours.split(".")[1])


def _regrouped(tensor: Tensor, groups: tuple[int, int]) -> Tensor:
    """Swap the two outer factors of the first axis: rows [a, b, rest] → [b, a, rest]."""
    return tensor.unflatten(0, (*groups, -1)).transpose(0, 1).flatten(0, 2)


def _sharded(tensors: dict[str, Tensor], limit: int) -> list[dict[str, Tensor]]:
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


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:4])
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown
