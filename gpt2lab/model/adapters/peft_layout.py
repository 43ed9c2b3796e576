"""How our places for adapters and the modules of Hugging Face's models correspond, and their rules for choosing modules."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError, brief, shown
from gpt2lab.base.patterns import check_pattern
from gpt2lab.model.adapters.layers import WHOLE
from gpt2lab.model.adapters.targets import ALL_LINEAR, Site, sites
from gpt2lab.model.checkpoints.families import FAMILIES, Weight
from gpt2lab.model.transformer import Transformer

V = TypeVar("V")
_PARTS = {1: (WHOLE,), 2: ("gate", "up"), 3: ("q", "k", "v")}


@dataclass(frozen=True)
class Place:
    """One of their modules, and the site on our side that is the same matrix or the same rows of a fused one."""

    theirs: str
    """Full name in their model, `transformer.h.0.attn.c_attn`."""
    site: Site
    transposed: bool
    """Theirs is a Conv1D, [in, out]; the adapter's matrices have the same shapes all the same."""
    heads: int | None
    """Of a matrix whose rows go head by head on their side: how many heads."""

    def rows_to_theirs(self, B: Tensor) -> Tensor:
        """Bring B [outputs, rank] from our order of rows to theirs."""
        return B if self.heads is None else _regrouped(B, (3, self.heads))

    def rows_to_ours(self, B: Tensor) -> Tensor:
        """Bring B [outputs, rank] from their order of rows to ours."""
        return B if self.heads is None else _regrouped(B, (self.heads, 3))


def places(model: Transformer, *, old_names: bool = False) -> list[Place]:
    """Return their modules that an adapter can sit on, in the order of the model; with `old_names` under those too.

    LabError for a model of no family of Hugging Face's.
    """
    if model.config.family not in FAMILIES:
        raise LabError(
            f"{model.config.family}: no family of Hugging Face's, so PEFT has no names for its layers"
        )
    ours = {site.name: site for site in sites(model)}
    return [place for row in _rows(model, old_names) for place in _of_row(row, ours, model)]


def _rows(model: Transformer, old_names: bool) -> Iterator[Weight]:
    family = FAMILIES[model.config.family]
    for row in family.weights:
        yield from row.rows(model.config)
    yield Weight("head.weight", (family.head_in_model or family.head,), outside=True)
    if old_names and family.head_in_model:
        yield Weight("head.weight", (family.head,), outside=True)


def _of_row(row: Weight, ours: Mapping[str, Site], model: Transformer) -> Iterator[Place]:
    """Yield the places of one row of the family's table; none for biases, gains and stacked experts."""
    module, _, kind = row.ours.rpartition(".")
    if kind != "weight" or module not in ours or len(row.theirs) not in _PARTS:
        return
    family = FAMILIES[model.config.family]
    for name, part in zip(row.theirs, _PARTS[len(row.theirs)], strict=True):
        site = ours[module if part == WHOLE else f"{module}.{part}"]
        full = name if row.outside else family.full_name(name, model.config)
        yield Place(full.removesuffix(".weight"), site, row.transposed, row.heads(model.config))


def _regrouped(tensor: Tensor, groups: tuple[int, int]) -> Tensor:
    """Swap the two outer factors of the first axis: rows [a, b, rest] → [b, a, rest]."""
    return tensor.unflatten(0, (*groups, -1)).transpose(0, 1).flatten(0, 2)


def by_pattern(name: str, patterns: Mapping[str, V], default: V) -> V:
    """Look a module up in PEFT's rank_pattern or alpha_pattern: regular expressions for the end of its name."""
    for pattern, value in patterns.items():
        if _matches(rf"(.*\.)?({pattern})$", name):
            return value
    return default


def targeted(entries: Mapping[str, Any], known: Iterable[Place]) -> set[str]:
    """Return the names of the modules that an adapter_config.json chooses, by PEFT's rules.

    LabError for a regular expression that is none.
    """
    target, exclude = entries.get("target_modules"), entries.get("exclude_modules")
    for key, value in (("target_modules", target), ("exclude_modules", exclude)):
        listed = isinstance(value, list) and all(isinstance(one, str) for one in value)
        if value is not None and not isinstance(value, str) and not listed:
            raise LabError(f"adapter_config.json: {key} must be names of modules, got {shown(value)}")
    if entries.get("layers_pattern") and entries.get("layers_to_transform") is None:
        raise LabError("adapter_config.json: layers_pattern is given, and layers_to_transform is not")
    found = set()
    for place in known:
        name = place.theirs
        if exclude and _named(name, exclude):
            continue
        if isinstance(target, str) and target.lower() == ALL_LINEAR:
            chosen = not place.site.table and place.site.module != "head"
        else:
            chosen = _named(name, target or ())
            whole = isinstance(target, str) or name in (target or ())  # PEFT asks for no layer of those
            chosen = chosen and (whole or _layer_chosen(name, entries))
        if chosen:
            found.add(name)
    return found


def _named(name: str, names: str | Iterable[str]) -> bool:
    """A regular expression for the whole name, or a list of names and ends of names."""
    if isinstance(names, str):
        return _matches(rf"(?:{names})\Z", name) is not None
    return any(name == one or name.endswith(f".{one}") for one in names)


def _layer_chosen(name: str, entries: Mapping[str, Any]) -> bool:
    """Apply layers_to_transform: numbers of layers, the number standing behind one of layers_pattern."""
    layers, pattern = entries.get("layers_to_transform"), entries.get("layers_pattern")
    if layers is None or layers == []:
        return True
    stems = [pattern] if isinstance(pattern, str) and pattern else pattern or [r"[^.]*"]
    wanted = [layers] if isinstance(layers, int) else layers
    if (
        not isinstance(wanted, list)
        or not isinstance(stems, list)
        or not all(isinstance(stem, str) for stem in stems)
    ):
        raise LabError(
            f"adapter_config.json: layers_to_transform and layers_pattern must be lists, got {shown(layers)} and "
            f"{shown(pattern)}"
        )
    for stem in stems:
        found = _matches(rf"(?:^|.*?\.){stem}\.(?P<index>\d+)\.", name)
        if found:
            return int(found["index"]) in wanted
    return False


def _matches(pattern: str, name: str) -> "re.Match[str] | None":
    check_pattern(pattern, "adapter_config.json")
    try:
        return re.match(pattern, name)
    except (re.error, OverflowError, RecursionError) as error:
        raise LabError(
            f"adapter_config.json: {shown(pattern)} is no regular expression ({brief(error)})"
        ) from None


def stacked(pieces: list[tuple[Tensor, Tensor, slice, float]], outputs: int) -> tuple[Tensor, Tensor, float]:
    """Write adapters of several rows of one matrix as one: A stacked, B with a block for each and zeros elsewhere.

    pieces: A [r, inputs], B [rows, r], which rows, scale. Returns A [Σ r, inputs], B [outputs, Σ r] and one scale.
    Where the scales differ they move into B.
    """
    scales = {scale for *_, scale in pieces}
    common = scales.pop() if len(scales) == 1 else 1.0
    down = torch.cat([A for A, *_ in pieces])
    up = down.new_zeros(outputs, len(down))
    start = 0
    for A, B, rows, scale in pieces:
        up[rows, start : start + len(A)] = B if scale == common else B * (scale / common)
        start += len(A)
    return down, up, common
