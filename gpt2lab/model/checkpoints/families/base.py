"""How a family of checkpoints maps to the transformer: configuration entries and a table of weight names."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gpt2lab.base.errors import LabError, shown
from gpt2lab.model.config import TransformerConfig
from gpt2lab.model.limits import check_size
from gpt2lab.model.rotary import RotaryScaling


@dataclass(frozen=True)
class Weight:
    """One row of a family's table: our tensor and the checkpoint's, `{i}` standing for the layer, `{e}` for the expert.

    Several names on their side are stacked along the first axis of ours, in that order, expert after expert.
    `transposed`: theirs is [in, out] (GPT-2's Conv1D), ours [out, in].
    """

    ours: str
    theirs: tuple[str, ...]
    transposed: bool = False
    by_head: bool = False
    """Their rows go head by head (q, k, v of head 0, then of head 1 …), ours all queries, all keys, all values."""
    outside: bool = False
    """Their name stands outside the family's prefix."""
    also: tuple[str, ...] = ()
    """Further names for the same tensor: written under all of them; of those that a file holds, the last one counts."""

    def heads(self, config: TransformerConfig) -> int | None:
        """For how many heads the rows go head by head, in a row that is written out; None: as ours.

        So do ours where keys and values are shared by several heads, for which such a checkpoint has no order.
        """
        if not self.by_head:
            return None
        layer = config.layer(int(self.ours.split(".")[1]))
        return layer.n_heads if layer.n_kv_heads == layer.n_heads else None

    def rows(self, config: TransformerConfig) -> Iterator["Weight"]:
        """Write the row out for every layer and expert."""
        if "{i}" not in self.ours:
            yield self
            return
        for i in range(config.n_layers):
            experts = range(config.layer(i).n_experts) if any("{e}" in name for name in self.theirs) else (0,)
            theirs = tuple(name.format(i=i, e=e) for e in experts for name in self.theirs)
            yield replace(self, ours=self.ours.format(i=i), theirs=theirs)


@dataclass(frozen=True)
class Family:
    """An architecture that Hugging Face checkpoints come in."""

    name: str
    """`model_type` in config.json."""
    architecture: str
    """Class of `transformers` that opens what we save."""
    prefix: str
    """What stands before every name but the head's, in files of the whole language model; absent in the bare model's."""
    weights: tuple[Weight, ...]
    dropped: tuple[str, ...]
    """Names (globs) that carry no weight: masks and tables that are computed."""
    head: str
    """Their name of the output head."""
    read: Callable[["Entries"], dict[str, Any]]
    """config.json → fields of TransformerConfig."""
    write: Callable[[TransformerConfig], dict[str, Any]]
    """TransformerConfig → config.json entries; LabError for what the architecture does not have."""
    bare: str = ""
    """Class of `transformers` that opens a model without a head."""
    head_in_model: str = ""
    """Name of the head's weight in today's model of `transformers`, where files keep an older one."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Old endings of names → today's."""
    not_null: tuple[str, ...] = ()
    """Entries with a default that may be left out but not be null, whether they are read here or not, as in transformers."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Other names of config.json's entries, which transformers takes too → the family's own."""
    held: Callable[[Collection[str]], dict[str, Any]] = lambda names: {}
    """Names in a file → fields of TransformerConfig that follow from them rather than from config.json."""

    def full_name(self, name: str, config: TransformerConfig) -> str:
        """Return a name of the table as it stands in the files of a model of this configuration."""
        outside = {self.head}.union(*({*row.theirs, *row.also} for row in self.weights if row.outside))
        return name if name in outside or config.head == "none" else self.prefix + name


class Entries:
    """A config.json that remembers which entries were read, so that the others can be written back."""

    def __init__(self, entries: Mapping[str, Any], where: str) -> None:
        self.entries, self.where, self.used = entries, where, set[str]()

    def get(self, name: str, default: Any) -> Any:
        """Return an entry or its default; null counts as absent."""
        self.used.add(name)
        value = self.entries.get(name)
        return default if value is None else value

    def need(self, name: str) -> Any:
        """Return an entry that must be there."""
        value = self.get(name, None)
        if value is None:
            raise LabError(f"{self.where}: config.json lacks {name}")
        return value

    def fraction(self, name: str, default: float) -> float:
        """Return a number that is written with a point; LabError for one without, which transformers refuses too."""
        value = self.entries.get(name, default)
        self.used.add(name)
        if not isinstance(value, float):
            raise LabError(f"{self.where}: {name} must be a number with a point, got {shown(value)}")
        return value

    def refuse_null(self, names: Iterable[str]) -> None:
        """LabError if one of these entries is there and null."""
        for name in names:
            if name in self.entries and self.entries[name] is None:
                raise LabError(f"{self.where}: {name} must not be null; leave it out for its default")

    def layers(self, name: str, default: int | None = None) -> int:
        """Return the number of layers; LabError for none without a default, and for one that no model has."""
        value = self.need(name) if default is None else self.get(name, default)
        check_size("n_layers", value)
        return int(value)

    def choose(self, name: str, default: Any, choices: Mapping[str, Any]) -> Any:
        """Translate an entry by a table of what is supported."""
        value = self.get(name, default)
        if not isinstance(value, str) or value not in choices:
            raise LabError(
                f"{self.where}: {name} {shown(value)} is not supported; supported: {', '.join(choices)}"
            )
        return choices[value]

    def refuse(self, name: str, *supported: Any) -> None:
        """Refuse an entry whose value changes the computation in a way the transformer does not follow."""
        value = self.entries.get(name)  # not noted as used: it is written back as it is
        if value is not None and value not in supported:
            raise LabError(f"{self.where}: {name}={shown(value)} is not supported, only {supported[0]!r}")

    def rest(self) -> dict[str, Any]:
        """Return the entries nobody asked for, and those asked for that were null or absent are left out."""
        return {name: value for name, value in self.entries.items() if name not in self.used}


ACTIVATION_NAMES = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu": "gelu",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
}
"""Hugging Face's names of activations → ours."""

