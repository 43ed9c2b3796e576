"""A study: an experiment, a paper's or a comparison of parts, over its seeds, the verdicts, the report."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from gpt2lab.base.errors import LabError
from gpt2lab.base.json_numbers import encode
from gpt2lab.base.registry import paper
from gpt2lab.base.settings import from_plain, options, to_plain
from gpt2lab.base.wording import count, listed
from gpt2lab.runs.environment import cores
from gpt2lab.runs.head import HEAD, Head, write_head
from gpt2lab.runs.kinds import WORDS, by_kind
from gpt2lab.runs.report.write import write_report
from gpt2lab.runs.run import Run
from gpt2lab.runs.run_record import RunRecord, Table, record
from gpt2lab.runs.store import Row, Store
from gpt2lab.runs.trial import Trial
from gpt2lab.runs.verdicts import FILE as VERDICTS
from gpt2lab.runs.verdicts import JudgedClaim, read_judgements, write_verdicts
from gpt2lab.studies.experiment import Experiment, load_comparison, load_experiment, refuse_settings
from gpt2lab.studies.repeat import command_of, default_device
from gpt2lab.studies.scheduler import Outcome, run_units
from gpt2lab.studies.seeds import chosen_seeds, with_seeds
from gpt2lab.studies.trial import judge_claims, plan_study
from gpt2lab.studies.units import Plan, Unit, needed_records

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class Study:
    """What a study found. An experiment's `summarise(settings, study)` adds figures, tables and texts to it."""

    id: str
    """Id of its run."""
    paper: str
    """Slug of the paper, or the comparison's name."""
    scale: str
    """Scale."""
    seeds: tuple[int, ...]
    """The seeds asked for."""
    settings: Any
    """The experiment's settings."""
    runs: list[RunRecord]
    """The seeds that finished, with their arms."""
    claims: list[JudgedClaim]
    """Every claim with its verdict."""
    failures: list[str]
    """What went wrong, a sentence each; empty if every unit has finished."""
    folder: Path
    """Folder of its run."""
    earlier: list[JudgedClaim] = field(default_factory=list)
    """What was said of its claims before: by another rule, over fewer seeds, of a claim that is not stated any more."""
    seconds: float = 0.0
    """Time it took in this process."""
    _run: Run | None = field(default=None, repr=False)

    @property
    def report(self) -> Path:
        """The report, one HTML file; report.md beside it says the same."""
        return self.folder / "report.html"

    @property
    def tables(self) -> dict[str, Table]:
        """The tables over all seeds, by name."""
        return record(Row(self.id, self.paper, "study"), self.folder.parent).tables

    @property
    def captions(self) -> dict[str, str]:
        """The captions of the tables, by name."""
        return record(Row(self.id, self.paper, "study"), self.folder.parent).captions("tables")

    @property
    def texts(self) -> dict[str, str]:
        """The texts over all seeds, by name."""
        return record(Row(self.id, self.paper, "study"), self.folder.parent).texts

    def values(self, name: str) -> list[float]:
        """Return one result of every seed that has it."""
        return [run.results[name] for run in self.runs if name in run.results]

    def mean(self, name: str) -> float:
        """Return the mean of one result over the seeds that have it; NaN if none has."""
        values = self.values(name)
        return fmean(values) if values else math.nan

    def figure(self, name: str, figure: "Figure", caption: str = "") -> None:
        """Add a figure to the report; see `Run.figure`."""
        self._open.figure(name, figure, caption)

    def table(self, name: str, rows: Iterable[Mapping[str, object]], caption: str = "") -> None:
        """Add a table to the report; see `Run.table`."""
        self._open.table(name, rows, caption)

    def text(self, name: str, text: str, caption: str = "") -> None:
        """Add a text to the report; see `Run.text`."""
        self._open.text(name, text, caption)

    def head(self, *, asked: str = "", found: str = "", means: str = "", figure: str = "") -> None:
        """Say in a sentence each what was asked, what was found and what it means, and name the figure that comes first.

        These stand at the head of the report. What is left empty is made from the claims and their verdicts.
        """
        self._open.write_file(HEAD, write_head(Head(asked, found, means, figure)))

    def to_plain(self) -> dict[str, Any]:
        """Return the study as plain values."""
        return {
            "id": self.id,
            "paper": self.paper,
            "scale": self.scale,
            "seeds": list(self.seeds),
            "settings": to_plain(self.settings),
            "claims": [claim.to_plain() for claim in self.claims],
            "earlier": [claim.to_plain() for claim in self.earlier],
            "results": {f"seed{run.seed}": run.results for run in self.runs},
            "failures": self.failures,
            "seconds": self.seconds,
            "report": str(self.report),
        }

    def _repr_html_(self) -> str:
        """Return the verdicts, or the tables where nothing was claimed, as a notebook shows them."""
        from gpt2lab.runs.report.document import DataTable, Prose, Section, Verdicts
        from gpt2lab.runs.report.html import to_fragment

        about = f"`{self.id}`, {self.scale} scale, {count(len(self.runs), 'seed')}; report `{self.report}`"
        if self.claims:
            kinds = [
                Section(WORDS[kind].title, [Verdicts(those, checks=kind != "claim")])
                for kind, those in by_kind(self.claims).items()
            ]
            return to_fragment(Prose(about), *kinds)
        captions = self.captions
        tables = [DataTable(captions[name] or name, rows) for name, rows in self.tables.items()]
        return to_fragment(Prose(about), *tables)

    @property
    def _open(self) -> Run:
        if self._run is None:
            raise LabError(f"{self.id}: the study is closed; figures and tables are added in summarise()")
        return self._run


