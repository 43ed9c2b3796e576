"""Verdicts on claims, as a study makes them, a run's folder holds them and a report shows them.

`verdicts.json` is a list with one object for each judgement: what is said of each claim now, and all that was said before;
`write_verdicts` and `read_judgements` are its only two ends. Judging again adds to it and takes nothing away.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from gpt2lab.base import json_files
from gpt2lab.base.errors import LabError
from gpt2lab.base.interval import Interval
from gpt2lab.base.json_numbers import encode
from gpt2lab.base.wording import count

FILE = "verdicts.json"
"""The file of a run's folder."""


_Choice = TypeVar("_Choice")

Kind = Literal["claim", "instrument", "implementation", "engineering"]
"""A claim of the paper, or a check: of the instrument (does the measure find what was planted), of the implementation
(identities, unbiased estimators, a cache against none), of our own engineering (speed)."""

Over = Literal["seeds", "items"]
"""What the interval of a claim is over: seeds, or the test items of a fixed model."""


class Status(StrEnum):
    """The five answers to a claim, all of them good ones, and two more that a check of the implementation gets."""

    HOLDS = "holds"
    IN_PART = "holds in part"
    DOES_NOT_HOLD = "does not hold"
    INCONCLUSIVE = "inconclusive"
    NOT_TESTED = "not tested at this scale"
    PASSES = "passes"
    FAILS = "fails"


@dataclass(frozen=True)
class Range:
    """A range of numbers that a claim speaks of. LabError when it is made without numbers inside."""

    low: float
    """Lower end; -inf if there is none."""
    high: float
    """Upper end; inf if there is none."""
    closed: bool
    """Whether the ends belong to it."""
    words: str
    """The range in words: `at least 2`."""

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise LabError(f"{self.words}: the lower end must be smaller than the upper end")

    def __repr__(self) -> str:
        return self.words

    def holds(self, low: float, high: float) -> bool:
        """Tell whether every number from `low` to `high` is in the range."""
        if self.closed:
            return low >= self.low and high <= self.high
        return low > self.low and high < self.high

    def fails(self, low: float, high: float) -> bool:
        """Tell whether no number from `low` to `high` is in the range."""
        if self.closed:
            return high < self.low or low > self.high
        return high <= self.low or low >= self.high

    def inside(self, value: float) -> float:
        """Return the distance of a number in the range from its nearest end; negative for one outside."""
        return min(value - self.low, self.high - value)


@dataclass(frozen=True)
class RecordedClaim:
    """A claim as it was stated when it was judged: everything of it but code."""

    name: str
    """Its letter in paper.toml."""
    sentence: str
    """The claim in the reader's words."""
    measure: str = ""
    """The measured quantity: an expression, or what a function says of itself."""
    quantity: str = ""
    """The measured quantity in words."""
    unit: str = ""
    """Its unit; empty for a plain number."""
    needs: str = ""
    """The precondition: an expression, or what a function says of itself."""
    expressions: tuple[str, ...] = ()
    """Which of `measure` and `needs` are expressions."""
    holds_if: Range | None = None
    """Where the quantity lies if the claim is true; None in older files, of a claim with a rule of its own."""
    holds_in_part_if: Range | None = None
    """The weaker range of a claim that can hold in part."""
    scales: tuple[str, ...] = ()
    """Where it can be tested; empty in files of before this was kept."""
    paper: str = ""
    """The paper's own figure."""
    kind: Kind = "claim"
    """What it speaks of; only a claim of the paper gets a verdict."""

    over: Over = "seeds"
    """What its interval is over."""
    best_of: int = 1
    """How many comparisons it picks the best of."""
    effect: float | None = None
    """Distance from the threshold that a trial must find: the paper's or, if that is on it, that of no effect; None if not
    stated."""
    paper_value: float | None = None
    """The paper's own value of the quantity; None if it is not stated."""
    no_effect: float | None = None
    """The quantity's value where the method does nothing; None if it is not stated."""
    fixed: str = ""
    """Day on which the claim and its rule were fixed."""
    seen: tuple[int, ...] = ()
    """Seeds that had run when the rule was changed: this is a new claim, judged on the others."""

    @property
    def is_check(self) -> bool:
        """Whether it passes or fails and says nothing of the paper."""
        return self.kind != "claim"


