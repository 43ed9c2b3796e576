"""Numbers that change over a run: factors of a group's options, coefficients of an objective."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gpt2lab.base.errors import LabError


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """A number that goes from `start` to `end` between two moments of a run, constant before and after."""

    start: float = 1.0
    """Value until `begin`."""
    end: float = 1.0
    """Value from `until` on."""
    begin: float = 0.0
    """Begin of the change, as a share of the run."""
    until: float = 1.0
    """End of the change, as a share of the run."""
    shape: Literal["linear", "cosine"] = "linear"
    """A straight line, or half a period of a cosine."""

    def __post_init__(self) -> None:
        if not 0 <= self.begin <= self.until <= 1:
            raise LabError(
                f"a ramp's begin and until must lie in this order in [0, 1], got {self.begin} and {self.until}"
            )
        if not (math.isfinite(self.start) and math.isfinite(self.end)):
            raise LabError(f"a ramp's start and end must be finite, got {self.start} and {self.end}")

    def at(self, step: int, steps: int) -> float:
        """Return the value for update `step` (0 is the first) of `steps`."""
        now = step / max(1, steps - 1)
        length = self.until - self.begin
        share = float(now >= self.until) if not length else min(max((now - self.begin) / length, 0.0), 1.0)
        if self.shape == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return self.start + (self.end - self.start) * share


@dataclass(frozen=True, kw_only=True)
class GroupSchedule:
    """A factor on an option of an optimizer's parameter groups that changes over the run.

    The option of each group is what the group began with, times the factor; a learning rate has the run's schedule too.
    """

    option: str
    """Name of the option, a number in every group it applies to: `lr`, `weight_decay`, ..."""
    factor: Ramp
    """What it is multiplied with."""
    groups: tuple[int, ...] = ()
    """Numbers of the groups; () is all."""

    def chosen(self, groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the groups it applies to. LabError for a group that is not there or has no such number."""
        beyond = [number for number in self.groups if not 0 <= number < len(groups)]
        if beyond:
            raise LabError(
                f"schedule of {self.option}: no group {beyond[0]}; the optimizer has {len(groups)}"
            )
        found = [groups[number] for number in self.groups] if self.groups else list(groups)
        for group in found:
            if not isinstance(group.get(self.option), int | float) or isinstance(group[self.option], bool):
                raise LabError(f"schedule of {self.option}: the optimizer's groups have no such number")
        return found

    def begin(self, groups: Sequence[dict[str, Any]]) -> None:
        """Note in each group what its option began with. LabError as for `chosen`."""
        for group in self.chosen(groups):
            group.setdefault(f"initial_{self.option}", float(group[self.option]))

    def apply(self, groups: Sequence[dict[str, Any]], step: int, steps: int) -> None:
        """Set the option of each group for update `step` of `steps`."""
        factor = self.factor.at(step, steps)
        for group in self.chosen(groups):
            # the run's schedule has set the learning rate of this update already
            base = group["lr"] if self.option == "lr" else group[f"initial_{self.option}"]
            group[self.option] = base * factor
