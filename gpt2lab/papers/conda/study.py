"""Conda against tuned AdamW, AdamW with Conda's rate for embeddings and norms, and Muon: the same small GPT-2 for all.

The language is generated (`gpt2lab.text.generators.topic_bigrams`). Every arm tunes its own learning rate, in every seed,
at half of the longest schedule; Conda also chooses its refresh period. The control asks whether the higher rate that
Conda's published settings give to embeddings and norms explains the gain.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from gpt2lab.measures.statistics import t_interval
from gpt2lab.papers.conda.diagnostics import UpdateWatch
from gpt2lab.papers.conda.matrices import PROJECTED, matrices_and_others
from gpt2lab.papers.conda.muon import Muon
from gpt2lab.papers.conda.optimizer import Conda
from gpt2lab.runs.verdicts import Status, Verdict
from gpt2lab.studies.claim import Above, AtLeast, AtMost, Claim, Results
from gpt2lab.studies.seed_figures import seed_dots
from gpt2lab.studies.sweep import Candidate, Workload, compete, standings, step_ratio
from gpt2lab.training import parameter_groups

if TYPE_CHECKING:
    from gpt2lab.runs.run import Run
    from gpt2lab.studies.study import Study

ARMS = ("adamw", "adamw_control", "muon", "conda")
_SPECTRA = ("condition", "stable_rank", "effective_rank")


class _AdamW(torch.optim.AdamW):
    """AdamW with the betas of the paper's GPT-2 runs, matrices and embeddings decayed."""

    @classmethod
    def for_model(cls, model: nn.Module, *, lr: float, weight_decay: float) -> Self:
        return cls(parameter_groups(model, weight_decay), lr=lr, betas=(0.9, 0.95), fused=True)


