"""Which parameters of a model are treated as matrices, and which are not."""

from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from gpt2lab.base.errors import LabError
from gpt2lab.train.optimizers import linear_matrices

PROJECTED = ("*attn*", "*attention*", "*mlp*")
"""Modules whose matrices are projected: the authors' rule on Hugging Face's names, and the same places here."""


def matrices_and_others(model: nn.Module, patterns: tuple[str, ...], mark: str) -> list[dict[str, Any]]:
    """Split a model's trainable parameters: weights of the linear maps whose module's name matches, marked, and all others.

    Matrices stored [in, out] are a group of their own with `transposed`, those of experts one with `stacked`. LabError
    if nothing matches.
    """
    chosen: dict[tuple[bool, bool], list[Tensor]] = {}
    taken = set[int]()
    for matrix in linear_matrices(model):
        if any(fnmatchcase(matrix.name.lower(), pattern.lower()) for pattern in patterns):
            chosen.setdefault((matrix.transposed, matrix.stacked), []).append(matrix.weight)
            taken.add(id(matrix.weight))
    if not taken:
        raise LabError(
            f"no trained linear map's name matches {', '.join(patterns)}, so no matrix would be treated as one"
        )
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
    groups: list[dict[str, Any]] = [
        {"params": matrices, mark: True, "transposed": transposed, "stacked": stacked}
        for (transposed, stacked), matrices in sorted(chosen.items())
    ]
    groups.append({"params": others, mark: False})
    return [group for group in groups if group["params"]]


def is_matrix(parameter: Tensor, group: dict[str, Any], marked: bool | None, what: str) -> bool:
    """Whether a parameter of a group is treated as a matrix: as marked, else if it has as many dimensions as one.

    LabError, beginning with `what`, if it is marked and has not.
    """
    dimensions = 3 if group["stacked"] else 2
    if marked and parameter.dim() != dimensions:
        shape = "a stack of matrices" if group["stacked"] else "a matrix"
        raise LabError(f"{what} is {shape}, got shape {list(parameter.shape)}")
    return bool(marked) or (marked is None and parameter.dim() == dimensions)
