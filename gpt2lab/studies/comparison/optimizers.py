"""Every built optimizer under equal conditions: the same model, weights, batches in their order, schedule and updates.

Each tunes its learning rate, once for all seeds, by the same sweep over the same grid, at half of the longest schedule;
an optimizer of somebody else's package takes part like any other. Options keep the part's defaults unless an entry
names them (`conda refresh=50`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from gpt2lab.actions.parts import typed_options
from gpt2lab.base.errors import LabError
from gpt2lab.base.values import show
from gpt2lab.base.wording import count, number
from gpt2lab.studies.claim import Claim
from gpt2lab.studies.data_names import check_sources
from gpt2lab.studies.entries import chosen_entries, labels, report_left_out
from gpt2lab.studies.graph import UnitSpec
from gpt2lab.studies.race import Candidate, step_ratio
from gpt2lab.studies.seed_figures import seed_interval
from gpt2lab.studies.sweep import choose, compete, standings, sweep_of, tuned_units
from gpt2lab.studies.workload import TextWorkload
from gpt2lab.training import TrainSettings, make_optimizer, parameter_groups

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run
    from gpt2lab.studies.study import Study

BASELINE = "adamw"
CLAIMS: list[Claim] = []


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The workload, its lengths, and the grid that is everybody's."""

    workload: TextWorkload = field(default_factory=TextWorkload)
    """Model and data."""
    only: tuple[str, ...] = ()
    """Optimizers to compare, with options if needed, `conda refresh=50`; none: all that are built."""
    lengths: tuple[int, ...] = (75, 150, 300)
    """Updates of the complete schedules that are compared, ascending; the last is the reference."""
    tuning_steps: int = 150
    """Updates of a trial in the sweeps."""
    learning_rates: tuple[float, ...] = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
    """The grid, ascending; one further value is tried: past the edge if the best is there, else beside the best."""
    weight_decay: float = 0.1
    """Decoupled decay."""

    def __post_init__(self) -> None:
        for name in ("lengths", "learning_rates"):
            values = getattr(self, name)
            if not values or values[0] <= 0 or list(values) != sorted(set(values)):
                raise LabError(
                    f"compare optimizers: {name} ascend from above 0, got {show(values) or 'none'}"
                )
        if self.tuning_steps < 1 or not self.weight_decay >= 0:
            raise LabError(
                "compare optimizers: tuning_steps must be at least 1 and weight_decay not negative, "
                f"got {self.tuning_steps} and {self.weight_decay}"
            )


PRESETS: dict[str, Settings] = {
    "smoke": Settings(
        workload=TextWorkload(
            data=("tinystories:200",), d_model=16, n_heads=2, context=16, batch_size=8, train_tokens=8000,
            valid_tokens=2000, vocab_size=300,
        ),
        lengths=(5, 10),
        tuning_steps=5,
        learning_rates=(1e-3, 4e-3),
    ),
    "laptop": Settings(),
    "gpu": Settings(
        workload=TextWorkload(
            data=("tinystories:100000",), n_layers=4, d_model=256, n_heads=8, context=128, batch_size=64,
            train_tokens=8_000_000, valid_tokens=200_000, vocab_size=4096, precision="auto",
        ),
        lengths=(500, 1000, 2000, 4000),
        tuning_steps=2000,
        learning_rates=(1.25e-4, 2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2),
    ),
}  # fmt: skip


def check(settings: Settings) -> None:
    """LabError for data that are not there."""
    check_sources(settings.workload.data)


class _AdamW(torch.optim.AdamW):
    """The lab's baseline: the loop's betas, vectors not decayed, torch's fused form."""

    @classmethod
    def for_model(cls, model: nn.Module, *, lr: float, weight_decay: float, **options: Any) -> Self:
        made = {"betas": TrainSettings().betas, "fused": True, **options}
        return cls(parameter_groups(model, weight_decay), lr=lr, **made)


def units(settings: Settings) -> list[UnitSpec]:
    """Return the optimizers: a sweep of each, then its races."""
    entries = chosen_entries("optimizer", settings.only)
    return tuned_units([entry.arm for entry in entries], sweep_arm, race_arm)


