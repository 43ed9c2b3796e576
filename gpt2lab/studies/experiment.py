"""An experiment's module, a paper's or a comparison's, checked once so that a mistake is found before hours of work."""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gpt2lab.actions.models import with_models
from gpt2lab.base.errors import LabError, unknown
from gpt2lab.base.registry import Paper
from gpt2lab.base.settings import update
from gpt2lab.base.wording import listed
from gpt2lab.runs.home import check_name
from gpt2lab.studies.claim import SCALES, Claim

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
    """The work of one seed, after its arms."""
    run_arm: Callable[[Any, str, "Run"], None] | None = None
    """The work of one arm of one seed."""
    list_arms: Callable[[Any], list[str]] | None = None
    """Names of the arms."""
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

    def arms(self, settings: Any) -> list[str]:
        """Return the names of the arms under these settings; [] if the experiment has none."""
        if self.list_arms is None:
            return []
        arms = list(self.list_arms(settings))
        for arm in arms:
            check_name(arm)
        if len(set(arms)) != len(arms):
            raise LabError(f"{self.name}: two arms have the same name among {listed(arms)}")
        return arms


def load_experiment(paper: Paper) -> Experiment:
    """Import a paper's experiment and check its shape.

    LabError if it is not built yet, or lacks what a study needs: Settings, PRESETS, CLAIMS, run(settings, run).
    """
    return _checked(paper.study(), f"{paper.module}.study", paper.slug, paper=paper)


def load_comparison(module: str) -> Experiment:
    """Import a comparison of the lab by its module, such as `gpt2lab.studies.comparison.optimizers`, and check its shape."""
    name = f"compare-{module.rpartition('.')[2]}"
    found = importlib.import_module(module)
    return _checked(found, module, name, module=module, summary=" ".join((found.__doc__ or "").split()))


def _checked(found: ModuleType, where: str, name: str, **source: Any) -> Experiment:
    missing = [name for name in ("Settings", "PRESETS", "CLAIMS", "run") if not hasattr(found, name)]
    if missing:
        raise LabError(f"{where}: {listed(missing)} missing")
    if hasattr(found, "arms") != hasattr(found, "run_arm"):
        raise LabError(f"{where}: arms(settings) and run_arm(settings, arm, run) come together or not at all")
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
        run_arm=getattr(found, "run_arm", None),
        list_arms=getattr(found, "arms", None),
        summarise=getattr(found, "summarise", None),
        **source,
    )


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
