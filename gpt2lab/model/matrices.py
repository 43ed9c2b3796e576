"""The matrices of a model in the form in which its family publishes them, whatever tensor they are stored in here.

Queries, keys and values are stored one below the other in one tensor, gates and ups too, and the experts of a layer side
by side: a matter of speed. Whatever treats a matrix as mathematics (optimizers, low-rank adapters, blocks of a rounding,
spectra) asks here which matrices there are. The form of the checkpoints counts: GPT-2's c_attn and GPT-NeoX's
query_key_value are one matrix, the q_proj, k_proj and v_proj of the others are three, the gate and up of a gated
feed-forward two, in each expert.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from gpt2lab.model.backbone import Backbone
from gpt2lab.model.checkpoints.families import FAMILIES, Weight
from gpt2lab.model.layer_kinds import ExpertMaps, LinearMap, Table

_ATTENTION = "qkv"


@runtime_checkable
class StoresTogether(Protocol):
    """A module that keeps several matrices in the tensor of one linear map."""

    def stored_together(self) -> Mapping[str, Mapping[str, int]]:
        """Return, for such maps by name, the matrices in it from top to bottom: their names and numbers of rows."""
        ...


@dataclass(frozen=True)
class Stack:
    """What lies in the tensor of one linear map; of experts, in the map of each."""

    parts: Mapping[str, int]
    """Names of the parts and their numbers of rows, from top to bottom."""
    apart: bool
    """Whether the published form has them as matrices of their own."""


def stacks(model: nn.Module) -> dict[str, Stack]:
    """Return what lies in the linear maps that hold several parts, by the map's path; of models inside a module too."""
    found: dict[str, Stack] = {}
    one_below: list[tuple[str, bool]] = []  # models so far, and whether theirs publish q, k and v as one
    for path, module in model.named_modules():
        before = f"{path}." if path else ""
        if isinstance(module, Backbone):
            one_below.append((before, _fused(module)))
        if isinstance(module, StoresTogether):
            fused = next((fused for prefix, fused in reversed(one_below) if path.startswith(prefix)), False)
            for name, parts in module.stored_together().items():
                found[before + name] = Stack(parts, apart=not (fused and name == _ATTENTION))
    return found


def _fused(model: Backbone) -> bool:
    """Whether the family's checkpoints hold queries, keys and values as one matrix."""
    rows = FAMILIES[model.config.family].weights if model.config.family in FAMILIES else ()
    return any(len(row.theirs) == 1 for row in rows if row.ours.endswith(f".{_ATTENTION}.weight"))


@dataclass(frozen=True)
class Published:
    """What a matrix is in the family's files."""

    name: str = ""
    """None where the family's files have no such matrix."""
    transposed: bool = False
    """[in, out] there (GPT-2's Conv1D)."""
    heads: int | None = None
    """Its rows go head by head there (q, k, v of head 0, then of head 1 …), for so many heads; all queries first here."""


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """One matrix of the published form, and where it is stored."""

    name: str
    """`blocks.0.attention.qkv.q`, `blocks.0.mlp.up.3.gate` (of expert 3), `blocks.0.attention.out`."""
    module: str
    """Path of the layer that holds its tensor."""
    rows: slice = field(hash=False)
    """Which rows of that tensor, [rows, columns] after its leading axes are made one."""
    columns: int
    """Inputs; of a table, its width."""
    published: Published

    def of(self, stored: Tensor) -> Tensor:
        """Return the matrix [out, in] as a view of the stored tensor, or of its gradient, of a step …"""
        return stored.flatten(0, -2)[self.rows]

    def as_published(self, stored: Tensor) -> Tensor:
        """Return the matrix as it is in the family's files: rows head by head, turned, where it is so there."""
        matrix = self.of(stored)
        if self.published.heads is not None:
            matrix = _regrouped(matrix, (3, self.published.heads))
        return matrix.T if self.published.transposed else matrix


