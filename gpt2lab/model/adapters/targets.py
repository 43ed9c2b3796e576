"""Where adapters can sit in a model, and the patterns that choose among these places."""

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from gpt2lab.base.errors import LabError, nearest
from gpt2lab.model.adapters.layers import WHOLE
from gpt2lab.model.backbone import Backbone
from gpt2lab.model.layer_kinds import Table
from gpt2lab.model.matrices import Stack, holders, matrices, sizes, stacks

V = TypeVar("V")
ALL_LINEAR = "all-linear"
_FIELD_NAMES = {"attention.out": "o", "mlp.down": "down", "mlp.up": "up"}


@dataclass(frozen=True, kw_only=True)
class Site:
    """A matrix, or some rows of what one tensor holds, that an adapter can sit on."""

    module: str
    """Path of the layer, `blocks.0.attention.qkv`."""
    part: str
    """`all`, or the name of the rows: q, k, v, gate, up."""
    rows: slice = field(hash=False)
    """Which of the layer's outputs."""
    inputs: int
    table: bool
    """Whether it is an embedding table: inputs are ids."""
    published: bool
    """Whether it is a matrix of the form that the family publishes, no part of one and no several (`model.matrices`)."""
    words: frozenset[str]
    """Names of the field's that stand for it in every layer, such as `q`, `o` or `q_proj`."""
    names: tuple[str, ...]
    """Full names, for globs and ends of names: ours first, the layer's, the one that Hugging Face's model has for it."""

    @property
    def name(self) -> str:
        """`blocks.0.attention.qkv` for the whole, `blocks.0.attention.qkv.q` for its queries."""
        return self.names[0]


def sites(model: Backbone) -> list[Site]:
    """Return every place for an adapter, in the order of the modules; the whole of a tensor before its parts."""
    theirs = {matrix.name: matrix.published.name.removesuffix(".weight") for matrix in matrices(model)}
    known = stacks(model)
    found: list[Site] = []
    for module, layer in holders(model):
        experts, rows, columns = sizes(layer)
        if experts is None:  # nothing of the kind is known for experts
            found += _sites(module, rows, columns, known.get(module), theirs, table=isinstance(layer, Table))
    return found


def _sites(
    module: str, rows: int, columns: int, stack: Stack | None, theirs: Mapping[str, str], *, table: bool
) -> list[Site]:
    """The places of one layer."""
    parts = dict(stack.parts) if stack is not None else {}
    apart = stack is not None and stack.apart
    words = {module.rpartition(".")[2], *(w for end, w in _FIELD_NAMES.items() if module.endswith(f".{end}"))}
    words -= {*parts}
    made, start = [], 0
    for part, height in ({WHOLE: rows} | parts).items():
        whole = part == WHOLE
        name = module if whole else f"{module}.{part}"
        other = theirs.get(name, "")
        own = words if whole else words | {part}
        first = 0 if whole else start
        made.append(
            Site(
                module=module,
                part=part,
                rows=slice(0, columns) if table else slice(first, first + height),
                inputs=rows if table else columns,
                table=table,
                published=whole != apart,
                words=frozenset(own | ({other.rpartition(".")[2]} if other else set())),
                names=tuple(dict.fromkeys(n for n in (name, module, other) if n)),
            )
        )
        start += 0 if whole else height
    return made


def chosen(model: Backbone, patterns: Sequence[str], exclude: Sequence[str] = ()) -> list[Site]:
    """Return the sites that patterns stand for, without those of `exclude`, in the order of the model.

    A pattern is an exact name (`blocks.0.attention.qkv`), its end (`mlp.up`), a glob (`blocks.[01].*.q`), a name of the
    field's (q, k, v, o, gate, up, down: in every layer), a name of Hugging Face's (q_proj, attn.c_attn), or `all-linear`
    (every matrix but the head). A tensor that holds several matrices of the published form stands for each of them, with
    an adapter of its own; where a pattern reaches one matrix both as a whole and by its rows, the whole counts.
    LabError: a pattern that stands for nothing, with the nearest name; rows that two patterns cover, or that are to be
    taken out of a whole; nothing left.
    """
    every = sites(model)
    taken = {site for pattern in patterns for site in _matched(pattern, every)}
    left_out = {site for pattern in exclude for site in _matched(pattern, every)}
    wholes = {site.module for site in taken - left_out if site.part == WHOLE}
    for site in every:  # in the model's order, so that the same mistake is answered alike
        if site in left_out and site.part != WHOLE and site.module in wholes:
            raise LabError(
                f"exclude: {site.name} is a part of {site.module}, which is one matrix here; name the other parts in targets"
            )
    taken -= left_out
    for site in taken:
        if site.part != WHOLE and site.module in wholes:
            raise LabError(
                f"targets: {site.name} and all of {site.module} are both chosen; leave one of them out"
            )
    if not taken:
        raise LabError(f"targets {', '.join(patterns)}: nothing of the model is left to adapt")
    return [site for site in every if site in taken]


def _matched(pattern: str, every: Sequence[Site]) -> list[Site]:
    """Return the sites of one pattern; LabError if there are none."""
    if pattern == ALL_LINEAR:
        return [site for site in every if site.published and not site.table and site.module != "head"]
    found = [site for site in every if pattern in (site.name, *site.words)]
    found = found or [site for site in every if _fits(pattern, site)]
    if not found:
        raise LabError(
            f"targets: {pattern} stands for no linear or embedding of this model; {_hint(pattern, every)}"
        )
    wholes = {site.module: site for site in found if site.part == WHOLE}
    kept = [s for s in found if s.module not in wholes]
    return kept + [s for s in every if s.module in wholes and s.published]


def _fits(pattern: str, site: Site) -> bool:
    """Whether a glob or the end of a name stands for a site; a single word does so as one of its words only."""
    if not any(mark in pattern for mark in ".*?["):
        return False  # `up` is the end of the name of a layer that holds gates too
    return any(fnmatch.fnmatchcase(name, form) for name in site.names for form in (pattern, f"*.{pattern}"))


def _hint(pattern: str, every: Iterable[Site]) -> str:
    words = sorted({word for site in every for word in site.words if "." not in word})
    in_all_blocks = sorted({re.sub(r"\.\d+\.", ".*.", site.name) for site in every})
    match = nearest(re.sub(r"\.\d+\.", ".*.", pattern).removesuffix("_proj"), [*words, *in_all_blocks])
    return (
        f"did you mean {match}?" if match else f"known: {', '.join(words)}, and names such as blocks.0.mlp.up"
    )


def looked_up(site: Site, patterns: Mapping[str, V], default: V) -> V:
    """Return the value of the first pattern that stands for a site, or the default."""
    for pattern, value in patterns.items():
        if pattern in (site.name, *site.words) or _fits(pattern, site):
            return value
    return default


def refuse_unused(patterns: Iterable[str], every: Sequence[Site], what: str) -> None:
    """LabError for a pattern of `rank_pattern` or `alpha_pattern` that stands for none of the chosen sites."""
    for pattern in patterns:
        if not any(looked_up(site, {pattern: True}, False) for site in every):
            raise LabError(f"{what}: {pattern} stands for nothing that is adapted; {_hint(pattern, every)}")