ACTIVATION_WRITTEN = {"gelu_tanh": "gelu_new", "gelu": "gelu", "silu": "silu", "relu": "relu"}


def norm_rows(ours: str, theirs: str, *, bias: bool = True) -> tuple[Weight, ...]:
    """Rows for a norm's gain and bias."""
    kinds = ("weight", "bias") if bias else ("weight",)
    return tuple(Weight(f"{ours}.{kind}", (f"{theirs}.{kind}",)) for kind in kinds)


def special_ids(entries: Entries) -> dict[str, int | None]:
    """Return bos, eos and pad ids; of a list of ends the first. The list stays in `rest`, to be written back.

    LabError for a list of beginnings or paddings, which transformers refuses too.
    """

    def one(name: str) -> int | None:
        value = entries.entries.get(name)
        if isinstance(value, list) and name != "eos_token_id":
            raise LabError(f"{entries.where}: {name} must be a whole number or null, got {shown(value)}")
        if isinstance(value, list):
            return value[0] if value else None
        return entries.get(name, None)

    return {"bos": one("bos_token_id"), "eos": one("eos_token_id"), "pad": one("pad_token_id")}


def written_ids(config: TransformerConfig) -> dict[str, Any]:
    """The reverse of `special_ids`: a list of ids that `extra` keeps is written as long as its first is still the one."""
    ids = {"bos_token_id": config.bos, "eos_token_id": config.eos, "pad_token_id": config.pad}
    kept = {name: config.extra.get(name) for name in ids}
    return {
        name: old if isinstance(old := kept[name], list) and old[:1] == [id] else id
        for name, id in ids.items()
    }


