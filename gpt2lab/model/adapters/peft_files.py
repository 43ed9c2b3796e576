"""Adapters as PEFT's folders: adapter_config.json and adapter_model.safetensors, written and read."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gpt2lab.base.errors import LabError, brief, shown
from gpt2lab.base.files import atomic_folder
from gpt2lab.base.json_files import LARGEST_CONFIG, read_object, write_json
from gpt2lab.model.adapters.layers import Adapted, LowRank, untouched
from gpt2lab.model.adapters.lora import Lora, adapted, adapters, known_names
from gpt2lab.model.adapters.peft_layout import Place, by_pattern, places, stacked, targeted
from gpt2lab.model.architecture import attach
from gpt2lab.model.checkpoints.tensor_files import refuse_unreadable, write_safetensors
from gpt2lab.model.finite import all_finite
from gpt2lab.model.transformer import Transformer

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
V = TypeVar("V")
_BEFORE = "base_model.model."
_MATRIX = re.compile(r"(.+)\.lora_(?:([AB])(?:\.default)?\.weight|embedding_([AB])(?:\.default)?)")
"""Of a name: module, and A or B. PEFT reads `default`, the name of its adapter, too, and passes over others in silence."""
_READ = {
    "peft_type", "base_model_name_or_path", "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules",
    "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "use_rslora", "init_lora_weights",
}  # fmt: skip
_MEANS_NOTHING_HERE = {
    "auto_mapping", "revision", "task_type", "inference_mode", "peft_version", "fan_in_fan_out", "megatron_core",
    "megatron_config", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "runtime_config",
    "qalora_group_size",
}  # fmt: skip
_TASKS = ("CAUSAL_LM", "FEATURE_EXTRACTION", "QUESTION_ANS", "SEQ_2_SEQ_LM", "SEQ_CLS", "TOKEN_CLS")
_DRAWN = (True, False, None, "gaussian", "eva", "orthogonal")
"""Ways to draw A and B that leave the base as it is."""


@dataclass(frozen=True)
class _Matrices:
    """What PEFT keeps for one module."""

    A: Tensor
    B: Tensor
    scale: float

    def alpha(self, rslora: bool) -> float:
        """Return lora_alpha for this scale."""
        rank = len(self.A)
        return self.scale * (math.sqrt(rank) if rslora else rank)


def save_adapter(model: Transformer, folder: Path | str, *, base: str, name: str | None = None) -> None:
    """Write one adapter as PEFT does; the folder appears whole or not at all.

    base: where the model below the adapter can be found, a folder or hub id. name: which adapter; None is the only one.
    An adapter of rows that are one matrix on their side is written with zeros for the other rows: the same function. Its
    strength is multiplied into alpha.
    LabError: no such adapter, one that is switched off, a layer that Hugging Face's model has not.
    """
    with atomic_folder(folder) as temporary:
        write_adapter(model, temporary, base=base, name=name)


def write_adapter(model: Transformer, folder: Path, *, base: str, name: str | None = None) -> None:
    """Write an adapter's files into an existing folder (`save_adapter` without the atomic folder around it)."""
    lora = _only(model, name)
    if lora.strength == 0:
        raise LabError(f"{lora.name}: this adapter is switched off; activate it before it is saved")
    known = places(model)
    found = dict(_exported(model, lora, known))
    tensors: dict[str, Tensor] = {}
    tables = {place.theirs for place in known if place.site.table}
    for module, matrices in found.items():
        before = f"{_BEFORE}{module}.lora_"
        pair = {"embedding_A": matrices.A, "embedding_B": matrices.B}
        if module not in tables:
            pair = {"A.weight": matrices.A, "B.weight": matrices.B}
        tensors |= {before + end: tensor.detach().cpu().clone().contiguous() for end, tensor in pair.items()}
    write_json(folder / CONFIG, _entries(model, lora, found, known, base))
    write_safetensors(tensors, folder / WEIGHTS)


def _exported(model: Transformer, lora: Lora, known: list[Place]) -> Iterator[tuple[str, _Matrices]]:
    """Yield their module and its matrices for all that an adapter covers."""
    theirs: dict[str, list[Place]] = {}
    for place in known:
        theirs.setdefault(place.site.module, []).append(place)
    for path, layer in adapted(model):
        parts = layer.parts(lora.name)
        if not parts:
            continue
        if path not in theirs:
            raise LabError(
                f"{path}: a {model.config.family} of Hugging Face's has no such layer for PEFT to adapt"
            )
        for place in theirs[path]:
            pieces = [_rows_of(matrices, place, lora.strength) for matrices in parts.values()]
            met = [piece for piece in pieces if piece is not None]
            if met:
                A, B, scale = stacked(met, place.site.rows.stop - place.site.rows.start)
                yield place.theirs, _Matrices(A, place.rows_to_theirs(B), scale)