@dataclass(frozen=True)
class Verdict:
    """The answer, why, and the numbers behind it."""

    status: Status
    """The answer."""
    reason: str
    """One sentence."""
    values: tuple[tuple[int, float], ...] = ()
    """The measured quantity of every seed that has one, as (seed, value)."""
    interval: Interval | None = None
    """Mean and interval of the quantity, over seeds or over items."""
    method: str = ""
    """How the interval was made: `t over 3 seeds`."""
    detectable: float | None = None
    """Smallest distance from the threshold that as many seeds with this spread detect with 80 % power."""
    power: str = ""
    """The power in one sentence; empty where no interval decides."""
    precondition: str = ""
    """Whether the precondition was met, in which seeds, and what it read: `met in all 6 seeds (loss 2.9 to 3.1)`."""


@dataclass(frozen=True)
class JudgedClaim:
    """A claim with its verdict: one judgement."""

    claim: RecordedClaim
    """The claim."""
    verdict: Verdict
    """What the seeds say of it."""
    judged: str = ""
    """When this was first said, as ISO time; empty in files of before this was kept."""
    fingerprint: str = ""
    """Of the rule; two judgements with different ones were made by different rules."""
    superseded: str = ""
    """When another judgement took its place, or the study no longer stated the claim, as ISO time; empty: it stands."""
    of_seen: Verdict | None = None
    """What a changed rule says of the seeds that had run before it: no verdict. Only until another seed has run."""

    def to_plain(self) -> dict[str, Any]:
        """Return the object of `verdicts.json`: the fields of claim and verdict side by side, then the judgement's."""
        return {
            **dataclasses.asdict(self.claim),
            **dataclasses.asdict(self.verdict),
            "judged": self.judged,
            "fingerprint": self.fingerprint,
            "superseded": self.superseded,
            "of_seen": dataclasses.asdict(self.of_seen) if self.of_seen is not None else None,
        }

    def repeats(self, before: "JudgedClaim") -> bool:
        """Tell whether it says the same as an earlier judgement of the claim, by the same rule."""
        same_rule = before.fingerprint in ("", self.fingerprint)
        said = [encode(dataclasses.asdict(one.verdict)) for one in (self, before)]
        return same_rule and said[0] == said[1]

    def words_beside(self, now: "JudgedClaim | None") -> str:
        """Return an earlier judgement in words: what was said, when, on what, and what has changed since.

        now: the judgement that took its place; None if the study does not state the claim any more.
        """
        of = self.verdict.method or f"over {count(len(self.verdict.values), 'seed')}"
        when = f" on {self.judged[:10]}" if self.judged else ""
        if now is None:
            since = "the claim is not stated any more"
        else:
            since = "by the same rule" if self.fingerprint == now.fingerprint else "by the rule of before"
        return f"{self.verdict.status} ({of}{when}; {since})"


def with_history(
    before: Sequence[JudgedClaim], claims: Sequence[JudgedClaim], when: str
) -> list[JudgedClaim]:
    """Return the judgements of claims now, then all that were made before and do not stand any more, oldest first.

    before: the judgements as they were read. A judgement that only repeats what stands keeps its time.
    """
    standing = {one.claim.name: one for one in before if not one.superseded}
    history = [one for one in before if one.superseded]
    now = list[JudgedClaim]()
    for one in claims:
        old = standing.pop(one.claim.name, None)
        if old is not None and one.repeats(old):
            now.append(dataclasses.replace(one, judged=old.judged))
            continue
        now.append(dataclasses.replace(one, judged=when))
        if old is not None:
            history.append(dataclasses.replace(old, superseded=when))
    history += [dataclasses.replace(one, superseded=when) for one in standing.values()]
    return [*now, *history]


