"""When each norm path loses its standard deviation: events at the beginning of optimizer steps (Baroni et al. 2025).

A unit is one path: `mlp.3` (what the feed-forward of block 3 reads), `qk.3` and `v.3` (what its queries and keys, and its
values read), `f` (what the head reads). Two late events, `eot` and `bos`, end the special treatment of position 0.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gpt2lab.base.errors import LabError, unknown

Group = Literal["mlp", "qk", "v", "f"]
LATE = ("eot", "bos")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Which unit is frozen before which step: group after group, and block after block within a group."""

    start: int = 20
    """Step before which the first unit is frozen, counted from 0."""
    mlp_gap: int = 2
    """Steps between two blocks of the feed-forwards' paths; 0 freezes all of them at once."""
    qk_gap: int = 2
    """The same for queries and keys."""
    v_gap: int = 3
    """The same for values."""
    order: tuple[Group, ...] = ("mlp", "qk", "v", "f")
    """Order of the groups."""
    eot_after: int = 2
    """Steps from the last unit to the event `eot`."""
    bos_after: int = 10
    """Steps from `eot` to `bos`."""
    events: tuple[str, ...] = ()
    """Every unit with its step instead of all of the above, such as 20:mlp.0 22:mlp.1 44:qk.0."""

    def __post_init__(self) -> None:
        for name in ("start", "mlp_gap", "qk_gap", "v_gap", "eot_after", "bos_after"):
            if getattr(self, name) < 0:
                raise LabError(f"schedule: {name} must not be negative, got {getattr(self, name)}")
        if sorted(self.order) != ["f", "mlp", "qk", "v"]:
            raise LabError(
                f"schedule: order names mlp, qk, v and f once each, got {' '.join(self.order) or 'none'}"
            )
        _parsed(self.events)

    def steps_of(self, n_layers: int, *, late: bool = False) -> dict[str, int]:
        """Return the step of every unit of a model with `n_layers` blocks, and of `eot` and `bos` if `late`.

        LabError for events that name a unit which the model does not have, or leave one out.
        """
        if self.events:
            return self._checked(_parsed(self.events), n_layers, late)
        steps, at = dict[str, int](), self.start
        gaps = {"mlp": self.mlp_gap, "qk": self.qk_gap, "v": self.v_gap}
        for group in self.order:
            if group == "f":
                steps["f"] = at
                continue
            steps |= {f"{group}.{layer}": at + layer * gaps[group] for layer in range(n_layers)}
            at += n_layers * gaps[group]  # formula: start_qk = start_mlp + L · gap_mlp, and so on
        if late:
            steps["eot"] = max(steps.values()) + self.eot_after
            steps["bos"] = steps["eot"] + self.bos_after
        return steps

    @staticmethod
    def _checked(steps: dict[str, int], n_layers: int, late: bool) -> dict[str, int]:
        needed = units(n_layers) + (list(LATE) if late else [])
        for unit in steps:
            if unit in LATE and not late:
                raise LabError(
                    f"schedule: {unit} ends special positions, and there are none (special_positions)"
                )
            if unit not in needed:
                raise LabError(f"schedule: {unknown('unit', unit, needed)}")
        missing = [unit for unit in needed if unit not in steps]
        if missing:
            raise LabError(
                f"schedule: events leave out {missing[0]}"
                + (f" and {len(missing) - 1} more" * (len(missing) > 1))
            )
        return steps


def units(n_layers: int) -> list[str]:
    """Return the names of all 3 L + 1 units, in the order in which the forward pass meets them."""
    return [f"{kind}.{layer}" for layer in range(n_layers) for kind in ("qk", "v", "mlp")] + ["f"]


def _parsed(events: tuple[str, ...]) -> dict[str, int]:
    steps = dict[str, int]()
    for event in events:
        step, colon, unit = event.partition(":")
        if not colon or not step.isdecimal() or not unit:
            raise LabError(f"schedule: an event is STEP:UNIT, such as 20:mlp.0, got {event!r}")
        if unit in steps:
            raise LabError(f"schedule: {unit} is frozen twice, at steps {steps[unit]} and {step}")
        steps[unit] = int(step)
    return steps