def read_rotary(
    entries: Entries, max_positions: int, *, base: float = 10000.0, share: float = 1.0
) -> dict[str, Any]:
    """Read base, rotated share and scaling: `rope_parameters` as transformers 5 writes them, or the older entries.

    `base` and `share` hold where the entries do not say. Where both forms are there, `rope_scaling` counts, as in
    transformers.
    """
    rope = entries.get("rope_scaling", {}) or entries.get("rope_parameters", {})
    if nested := [name for name, value in rope.items() if isinstance(value, dict)]:
        raise LabError(
            f"{entries.where}: rotary positions of each kind of layer ({nested[0]}) are not supported"
        )
    fields = {
        "rotary_base": _number(_first(rope.get("rope_theta"), entries.get("rope_theta", base))),
        "rotary_fraction": _number(_first(rope.get("partial_rotary_factor"), share)),
    }
    kind = _first(rope.get("rope_type"), rope.get("type"), "default")
    if kind == "default":
        return fields
    original = max_positions  # what linear does not look at, and dynamic counts from
    if kind in ("yarn", "llama3"):
        inside = _first(rope.get("original_max_position_embeddings"), max_positions)
        original = entries.get("original_max_position_embeddings", inside)
    factor = rope.get("factor")
    factor = max_positions / original if factor is None else _number(factor)
    options: dict[str, Any] = {"kind": kind, "factor": factor, "original_positions": original}
    if kind == "yarn":
        wide, all_wide = rope.get("mscale"), rope.get("mscale_all_dim")
        if rope.get("attention_factor") is not None:
            options["magnitude"] = _number(rope["attention_factor"])
        elif wide and all_wide:
            grown = math.log(max(factor, 1.0)) * 0.1
            options["magnitude"] = (wide * grown + 1) / (all_wide * grown + 1)
        options |= {name: _number(rope[name]) for name in ("beta_fast", "beta_slow") if rope.get(name)}
        options["truncate"] = rope.get("truncate", True)
    elif kind == "llama3":
        options["low_frequency"] = _number(rope["low_freq_factor"])
        options["high_frequency"] = _number(rope["high_freq_factor"])
    elif kind not in ("linear", "dynamic"):
        raise LabError(
            f"{entries.where}: rotary scaling {shown(kind)} is not supported, only linear, dynamic, yarn and llama3"
        )
    return {**fields, "rotary_scaling": RotaryScaling(**options)}


def _first(*values: Any) -> Any:
    """Return the first value that is not null: a zero is a value."""
    return next((value for value in values if value is not None), None)


def _number(value: Any) -> float:
    """Return a number of JSON as float; TypeError for a text and a truth value, which float() would read as one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"expected a number, found {shown(value)}")
    return float(value)


def written_rotary(config: TransformerConfig) -> dict[str, Any]:
    """The reverse of `read_rotary`, in the form that transformers 5 reads."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rotary_base}
    if config.rotary_fraction != 1.0:
        rope["partial_rotary_factor"] = config.rotary_fraction
    scaling = config.rotary_scaling
    if scaling is not None:
        rope |= {"rope_type": scaling.kind, "factor": scaling.factor}
        if scaling.kind in ("yarn", "llama3"):
            rope["original_max_position_embeddings"] = scaling.original_positions
        if scaling.kind == "dynamic" and scaling.original_positions != config.max_positions:
            raise LabError(
                f"a {config.family} checkpoint counts dynamic scaling from its {config.max_positions} positions, "
                f"this model from {scaling.original_positions}; it cannot be written in that layout"
            )
        if scaling.extrapolation != 1:
            raise LabError(
                f"a {config.family} checkpoint has no entry for YaRN's extrapolation factor, this model's is "
                f"{scaling.extrapolation}; it cannot be written in that layout"
            )
        if scaling.kind == "yarn":
            rope |= {
                "beta_fast": scaling.beta_fast,
                "beta_slow": scaling.beta_slow,
                "truncate": scaling.truncate,
            }
            rope["attention_factor"] = scaling.amplitude
        if scaling.kind == "llama3":
            rope |= {"low_freq_factor": scaling.low_frequency, "high_freq_factor": scaling.high_frequency}
    return {"rope_parameters": rope, "rope_theta": config.rotary_base}


DECODER: dict[str, Any] = {
    "causal": True,
    "norm_placement": "pre",
    "embedding_norm": False,
    "token_types": 0,
    "position_offset": 0,
    "head": "linear",
    "head_bias": False,
    "pooler": False,
}
"""What every causal family requires."""


def require(config: TransformerConfig, **needed: Any) -> None:
    """Refuse to write a configuration that the architecture cannot express."""
    for name, value in needed.items():
        if getattr(config, name) != value:
            raise LabError(
                f"a {config.family} checkpoint has {name}={value!r}, this model {getattr(config, name)!r}; "
                "it cannot be written in that layout"
            )


def require_uniform(config: TransformerConfig, *names: str) -> None:
    """Refuse per-layer sizes, which no Hugging Face architecture has."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, tuple) and len(set(value)) > 1:
            raise LabError(f"a {config.family} checkpoint has one {name} for all layers, this model {value}")
