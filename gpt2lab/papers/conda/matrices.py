"""Which parameters of a model are treated as matrices, which matrices lie in one, and which parameters are neither."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from gpt2lab.base.errors import LabError
from gpt2lab.training.optimizers import linear_weights

PROJECTED = ("*attn*", "*attention*", "*mlp*")
"""Modules whose matrices are projected: the authors' rule on Hugging Face's names, and the same places here."""

FORM = ("transposed", "stacked", "rows")
"""Entries of a group that say how its matrices are stored."""


def matrices_and_others(model: nn.Module, patterns: tuple[str, ...], mark: str) -> list[dict[str, Any]]:
    """Split a model's trainable parameters: weights of the linear maps whose module's name matches, marked, and all others.

    Matrices stored [in, out] are a group of their own with `transposed`, those of experts one with `stacked`, and
    tensors that hold several matrices one below the other one with `rows`, how many rows each has. LabError if
    nothing matches.
    """
    chosen: dict[tuple[bool, bool, tuple[int, ...]], list[Tensor]] = {}
    taken = set[int]()
    for one in linear_weights(model):
        if any(fnmatchcase(one.name.lower(), pattern.lower()) for pattern in patterns):
            chosen.setdefault((one.transposed, one.stacked, one.rows), []).append(one.weight)
            taken.add(id(one.weight))
    if not taken:
        raise LabError(
            f"no trained linear map's name matches {', '.join(patterns)}, so no matrix would be treated as one"
        )
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
    groups: list[dict[str, Any]] = [
        {"params": weights, mark: True, **dict(zip(FORM, form, strict=True))}
        for form, weights in sorted(chosen.items(), key=lambda item: item[0])
    ]
    groups.append({"params": others, mark: False})
    return [group for group in groups if group["params"]]


def is_matrix(parameter: Tensor, group: Mapping[str, Any], marked: bool | None, what: str) -> bool:
    """Whether a parameter of a group is treated as a matrix: as marked, else if it has as many dimensions as one.

    LabError, beginning with `what`, if it is marked and has not, or if the group's `rows` are not all of its rows.
    """
    dimensions = 3 if group["stacked"] else 2
    if marked and parameter.dim() != dimensions:
        shape = "a stack of matrices" if group["stacked"] else "a matrix"
        raise LabError(f"{what} is {shape}, got shape {list(parameter.shape)}")
    if marked and group["rows"] and sum(group["rows"]) != _upright(parameter, group).shape[-2]:
        raise LabError(f"{what} of shape {list(parameter.shape)} has not the rows {list(group['rows'])}")
    return bool(marked) or (marked is None and parameter.dim() == dimensions)


def apart(tensor: Tensor, group: Mapping[str, Any]) -> list[Tensor]:
    """Return the matrices of a parameter (or of what is shaped like it) as views, those of one height together.

    A plain one is [out, in], experts are [experts, out, in]; matrices that lie one below the other, n of the same height
    in a row, are [n, out, in] (of experts [experts, n, out, in]). Empty ones are left out.
    """
    tensor = _upright(tensor, group)
    if not group["rows"]:
        return [tensor]
    found, start = [], 0
    for height, run in groupby(group["rows"]):
        count = len(list(run))
        if height:
            part = tensor.narrow(-2, start, count * height)
            found.append(part.unflatten(-2, (count, height)))
        start += count * height
    return found


def shapes(parameter: Tensor, group: Mapping[str, Any]) -> list[torch.Size]:
    """Return the shapes of what `apart` returns; of a sharded parameter those of the whole, and no rank sends anything."""
    return [part.shape for part in apart(torch.empty(parameter.shape, device="meta"), group)]


def together(parts: Sequence[Tensor], group: Mapping[str, Any]) -> Tensor:
    """Undo `apart`: one tensor in the form in which the parameter is stored."""
    if group["rows"]:
        parts = [part.flatten(-3, -2) for part in parts]
    return _upright(parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=-2), group)


def _upright(tensor: Tensor, group: Mapping[str, Any]) -> Tensor:
    """[in, out] as [out, in], and back."""
    return tensor.mT if group["transposed"] else tensor