def fitted(
    n_layers: int, steps: int, *, late: bool = False, gated: bool = False, massive: bool = False
) -> Schedule:
    """Return a schedule in the paper's proportions for a run of any length; 300 steps and 12 blocks give its own.

    The first event comes after a fifteenth of the steps, the last by 0.4 of them (`eot` and `bos`, which `late` adds, soon
    after); the gaps are as 2 : 2 : 3. Gated feed-forwards, whose output grows with the square of what they read, get most
    of the time: the gaps are as 20 : 3 : 6 between a twentieth and 0.65 of the steps (docs/log.md), or between 0.4 and 0.85
    where a massive activation must come down first. Where a gap would be less than a step (deep models, short runs), blocks
    that are neighbours share a step.
    """
    start, end = (steps // 20, 0.65 * steps) if gated else (steps // 15, 0.4 * steps)
    if gated and massive:
        start, end = 2 * steps // 5, 0.85 * steps
    shares = {"mlp": 20, "qk": 3, "v": 6} if gated else {"mlp": 2, "qk": 2, "v": 3}
    block = max(0.0, end - start) / max(n_layers, 1)  # steps for the three events of a block
    gaps = {group: block * share / sum(shares.values()) for group, share in shares.items()}
    eot_after, bos_after = min(2, steps // 30), min(10, steps // 30)
    if min(gaps.values()) >= 1:
        return Schedule(
            start=start, mlp_gap=int(gaps["mlp"]), qk_gap=int(gaps["qk"]), v_gap=int(gaps["v"]),
            eot_after=eot_after, bos_after=bos_after,
        )  # fmt: skip
    events, at = list[str](), float(start)
    for group, gap in gaps.items():
        events += [f"{int(at + layer * gap)}:{group}.{layer}" for layer in range(n_layers)]
        at += n_layers * gap
    last = int(at + 1e-9)
    events.append(f"{last}:f")
    if late:
        events += [f"{last + eot_after}:eot", f"{last + eot_after + bos_after}:bos"]
    return Schedule(start=start, events=tuple(events))


def require_length(steps_of: Mapping[str, int], steps: int) -> None:
    """Refuse a schedule that a run of `steps` steps does not reach. LabError."""
    unit, last = max(steps_of.items(), key=lambda item: item[1])
    if last >= steps:
        raise LabError(
            f"schedule: {unit} is frozen before step {last}, and the run ends after {steps} steps; give more steps or "
            "smaller gaps"
        )


def check_length(steps_of: Mapping[str, int], steps: int) -> None:
    """Refuse as `require_length`, and warn where under a tenth of the steps remains after the last event."""
    require_length(steps_of, steps)
    unit, last = max(steps_of.items(), key=lambda item: item[1])
    if steps - last < 0.1 * steps:
        warnings.warn(
            f"only {steps - last} of {steps} steps remain after the last event ({unit}); at least a tenth is usual",
            stacklevel=3,
        )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The authors' settings for one size of GPT-2."""

    schedule: Schedule
    steps: int
    """Steps of the released checkpoint."""
    laid_out: int
    """Steps for which the learning rate's schedule is laid out."""
    learning_rate: float
    final_fraction: float
    """Share of the learning rate that is left at the end of that schedule."""
    warmup: int
    penalty: float
    """Weight of the auxiliary loss."""
    momentum: float
    """Weight of the old value in the running mean of the standard deviation."""
    batch_size: int
    accumulation: int


RECIPES: dict[str, Recipe] = {
    "small": Recipe(
        schedule=Schedule(start=20, mlp_gap=2, qk_gap=2, v_gap=3), steps=300, laid_out=300, learning_rate=6e-4,
        final_fraction=0.5, warmup=25, penalty=0.1, momentum=0.9, batch_size=32, accumulation=16,
    ),
    "medium": Recipe(
        schedule=Schedule(start=20, mlp_gap=2, qk_gap=2, v_gap=3), steps=500, laid_out=500, learning_rate=6e-4,
        final_fraction=0.5, warmup=10, penalty=0.1, momentum=0.9, batch_size=22, accumulation=23,
    ),
    "large": Recipe(
        schedule=Schedule(start=30, mlp_gap=4, qk_gap=4, v_gap=6), steps=600, laid_out=1200, learning_rate=3e-4,
        final_fraction=4e-5 / 3e-4, warmup=15, penalty=0.03, momentum=0.9 ** (28 / 32), batch_size=28, accumulation=18,
    ),
    "xl": Recipe(
        schedule=Schedule(start=50, mlp_gap=4, qk_gap=4, v_gap=6), steps=800, laid_out=1200, learning_rate=1e-4,
        final_fraction=0.2, warmup=20, penalty=0.01, momentum=0.9 ** (18 / 32), batch_size=18, accumulation=28,
    ),
}  # fmt: skip
"""By size; all with micro-batches of 1,024 tokens a row, AdamW betas 0.9 and 0.999, decay 0.01, gradient clipped to 1."""
