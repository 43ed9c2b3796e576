"""Models as folders: config.json and safetensors, in Hugging Face's layout where it has one, else in the lab's own."""

import fnmatch
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import reduce
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gpt2lab.base.errors import LabError, brief, shown, unknown
from gpt2lab.base.files import atomic_folder, restore
from gpt2lab.base.json_files import LARGEST_CONFIG, read_object, write_json
from gpt2lab.base.wording import listed
from gpt2lab.model.architecture import architecture_name, ways_out
from gpt2lab.model.checkpoints.families import FAMILIES, Entries, Family, Weight
from gpt2lab.model.checkpoints.gguf_file import is_gguf
from gpt2lab.model.checkpoints.gguf_model import gguf_config, load_gguf
from gpt2lab.model.checkpoints.native import (
    OWN,
    blueprint,
    load_own,
    own_architectures,
    own_config,
    refuse_changed,
    write_own,
)
from gpt2lab.model.checkpoints.tensor_files import SHARD_BYTES, StoredTensors, some, write_tensors
from gpt2lab.model.config import TransformerConfig
from gpt2lab.model.finite import all_finite
from gpt2lab.model.task_head_format import head_rows, read_head, the_head, written_head
from gpt2lab.model.transformer import Transformer

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_DTYPES = ("auto", *(str(dtype).removeprefix("torch.") for dtype in FLOATS), *map(str, FLOATS))
Layout = Literal["auto", "huggingface", "gpt2lab"]


def read_config(folder: Path | str) -> TransformerConfig:
    """Read the configuration of a checkpoint folder or GGUF file. LabError: no such file, broken, an unknown family."""
    folder = Path(folder)
    if is_gguf(folder):
        return gguf_config(folder)
    entries = _read_entries(folder)
    where = str(folder / "config.json")
    return own_config(entries, where) if entries["model_type"] == OWN else _family_config(entries, where)


def read_outline(folder: Path | str) -> Transformer:
    """Return the model of a checkpoint, its architectures attached, on the meta device. LabError as `read_config`."""
    folder = Path(folder)
    if is_gguf(folder):
        return blueprint(gguf_config(folder))
    entries = _read_entries(folder)
    own = entries["model_type"] == OWN
    return blueprint(
        read_config(folder), own_architectures(entries, str(folder / "config.json")) if own else ()
    )


def _read_entries(folder: Path) -> dict[str, Any]:
    """Return the content of config.json, whose `model_type` is one we know."""
    path = folder / "config.json"
    if not path.is_file():
        files = sorted(folder.glob("*.gguf"))
        instead = f"; of GGUF files one is given, such as {files[0]}" if files else ""
        raise LabError(f"{folder}: no model here, config.json is missing{instead}")
    entries = read_object(path, largest=LARGEST_CONFIG)
    name = entries.get("model_type")
    if not isinstance(name, str):
        raise LabError(
            f"{path}: model_type, which says what family the model is of, is missing; known: {', '.join(FAMILIES)}"
        )
    if name not in FAMILIES and name != OWN:
        raise LabError(f"{path}: {unknown('model family', name, FAMILIES)}")
    return entries


