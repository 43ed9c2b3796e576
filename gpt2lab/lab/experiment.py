"""A paper's experiment module, checked once so that a mistake in it is found before hours of work."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from gpt2lab.base.errors import LabError, unknown
from gpt2lab.base.registry import Paper
from gpt2lab.base.settings import update
from gpt2lab.base.wording import listed
from gpt2lab.lab.claim import SCALES, Claim
from gpt2lab.lab.home import check_name

if TYPE_CHECKING:
    from gpt2lab.lab.run import Run


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a study needs of a paper: settings for every scale, the work of one seed, the claims."""

    paper: Paper
    """The paper."""
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

    def settings(self, scale: str, overrides: Mapping[str, object] | None = None) -> Any:
        """Return the settings of a scale with some of them replaced, by dotted name.

        LabError for a scale without a preset, an unknown setting or a value of the wrong type.
        """
        if scale not in SCALES:
            raise unknown("scale", scale, SCALES)
        if scale not in self.presets:
            raise LabError(
                f"{self.paper.slug} has no settings for {scale} scale; it has {listed(list(self.presets))}"
            )
        return update(self.presets[scale], dict(overrides or {}), self.paper.slug)

    def arms(self, settings: Any) -> list[str]:
        """Return the names of the arms under these settings; [] if the experiment has none."""
        if self.list_arms is None:
            return []
        arms = list(self.list_arms(settings))
        for arm in arms:
            check_name(arm)
        if len(set(arms)) != len(arms):
            raise LabError(f"{self.paper.slug}: two arms have the same name among {listed(arms)}")
        return arms


def load_experiment(paper: Paper) -> Experiment:
    """Import a paper's experiment and check its shape.

    LabError if it is not built yet, or lacks what a study needs: Settings, PRESETS, CLAIMS, run(settings, run).
    """
    module = paper.experiment()
    where = f"{paper.module}.experiment"
    missing = [name for name in ("Settings", "PRESETS", "CLAIMS", "run") if not hasattr(module, name)]
    if missing:
        raise LabError(f"{where}: {listed(missing)} missing")
    if hasattr(module, "arms") != hasattr(module, "run_arm"):
        raise LabError(f"{where}: arms(settings) and run_arm(settings, arm, run) come together or not at all")
    for scale, preset in module.PRESETS.items():
        if scale not in SCALES or not isinstance(preset, module.Settings):
            raise LabError(
                f"{where}: PRESETS maps a scale ({', '.join(SCALES)}) to Settings; {scale!r} does not"
            )
    return Experiment(
        paper=paper,
        settings_class=module.Settings,
        presets=module.PRESETS,
        claims=_named(module.CLAIMS, where),
        run=module.run,
        run_arm=getattr(module, "run_arm", None),
        list_arms=getattr(module, "arms", None),
        summarise=getattr(module, "summarise", None),
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
