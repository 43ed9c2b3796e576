"""The units of work of one seed and what each needs of the others: shared pre-training, arms, stages, grids."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.base.wording import listed
from gpt2lab.runs.home import check_name
from gpt2lab.runs.trial import TUNING_SEED as TUNING_SEED

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run

Work = Callable[[Any, "Run"], None]
"""What a unit does, given the study's settings and its run; `run.needed` holds the runs of the units that it needs."""


@dataclass(frozen=True)
class UnitSpec:
    """One unit of every seed, a run of its own that resumes by itself."""

    name: str
    """Its name, which can be a folder's: `pretrain`, `labels_100.margin`."""
    work: Work
    """What it does."""
    needs: tuple[str, ...] = ()
    """The units that must have finished before it begins."""
    shared: bool = False
    """Whether all seeds share the first seed's: a pre-training that costs too much to repeat. Intervals over seeds then say
    nothing of how it differs from run to run."""
    tuning: bool = False
    """Whether it chooses settings for all seeds: it runs once, with `TUNING_SEED`, which is never judged."""

    @property
    def once(self) -> bool:
        """Whether it runs once for all seeds."""
        return self.shared or self.tuning


def in_order(specs: Sequence[UnitSpec], where: str) -> list[UnitSpec]:
    """Return the units so that each comes after those that it needs, otherwise as they are listed.

    LabError for a name that cannot be a folder's, two units of one name, a need that is no unit or, of a unit that runs
    once for all seeds, one of each seed, and a circle of needs.
    """
    names = [spec.name for spec in specs]
    own = {spec.name for spec in specs if not spec.once}
    for spec in specs:
        check_name(spec.name)
        if names.count(spec.name) > 1:
            raise LabError(f"{where}: two units are called {spec.name}")
        for needed in spec.needs:
            if needed not in names:
                raise LabError(f"{where}: {spec.name} needs {unknown('unit', needed, names)}")
            if spec.once and needed in own:
                raise LabError(
                    f"{where}: {spec.name} is shared by all seeds, and needs {needed}, of which each has its own"
                )
    ordered: list[UnitSpec] = []
    left = list(specs)
    while left:
        done = {spec.name for spec in ordered}
        free = next((spec for spec in left if done.issuperset(spec.needs)), None)
        if free is None:
            circle = _circle(left)
            how = "needs itself" if len(circle) == 1 else "need each other in a circle"
            raise LabError(f"{where}: {listed(circle)} {how}")
        left.remove(free)
        ordered.append(free)
    return ordered


def _circle(left: Sequence[UnitSpec]) -> list[str]:
    """Return the names of one circle among units of which each needs another of them."""
    needs = {
        spec.name: next(name for name in spec.needs if any(name == one.name for one in left)) for spec in left
    }
    path = [left[0].name]
    while needs[path[-1]] not in path:
        path.append(needs[path[-1]])
    return path[path.index(needs[path[-1]]) :]
