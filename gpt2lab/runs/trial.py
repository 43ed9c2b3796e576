"""What a study fixed before its first unit ran, and which data chose and which were judged.

`trial.json` in a study's folder holds the rule of every claim by its fingerprint; `splits.json` in a unit's folder says
which splits of the data were used for what.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt2lab.base import json_files
from gpt2lab.base.errors import LabError
from gpt2lab.base.json_numbers import encode
from gpt2lab.base.wording import listed

TRIAL, SPLITS = "trial.json", "splits.json"
TUNING_SEED = 1000
"""The seed on which a study chooses its settings once; it is never judged."""


@dataclass(frozen=True)
class PlannedClaim:
    """A claim before the run."""

    name: str
    """Its letter."""
    rule: str
    """Fingerprint of the quantity, the thresholds and everything else that decides."""
    power: str = ""
    """What the trial can find by a pilot's spread, in words; empty without a pilot."""
    seen: tuple[int, ...] = ()
    """Seeds that had run when the rule got its present form: the claim is not judged on them."""
    since: str = ""
    """When the rule got its present form, as ISO time; empty in files of before this was kept."""


@dataclass(frozen=True)
class Trial:
    """What was fixed, and when."""

    began: str
    """When the rules were recorded, as ISO time."""
    claims: tuple[PlannedClaim, ...]
    """Every claim."""
    late: tuple[int, ...] = ()
    """Seeds that had run before the rules were first recorded."""

    def claim(self, name: str) -> PlannedClaim | None:
        """Return the claim of this name; None if it was not planned."""
        return next((claim for claim in self.claims if claim.name == name), None)


@dataclass(frozen=True)
class Splits:
    """Which splits of the data did what: what was chosen, or judged, on each."""

    chosen: Mapping[str, str] = field(default_factory=dict)
    """Split → what was chosen on it: a learning rate, a checkpoint, a threshold."""
    judged: Mapping[str, str] = field(default_factory=dict)
    """Split → what was measured on it that a claim reads."""

    @property
    def shared(self) -> list[str]:
        """The splits that did both."""
        return [name for name in self.chosen if name in self.judged]

    def apart(self) -> "Splits":
        """Return these. LabError if one split was used for choosing and is judged."""
        if self.shared:
            name = self.shared[0]
            raise LabError(
                f"{name}: {self.chosen[name]} is chosen on it, so {self.judged[name]} cannot be judged on it; choose on "
                "a split of its own"
            )
        return self


def seed_name(seed: int | None) -> str:
    """Return what a person calls a seed: `seed 3`, `tuning`."""
    return "tuning" if seed == TUNING_SEED else f"seed {seed}"


def merged(every: Iterable[Splits]) -> Splits:
    """Return the uses of several units together."""
    chosen: dict[str, str] = {}
    judged: dict[str, str] = {}
    for splits in every:
        chosen |= splits.chosen
        judged |= splits.judged
    return Splits(chosen, judged)


def write_plain(value: Trial | Splits) -> str:
    """Return the content of the file."""
    return encode(dataclasses.asdict(value), indent=2)


def read_trial(folder: Path) -> Trial | None:
    """Read a study's `trial.json`; None of a study of before, or of one without claims. LabError if it is damaged."""
    path = folder / TRIAL
    if not path.exists():
        return None
    content = _object(path)
    try:
        claims = tuple(
            PlannedClaim(
                str(one["name"]),
                str(one["rule"]),
                str(one["power"]),
                _seeds(one["seen"]),
                str(one.get("since", "")),
            )
            for one in content["claims"]
        )
        return Trial(str(content["began"]), claims, _seeds(content["late"]))
    except (KeyError, TypeError, ValueError) as error:
        raise LabError(f"{path}: not written by this version of gpt2lab ({error!r})") from error


def read_splits(folder: Path) -> Splits:
    """Read a unit's `splits.json`; empty if it stated none. LabError if it is damaged."""
    path = folder / SPLITS
    if not path.exists():
        return Splits()
    content = _object(path)
    sides = [content.get("chosen"), content.get("judged")]
    if not all(isinstance(side, dict) for side in sides):
        raise LabError(f"{path}: must say for each split what was chosen and judged on it")
    chosen, judged = ({str(name): str(what) for name, what in side.items()} for side in sides)  # type: ignore[union-attr]  # checked above
    return Splits(chosen, judged)


def use_words(uses: Mapping[str, str]) -> str:
    """Return `learning rate on tuning stream`, for every split."""
    return listed([f"{what} on {name}" for name, what in uses.items()])


def _object(path: Path) -> dict[str, Any]:
    content = json_files.read_json(path)
    if not isinstance(content, dict):
        raise LabError(f"{path}: must hold a JSON object")
    return content


def _seeds(given: Any) -> tuple[int, ...]:
    return tuple(int(seed) for seed in given)
