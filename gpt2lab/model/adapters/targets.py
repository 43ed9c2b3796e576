"""Where adapters can sit in a model, and the patterns that choose among these places."""

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from torch import nn

from gpt2lab.base.errors import LabError, nearest
from gpt2lab.model.adapters.layers import WHOLE, Adapted
from gpt2lab.model.attention import Attention
from gpt2lab.model.feedforward import FeedForward
from gpt2lab.model.transformer import Transformer

V = TypeVar("V")
ALL_LINEAR = "all-linear"
_FIELD_NAMES = {"attention.out": "o", "mlp.down": "down", "mlp.up": "up"}


@dataclass(frozen=True, kw_only=True)
class Site:
    """A matrix, or some of its rows, that an adapter can sit on."""

    module: str
    """Path of the layer, `blocks.0.attention.qkv`."""
    part: str
    """`all`, or the name of the rows: q, k, v, gate, up."""
    rows: slice = field(hash=False)
    """Which of the layer's outputs."""
    inputs: int
    table: bool
    """Whether it is an embedding table: inputs are ids."""
    words: frozenset[str]
    """Names of the field's that stand for it in every layer, such as `q` or `o`."""

    @property
    def name(self) -> str:
        """`blocks.0.attention.qkv` for the whole, `blocks.0.attention.qkv.q` for its queries."""
        return self.module if self.part == WHOLE else f"{self.module}.{self.part}"


def sites(model: nn.Module) -> list[Site]:
    """Return every place for an adapter, in the order of the modules; the whole of a matrix before its parts."""
    found: list[Site] = []
    parts = dict(_named_rows(model))
    inside: set[str] = set()
    for name, module in model.named_modules():
        if any(name.startswith(prefix) for prefix in inside):
            continue
        if isinstance(module, Adapted):
            inside.add(f"{name}.")
            module = module.base
        ids, width = getattr(module, "num_embeddings", None), getattr(module, "embedding_dim", None)
        if isinstance(ids, int) and isinstance(width, int):  # torch's table, or a quantised one
            found.append(_site(name, WHOLE, slice(0, width), ids, {name}, table=True))
            continue
        sizes = getattr(module, "in_features", None), getattr(module, "out_features", None)
        if not isinstance(sizes[0], int) or not isinstance(sizes[1], int):
            continue
        inside.add(f"{name}.")  # the insides of a layer that somebody built are his own
        named = parts.get(name, {})
        words = {name.rpartition(".")[2], *(w for end, w in _FIELD_NAMES.items() if name.endswith(f".{end}"))}
        found.append(_site(name, WHOLE, slice(0, sizes[1]), sizes[0], words - {*named}))
        found += [_site(name, part, rows, sizes[0], {part}) for part, rows in named.items()]
    return found


def _site(module: str, part: str, rows: slice, inputs: int, words: set[str], *, table: bool = False) -> Site:
    return Site(module=module, part=part, rows=rows, inputs=inputs, table=table, words=frozenset(words))


def _named_rows(model: nn.Module) -> Iterator[tuple[str, dict[str, slice]]]:
    """Yield the fused matrices with the rows of their parts: queries, keys, values; gates, ups."""
    for name, module in model.named_modules():
        if isinstance(module, Attention):
            q, kv = module.n_heads * module.d_head, module.n_kv_heads * module.d_head
            yield f"{name}.qkv", {"q": slice(0, q), "k": slice(q, q + kv), "v": slice(q + kv, q + 2 * kv)}
        elif isinstance(module, FeedForward) and module.gated:
            half: int = module.up.out_features // 2
            yield f"{name}.up", {"gate": slice(0, half), "up": slice(half, 2 * half)}


def chosen(model: Transformer, patterns: Sequence[str], exclude: Sequence[str] = ()) -> list[Site]:
    """Return the sites that patterns stand for, without those of `exclude`, in the order of the model.

    A pattern is an exact name (`blocks.0.attention.qkv`), its end (`mlp.up`), a glob (`blocks.[01].*.q`), a name of the
    field's (q, k, v, o, gate, up, down: in every layer), or `all-linear` (every matrix but the head). Where a glob
    reaches a matrix both as a whole and by its parts, the whole counts.
    LabError: a pattern that stands for nothing, with the nearest name; rows that two patterns cover; nothing left.
    """
    every = sites(model)
    taken = {site for pattern in patterns for site in _matched(pattern, every)}
    taken -= {site for pattern in exclude for site in _matched(pattern, every)}
    wholes = {site.module for site in taken if site.part == WHOLE}
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
        found = [site for site in every if site.part == WHOLE and not site.table and site.module != "head"]
    else:
        found = [site for site in every if pattern in (site.name, *site.words)]
        if not found:
            forms = (pattern, f"*.{pattern}")
            found = [s for s in every if any(fnmatch.fnmatchcase(s.name, form) for form in forms)]
    if not found:
        raise LabError(
            f"targets: {pattern} stands for no linear or embedding of this model; {_hint(pattern, every)}"
        )
    wholes = {site.module for site in found if site.part == WHOLE}
    return [site for site in found if site.part == WHOLE or site.module not in wholes]


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
        forms = (pattern, f"*.{pattern}")
        if pattern in (site.name, *site.words) or any(fnmatch.fnmatchcase(site.name, form) for form in forms):
            return value
    return default


def refuse_unused(patterns: Iterable[str], every: Sequence[Site], what: str) -> None:
    """LabError for a pattern of `rank_pattern` or `alpha_pattern` that stands for none of the chosen sites."""
    for pattern in patterns:
        if not any(looked_up(site, {pattern: True}, False) for site in every):
            raise LabError(f"{what}: {pattern} stands for nothing that is adapted; {_hint(pattern, every)}")