def _family_config(entries: dict[str, Any], where: str) -> TransformerConfig:
    """Translate Hugging Face's entries."""
    name = entries["model_type"]
    reader = Entries(_own_names(entries, FAMILIES[name], where), where)
    if entries.get("quantization_config"):
        raise LabError(
            f"{where}: quantization_config says that the weights were packed by another program, which is not "
            "supported; write them out as ordinary numbers there"
        )
    for key in ("dtype", "torch_dtype"):
        stored = entries.get(key)
        if stored is not None and stored not in _DTYPES:
            raise LabError(f"{where}: {key} must be one of {', '.join(_DTYPES)}, got {shown(stored)}")
    reader.refuse_null(FAMILIES[name].not_null)
    try:
        fields = FAMILIES[name].read(reader)
        return TransformerConfig(**fields, family=name, extra=reader.rest())
    except LabError as error:
        raise error if where in str(error) else LabError(f"{where}: {error}") from None
    except KeyError as error:
        raise LabError(f"{where}: an entry lacks {error.args[0]}") from None
    except (TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise LabError(f"{where}: an entry has a wrong type or value ({brief(error)})") from None


def _own_names(entries: dict[str, Any], family: Family, where: str) -> dict[str, Any]:
    """Return the entries under the family's own names. LabError if one stands there twice, with two values."""
    named = {name: value for name, value in entries.items() if name not in family.aliases}
    for alias, name in family.aliases.items():
        if alias in entries and named.setdefault(name, entries[alias]) != entries[alias]:
            raise LabError(f"{where}: {alias} and {name} are one setting, and differ")
    return named


def load_model(
    folder: Path | str,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    architectures: Sequence[type] = (),
) -> Transformer:
    """Load a checkpoint folder; dtype None keeps the type the weights are stored in, of several the one that holds all.

    A GGUF file is read too, in float32 unless `dtype` is given.
    architectures: classes of architectures that the model may have been saved with and that are no registered parts.
    LabError names every tensor that is missing, extra, of a wrong shape or not finite, and a truncated file.
    The model is returned in evaluation mode.
    """
    folder = Path(folder)
    if is_gguf(folder):
        return load_gguf(folder, device=device, dtype=dtype)
    restore(folder)  # a process may have died while it replaced the folder
    entries = _read_entries(folder)
    if entries["model_type"] == OWN:
        return load_own(folder, entries, device=device, dtype=dtype, architectures=architectures).eval()
    config = _family_config(entries, str(folder / "config.json"))
    family = FAMILIES[config.family]
    with ExitStack() as stack:
        checkpoint = _Checkpoint(folder, config, stack)
        checkpoint.stored.refuse_fewer_than(config.n_layers)
        config = config.replace(**family.held(checkpoint.full_names))
        head = read_head(entries, str(folder / "config.json"))
        model = blueprint(config, [head] if head is not None else [])
        if config.tied_head and config.head != "none":
            checkpoint.tie()
        state = dict(_translated(model, family, checkpoint, device, dtype))
        checkpoint.refuse_leftovers()
    if len({tensor.dtype for tensor in state.values()}) > 1:
        whole = reduce(torch.promote_types, (tensor.dtype for tensor in state.values()))
        state = {name: nn.Parameter(tensor.detach().to(whole)) for name, tensor in state.items()}
    model.load_state_dict(state, strict=False, assign=True)
    if config.head != "none" and isinstance(
        model.head, nn.Linear
    ):  # a head for classes may have taken its place
        model.tie_head()
    return model.eval()


def save_model(
    model: Transformer, folder: Path | str, *, layout: Layout = "auto", shard_bytes: int = SHARD_BYTES
) -> None:
    """Write config.json and safetensors; the folder appears whole or not at all.

    layout: "auto" is Hugging Face's, which `transformers` opens, wherever it can express the model, else the lab's own.
    LabError: layout "huggingface" for a model that it cannot express, with the reason; a model whose tensors are not
    those of its config and architectures, which could not be loaded again.
    """
    with atomic_folder(folder) as temporary:
        write_model(model, temporary, layout=layout, shard_bytes=shard_bytes)


def write_model(
    model: Transformer, folder: Path, *, layout: Layout = "auto", shard_bytes: int = SHARD_BYTES
) -> None:
    """Write a model's files into an existing folder (`save_model` without the atomic folder around it)."""
    refuse_changed(model)
    if layout != "gpt2lab":
        try:
            entries, tensors = _hugging_face(model)
        except LabError:
            if layout == "huggingface":
                raise
        else:
            write_json(folder / "config.json", entries)
            write_tensors(tensors, folder, shard_bytes=shard_bytes)
            return
    write_own(model, folder, shard_bytes=shard_bytes)


def _hugging_face(model: Transformer) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return config.json and tensors in the layout of the model's family. LabError if it cannot express the model."""
    family = FAMILIES[model.config.family]
    head = the_head(model)
    if model.architectures and head is None:
        names = listed(list(dict.fromkeys(architecture_name(one) for one in model.architectures)))
        raise LabError(
            f"Hugging Face's {family.name} has no place for what the architecture {names} changes{ways_out(model)}"
        )
    entries = {**model.config.extra, **family.write(model.config)}
    entries |= {
        "model_type": family.name,
        "architectures": [family.bare if model.config.head == "none" else family.architecture],
        "dtype": str(model.dtype).removeprefix("torch."),
    }
    entries.pop("torch_dtype", None)
    if head is not None:
        entries |= written_head(head, model.config)
    return entries, dict(_exported(model, family))


class _Checkpoint:
    """The tensors of a folder by name, without the family's prefix, read one at a time."""

    def __init__(self, folder: Path, config: TransformerConfig, stack: ExitStack) -> None:
        family = FAMILIES[config.family]
        self.folder, self.family, self.config = folder, family, config
        self.stored = StoredTensors(folder, stack)
        self.full_names: dict[str, str] = {}
        for full in self.stored.handles:
            short = full.removeprefix(family.prefix)
            for old, new in family.renamed.items():
                short = short.removesuffix(old) + new if short.endswith(old) else short
            if not any(fnmatch.fnmatchcase(short, pattern) for pattern in family.dropped):
                self.full_names[short] = full
        self.unused = set(self.full_names)

    def names(self, row: Weight) -> tuple[str, ...]:
        """Return the names to read for a row: of several for one tensor, the last that is there."""
        there = [name for name in (*row.theirs, *row.also) if name in self.full_names]
        if not row.also or not there:
            return row.theirs
        self.unused.difference_update(there)
        return (there[-1],)

    def take(self, name: str) -> Tensor:
        """Read one tensor; LabError if it is missing or holds NaN or infinity."""
        self.unused.discard(name)
        full = self.full_names.get(name) or self.family.full_name(name, self.config)
        tensor = self.stored.read(full)
        if tensor.dtype not in FLOATS:
            raise LabError(
                f"{self.folder}: tensor {full} holds {str(tensor.dtype).removeprefix('torch.')}; weights in Hugging Face's "
                "layout are float16, bfloat16, float32 or float64"
            )
        return tensor

    def tie(self) -> None:
        """Make one tensor of head and embedding table: files hold either or both. LabError if they differ."""
        head, table = self.family.head, self.family.weights[0].theirs[0]
        if head not in self.full_names:
            return
        if table not in self.full_names:
            self.full_names[table] = self.full_names[head]
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
            raise LabError(f"{self.folder}: a {self.family.name} model has no place for {some(extra)}")


def _translated(
    model: Transformer,
    family: Family,
    checkpoint: _Checkpoint,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> Iterator[tuple[str, Tensor]]:
    """Yield our name and tensor for every weight of the model."""
    wanted = {name: tensor.shape for name, tensor in model.named_parameters()}
    for row in _rows(model, family):
        if row.ours not in wanted:
            continue  # a bias that this configuration does not have
        shape = wanted.pop(row.ours)
        names = checkpoint.names(row)
        parts = [checkpoint.take(name) for name in names]
        shapes = _part_shapes(row, shape, model.config)
        if len(shapes) != len(parts):
            raise LabError(
                f"{checkpoint.folder}: {row.ours} is made of {len(parts)} of the file's tensors, and config.json makes it "
                f"{len(shapes)}"
            )
        for name, part, expected in zip(names, parts, shapes, strict=True):
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
        if dtype == torch.float16 and not all_finite(tensor):
            raise LabError(
                f"{checkpoint.folder}: {checkpoint.full_names[names[0]]} goes beyond float16, which ends at 65504; "
                "load the model in float32 or bfloat16"
            )
        yield row.ours, nn.Parameter(tensor.clone(memory_format=torch.contiguous_format))
    assert not wanted, f"{family.name}: no row for {sorted(wanted)}"


def _exported(model: Transformer, family: Family) -> Iterator[tuple[str, Tensor]]:
    """Yield their full name and tensor for every weight of the model."""
    state = {name: parameter.detach().cpu() for name, parameter in model.named_parameters()}
    # Files with a head for classes have the family's prefix, whether or not there is a language head.
    naming = model.config if the_head(model) is None else model.config.replace(head="linear")
    for row in _rows(model, family):
        if row.ours not in state:
            continue
        named = _their_parts(row, state.pop(row.ours), model.config)
        for name, part in named:
            # Cloned: parts of one tensor share memory, which safetensors refuses to write.
            whole = part.clone(memory_format=torch.contiguous_format)
            yield (name if row.outside else family.full_name(name, naming)), whole
    if state:
        raise LabError(f"a {family.name} checkpoint has no place for {some(sorted(state))}")


def places_of(model: Transformer, name: str) -> tuple[str, Tensor] | None:
    """Find a weight that the model's family has under `name`, with or without the family's prefix.

    Returns our name of the tensor it is (a part of) and the places of its entries in our flattened tensor, int64 in
    their shape; None if the family has no such weight.
    """
    family = FAMILIES[model.config.family]
    shapes = {ours: parameter.shape for ours, parameter in model.named_parameters()}
    if model.config.tied_head and name == family.head:
        shape = shapes["embedding.weight"]
        return "embedding.weight", torch.arange(shape.numel()).view(shape)
    for row in _rows(model, family):
        wanted = {short for short in (*row.theirs, *row.also) if name in (short, family.prefix + short)}
        if row.ours in shapes and wanted:
            shape = shapes[row.ours]
            parts = dict(_their_parts(row, torch.arange(shape.numel()).view(shape), model.config))
            return row.ours, parts[wanted.pop()]
    return None


def _their_parts(row: Weight, tensor: Tensor, config: TransformerConfig) -> list[tuple[str, Tensor]]:
    """Cut one of our tensors into theirs, by name."""
    if row.by_head:
        tensor = _regrouped(tensor, (3, config.layer(_layer(row)).n_heads))
    sizes = [shape[0] for shape in _part_shapes(row, tensor.shape, config)]
    tensor = tensor.flatten(0, 1) if tensor.dim() == 3 else tensor
    parts = [tensor.T] if row.transposed else tensor.split(sizes)
    return list(zip(row.theirs, parts, strict=True)) + [(name, parts[0]) for name in row.also]


def _rows(model: Transformer, family: Family) -> Iterator[Weight]:
    head = the_head(model)
    if head is not None:
        yield from head_rows(head, model.config)
    for row in family.weights:
        yield from row.rows(model.config)
    if not model.config.tied_head:
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
