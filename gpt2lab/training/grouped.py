"""What optimizers of our own share: groups that are checked, state in float32 or wider, arithmetic that stays in a cache."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from gpt2lab.base.errors import LabError

_PIECE = 1 << 17
"""Elements that are worked on at a time on a CPU: 0.5 MiB of each tensor stay in its second-level cache."""
_BUNCH = 1 << 26
"""Elements elsewhere, which bounds the temporary tensors."""

Ready = Sequence[tuple[dict[str, Any], list[Tensor]]]
"""Groups, each with its parameters that have a gradient."""


class GroupedOptimizer(Optimizer):
    """An optimizer that updates group by group; a subclass writes `check_group` and `update_group`.

    Options are checked whenever a group is added, gradients before anything moves. The state is float32 or wider whatever
    the parameters are, and stays so when it is saved and loaded. Copies and pickles keep `options`.
    """

    title: ClassVar[str]
    """Begins its error messages."""
    moments: ClassVar[tuple[str, ...]]
    """Tensors of a parameter's state that have its shape; every parameter that moved has one at least."""
    options: ClassVar[tuple[str, ...]] = ()
    """Attributes beside the groups and the state."""
    form: ClassVar[tuple[str, ...]] = ()
    """Entries of a group that say how its parameters are stored: the model's affair, never taken from a saved state."""

    def check_group(self, group: dict[str, Any]) -> None:
        """LabError for options out of range or parameters that they do not fit."""
        raise NotImplementedError

    def update_group(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        """Update these parameters of a group; all have a gradient and elements."""
        raise NotImplementedError

    def check_gradients(self, ready: Ready) -> None:
        """LabError for a gradient that cannot be used; nothing has moved yet."""
        for _, parameters in ready:
            for parameter in parameters:
                gradient = parameter.grad
                assert gradient is not None
                if gradient.layout != torch.strided or gradient.is_complex():
                    raise LabError(f"{self.title}: sparse and complex gradients are not supported")

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group. LabError for options out of range."""
        super().add_param_group(param_group)
        try:
            self.check_group(self.param_groups[-1])
        except LabError:
            self.param_groups.pop()
            raise

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # as torch's
        """Update every parameter that has a gradient; `closure` recomputes the loss first.

        LabError for gradients that cannot be used; nothing has moved then.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        ready = [(group, [p for p in group["params"] if p.grad is not None]) for group in self.param_groups]
        self.check_gradients(ready)
        for group, parameters in ready:
            if moved := [parameter for parameter in parameters if parameter.numel()]:
                self.update_group(group, moved)
        return loss

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore a saved state in the types it was saved in. LabError if it is another optimizer's or model's."""
        saved = list(chain.from_iterable(group["params"] for group in state_dict["param_groups"]))
        own = [(group, parameter) for group in self.param_groups for parameter in group["params"]]
        pairs = list(zip(saved, own, strict=True)) if len(saved) == len(own) else []  # which torch refuses
        for key, (group, parameter) in pairs:
            self.check_saved(parameter, group, state_dict["state"].get(key, {}))
        forms = [{name: group[name] for name in self.form} for group in self.param_groups]
        super().load_state_dict(dict(state_dict))
        for group, form in zip(self.param_groups, forms, strict=True):
            group.update({**self.defaults, **group, **form})
        for key, (_, parameter) in pairs:
            for name, value in state_dict["state"].get(key, {}).items():
                if isinstance(value, Tensor):
                    # torch has cast it to the parameter's type: float32 state of bf16 weights would be rounded. Counters
                    # stay on the CPU, where they are read without waiting for another device.
                    device = parameter.device if value.is_floating_point() else torch.device("cpu")
                    self.state[parameter][name] = value.detach().clone().to(device)

    def check_saved(self, parameter: Tensor, group: Mapping[str, Any], entries: Mapping[str, Any]) -> None:
        """LabError if the saved state of a parameter of a group is another optimizer's or another parameter's."""
        found = [entries[name] for name in self.moments if name in entries]
        if entries and not found:
            raise LabError(
                f"{self.title}: the saved state has {', '.join(map(str, entries))}; it is another optimizer's"
            )
        for moment in found:
            if moment.shape != parameter.shape:
                raise LabError(
                    f"{self.title}: the saved state of a parameter of shape {list(parameter.shape)} has shape "
                    f"{list(moment.shape)}; it is another model's, or in another order"
                )

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: self.__dict__[name] for name in self.options if name in self.__dict__}
        return {**super().__getstate__(), **kept}


def check_ranges(
    title: str, group: Mapping[str, Any], *, positive: Sequence[str] = (), below_one: Sequence[str] = ()
) -> None:
    """LabError unless the options `positive` are at least 0 and finite, and those `below_one` lie in [0, 1)."""
    for name in positive:
        if not 0 <= group[name] < float("inf"):  # also refuses NaN
            said = "lr, the learning rate," if name == "lr" else name
            raise LabError(f"{title}: {said} must not be negative or without bound, got {group[name]}")
    for name in below_one:
        values = group[name] if isinstance(group[name], tuple | list) else (group[name],)
        if name == "betas" and len(values) != 2:
            raise LabError(f"{title}: betas are two numbers, got {group[name]}")
        if not all(0 <= value < 1 for value in values):
            raise LabError(f"{title}: {name} must lie in [0, 1), got {group[name]}")


def check_count(title: str, name: str, value: object, *, none: str | None = None) -> None:
    """LabError unless value is a whole number of at least 1, or None if that means something (`none` says what)."""
    if value is None and none is not None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        also = f", or None for {none}" if none is not None else ""
        raise LabError(f"{title}: {name} must be a whole number of at least 1{also}, got {value}")


def wide(tensor: Tensor) -> torch.dtype:
    """Return the type that state of a tensor is kept in: float32, float64 for float64."""
    return torch.promote_types(tensor.dtype, torch.float32)


def zeros(parameter: Tensor) -> Tensor:
    """Return a moment of a parameter at its start."""
    return torch.zeros_like(parameter, dtype=wide(parameter), memory_format=torch.contiguous_format)


def whole(tensor: Tensor) -> Tensor:
    """Return all of a sharded tensor (a DTensor), on every rank; any other as it is."""
    gather: Callable[[], Tensor] | None = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def sharded(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a tensor that every rank holds whole as a DTensor sharded like another; no rank sends anything."""
    from torch.distributed.tensor import DTensor, Replicate

    assert isinstance(like, DTensor)
    everywhere = [Replicate()] * like.device_mesh.ndim
    whole = DTensor.from_local(tensor.contiguous(), like.device_mesh, everywhere, run_check=False)
    return whole.redistribute(placements=like.placements)


def gradients(parameters: Sequence[Tensor], group: Mapping[str, Any]) -> list[Tensor]:
    """Return the gradients to descend along: their negatives in a group with `maximize`."""
    found = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return list(torch._foreach_neg(found)) if group["maximize"] else found


def widened(tensors: Sequence[Tensor], like: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors in the types of others."""
    return [tensor.to(other.dtype) for tensor, other in zip(tensors, like, strict=True)]


def bunches(*columns: Sequence[Tensor]) -> Iterator[tuple[list[int], tuple[list[Tensor], ...]]]:
    """Yield columns of tensors, those of a row having one shape, in bunches that are worked on together.

    On a CPU a bunch is a piece of one row that stays in the cache; elsewhere it is many rows, for one call an operation.
    With each bunch come the numbers of its rows.
    """
    together, size = list[int](), 0
    for number, row in enumerate(zip(*columns, strict=True)):
        first = row[0]
        if _has_cache(first):
            pieces = zip(*(_split(tensor) for tensor in row), strict=True) if _splits(row) else [row]
            for piece in pieces:
                yield [number], tuple([part] for part in piece)
            continue
        together.append(number)
        size += first.numel()
        if size >= _BUNCH:
            yield together, tuple([column[i] for i in together] for column in columns)
            together, size = [], 0
    if together:
        yield together, tuple([column[i] for i in together] for column in columns)


def _has_cache(tensor: Tensor) -> bool:
    """Whether pieces that stay in a cache are quicker than few calls."""
    return tensor.device.type == "cpu"


def _splits(row: Sequence[Tensor]) -> bool:
    plain = all(type(tensor) in (Tensor, nn.Parameter) and tensor.is_contiguous() for tensor in row)
    return plain and row[0].numel() > _PIECE


def _split(tensor: Tensor) -> tuple[Tensor, ...]:
    return tensor.view(-1).split(_PIECE)


def move(
    parameters: Sequence[Tensor],
    updates: Sequence[Tensor],
    *,
    times: float = 1.0,
    before: float = 1.0,
    after: float = 1.0,
) -> None:
    """θ ← after · (before · θ + times · update), worked out in the update's type and rounded to the parameter's once."""
    targets = [p if p.dtype == u.dtype else p.to(u.dtype) for p, u in zip(parameters, updates, strict=True)]
    if before != 1:
        torch._foreach_mul_(targets, before)
    torch._foreach_add_(targets, list(updates), alpha=times)
    if after != 1:
        torch._foreach_mul_(targets, after)
    for parameter, target in zip(parameters, targets, strict=True):
        if target is not parameter:
            parameter.copy_(target)