def write_verdicts(judgements: Sequence[JudgedClaim]) -> str:
    """Return the content of `verdicts.json`."""
    return encode([judged.to_plain() for judged in judgements], indent=2)


def read_judgements(folder: Path) -> list[JudgedClaim]:
    """Read all judgements of a run's folder; [] if it has none. LabError for a file of another form."""
    path = folder / FILE
    if not path.exists():
        return []
    content = json_files.read_json(path)
    if not isinstance(content, list):
        raise LabError(f"{path}: must hold a JSON list")
    try:
        return [_read(entry) for entry in content]
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, LabError) as error:
        raise LabError(f"{path}: not written by this version of gpt2lab ({error!r})") from error


def _read(entry: Mapping[str, Any]) -> JudgedClaim:
    """Read one object; what files of before do not hold has its default."""
    claim = RecordedClaim(
        holds_if=_range(entry["holds_if"]),
        holds_in_part_if=_range(entry["holds_in_part_if"]),
        kind=_kind(entry.get("kind", "claim")),
        over=_one_of(("seeds", "items"), entry.get("over", "seeds")),
        best_of=int(entry.get("best_of", 1)),
        effect=_number(entry.get("effect")),
        paper_value=_number(entry.get("paper_value")),
        no_effect=_number(entry.get("no_effect")),
        fixed=str(entry.get("fixed", "")),
        seen=tuple(int(seed) for seed in entry.get("seen", ())),
        expressions=_texts(entry.get("expressions", ())),
        scales=_texts(entry.get("scales", ())),
        **_strings(entry, ("name", "sentence", "measure", "needs", "paper"), ("quantity", "unit")),
    )
    of_seen = entry.get("of_seen")
    return JudgedClaim(
        claim,
        _verdict(entry),
        of_seen=_verdict(of_seen) if of_seen is not None else None,
        **_strings(entry, (), ("judged", "fingerprint", "superseded")),
    )


def _verdict(entry: Mapping[str, Any]) -> Verdict:
    return Verdict(
        status=Status(entry["status"]),
        values=tuple((int(seed), float(value)) for seed, value in entry["values"]),
        interval=_interval(entry["interval"]),
        detectable=_number(entry["detectable"]),
        **_strings(entry, ("reason", "power"), ("method", "precondition")),
    )


def _strings(
    entry: Mapping[str, Any], needed: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, str]:
    found = {name: entry[name] for name in needed} | {name: entry.get(name, "") for name in optional}
    wrong = [name for name, value in found.items() if not isinstance(value, str)]
    if wrong:
        raise ValueError(wrong)
    return found


def _one_of(allowed: tuple[_Choice, ...], given: Any) -> _Choice:
    return allowed[allowed.index(given)]


def _kind(given: Any) -> Kind:
    """Read a kind; files of before there were three kinds of checks say `check`."""
    return "implementation" if given == "check" else _one_of(get_args(Kind), given)


def _number(given: Any) -> float | None:
    return None if given is None else float(given)


def _texts(given: Any) -> tuple[str, ...]:
    return tuple(str(text) for text in given)


def _range(given: Mapping[str, Any] | None) -> Range | None:
    if given is None:
        return None
    closed = bool(given.get("closed", True))
    return Range(float(given["low"]), float(given["high"]), closed, str(given["words"]))


def _interval(given: Mapping[str, Any] | None) -> Interval | None:
    if given is None:
        return None
    mean, low, high = (float(given[name]) for name in ("mean", "low", "high"))
    sd, level = float(given.get("sd", math.nan)), float(given.get("level", 0.95))
    return Interval(mean, low, high, int(given.get("n", 0)), sd, level)