class _Control(torch.optim.AdamW):
    """AdamW with Conda's betas and decay, and Conda's rate for embeddings and norms; the matrices' rate is tuned."""

    @classmethod
    def for_model(cls, model: nn.Module, *, lr: float, weight_decay: float, other_lr: float) -> Self:
        groups = matrices_and_others(model, PROJECTED, "matrix")
        for group in groups:
            group["lr"] = lr if group.pop("matrix") else other_lr
            group.pop("transposed", None)
            group.pop("stacked", None)
        return cls(groups, lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The workload, its lengths, and what every optimizer may choose from."""

    workload: Workload = field(default_factory=Workload)
    """Model and data."""
    lengths: tuple[int, ...] = (200, 400, 800)
    """Updates of the complete schedules that are compared; the last is the reference."""
    tuning_steps: int = 400
    """Updates of a trial in the sweeps."""
    adamw_rates: tuple[float, ...] = (1.5e-3, 3e-3, 6e-3)
    """Learning rates of AdamW."""
    control_rates: tuple[float, ...] = (1.5e-3, 3e-3, 6e-3)
    """Learning rates of the control's matrices."""
    control_other_rate: float = 1e-2
    """Learning rate of the control's embeddings and norms: that of Conda."""
    muon_rates: tuple[float, ...] = (1.5e-3, 3e-3, 6e-3)
    """Learning rates of Muon."""
    conda_rates: tuple[float, ...] = (6e-3, 1.2e-2, 2.4e-2)
    """Learning rates of Conda."""
    refreshes: tuple[int, ...] = (2000, 50, 10)
    """Refresh periods among which Conda chooses; 2000 is the paper's."""
    scale: float = 0.25
    """Conda's factor on projected updates."""
    watched: tuple[int, int, int] = (50, 400, 50)
    """First step, last step and distance of the steps at which the spectra of updates are measured."""


PRESETS: dict[str, Settings] = {
    "smoke": Settings(
        workload=Workload(d_model=16, n_heads=2, context=16, batch_size=8, train_tokens=8000, valid_tokens=2000),
        lengths=(5, 10, 20),
        tuning_steps=10,
        adamw_rates=(3e-3,),
        control_rates=(3e-3,),
        muon_rates=(3e-3,),
        conda_rates=(1.2e-2,),
        refreshes=(2000, 5),
        watched=(5, 20, 5),
    ),
    "laptop": Settings(),
    "gpu": Settings(
        workload=Workload(
            n_layers=4, d_model=128, n_heads=4, context=128, batch_size=64, train_tokens=4_000_000
        ),
        lengths=(500, 1000, 2000, 4000),
        tuning_steps=2000,
        adamw_rates=(7.5e-4, 1.5e-3, 3e-3, 6e-3),
        control_rates=(7.5e-4, 1.5e-3, 3e-3, 6e-3),
        muon_rates=(7.5e-4, 1.5e-3, 3e-3, 6e-3),
        conda_rates=(3e-3, 6e-3, 1.2e-2, 2.4e-2),
        refreshes=(2000, 200, 50),
        watched=(100, 4000, 300),
    ),
    "paper": Settings(
        workload=Workload(
            n_layers=12, d_model=768, n_heads=12, context=1024, batch_size=480, train_tokens=400_000_000,
            warmup=0.02, precision="bf16",
        ),
        lengths=(25_000, 50_000, 100_000),
        tuning_steps=25_000,
        adamw_rates=(3e-4, 6e-4, 1.2e-3),
        control_rates=(3e-4, 6e-4, 1.2e-3),
        control_other_rate=6e-3,
        muon_rates=(3e-4, 6e-4, 1.2e-3),
        conda_rates=(3e-3, 6e-3, 1.2e-2),
        refreshes=(2000,),
        watched=(2000, 100_000, 2000),
    ),
}  # fmt: skip


def arms(settings: Settings) -> list[str]:
    """Return the optimizers, the one with the largest sweep first."""
    return [*reversed(ARMS)]


def run_arm(settings: Settings, arm: str, run: "Run") -> None:
    """Tune one optimizer, race it over all lengths, and look at its updates."""
    watches = list[UpdateWatch]()
    first, last, every = settings.watched

    def watch(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        watches.append(UpdateWatch(model, optimizer, range(first, last + 1, every)))
        if isinstance(optimizer, Conda):
            optimizer.seconds = {}

    tuned = compete(
        settings.workload,
        candidate(settings, arm),
        run,
        tuning_steps=settings.tuning_steps,
        lengths=settings.lengths,
        prepare=watch,
    )
    for name in _SPECTRA:
        run.result(name, watches[0].median(name))
    if isinstance(watches[0].optimizer, Conda):
        spent = watches[0].optimizer.seconds or {}
        for name, seconds in spent.items():
            run.result(f"seconds.{name}", seconds)
        run.result("drift", fmean(watches[0].drifts) if watches[0].drifts else math.nan)
        for period in settings.refreshes:
            found = [trial for trial in tuned.tried if trial["refresh"] == period]
            best = min(found, key=lambda trial: trial["loss"])
            run.result(f"period_loss.t{period}", best["validation_loss"])


def candidate(settings: Settings, arm: str) -> Candidate:
    """Return an arm's optimizer with what it may choose from."""
    chosen: dict[str, dict[str, Any]] = {
        "adamw": {"optimizer": _AdamW, "learning_rates": settings.adamw_rates},
        "adamw_control": {
            "optimizer": _Control,
            "learning_rates": settings.control_rates,
            "weight_decay": 0.01,
            "options": ({"other_lr": settings.control_other_rate},),
        },
        "muon": {"optimizer": Muon, "learning_rates": settings.muon_rates},
        "conda": {
            "optimizer": Conda,
            "learning_rates": settings.conda_rates,
            "weight_decay": 0.01,
            "options": tuple({"refresh": period, "scale": settings.scale} for period in settings.refreshes),
        },
    }
    return Candidate(name=arm, **chosen[arm])


def run(settings: Settings, run: "Run") -> None:
    """Put the arms of one seed together."""
    losses = standings(run, settings.lengths)
    longest = max(settings.lengths)
    for arm in ("adamw_control", "muon", "conda"):
        run.result(f"{arm}.step_ratio", step_ratio(losses["adamw"], losses[arm]))
        run.result(f"{arm}.gain", losses["adamw"][longest] - losses[arm][longest])
    seconds = {arm: record.results["seconds_per_step"] for arm, record in run.arms.items()}
    run.result("conda.time_ratio", run.results["conda.step_ratio"] * seconds["adamw"] / seconds["conda"])
    run.result("conda_over_muon", losses["muon"][longest] - losses["conda"][longest])
    run.result("conda_over_control", losses["adamw_control"][longest] - losses["conda"][longest])
    run.result("conda_over_best_other", min(losses[a][longest] for a in ARMS[:3]) - losses["conda"][longest])
    periods = {period: run.arms["conda"].results[f"period_loss.t{period}"] for period in settings.refreshes}
    others = [loss for period, loss in periods.items() if period != max(periods)]
    run.result("refresh.lost_by_the_longest", periods[max(periods)] - min(others, default=math.nan))
    run.result("edges", sum(record.results["at_edge"] for record in run.arms.values()))


def _faster(seeds: Sequence[Results]) -> Verdict:
    """The specification's rule: a step ratio of 2 against tuned AdamW, and no loss against Muon."""
    edges = sum(results["adamw.at_edge"] + results["conda.at_edge"] for results in seeds)
    ratios = [results["conda.step_ratio"] for results in seeds]
    interval, muon = t_interval(ratios), t_interval([results["conda_over_muon"] for results in seeds])
    control = t_interval([results["conda_over_control"] for results in seeds])
    standard_error = muon.sd / math.sqrt(muon.n)
    with_muon = muon.mean >= -2 * standard_error
    against = (
        "also better than the control"
        if control.low > 0
        else "worse than the control"
        if control.high < 0
        else "not told apart from the control"
    )
    reason = (
        f"Conda needs {interval.mean:.2f} times fewer updates than tuned AdamW (95 % {interval.low:.2f} to "
        f"{interval.high:.2f}), ends {abs(muon.mean):.3f} nats {'below' if muon.mean >= 0 else 'above'} Muon and is "
        f"{against}, AdamW with Conda's rate for embeddings and norms (by {control.mean:+.3f})."
    )
    if edges:
        return Verdict(
            Status.INCONCLUSIVE, f"{reason} But {edges:.0f} of the sweeps ended at the edge of their grid."
        )
    if interval.mean >= 2 and with_muon:
        return Verdict(Status.HOLDS, reason)
    if interval.mean >= 1.1:
        return Verdict(Status.IN_PART, reason)
    return Verdict(Status.DOES_NOT_HOLD, reason)


def _better_conditioned(seeds: Sequence[Results]) -> Verdict:
    """The specification's rule: below AdamW's by more than two standard errors, here of the logarithm."""
    found = t_interval(
        [math.log(results["adamw.condition"] / results["conda.condition"]) for results in seeds]
    )
    error = found.sd / math.sqrt(found.n)
    reason = (
        f"The condition number of Conda's updates is {math.exp(-found.mean):.2f} of AdamW's: its logarithm lies "
        f"{found.mean:.2f} lower, with a standard error of {error:.2f}. The specification asks for two of them; the 95 % "
        f"interval of {found.n} seeds runs from {found.low:.2f} to {found.high:.2f}."
    )
    if found.mean > 2 * error:
        return Verdict(Status.HOLDS, reason)
    return Verdict(Status.DOES_NOT_HOLD if found.mean < -2 * error else Status.INCONCLUSIVE, reason)


_TRAINED = ("laptop", "gpu", "paper")

CLAIMS = [
    Claim(
        "Conda reaches the final loss of AdamW in less than half of the updates, and is no worse than Muon",
        name="A",
        fixed="2026-11-24",
        measure="conda.step_ratio",
        quantity="updates that AdamW takes to its final loss, over those that Conda takes to the same loss",
        rule=_faster,
        paper="abstract: 2 to 2.5 times, LLaMA 60M to 1B on C4",
        unit="times fewer updates",
        scales=_TRAINED,
    ),
    Claim(
        "Conda reaches the final loss of AdamW in less than half of the time",
        name="B",
        fixed="2026-11-24",
        measure="conda.time_ratio",
        quantity="the same ratio in time: that of updates times AdamW's seconds an update over Conda's",
        holds_if=AtLeast(2.0),
        holds_in_part_if=AtLeast(1.1),
        needs="adamw.at_edge == 0 and conda.at_edge == 0",
        paper="abstract: 2 to 2.5 times in time, LLaMA 60M to 1B on C4",
        unit="times less time",
        scales=_TRAINED,
    ),
    Claim(
        "Conda ends at a lower loss than AdamW, AdamW with Conda's embedding rate, and Muon after equal updates",
        name="C",
        fixed="2026-11-24",
        measure="conda_over_best_other",
        quantity="lowest final loss of the three others minus that of Conda",
        holds_if=Above(0.0),
        # A rival whose rate might be better still can only win by more.
        needs="conda.at_edge == 0 and (edges == 0 or conda_over_best_other < 0)",
        paper="abstract: best of AdamW, Muon, SOAP and Adafactor, GPT-2 125M and 355M; values not established",
        unit="nats per token",
        scales=_TRAINED,
    ),
    Claim(
        "The updates of Conda are better conditioned than those of AdamW",
        name="D",
        fixed="2026-11-24",
        measure="log(adamw.condition / conda.condition)",
        quantity="logarithm of the condition number of AdamW's updates over that of Conda's",
        rule=_better_conditioned,
        paper="Fig. 1, as described in public reviews; no figure established",
        unit="log of the ratio of σ₁/σ_k",
        scales=_TRAINED,
    ),
    Claim(
        "A basis refreshed every 2000 updates is often enough: a shorter period gains less than 0.02 nats",
        name="E",
        fixed="2026-11-30",
        measure="refresh.lost_by_the_longest",
        quantity="final loss with the longest refresh period minus the lowest with a shorter one",
        holds_if=AtMost(0.02),
        needs="conda.at_edge == 0",
        paper="ablation mentioned in public reviews: 2000 works well at 130M",
        unit="nats per token",
        scales=_TRAINED,
    ),
]


def summarise(settings: Settings, study: "Study") -> None:
    """Add the figures: loss against updates and time, losses by length, spectra of the updates, the sweep of Conda."""
    from gpt2lab.studies.comparison import figures as comparison_figures

    comparison_figures.add(study, ARMS, settings.lengths, baseline="adamw")
    spectra: Mapping[str, Mapping[str, float]] = {
        arm: {name: fmean(run.results[f"{arm}.{name}"] for run in study.runs) for name in _SPECTRA}
        for arm in ARMS
    }
    study.figure(
        "conditioning",
        seed_dots(
            {arm: [math.log10(run.results[f"{arm}.condition"]) for run in study.runs] for arm in ARMS},
            label="log10 of σ₁/σ_k of the update (median over matrices, mean over steps)",
        ),
        "Condition number of the updates of hidden matrices: mean over seeds with its 95 % interval, a ring a seed",
    )
    study.table(
        "spectra",
        [
            {
                "optimizer": arm,
                "condition": spectra[arm]["condition"],
                "stable rank": spectra[arm]["stable_rank"],
                "effective rank": spectra[arm]["effective_rank"],
            }
            for arm in ARMS
        ],
        "Spectra of the updates of hidden matrices: median over matrices, mean over steps and seeds",
    )