def _rows_of(matrices: LowRank, place: Place, strength: float) -> tuple[Tensor, Tensor, slice, float] | None:
    """Cut one part of ours to the rows of a place; None if they have none in common."""
    start = max(matrices.rows.start, place.site.rows.start)
    stop = min(matrices.rows.stop, place.site.rows.stop)
    if start >= stop:
        return None
    B = matrices.B.detach()[start - matrices.rows.start : stop - matrices.rows.start]
    rows = slice(start - place.site.rows.start, stop - place.site.rows.start)
    return matrices.A.detach(), B, rows, matrices.scale * strength


def _entries(
    model: Transformer, lora: Lora, found: Mapping[str, _Matrices], known: list[Place], base: str
) -> dict[str, Any]:
    """Return adapter_config.json."""
    ranks = {module: len(matrices.A) for module, matrices in found.items()}
    alphas = {module: _whole(matrices.alpha(lora.rslora)) for module, matrices in found.items()}
    rank, alpha = _usual(ranks), _usual(alphas)
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if model.config.causal else None,
        "base_model_name_or_path": base,
        "inference_mode": True,
        "target_modules": list(found),
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {module: value for module, value in ranks.items() if value != rank},
        "alpha_pattern": {module: value for module, value in alphas.items() if value != alpha},
        "lora_dropout": lora.dropout,
        "use_rslora": lora.rslora,
        "init_lora_weights": "gaussian" if lora.init == "gaussian" else True,
        "fan_in_fan_out": any(place.transposed for place in known if place.theirs in found),
        "bias": "none",
        "modules_to_save": None,
        "layers_to_transform": None,
        "layers_pattern": None,
    }


def _whole(number: float) -> float | int:
    near = round(number)
    return near if math.isclose(number, near, rel_tol=1e-12) else number


def _usual(values: Mapping[str, V]) -> V:
    return Counter(values.values()).most_common(1)[0][0]


def _only(model: Transformer, name: str | None) -> Lora:
    """Return the adapter of that name, or the only one."""
    have = adapters(model)
    if name is not None:
        known_names(model, [name])
        return have[name]
    if len(have) != 1:
        held = f"{', '.join(have)}; say which" if have else "none; attach one first"
        raise LabError(f"one adapter makes one PEFT folder; this model has {held}")
    return next(iter(have.values()))


def is_adapter(folder: Path | str) -> bool:
    """Whether a folder holds an adapter rather than a model."""
    whole = ("model.safetensors", "model.safetensors.index.json")
    return (Path(folder) / CONFIG).is_file() and not any((Path(folder) / name).exists() for name in whole)


def read_adapter_config(folder: Path | str) -> dict[str, Any]:
    """Read adapter_config.json. LabError: missing, broken, no LoRA, or an option that changes what is computed."""
    path = Path(folder) / CONFIG
    entries = read_object(path, largest=LARGEST_CONFIG)
    if entries.get("peft_type") != "LORA":
        raise LabError(f"{path}: peft_type is {shown(entries.get('peft_type'))}; only LORA can be read")
    if (task := entries.get("task_type")) is not None and task not in _TASKS:
        raise LabError(f"{path}: task_type must be one of {', '.join(_TASKS)}, got {shown(task)}")
    if entries.get("bias", "none") != "none":
        raise LabError(
            f"{path}: bias={shown(entries['bias'])} trains biases of the base; only 'none' can be read"
        )
    if entries.get("modules_to_save"):
        raise LabError(
            f"{path}: modules_to_save replaces {shown(entries['modules_to_save'])} of the base; "
            "merge it with PEFT and load the result"
        )
    if entries.get("init_lora_weights", True) not in _DRAWN:
        raise LabError(
            f"{path}: init_lora_weights={shown(entries['init_lora_weights'])} changes the base too; "
            "convert it with PEFT first"
        )
    for key, value in entries.items():
        if value and key not in {*_READ, *_MEANS_NOTHING_HERE, "bias"}:
            raise LabError(f"{path}: {shown(key)[1:-1]}={shown(value)} is not supported")
    return entries