def reproduce(
    slug: str,
    *,
    scale: str = "laptop",
    seeds: int | Sequence[int] = 3,
    workers: int | None = None,
    settings: Mapping[str, object] | None = None,
    home: Path | str | None = None,
    device: str | None = None,
    threads: int | None = None,
    name: str | None = None,
) -> Study:
    """Run a paper's study over its seeds, judge its claims, write the report.

    seeds: how many (0, 1, 2, ...) or which. workers: units (arms and seeds) at a time, each in a process of its own;
    default as many as there are cores, 1 at smoke scale. threads: of one operation, 1 by default on a CPU, so that no
    number depends on `workers`. settings: replaced ones, by dotted name.
    LabError for an unknown paper, scale or setting, or if no seed has finished. KeyboardInterrupt with the command
    that goes on, after Ctrl-C.
    """
    found = paper(slug)
    if found.built:
        refuse_settings(f"{found.module}.study", found.slug, settings or {})
    return run_study(
        load_experiment(found),
        scale=scale,
        seeds=seeds,
        workers=workers,
        settings=settings,
        home=home,
        device=device,
        threads=threads,
        name=name,
    )


def run_study(
    experiment: Experiment,
    *,
    scale: str,
    seeds: int | Sequence[int] = 3,
    workers: int | None = None,
    settings: Mapping[str, object] | None = None,
    home: Path | str | None = None,
    device: str | None = None,
    threads: int | None = None,
    name: str | None = None,
) -> Study:
    """Run an experiment over its seeds as `reproduce` does."""
    chosen = experiment.settings(scale, settings)
    which = chosen_seeds(seeds)
    device = device or default_device(scale)
    if threads is None and device == "cpu":
        threads = 1
    if threads is not None and threads < 1:
        raise LabError(f"threads must be at least 1, got {threads}")
    specs = experiment.units(chosen)
    slug = experiment.paper.slug if experiment.paper is not None else None
    about = {
        **({"paper": slug} if slug else {"comparison": experiment.module, "summary": experiment.summary}),
        "scale": scale,
        "seeds": list(which),
        "units": {spec.name: list(spec.needs) for spec in specs},
        "shared": [spec.name for spec in specs if spec.shared],
        "tuning": [spec.name for spec in specs if spec.tuning],
        "threads": threads,
        "device": device,
        "settings": to_plain(chosen),
        "preset": to_plain(experiment.presets[scale]),
        "help": {option.name: option.doc for option in options(experiment.settings_class, default=chosen)},
    }
    command = command_of(experiment, scale, seeds, chosen, device, threads)
    run = Run.start(
        "study",
        name or f"{experiment.name}-{scale}",
        home=home,
        settings=about,
        device=device,
        paper=slug,
        scale=scale,
        command=command,
    )
    return _go_on(run, experiment, about, workers)


def resume_study(
    row: Row,
    *,
    home: Path | str | None = None,
    workers: int | None = None,
    take_over: bool = False,
    seeds: Sequence[int] = (),
) -> Study:
    """Go on with a study that was stopped, had failures or is to have further `seeds`; finished units are not repeated.

    take_over: even if another process seems to run it.

    LabError if its paper is not there any more, its settings do not fit the code, or it has one of the seeds.
    """
    about = record(row, home).json("settings.json")
    experiment = (
        load_comparison(about["comparison"])
        if "comparison" in about
        else load_experiment(paper(about["paper"]))
    )
    if seeds:
        about = with_seeds(about, seeds, row.id)
    run = Run.reopen(row, home, about["device"], take_over=take_over)
    if seeds:
        settings: Any = from_plain(experiment.settings_class, about["settings"])
        again = command_of(
            experiment, about["scale"], about["seeds"], settings, about["device"], about["threads"]
        )
        run.store.update(run.id, settings=encode(about), command=again)
        run.write_file("settings.json", encode(about, indent=2))
    return _go_on(run, experiment, about, workers)


