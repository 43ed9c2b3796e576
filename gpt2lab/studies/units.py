"""The unit of a study's work: an arm, a stage or another unit of one seed, or the end of a seed after its units."""

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2lab.base.json_numbers import encode
from gpt2lab.base.lease import BEAT, TIMEOUT
from gpt2lab.base.registry import read_paper
from gpt2lab.base.settings import from_plain
from gpt2lab.runs.run import Logged, Run, Shared
from gpt2lab.runs.run_record import RunRecord, record
from gpt2lab.runs.store import Row, Store
from gpt2lab.runs.trial import TUNING_SEED, merged, seed_name
from gpt2lab.studies.experiment import Experiment, load_comparison, load_experiment

_PATIENCE = TIMEOUT + BEAT


@dataclass(frozen=True)
class Unit:
    """One unit of one seed, such as an arm; without a name, the end of the seed."""

    seed: int
    """The seed."""
    arm: str | None = None
    """The name of the unit: an arm, a stage."""

    @property
    def words(self) -> str:
        """What a person calls it."""
        return seed_name(self.seed) + (f" {self.arm}" if self.arm else "")

    @property
    def path(self) -> str:
        """Its place below the study's run: `seed3/adamw`, `tuning/adamw`."""
        seed = "tuning" if self.seed == TUNING_SEED else f"seed{self.seed}"
        return f"{seed}/{self.arm}" if self.arm else seed


@dataclass(frozen=True)
class Plan:
    """Everything that a unit's numbers depend on, in plain values: it travels to other processes as JSON."""

    study: str
    """Id of the study's run."""
    home: str
    """Folder of the runs."""
    folder: str
    """Folder of the paper; empty for a comparison of parts."""
    module: str
    """Package of the paper, or module of the comparison."""
    scale: str
    """Scale."""
    settings: dict[str, Any]
    """Settings as plain values."""
    needs: dict[str, tuple[str, ...]]
    """The units of a seed, each with those that it needs and after them; empty if the seed is one piece."""
    shared: tuple[str, ...]
    """Units of the first seed that all seeds share."""
    tuning: tuple[str, ...]
    """Units that run once, with the tuning seed, for all seeds."""
    seeds: tuple[int, ...]
    """The seeds."""
    threads: int | None
    """Threads of one operation; None leaves it to torch. Sums depend on it, so it is the same in every process."""
    device: str
    """Where tensors live."""

    def experiment(self) -> Experiment:
        """Import the experiment."""
        if not self.folder:
            return load_comparison(self.module)
        return load_experiment(read_paper(Path(self.folder), self.module))

    def identity(self, unit: Unit) -> str:
        """Return the id of a unit's run."""
        return f"{self.study}/{unit.path}"

    def fingerprint(self, unit: Unit) -> str:
        """Return the hash of all that the unit's numbers depend on, but the code."""
        parts: list[Any] = [
            self.module,
            self.scale,
            self.settings,
            self.threads,
            self.device,
            unit.seed,
            unit.arm,
        ]
        if unit.arm is None:
            parts.append(list(self.needs))
        elif self.needs[unit.arm]:
            parts.append(self.needs[unit.arm])
        return hashlib.sha256(encode(parts).encode()).hexdigest()[:16]

    @property
    def units(self) -> list[Unit]:
        """All units of all seeds, each after those that it needs."""
        every = [self._unit(seed, name) for seed in self.seeds for name in (*self.needs, None)]
        return list(dict.fromkeys(every))

    def needed(self, unit: Unit) -> list[Unit]:
        """Return the units that must have finished before one begins; all of its seed before the seed's end."""
        names = self.needs if unit.arm is None else self.needs[unit.arm]
        return [self._unit(unit.seed, name) for name in names]

    def _unit(self, seed: int, name: str | None) -> Unit:
        """Return the unit of this name that a seed uses: its own, or the one of all seeds."""
        if name in self.tuning:
            return Unit(TUNING_SEED, name)
        return Unit(self.seeds[0] if name in self.shared else seed, name)

    def is_finished(self, unit: Unit, rows: Mapping[str, Row]) -> bool:
        """Tell whether a unit has finished under the very same plan; `rows` are the study's pieces by id."""
        row = rows.get(self.identity(unit))
        return row is not None and row.status == "finished" and row.settings_hash == self.fingerprint(unit)


def execute(plan: Plan, unit: Unit, on_log: Logged | None = None, on_share: Shared | None = None) -> None:
    """Do the work of one unit in this process, as a run of its own."""
    experiment = plan.experiment()
    settings: Any = from_plain(experiment.settings_class, plan.settings)
    with _threads(plan.threads), _open(plan, unit) as run:
        run.on_log, run.on_share = on_log, on_share
        needed = needed_records(plan, unit)
        merged(one.splits for one in needed.values()).apart()
        if unit.arm is not None:
            run.needed = needed
            experiment.unit(settings, unit.arm).work(settings, run)
        else:
            run.arms = needed
            experiment.run(settings, run)


def needed_records(plan: Plan, unit: Unit) -> dict[str, RunRecord]:
    """Return the records of the units that one needs, by name: for the end of a seed, all of its units."""
    store = Store(plan.home)
    rows = {needed.arm: store.get(plan.identity(needed)) for needed in plan.needed(unit)}
    return {
        name: record(row, plan.home) for name, row in rows.items() if name is not None and row is not None
    }


def _open(plan: Plan, unit: Unit) -> Run:
    """Return the run of a unit: a new one, or the one that was stopped, emptied but for its checkpoints."""
    hashed = plan.fingerprint(unit)
    store = Store(plan.home)
    there = store.get(plan.identity(unit))
    if there is not None:
        # a worker of a killed study ends by itself; one of another machine is waited for until its lease runs out
        other = there.settings_hash != hashed  # a checkpoint of other settings must not be continued
        run = Run.reopen(there, plan.home, plan.device, clean=True, anew=other, patience=_PATIENCE)
        store.update(there.id, settings_hash=hashed, settings=encode(plan.settings))
        return run
    return Run.start(
        "arm" if unit.arm else "seed",
        unit.arm or f"seed{unit.seed}",
        home=plan.home,
        parent=plan.identity(unit).rpartition("/")[0],
        settings=plan.settings,
        device=plan.device,
        settings_hash=hashed,
        scale=plan.scale,
        seed=unit.seed,
        arm=unit.arm,
    )


@contextlib.contextmanager
def _threads(threads: int | None) -> Iterator[None]:
    """Use this many threads in each operation of torch, whether it is imported already or later."""
    if threads is None:
        yield
        return
    variable = "OMP_NUM_THREADS"
    before = os.environ.get(variable)
    torch: Any = sys.modules.get("torch")
    had = torch.get_num_threads() if torch else None
    os.environ[variable] = str(threads)  # read when torch is first imported
    if torch:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        os.environ.pop(variable, None)
        if before is not None:
            os.environ[variable] = before
        torch = sys.modules.get("torch")
        if torch:
            torch.set_num_threads(had or threads)
