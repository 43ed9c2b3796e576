"""Where a run's numbers come from: the processes that computed them, and the data that they read.

`environment.json` and `data.json` are written by the process that does the work. One that goes on with the run, or judges it
again, adds what is different and changes nothing.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from gpt2lab.base import json_files
from gpt2lab.base.errors import LabError
from gpt2lab.base.json_numbers import encode
from gpt2lab.text.data_read import DataRead

ENVIRONMENT, DATA = "environment.json", "data.json"
_LATER, _SINCE = "later", "since"

Facts = Mapping[str, object]
"""Machine, versions and state of the code by name; see `gpt2lab.runs.environment`."""


@dataclass(frozen=True)
class Provenance:
    """Where one run's numbers come from."""

    environment: Facts
    """Of the process that began it."""
    later: tuple[tuple[str, Facts], ...] = ()
    """Of processes that went on with it elsewhere, or by other code: when, as ISO time, and what was different."""
    data: tuple[DataRead, ...] = ()
    """What it read."""

    @property
    def latest(self) -> Facts:
        """The environment of the last process that worked on it."""
        known = dict(self.environment)
        for _, facts in self.later:
            known |= facts
        return known


@dataclass(frozen=True)
class Origins:
    """Where the numbers of several runs come from, such as the units of a study."""

    common: Facts
    """What holds for all of them."""
    differing: tuple[tuple[Facts, tuple[str, ...]], ...]
    """What else holds, with the names of the runs for which it does; empty if there is nothing else."""
    data: tuple[tuple[DataRead, tuple[str, ...]], ...]
    """What was read, with the names of the runs that read it."""


def origins(runs: Mapping[str, Provenance]) -> Origins:
    """Compare where the numbers of several runs, by name, come from."""
    facts = {name: _with_later(one) for name, one in runs.items()}
    keys = list(dict.fromkeys(key for known in facts.values() for key in known))
    values = {key: {encode(known.get(key)) for known in facts.values()} for key in keys}
    first = next(iter(facts.values()), {})
    groups: dict[str, tuple[Facts, list[str]]] = {}
    for name, known in facts.items():
        own = {key: known.get(key) for key in keys if len(values[key]) > 1}
        if own:
            groups.setdefault(encode(own), (own, []))[1].append(name)
    read: dict[DataRead, list[str]] = {}
    for name, one in runs.items():
        for data in one.data:
            read.setdefault(data, []).append(name)
    return Origins(
        {key: first[key] for key in keys if len(values[key]) == 1},
        tuple((own, tuple(names)) for own, names in groups.values()),
        tuple((data, tuple(names)) for data, names in read.items()),
    )


def _with_later(one: Provenance) -> dict[str, object]:
    """Return all that is known of the processes of a run; what changed on the way is one more fact."""
    later = [
        f"since {since[:10]} {name} {value}" for since, facts in one.later for name, value in facts.items()
    ]
    return {**one.environment, **({_LATER: later} if later else {})}


def gone_on(folder: Path, facts: Facts, when: str) -> str:
    """Return `environment.json` for a process that goes on with the run of a folder, or begins it."""
    try:
        before = read_provenance(folder)
    except LabError:  # damaged: nothing is known of the processes before
        before = Provenance({})
    if not before.environment:
        return encode(facts, indent=2)
    known = before.latest
    new = {name: facts.get(name) for name in (*known, *facts) if known.get(name) != facts.get(name)}
    later = [*before.later, *([(when, new)] if new else [])]
    plain = [{_SINCE: since, **changed} for since, changed in later]
    return encode({**before.environment, **({_LATER: plain} if plain else {})}, indent=2)


def with_data(before: Sequence[DataRead], found: Sequence[DataRead]) -> str:
    """Return `data.json` with what was read now after what was read before."""
    return encode([dataclasses.asdict(one) for one in dict.fromkeys([*before, *found])], indent=2)


def read_provenance(folder: Path) -> Provenance:
    """Read both files of a run's folder; what is missing is empty. LabError for a damaged one."""
    facts = _read(folder / ENVIRONMENT, dict, {})
    later = facts.pop(_LATER, [])
    data = _read(folder / DATA, list, [])
    try:
        return Provenance(
            facts,
            tuple((str(one[_SINCE]), {k: v for k, v in one.items() if k != _SINCE}) for one in later),
            tuple(map(_data, data)),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LabError(f"{folder}: {ENVIRONMENT} or {DATA} was not written by gpt2lab ({error!r})") from error


def _data(given: Mapping[str, Any]) -> DataRead:
    unit = given["unit"]
    if unit not in get_args(DataRead.__annotations__["unit"]):
        raise ValueError(unit)
    return DataRead(
        str(given["name"]), int(given["documents"]), int(given["size"]), unit, str(given["sha256"])
    )


def _read(path: Path, kind: type, empty: Any) -> Any:
    if not path.exists():
        return empty
    content = json_files.read_json(path)
    if not isinstance(content, kind):
        raise LabError(f"{path}: must hold a JSON {'object' if kind is dict else 'list'}")
    return content