def _go_on(run: Run, experiment: Experiment, about: Mapping[str, Any], workers: int | None) -> Study:
    """Do what is left of a study, judge and report."""
    began = time.monotonic()
    plan = Plan(
        study=run.id,
        home=str(run.store.home.resolve()),
        folder=str(experiment.paper.folder) if experiment.paper is not None else "",
        module=experiment.paper.module if experiment.paper is not None else experiment.module,
        scale=about["scale"],
        settings=about["settings"],
        needs=_needs(about),
        shared=tuple(about.get("shared", ())),
        tuning=tuple(about.get("tuning", ())),
        seeds=tuple(about["seeds"]),
        threads=about["threads"],
        device=about["device"],
    )
    seeds, units = plan.seeds, plan.units
    with run:
        read_judgements(run.folder)  # a damaged file is told before any work
        trial = plan_study(run, experiment.claims, plan.scale, seeds)
        settings: Any = from_plain(experiment.settings_class, plan.settings)
        outcome = _run(run, plan, units, _workers(workers, plan, units))
        study = Study(
            id=run.id,
            paper=experiment.name,
            scale=plan.scale,
            seeds=seeds,
            settings=settings,
            runs=_seed_records(plan, outcome, seeds),
            claims=[],
            failures=_failures(outcome, units),
            folder=run.folder,
            _run=run,
        )
        if study.failures and not run.store.pieces(run.id):
            raise LabError(study.failures[0])  # a mistake found before any work: no unit has left anything
        _judge(study, experiment, run, trial)
        _summarise(study, experiment)
        claims = by_kind(study.claims).get("claim", [])
        verdicts = " · ".join(f"{judged.claim.name} {judged.verdict.status}" for judged in claims)
        run.ending = ("failed", listed(study.failures)) if study.failures else ("finished", verdicts)
        study.seconds = time.monotonic() - began
    study._run = None
    write_report(run.id, home=run.store.home)
    if not study.runs:
        raise LabError(f"{run.id}: no seed has finished: {study.failures[0]}")
    return study


def _run(run: Run, plan: Plan, units: Sequence[Unit], workers: int) -> Outcome:
    """Do the units; Ctrl-C says how far the study was and how it goes on."""

    def finished() -> list[Unit]:
        rows = {row.id: row for row in run.store.pieces(run.id)}
        return [unit for unit in units if plan.is_finished(unit, rows)]

    try:
        return run_units(plan, units, finished(), workers, run.id)
    except KeyboardInterrupt:
        done = len(finished())
        raise KeyboardInterrupt(
            f"stopped; {done} of {count(len(units), 'unit')} finished; go on with: gpt2lab resume {run.id}"
        ) from None


def _needs(about: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the units of a seed with what each needs; a study begun before there were units has arms."""
    units = about["units"] if "units" in about else dict.fromkeys(about["arms"], ())
    return {name: tuple(needed) for name, needed in units.items()}


def _seed_records(plan: Plan, outcome: Outcome, seeds: Sequence[int]) -> list[RunRecord]:
    """Return the records of the seeds that finished, each with its arms."""
    store = Store(plan.home)
    done = set(outcome.finished)
    rows = {seed: store.get(plan.identity(Unit(seed))) for seed in seeds if Unit(seed) in done}
    return [
        record(row, plan.home, needed_records(plan, Unit(seed)))
        for seed, row in rows.items()
        if row is not None
    ]


def _failures(outcome: Outcome, units: Sequence[Unit]) -> list[str]:
    """Return a sentence for every unit that failed, and one if the rest was given up."""
    sentences = [f"{unit.words}: {words}" for unit, words in outcome.failures.items()]
    sentences += [
        f"{unit.words}: not begun, because it needs {lost.arm}, which "
        f"{'has failed' if lost in outcome.failures else 'was not begun'}"
        for unit, lost in outcome.blocked.items()
        if unit.arm is not None  # of a seed whose units failed, their failures say enough
    ]
    if outcome.gave_up:
        left = len(units) - len(outcome.failures) - len(outcome.blocked)
        sentences.append(f"{count(left, 'unit')} left undone, because the first ones failed alike")
    return sentences


def _judge(study: Study, experiment: Experiment, run: Run, trial: Trial) -> None:
    """Judge every claim and add to verdicts.json; the means become the study's results."""
    judgements = judge_claims(
        experiment.claims,
        trial,
        study.runs,
        study.seeds,
        study.scale,
        read_judgements(run.folder),
    )
    study.claims += [one for one in judgements if not one.superseded]
    study.earlier += [one for one in judgements if one.superseded]
    run.write_file(VERDICTS, write_verdicts(judgements))
    run.results = {
        f"claim.{judged.claim.name}": judged.verdict.interval.mean
        for judged in study.claims
        if judged.verdict.interval is not None
    }


def _summarise(study: Study, experiment: Experiment) -> None:
    """Let the experiment add its figures; a slip there must not lose the verdicts."""
    (study.folder / HEAD).unlink(missing_ok=True)  # of an earlier try, whose words may not be true any more
    if experiment.summarise is None or not study.runs:
        return
    try:
        experiment.summarise(study.settings, study)
    except Exception as error:
        words = str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
        study.failures.append(f"the summary: {words}")


def _workers(workers: int | None, plan: Plan, units: Sequence[Unit]) -> int:
    """Return how many units run at a time."""
    if workers is not None:
        if workers < 1:
            raise LabError(f"workers must be at least 1, got {workers}")
        return min(workers, len(units))
    if plan.scale == "smoke" or plan.device != "cpu":
        return 1  # a process takes longer to start than a smoke unit to run; a GPU is shared badly
    return max(1, min(cores() // (plan.threads or 1), len(units)))
