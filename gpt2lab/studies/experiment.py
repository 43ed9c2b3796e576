"""An experiment's module, a paper's or a comparison's, checked once so that a mistake is found before hours of work."""

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gpt2lab.actions.models import with_models
from gpt2lab.base.errors import LabError, unknown
from gpt2lab.base.outline import outline
from gpt2lab.base.registry import Paper
from gpt2lab.base.settings import build, update
from gpt2lab.base.wording import listed
from gpt2lab.studies.claim import SCALES, Claim
from gpt2lab.studies.graph import UnitSpec, in_order

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a study needs of a paper: settings for every scale, the work of one seed, the claims."""

    name: str
    """What it is called: the paper's slug, or the comparison's name."""
    settings_class: type
    """Its frozen dataclass of settings."""
    presets: Mapping[str, Any]
    """Settings by scale."""
    claims: tuple[Claim, ...]
    """The claims, every one with a name."""
    run: Callable[[Any, "Run"], None]
    """The work that ends a seed, after its units."""
    list_units: Callable[[Any], Sequence[UnitSpec]] | None = None
    """The units that come before it, under these settings."""
    summarise: Callable[[Any, Any], None] | None = None
    """Figures and tables over all seeds."""
    paper: Paper | None = None
    """The paper; None for a comparison of parts."""
    module: str = ""
    """Module of a comparison."""
    summary: str = ""
    """What a comparison does, for its report."""

    @property
    def verb(self) -> str:
        """The words of the command line that run it."""
        return f"reproduce {self.name}" if self.paper is not None else self.name.replace("-", " ", 1)

    def settings(self, scale: str, overrides: Mapping[str, object] | None = None) -> Any:
        """Return the settings of a scale with some of them replaced, by dotted name.

        LabError for a scale without a preset, an unknown setting or a value of the wrong type.
        """
        if scale not in SCALES:
            raise unknown("scale", scale, SCALES)
        if scale not in self.presets:
            raise LabError(
                f"{self.name} has no settings for {scale} scale; it has {listed(list(self.presets))}"
            )
        return with_models(update(self.presets[scale], dict(overrides or {}), self.name), fetch=False)

    def units(self, settings: Any) -> list[UnitSpec]:
        """Return the units of a seed under these settings, each after those that it needs; [] if there are none.

        LabError for two of one name, a need that is no unit, or a circle of needs.
        """
        return in_order(self.list_units(settings), self.name) if self.list_units is not None else []

    def unit(self, settings: Any, name: str) -> UnitSpec:
        """Return one unit. LabError if there is none of this name under these settings."""
        units = {spec.name: spec for spec in self.units(settings)}
        if name not in units:
            raise unknown(f"unit of {self.name}", name, list(units))
        return units[name]


def refuse_settings(module: str, name: str, overrides: Mapping[str, object]) -> None:
    """LabError for settings that a study's module does not have, or of another type: read from its source, not imported."""
    known = outline(f"{module}:Settings", optional=True)
    if known is not None:
        build(known, overrides, name)


def load_experiment(paper: Paper) -> Experiment:
    """Import a paper's experiment and check its shape.

    LabError if it is not built yet, or lacks what a study needs: Settings, PRESETS, CLAIMS, run(settings, run).
    """
    return _checked(paper.study(), f"{paper.module}.study", paper.slug, paper=paper)


def comparison_name(module: str) -> str:
    """Return what a comparison is called, by its module."""
    return f"compare-{module.rpartition('.')[2]}"


def load_comparison(module: str) -> Experiment:
    """Import a comparison of the lab by its module, such as `gpt2lab.studies.comparison.optimizers`, and check its shape."""
    found = importlib.import_module(module)
    return _checked(
        found, module, comparison_name(module), module=module, summary=" ".join((found.__doc__ or "").split())
    )


def _checked(found: ModuleType, where: str, name: str, **source: Any) -> Experiment:
    missing = [name for name in ("Settings", "PRESETS", "CLAIMS", "run") if not hasattr(found, name)]
    if missing:
        raise LabError(f"{where}: {listed(missing)} missing")
    if hasattr(found, "arms") != hasattr(found, "run_arm"):
        raise LabError(f"{where}: arms(settings) and run_arm(settings, arm, run) come together or not at all")
    if hasattr(found, "arms") and hasattr(found, "units"):
        raise LabError(f"{where}: give units(settings), or arms(settings) with run_arm, not both")
    for scale, preset in found.PRESETS.items():
        if scale not in SCALES or not isinstance(preset, found.Settings):
            raise LabError(
                f"{where}: PRESETS maps a scale ({', '.join(SCALES)}) to Settings; {scale!r} does not"
            )
    return Experiment(
        name=name,
        settings_class=found.Settings,
        presets=found.PRESETS,
        claims=_named(found.CLAIMS, where),
        run=found.run,
        list_units=_units_of_arms(found) if hasattr(found, "arms") else getattr(found, "units", None),
        summarise=getattr(found, "summarise", None),
        **source,
    )


def _units_of_arms(found: ModuleType) -> Callable[[Any], list[UnitSpec]]:
    """Return the units of a study that has arms, none of which needs another."""

    def work(settings: Any, run: "Run", arm: str) -> None:
        found.run_arm(settings, arm, run)

    def units(settings: Any) -> list[UnitSpec]:
        return [UnitSpec(arm, partial(work, arm=arm)) for arm in found.arms(settings)]

    return units


def _named(claims: list[Claim], where: str) -> tuple[Claim, ...]:
    """Give claims without a name the letters A, B, C ... by position; LabError if two share one."""
    named = tuple(
        claim if claim.name else dataclasses.replace(claim, name=chr(ord("A") + position))
        for position, claim in enumerate(claims)
    )
    names = [claim.name for claim in named]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise LabError(f"{where}: two claims are called {listed(twice)}")
    return named