def sweep_arm(settings: Settings, arm: str, run: "Run") -> None:
    """Tune one optimizer; one that cannot be made for the model says why instead."""
    try:
        candidate = _candidate(settings, arm)
    except (LabError, TypeError, ValueError) as error:
        run.text(
            "left_out", f"{error}" if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
        )
        return
    choose(settings.workload, candidate, run, steps=settings.tuning_steps)


def race_arm(settings: Settings, arm: str, run: "Run") -> None:
    """Race one optimizer over all lengths; nothing if it cannot be made."""
    if "left_out" not in run.needed[sweep_of(arm)].texts:
        compete(settings.workload, _candidate(settings, arm), run, lengths=settings.lengths)


def _candidate(settings: Settings, arm: str) -> Candidate:
    """Return an optimizer with the common grid. LabError, TypeError or ValueError if it cannot be made for the model."""
    entry = next(one for one in chosen_entries("optimizer", settings.only) if one.arm == arm)
    model = settings.workload.model(0)
    cls = _AdamW if entry.name == BASELINE else entry.load()
    options = typed_options(entry.name, cls, entry.options)
    rate = settings.learning_rates[0]
    make_optimizer(cls, model, learning_rate=rate, weight_decay=settings.weight_decay, **options)
    return Candidate(
        name=entry.label,
        optimizer=cls,
        learning_rates=settings.learning_rates,
        weight_decay=settings.weight_decay,
        options=(options,),
    )


def run(settings: Settings, run: "Run") -> None:
    """Put the optimizers of one seed together. LabError if none could be made."""
    reasons = [record.texts["left_out"] for record in run.arms.values() if "left_out" in record.texts]
    arms = [arm for arm, record in run.arms.items() if "flops" in record.results]
    if not arms:
        raise LabError(f"no optimizer could be made: {reasons[0]}")
    losses = standings(run, arms, settings.lengths)
    longest = max(settings.lengths)
    baseline = _baseline(list(losses))
    for arm in losses:
        run.result(f"{arm}.step_ratio", step_ratio(losses[baseline], losses[arm]))
        run.result(f"{arm}.gain", losses[baseline][longest] - losses[arm][longest])


def _baseline(arms: Sequence[str]) -> str:
    """Return whom the others are compared with: adamw, or the first."""
    return BASELINE if BASELINE in arms else arms[0]


def summarise(settings: Settings, study: "Study") -> None:
    """Add the figures that papers about optimizers show, and a table with intervals over the seeds."""
    from gpt2lab.studies.comparison import figures

    names = labels(chosen_entries("optimizer", settings.only))
    ran = [arm for arm in names if all(f"{arm}.gain" in run.results for run in study.runs)]
    figures.add(study, ran, settings.lengths, baseline=_baseline(ran), names=names)
    _head(settings, study, {arm: names[arm] for arm in ran})
    report_left_out(
        study,
        {names[arm]: study.runs[0].arms[sweep_of(arm)].texts["left_out"] for arm in names if arm not in ran},
    )


def _head(settings: Settings, study: "Study", names: Mapping[str, str]) -> None:
    """Say which optimizer ends lowest, and by how much."""
    baseline = _baseline(list(names))
    longest = max(settings.lengths)
    others = [arm for arm in names if arm != baseline]
    found = "There is nothing to compare it with."
    if others:
        best = max(others, key=lambda arm: study.mean(f"{arm}.gain"))
        gains = study.values(f"{best}.gain")
        side = "below" if study.mean(f"{best}.gain") > 0 else "above"
        interval = seed_interval([gain if side == "below" else -gain for gain in gains])
        ends = (
            f" (95 % interval {number(interval.low, 3)} to {number(interval.high, 3)})"
            if interval is not None
            else ""
        )
        found = (
            f"Of the others {names[best]} ends lowest, {number(abs(study.mean(f'{best}.gain')), 3)} nats per token {side} "
            f"{names[baseline]}{ends}, over {count(len(gains), 'seed')}."
        )
    study.head(
        asked=f"Which of {count(len(names), 'optimizer')} ends at the lowest validation loss after {longest} updates of the "
        "same model on the same batches, each at its own tuned learning rate?",
        found=found,
        means="The best was picked after the losses were seen, so its lead is somewhat too good; an interval that contains "
        "0 tells the two apart in neither direction.",
        figure="loss_by_length",
    )