def load_adapter(model: Transformer, folder: Path | str, *, name: str = "default") -> Lora:
    """Attach an adapter from a PEFT folder to the model it was made for, under `name`, and return it.

    LabError, the model unchanged: an adapter for another model (modules or shapes that this one has not), an option that
    is not supported, a file that is not whole, a pickle.
    """
    folder = Path(folder)
    entries = read_adapter_config(folder)
    known = {place.theirs: place for place in places(model, old_names=True)}
    pairs = _pairs(folder, known, model)
    wanted = targeted(entries, known.values())
    if lost := sorted(wanted - pairs.keys()):
        raise LabError(
            f"{folder}: target_modules choose {_listed(lost)}, for which {WEIGHTS} has no matrices"
        )
    if extra := sorted(pairs.keys() - wanted):
        raise LabError(
            f"{folder}: {WEIGHTS} has matrices for {_listed(extra)}, which target_modules do not choose"
        )
    if not pairs:
        raise LabError(f"{folder}: target_modules choose no layer of this {model.config.family} model")
    try:
        lora = _described(entries, pairs, known, name)
    except LabError:
        raise
    except (TypeError, KeyError, AttributeError, ValueError, ArithmeticError) as error:
        raise LabError(
            f"{folder / CONFIG}: an entry is missing or has a wrong type ({brief(error)})"
        ) from None
    for module, (A, B) in pairs.items():
        _check_shapes(
            folder, known[module], A, B, by_pattern(module, entries.get("rank_pattern") or {}, entries["r"])
        )
    attach(model, lora)
    with torch.no_grad():
        for module, (A, B) in pairs.items():
            site = known[module].site
            layer = model.get_submodule(site.module)
            assert isinstance(layer, Adapted)
            matrices = layer.parts(name)[site.part]
            matrices.A.copy_(A)
            matrices.B.copy_(known[module].rows_to_ours(B))
    return lora


def _described(
    entries: Mapping[str, Any], pairs: Mapping[str, Any], known: Mapping[str, Place], name: str
) -> Lora:
    """Say in our words what the adapter is."""
    ranks = {m: by_pattern(m, entries.get("rank_pattern") or {}, entries["r"]) for m in pairs}
    alphas = {m: by_pattern(m, entries.get("alpha_pattern") or {}, entries["lora_alpha"]) for m in pairs}
    rank, alpha = _usual(ranks), _usual(alphas)
    return Lora(
        name=name,
        rank=rank,
        alpha=float(alpha),
        targets=tuple(known[module].site.name for module in pairs),
        dropout=float(entries.get("lora_dropout") or 0.0),
        rslora=bool(entries.get("use_rslora")),
        init="gaussian" if entries.get("init_lora_weights") == "gaussian" else "kaiming",
        rank_pattern={known[m].site.name: value for m, value in ranks.items() if value != rank},
        alpha_pattern={known[m].site.name: float(value) for m, value in alphas.items() if value != alpha},
    )


def _pairs(folder: Path, known: Mapping[str, Place], model: Transformer) -> dict[str, tuple[Tensor, Tensor]]:
    """Read A and B of every module. LabError for a tensor that has no place in this model."""
    found: dict[str, dict[str, Tensor]] = {}
    for full, tensor in _tensors(folder).items():
        name = full.removeprefix(_BEFORE)
        if name.endswith(".base_layer.weight"):
            _same_table(folder, name, tensor, known, model)
            continue
        match = _MATRIX.fullmatch(name)
        if match is None or match[1] not in known:
            raise LabError(
                f"{folder}: tensor {full} has no place in a {model.config.family} with {model.config.n_layers} layers; "
                "the adapter belongs to another base model"
            )
        if not all_finite(tensor):
            raise LabError(f"{folder}: tensor {full} holds NaN or infinity")
        found.setdefault(match[1], {})[match[2] or match[3]] = tensor
    for module, pair in found.items():
        if len(pair) != 2:
            raise LabError(f"{folder}: {module} has lora_{next(iter(pair))}, but not the other matrix")
    return {module: (found[module]["A"], found[module]["B"]) for module in known if module in found}


def _same_table(
    folder: Path, name: str, tensor: Tensor, known: Mapping[str, Place], model: Transformer
) -> None:
    """PEFT writes an adapted embedding's own table beside the adapter; LabError if it is not the model's."""
    place = known.get(name.removesuffix(".base_layer.weight"))
    if place is not None:
        own = untouched(model.get_submodule(place.site.module)).weight
        if (
            isinstance(own, Tensor)
            and own.shape == tensor.shape
            and torch.equal(own.cpu(), tensor.to(own.dtype))
        ):
            return
    raise LabError(
        f"{folder}: holds a table {name} that differs from this model's; the adapter belongs to another base model"
    )


def _tensors(folder: Path) -> dict[str, Tensor]:
    if not (folder / WEIGHTS).is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        hint = (
            "; adapter_model.bin is a pickle file, which is never read: save it anew with PEFT"
            if pickled
            else ""
        )
        raise LabError(f"{folder}: {WEIGHTS} is missing{hint}")
    refuse_unreadable(folder / WEIGHTS)
    try:
        return load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise LabError(f"{folder / WEIGHTS}: truncated or not a safetensors file ({brief(error)})") from None


def _check_shapes(folder: Path, place: Place, A: Tensor, B: Tensor, rank: object) -> None:
    outputs = place.site.rows.stop - place.site.rows.start
    for matrix, tensor, shape in (("A", A, (rank, place.site.inputs)), ("B", B, (outputs, rank))):
        if tuple(tensor.shape) != shape:
            raise LabError(
                f"{folder}: lora_{matrix} of {place.theirs} is {list(tensor.shape)}, this model and adapter_config.json "
                f"make it {list(shape)}; the adapter belongs to another base model"
            )


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
