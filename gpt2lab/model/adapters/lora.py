"""Low-rank adaptation (Hu et al. 2021) of any layer of a loaded model, as an architecture part; several at once."""

import dataclasses
import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import nn

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.model.adapters.layers import WHOLE, Adapted, AdaptedEmbedding, AdaptedLinear, LowRank, untouched
from gpt2lab.model.adapters.targets import ALL_LINEAR, Site, chosen, looked_up, refuse_unused
from gpt2lab.model.backbone import Backbone

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_READ_AS_WEIGHT = ("head", "router")
"""Layers whose callers read the weight, so that what the layer does to its input is never done."""


@dataclass(frozen=True, kw_only=True)
class Lora:
    """W x + scale · B A x, scale = alpha / rank (Hu et al. 2021, section 4.1); the base is frozen, A and B train.

    Attaching freezes every weight that the model has, those of other adapters included. A second adapter needs a
    name of its own and adds to the first.
    """

    way_out: ClassVar[str] = "make an ordinary model of it with: gpt2lab apply merge-lora MODEL --out DIR"
    """What to do where another program's layout cannot hold the model."""

    name: str = "default"
    """The adapter's name in the model."""
    rank: int = 8
    """Rows of A and columns of B."""
    alpha: float = 16.0
    """Numerator of the scale."""
    targets: tuple[str, ...] = (ALL_LINEAR,)
    """Layers: q, k, v, o, gate, up, down; q_proj, c_attn …; globs such as `blocks.[01].*`, embedding, head; all-linear."""
    exclude: tuple[str, ...] = ()
    """Layers, by the same patterns, that are removed from `targets`."""
    dropout: float = 0.0
    """Share of the inputs of A that are dropped in training."""
    rslora: bool = False
    """Scale by alpha / √rank (Kalajdzievski 2023, eq. 3), which keeps the size of the update at high ranks."""
    init: Literal["kaiming", "gaussian"] = "kaiming"
    """How A is drawn: U(±1/√inputs) or N(0, 1/rank²). B is zero."""
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    """Layer → rank, for those that differ; the first matching pattern counts."""
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    """Layer → alpha, for those that differ."""
    strength: float = 1.0
    """Factor on all that the adapter adds; 0 switches it off."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise LabError(f"lora: name {self.name!r} must be letters, digits, _ and -")
        for rank in (self.rank, *self.rank_pattern.values()):
            if rank < 1:
                raise LabError(f"lora: rank must be at least 1, got {rank}")
        if not 0.0 <= self.dropout < 1.0:
            raise LabError(f"lora: dropout must lie in [0, 1), got {self.dropout}")
        if not self.targets:
            raise LabError("lora: targets names no layer; all-linear is all but the head")
        numbers = (self.alpha, self.strength, *self.alpha_pattern.values())
        if not all(math.isfinite(number) for number in numbers):
            raise LabError(f"lora: alpha and strength must be finite numbers, got {numbers}")

    def scale(self, rank: int, alpha: float) -> float:
        """Return the factor on B A."""
        return alpha / math.sqrt(rank) if self.rslora else alpha / rank

    def attach(self, model: Backbone, *, generator: torch.Generator | None = None) -> None:
        """Freeze the model and add the adapter, A drawn from `generator` (default: seed 0).

        LabError, the model unchanged: a pattern that stands for nothing, a name that is taken, merged adapters.
        """
        if self.name in adapters(model):
            raise LabError(f"lora: the model has an adapter named {self.name}; set lora.name to another")
        if any(layer.merged_weight is not None for _, layer in adapted(model)):
            raise LabError("lora: the adapters of this model are merged; unmerge(model) first")
        places = chosen(model, self.targets, self.exclude)
        refuse_unused(self.rank_pattern, places, "rank_pattern")
        refuse_unused(self.alpha_pattern, places, "alpha_pattern")
        if self.dropout and (read := [s.name for s in places if s.module.endswith(_READ_AS_WEIGHT)]):
            raise LabError(
                f"lora: no dropout on {read[0]}, whose weight is read as a whole; set dropout to 0"
            )
        model.requires_grad_(False)
        generator = generator if generator is not None else torch.Generator().manual_seed(0)
        for site in places:
            self._add(model, site, generator)

    def _add(self, model: Backbone, site: Site, generator: torch.Generator) -> None:
        layer = model.get_submodule(site.module)
        if not isinstance(layer, Adapted):
            layer = AdaptedEmbedding(layer) if site.table else AdaptedLinear(layer)
            layer.train(model.training)
            model.set_submodule(site.module, layer)
        rank = looked_up(site, self.rank_pattern, self.rank)
        alpha = looked_up(site, self.alpha_pattern, self.alpha)
        device, dtype = _place(layer.base, model)
        matrices = LowRank(
            site.inputs,
            site.rows,
            rank,
            self.scale(rank, alpha),
            dropout=0.0 if site.table else self.dropout,
            device=device,
            dtype=dtype,
        )
        if device.type != "meta":
            matrices.reset(self.init, generator, table=site.table)
        layer.add(self.name, site.part, matrices.train(model.training), self.strength)


def _place(base: nn.Module, model: Backbone) -> tuple[torch.device, torch.dtype]:
    """Device of a base layer, and the number type of its adapters: at least float32, in which small steps count."""
    tensors = [*base.parameters(), *base.buffers()]
    kinds = [tensor.dtype for tensor in tensors if tensor.is_floating_point()]
    wide = torch.promote_types(kinds[0] if kinds else model.dtype, torch.float32)
    return (tensors[0].device if tensors else model.device), wide


def adapted(model: nn.Module) -> Iterator[tuple[str, Adapted]]:
    """Yield the layers that carry adapters, with their paths."""
    for name, module in model.named_modules():
        if isinstance(module, Adapted):
            yield name, module


def adapters(model: Backbone) -> dict[str, Lora]:
    """Return the adapters of a model by name, in the order in which they were attached."""
    return {one.name: one for one in model.architectures if isinstance(one, Lora)}


def adapter_parameters(model: Backbone, names: Collection[str] | None = None) -> dict[str, nn.Parameter]:
    """Return the A and B of the adapters (of all, or of those named), by their names in the model's state.

    LabError if there are none, or for a name that is no adapter.
    """
    wanted = known_names(model, names)
    found = {
        f"{path}.adapters.{name}.{part}.{matrix}": parameter
        for path, layer in adapted(model)
        for name in wanted
        for part, low_rank in layer.parts(name).items()
        for matrix, parameter in (("A", low_rank.A), ("B", low_rank.B))
    }
    if not found:
        raise LabError("the model carries no adapter; attach one: attach(model, Lora(rank=8))")
    return found


def activate(model: Backbone, strengths: Mapping[str, float]) -> None:
    """Set which adapters take part, and how much of each is added; those not named are switched off.

    LabError for a name that is no adapter, and while the adapters are merged.
    """
    wanted = {name: float(strengths.get(name, 0.0)) for name in known_names(model, None)}
    known_names(model, strengths)
    if any(layer.merged_weight is not None for _, layer in adapted(model)):
        raise LabError("the adapters are merged as they are; unmerge(model) before changing which are active")
    for _, layer in adapted(model):
        layer.strengths = {name: wanted[name] for name in layer.strengths}
    _restate(
        model, {name: dataclasses.replace(adapters(model)[name], strength=s) for name, s in wanted.items()}
    )


def train_only(model: Backbone, *names: str) -> None:
    """Let the adapters named train, and nothing else of the model. LabError for a name that is no adapter."""
    parameters = adapter_parameters(model, names)
    model.requires_grad_(False)
    for parameter in parameters.values():
        parameter.requires_grad_(True)


def remove(model: Backbone, name: str) -> None:
    """Take an adapter off; a layer without any is the base's own again. The weights stay frozen.

    LabError if there is none of this name, or while the adapters are merged.
    """
    known_names(model, [name])
    layers = list(adapted(model))
    if any(layer.merged_weight is not None for _, layer in layers):
        raise LabError("the adapters are merged; unmerge(model) before one is removed")
    for path, layer in layers:
        if name in layer.adapters:
            del layer.adapters[name], layer.strengths[name]
        if not layer.adapters:
            model.set_submodule(path, untouched(layer))
    _restate(model, {name: None})


def combine(model: Backbone, weights: Mapping[str, float], name: str) -> Lora:
    """Add an adapter that is Σ weight · ΔW of others, exactly: their A stacked, their B side by side.

    Its rank at each place is the sum of theirs. The others are switched off; the new one is not trainable until
    `train_only`. LabError: a name that is taken or no adapter, adapters that chose a matrix once as a whole and once by
    its parts, no weights.
    """
    sources = known_names(model, weights)
    if not sources:
        raise LabError("combine: give the adapters and their weights, such as {'first': 0.5, 'second': 0.5}")
    found: dict[tuple[str, str], list[tuple[LowRank, float]]] = {}
    for path, layer in adapted(model):
        for source in sources:
            for part, matrices in layer.parts(source).items():
                found.setdefault((path, part), []).append((matrices, weights[source]))
    places = {path if part == WHOLE else f"{path}.{part}": pieces for (path, part), pieces in found.items()}
    ranks = {place: sum(matrices.rank for matrices, _ in pieces) for place, pieces in places.items()}
    made = Lora(
        name=name,
        targets=tuple(places),
        rank_pattern=ranks,
        alpha_pattern={place: float(rank) for place, rank in ranks.items()},  # scale 1: the factors are in B
        dropout=max(adapters(model)[source].dropout for source in sources),
    )
    trained = {p for p in model.parameters() if p.requires_grad}
    made.attach(model)
    model.architectures = (*model.architectures, made)
    with torch.no_grad():
        for (path, part), pieces in found.items():
            target = model.get_submodule(f"{path}.adapters.{name}.{part}")
            assert isinstance(target, LowRank)
            target.A.copy_(torch.cat([matrices.A for matrices, _ in pieces]))
            target.B.copy_(torch.cat([matrices.B * (matrices.scale * w) for matrices, w in pieces], dim=1))
    for parameter in model.parameters():
        parameter.requires_grad_(parameter in trained)
    activate(model, {name: 1.0})
    return adapters(model)[name]


@dataclass(frozen=True)
class Trainable:
    """How much of a model trains."""

    trainable: int
    """Weights with a gradient."""
    total: int
    """All weights, tied ones once."""

    def __str__(self) -> str:
        return (
            f"{self.trainable:,} of {self.total:,} weights train ({self.trainable / max(self.total, 1):.2%})"
        )


def count_trainable(model: nn.Module) -> Trainable:
    """Count the weights that train; `print(count_trainable(model))` says it in a line."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return Trainable(sum(n for n, trains in sizes if trains), sum(n for n, _ in sizes))


def known_names(model: Backbone, names: Collection[str] | None) -> list[str]:
    """Return the names of adapters asked for (None: all); LabError for one that the model has not."""
    have = list(adapters(model))
    for name in names or ():
        if name not in have:
            raise (
                unknown("adapter of this model", name, have)
                if have
                else LabError(f"{name}: this model carries no adapter")
            )
    return have if names is None else [name for name in have if name in names]


def _restate(model: Backbone, changed: Mapping[str, Lora | None]) -> None:
    """Replace adapters among the model's architectures, or drop those that are None."""
    kept = []
    for one in model.architectures:
        new = changed.get(one.name, one) if isinstance(one, Lora) else one
        if new is not None:
            kept.append(new)
    model.architectures = tuple(kept)
