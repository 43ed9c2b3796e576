"""The bases of Conda: where they are in a parameter's state, when they are due, and how a matrix is rotated into one."""

from typing import Any, Literal

import torch
from torch import Tensor

from gpt2lab.base.errors import LabError

Side = Literal["std", "right", "left", "reverse_std", "full"]
BasisOf = Literal["momentum", "gradient", "covariance"]
SIDES: tuple[Side, ...] = ("std", "right", "left", "reverse_std", "full")
BASES: tuple[BasisOf, ...] = ("momentum", "gradient", "covariance")


def check_side(shape: torch.Size, side: Side) -> None:
    """LabError if a side cannot be rotated for matrices of this shape [..., out, in]."""
    rows, columns = shape[-2:]
    wrong = {
        "right": rows < columns,
        "left": rows > columns,
        "reverse_std": rows != columns,
        "full": rows != columns,
    }
    if wrong.get(side, False):
        raise LabError(f'conda: side "{side}" does not fit a matrix of {rows} x {columns}; "std" fits all')


def named(name: str, number: int) -> str:
    """Name in a parameter's state of what belongs to its matrices of the `number`-th height."""
    return f"{name}_{number}" if number and name != "steps" else name


def own_state(state: dict[str, Any], number: int) -> dict[str, Any]:
    """The part of a parameter's state that belongs to its matrices of the `number`-th height, and the common counter."""
    names = ("basis", "basis_left", "covariance", "bases", "steps")
    return {name: state[named(name, number)] for name in names if named(name, number) in state}


def due(bases: Tensor, steps: Tensor, group: dict[str, Any]) -> Tensor:
    """Which matrices take a new basis with their next update, one entry for each."""
    return (bases == 0) | (steps % int(group["refresh"]) == 0)


def is_due(state: dict[str, Any], group: dict[str, Any]) -> bool:
    """Whether a matrix of a parameter takes a new basis with the next update."""
    counts = [value for name, value in state.items() if name.startswith("bases")]
    return not counts or any(bool(due(bases, state["steps"], group).any()) for bases in counts)


def begin(state: dict[str, Any], first: Tensor, group: dict[str, Any]) -> None:
    """Make the state of matrices whole at their first update: what is loaded into a state finds all its tensors there."""
    k = first.shape[-1] if on_the_right(first, group["side"]) else first.shape[-2]
    identity = torch.eye(k, dtype=first.dtype, device=first.device).expand(*first.shape[:-2], k, k)
    state["basis"] = identity.clone()
    state["bases"] = torch.zeros(first.shape[:-2], dtype=torch.int64)
    if group["side"] == "full":
        state["basis_left"] = identity.clone()
    if group["basis_of"] == "covariance":
        state["covariance"] = torch.zeros_like(state["basis"])


def replaced(old: Tensor, chosen: Tensor, new: Tensor) -> Tensor:
    """A copy of a stack of bases with the chosen ones replaced."""
    made = old.clone()
    made[chosen] = new
    return made


def on_the_right(matrix: Tensor, side: Side) -> bool:
    """Whether the basis acts on columns: right singular vectors. Square matrices use the right side under "std"."""
    if side == "std":
        return matrix.shape[-2] >= matrix.shape[-1]
    return side in ("right", "full")


def rotated(matrix: Tensor, state: dict[str, Any], side: Side) -> Tensor:
    """M Bᵀ, or B M where the rows of B are the left singular vectors; for "full" both."""
    if side == "full":
        return state["basis_left"] @ matrix @ state["basis"].mT
    return matrix @ state["basis"].mT if on_the_right(matrix, side) else state["basis"] @ matrix


def rotated_back(matrix: Tensor, state: dict[str, Any], side: Side) -> Tensor:
    """Undo `rotated`."""
    if side == "full":
        return state["basis_left"].mT @ matrix @ state["basis"]
    return matrix @ state["basis"] if on_the_right(matrix, side) else state["basis"].mT @ matrix