def matrices(model: Backbone) -> list[Matrix]:
    """Return all matrices of a model: linear maps, tables, experts; in the order of its modules, a tied head not again."""
    known, published = stacks(model), _published(model)
    found: list[Matrix] = []
    for path, module in holders(model):
        if path == "head" and model.config.tied_head:
            continue
        heights = _heights(path, module, known.get(path))
        theirs = published.get(path, [])
        if len(theirs) != len(heights):  # a form that the family's files cannot have
            theirs = [Published()] * len(heights)
        start = 0
        for (name, height), other in zip(heights, theirs, strict=True):
            rows = slice(start, start := start + height)
            found.append(Matrix(name=name, module=path, rows=rows, columns=sizes(module)[2], published=other))
    return found


def _heights(path: str, module: nn.Module, stack: Stack | None) -> list[tuple[str, int]]:
    """Names and numbers of rows of the matrices in one tensor, expert after expert."""
    experts, rows, _ = sizes(module)
    parts = stack.parts if stack is not None and stack.apart else {"": rows}
    before = [f"{path}.{expert}" for expert in range(experts)] if experts is not None else [path]
    return [(f"{one}.{part}" if part else one, height) for one in before for part, height in parts.items()]


def _published(model: Backbone) -> dict[str, list[Published]]:
    """What the family's files have of each of our linear maps, by its path."""
    config = model.config
    if config.family not in FAMILIES:
        return {}
    family = FAMILIES[config.family]
    rows = [one for row in family.weights for one in row.rows(config)]
    if not config.tied_head:
        rows.append(Weight("head.weight", (family.head,)))
    found = {}
    for row in rows:
        module, _, kind = row.ours.rpartition(".")
        if kind == "weight":
            heads = row.heads(config)
            names = row.theirs if row.outside else [family.full_name(name, config) for name in row.theirs]
            found[module] = [Published(name, row.transposed, heads) for name in names]
    return found


def holders(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield every layer that computes with a matrix, with its path; what stands inside such a layer is its own affair."""
    inside: set[str] = set()
    for path, module in model.named_modules():
        holds = isinstance(module, LinearMap | Table | ExpertMaps)
        if holds and not any(path.startswith(prefix) for prefix in inside):
            inside.add(f"{path}.")
            yield path, module


def sizes(module: nn.Module) -> tuple[int | None, int, int]:
    """Return how many experts a layer has (None: it is no stack of experts), and rows and columns of a matrix."""
    if isinstance(module, Table):
        return None, module.num_embeddings, module.embedding_dim
    if isinstance(module, LinearMap):
        return None, module.out_features, module.in_features
    assert isinstance(module, ExpertMaps)
    return module.n_experts, module.outputs, module.inputs


@dataclass(frozen=True)
class Form:
    """Which matrices of the published form lie in one tensor, for those who work on its numbers row by row."""

    heights: tuple[int, ...]
    """Rows of each, from top to bottom."""
    heads: int | None = None
    """As `Published.heads`; such a matrix is alone in its tensor."""

    def published(self, stored: Tensor) -> list[Tensor]:
        """Cut a tensor [rows, columns] into its matrices [out, in], rows in their published order."""
        ordered = stored if self.heads is None else _regrouped(stored, (3, self.heads))
        return list(ordered.split(list(self.heights)))

    def stored(self, published: Tensor) -> Tensor:
        """Undo `published`, given its matrices one below the other."""
        return published if self.heads is None else _regrouped(published, (self.heads, 3))


def forms(model: Backbone) -> dict[str, Form]:
    """Return the form of every layer's tensor, by the layer's path."""
    found: dict[str, Form] = {}
    for matrix in matrices(model):
        heights = found[matrix.module].heights if matrix.module in found else ()
        height = matrix.rows.stop - matrix.rows.start
        found[matrix.module] = Form((*heights, height), matrix.published.heads)
    return found


def _regrouped(tensor: Tensor, groups: tuple[int, int]) -> Tensor:
    """Swap the two outer factors of the first axis: rows [a, b, rest] → [b, a, rest]."""
    return tensor.unflatten(0, (*groups, -1)).transpose(0, 1).flatten(0, 2)
